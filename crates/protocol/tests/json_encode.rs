//! Writing replies: byte for byte where SDKs or transcripts care, and by meaning for everything
//! else.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use tautline_protocol::message::{
    ClientInfo, ConnectResult, Error, HistoryResult, Payload, PresenceResult, PresenceStatsResult,
    RefreshResult, RpcResult, StreamPosition, Subscribe, SubscribeResult, Unsubscribe,
};
use tautline_protocol::{
    Disconnect, Encoding, ErrorCode, Publication, Push, Reply, Response, UnsubscribeCode, json,
};

fn encode(reply: &Reply) -> String {
    let mut bytes = b"before".to_vec();
    Encoding::Json.encode_reply(reply, &mut bytes);
    String::from_utf8(bytes.split_off(6)).unwrap()
}

fn answer(id: u32, response: Response) -> Reply {
    Reply::Answer(id, Ok(response))
}

fn publication(data: &'static str, offset: u64) -> Arc<Publication> {
    Arc::new(Publication {
        data: Payload::from_static(data.as_bytes()),
        offset,
        ..Default::default()
    })
}

#[test]
fn results_are_there_even_when_they_are_empty() {
    for (response, expected) in [
        (Response::Publish, r#"{"id":5,"publish":{}}"#),
        (Response::Unsubscribe, r#"{"id":5,"unsubscribe":{}}"#),
        (
            Response::Subscribe(SubscribeResult::default()),
            r#"{"id":5,"subscribe":{}}"#,
        ),
        (Response::Rpc(RpcResult::default()), r#"{"id":5,"rpc":{}}"#),
        (
            Response::Refresh(RefreshResult::default()),
            r#"{"id":5,"refresh":{}}"#,
        ),
        (
            Response::SubRefresh(RefreshResult::default()),
            r#"{"id":5,"sub_refresh":{}}"#,
        ),
        (
            Response::Connect(ConnectResult::default()),
            r#"{"id":5,"connect":{}}"#,
        ),
        (
            Response::Presence(PresenceResult::default()),
            r#"{"id":5,"presence":{"presence":{}}}"#,
        ),
        (
            Response::PresenceStats(PresenceStatsResult::default()),
            r#"{"id":5,"presence_stats":{"num_clients":0,"num_users":0}}"#,
        ),
        (
            Response::History(HistoryResult::default()),
            r#"{"id":5,"history":{"publications":[],"epoch":"","offset":0}}"#,
        ),
    ] {
        assert_eq!(encode(&answer(5, response)), expected);
    }
}

#[test]
fn a_ping_is_an_empty_object() {
    assert_eq!(encode(&Reply::Ping), "{}");
}

#[test]
fn connect_results() {
    let result = ConnectResult {
        client: "8a3f6f0e".into(),
        version: "0.1.0".into(),
        ttl: Some(3600),
        ping: 25,
        pong: true,
        ..Default::default()
    };
    assert_eq!(
        encode(&answer(1, Response::Connect(result.clone()))),
        r#"{"id":1,"connect":{"client":"8a3f6f0e","version":"0.1.0","expires":true,"ttl":3600,"ping":25,"pong":true}}"#
    );
    let sub = SubscribeResult {
        recoverable: true,
        positioned: true,
        epoch: "hKqPwZbd".into(),
        offset: 4,
        was_recovering: true,
        recovered: true,
        publications: vec![publication(r#"{"n":5}"#, 5)],
        ..Default::default()
    };
    let result = ConnectResult {
        ttl: None,
        subs: BTreeMap::from([("#7".into(), sub)]),
        session: Some("s-20".into()),
        node: Some("n-7f".into()),
        time: Some(1_700_000_000_000),
        data: Some("[1]".into()),
        ..result
    };
    assert_eq!(
        encode(&answer(1, Response::Connect(result))),
        concat!(
            r#"{"id":1,"connect":{"client":"8a3f6f0e","version":"0.1.0","data":[1],"subs":{"#,
            r##""#7":{"recoverable":true,"positioned":true,"epoch":"hKqPwZbd","offset":4,"##,
            r#""was_recovering":true,"recovered":true,"publications":[{"data":{"n":5},"offset":5}]}},"#,
            r#""ping":25,"pong":true,"session":"s-20","node":"n-7f","time":1700000000000}}"#
        )
    );
}

#[test]
fn recovered_and_unrecovered_subscriptions() {
    let result = SubscribeResult {
        recoverable: true,
        positioned: true,
        epoch: "hKqPwZbd".into(),
        offset: 13,
        was_recovering: true,
        recovered: true,
        publications: vec![
            publication(r#"{"text":"c"}"#, 14),
            publication(r#"{"text":"d"}"#, 15),
        ],
        ..Default::default()
    };
    assert_eq!(
        encode(&answer(2, Response::Subscribe(result.clone()))),
        concat!(
            r#"{"id":2,"subscribe":{"recoverable":true,"positioned":true,"epoch":"hKqPwZbd","#,
            r#""offset":13,"was_recovering":true,"recovered":true,"publications":["#,
            r#"{"data":{"text":"c"},"offset":14},{"data":{"text":"d"},"offset":15}]}}"#
        )
    );
    let result = SubscribeResult {
        epoch: "Zpabqrst".into(),
        offset: 2,
        recovered: false,
        publications: vec![],
        ..result
    };
    assert_eq!(
        encode(&answer(2, Response::Subscribe(result))),
        r#"{"id":2,"subscribe":{"recoverable":true,"positioned":true,"epoch":"Zpabqrst","offset":2,"was_recovering":true}}"#
    );
}

#[test]
fn pushes() {
    let info = Arc::new(ClientInfo {
        user: "7".into(),
        client: "8a3f".into(),
        conn_info: Some(r#"{"name":"Ann"}"#.into()),
        chan_info: None,
    });
    let published = Arc::new(Publication {
        data: r#"{"text":"hi"}"#.into(),
        info: Some(info.clone()),
        offset: 13,
        tags: BTreeMap::from([("lang".into(), "en".into())]),
        ..Default::default()
    });
    let position = StreamPosition {
        offset: 4,
        epoch: "hKqPwZbd".into(),
    };
    let subscribe = Subscribe {
        recoverable: true,
        positioned: true,
        position,
        data: None,
    };
    let patch = Publication {
        data: r#""m\nj@0,1:52@k,1vu6Vd;""#.into(),
        offset: 9,
        delta: true,
        time: 1_700_000_000_123,
        channel: Some("dev:7".into()),
        ..Default::default()
    };
    let sub = SubscribeResult {
        delta: true,
        ..Default::default()
    };
    let connected = ConnectResult {
        client: "7b0e".into(),
        version: "0.1.0".into(),
        subs: BTreeMap::from([("#7".into(), sub)]),
        ping: 25,
        session: Some("c1d2".into()),
        ..Default::default()
    };
    for (push, expected) in [
        (
            Push::Publication("chat:7".into(), published),
            r#"{"push":{"channel":"chat:7","pub":{"data":{"text":"hi"},"info":{"user":"7","client":"8a3f","conn_info":{"name":"Ann"}},"offset":13,"tags":{"lang":"en"}}}}"#,
        ),
        (
            Push::Publication("news".into(), publication("null", 0)),
            r#"{"push":{"channel":"news","pub":{"data":null}}}"#,
        ),
        (
            Push::Join(
                "chat:7".into(),
                Arc::new(ClientInfo {
                    user: "".into(),
                    conn_info: None,
                    ..(*info).clone()
                }),
            ),
            r#"{"push":{"channel":"chat:7","join":{"info":{"user":"","client":"8a3f"}}}}"#,
        ),
        (
            Push::Leave(
                "chat:7".into(),
                Arc::new(ClientInfo {
                    conn_info: None,
                    chan_info: Some("1".into()),
                    ..(*info).clone()
                }),
            ),
            r#"{"push":{"channel":"chat:7","leave":{"info":{"user":"7","client":"8a3f","chan_info":1}}}}"#,
        ),
        (
            Push::Unsubscribe("news".into(), UnsubscribeCode::Server.into()),
            r#"{"push":{"channel":"news","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#,
        ),
        (
            Push::Subscribe("#7".into(), subscribe),
            r##"{"push":{"channel":"#7","subscribe":{"recoverable":true,"positioned":true,"epoch":"hKqPwZbd","offset":4}}}"##,
        ),
        (
            Push::Publication("dev:*".into(), patch.into()),
            r#"{"push":{"channel":"dev:*","pub":{"data":"m\nj@0,1:52@k,1vu6Vd;","offset":9,"delta":true,"time":1700000000123,"channel":"dev:7"}}}"#,
        ),
        (
            Push::Message(r#"{"to":"you"}"#.into()),
            r#"{"push":{"message":{"data":{"to":"you"}}}}"#,
        ),
        (
            Push::Connect(Box::new(connected)),
            r##"{"push":{"connect":{"client":"7b0e","version":"0.1.0","subs":{"#7":{"delta":true}},"ping":25,"session":"c1d2"}}}"##,
        ),
        (
            Push::Refresh(RefreshResult { ttl: Some(600) }),
            r#"{"push":{"refresh":{"expires":true,"ttl":600}}}"#,
        ),
        (
            Push::Disconnect(Disconnect::SHUTDOWN),
            r#"{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}"#,
        ),
    ] {
        let mut bare = Vec::new();
        json::encode_push(&push, &mut bare);
        assert_eq!(encode(&Reply::Push(push)), expected);
        let bare = String::from_utf8(bare).unwrap();
        assert_eq!(format!("{{\"push\":{bare}}}"), expected);
    }
}

#[test]
fn errors_presence_and_history() {
    let error = Reply::Answer(9, Err(ErrorCode::UnknownChannel.into()));
    assert_eq!(
        encode(&error),
        r#"{"id":9,"error":{"code":102,"message":"unknown channel"}}"#
    );
    let error = Reply::Answer(9, Err(ErrorCode::Internal.into()));
    assert_eq!(
        encode(&error),
        r#"{"id":9,"error":{"code":100,"message":"internal server error","temporary":true}}"#
    );
    let ann = ClientInfo {
        user: "7".into(),
        client: "8a3f".into(),
        ..Default::default()
    };
    let presence = BTreeMap::from([("8a3f".into(), Arc::new(ann))]);
    assert_eq!(
        encode(&answer(6, Response::Presence(PresenceResult { presence }))),
        r#"{"id":6,"presence":{"presence":{"8a3f":{"user":"7","client":"8a3f"}}}}"#
    );
    let history = HistoryResult {
        publications: vec![
            publication(r#"{"text":"a"}"#, 11),
            publication(r#"{"text":"b"}"#, 12),
        ],
        position: StreamPosition {
            offset: 13,
            epoch: "hKqPwZbd".into(),
        },
    };
    assert_eq!(
        encode(&answer(5, Response::History(history))),
        r#"{"id":5,"history":{"publications":[{"data":{"text":"a"},"offset":11},{"data":{"text":"b"},"offset":12}],"epoch":"hKqPwZbd","offset":13}}"#
    );
}

#[test]
fn no_line_break_ever_gets_out() {
    let payload = "{\r\n  \"a\": \"\\n\",\n\n  \"b\": [1,\r2]\n}\n";
    let push = Push::Publication("a\nb".into(), publication(payload, 1));
    assert_eq!(
        encode(&Reply::Push(push)),
        r#"{"push":{"channel":"a\nb","pub":{"data":{  "a": "\n",  "b": [1,2]},"offset":1}}}"#
    );
}

#[test]
fn numbers_are_plain_and_whole() {
    let history = HistoryResult {
        position: StreamPosition {
            offset: u64::MAX,
            epoch: "e".into(),
        },
        ..Default::default()
    };
    assert!(encode(&answer(u32::MAX, Response::History(history))).contains("18446744073709551615"));
    let result = ConnectResult {
        time: Some(i64::MIN),
        ..Default::default()
    };
    assert!(encode(&answer(1, Response::Connect(result))).contains("-9223372036854775808"));
}

proptest! {
    /// Any text comes back as it was, and never with a raw line break.
    #[test]
    fn strings_survive(text in any::<String>(), control in "[\u{0}-\u{20}\"\\\\\u{7f}\u{2028}]{0,8}") {
        let text = text + &control;
        let error = Error { code: 1000, message: text.clone().into(), temporary: false };
        let line = encode(&Reply::Answer(1, Err(error)));
        prop_assert!(!line.contains(['\n', '\r']));
        let value: Value = serde_json::from_str(&line).unwrap();
        // An empty message is left out, like any field at its default.
        prop_assert_eq!(value["error"]["message"].as_str().unwrap_or(""), text);
    }

    /// What is written is read back by a general parser, field by field.
    #[test]
    fn publications_survive(
        channel in "[ -~]{1,20}",
        user in any::<String>(),
        offset in any::<u64>(),
        tags in prop::collection::btree_map(any::<String>(), any::<String>(), 0..4),
        data in prop::collection::btree_map(any::<String>(), any::<i64>(), 0..4),
    ) {
        let info = ClientInfo { user: user.clone().into(), client: "c".into(), ..Default::default() };
        let pretty = serde_json::to_string_pretty(&data).unwrap();
        let publication = Publication {
            data: pretty.into(),
            info: Some(Arc::new(info)),
            offset,
            tags: tags.clone(),
            ..Default::default()
        };
        let line = encode(&Reply::Push(Push::Publication(channel.clone().into(), Arc::new(publication))));
        prop_assert!(!line.contains('\n'));
        let mut expected = serde_json::json!({"data": data, "info": {"user": user, "client": "c"}});
        if offset > 0 {
            expected["offset"] = serde_json::json!(offset);
        }
        if !tags.is_empty() {
            expected["tags"] = serde_json::json!(tags);
        }
        let value: Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(value, serde_json::json!({"push": {"channel": channel, "pub": expected}}));
    }
}

#[test]
fn an_unsubscribe_with_a_reason_of_the_applications() {
    let unsubscribe = Unsubscribe {
        code: 2100,
        reason: "\"bye\"".into(),
    };
    assert_eq!(
        encode(&Reply::Push(Push::Unsubscribe("c".into(), unsubscribe))),
        r#"{"push":{"channel":"c","unsubscribe":{"code":2100,"reason":"\"bye\""}}}"#
    );
}

#[test]
fn a_history_may_hold_what_is_no_json() {
    let result = HistoryResult {
        publications: vec![
            publication(r#"{"x":1}"#, 1),
            Arc::new(Publication {
                data: b"\x00\xff".as_slice().into(),
                offset: 2,
                ..Publication::default()
            }),
            publication("", 3),
        ],
        position: StreamPosition {
            offset: 3,
            epoch: "E".into(),
        },
    };
    let mut out = Vec::new();
    json::encode_history(&result, |bytes| format!("{bytes:?}"), &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        concat!(
            r#"{"publications":[{"data":{"x":1},"offset":1},"#,
            r#"{"b64data":"[0, 255]","offset":2},{"b64data":"[]","offset":3}],"#,
            r#""epoch":"E","offset":3}"#
        )
    );
}
