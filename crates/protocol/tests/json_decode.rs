//! Reading commands: what SDKs send, and what they don't.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "fuzzed/command.rs"]
mod command;

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tautline_protocol::filter::RawFilter;
use tautline_protocol::json::{Commands, DecodeError, MAX_DEPTH, check_payload};
use tautline_protocol::message::{
    Command, ConnectRequest, HistoryRequest, MAX_HEADERS, MAX_SUBS, PublishRequest, Request,
    RpcRequest, StreamPosition, SubscribeRequest,
};

fn one(line: &str) -> Command<'_> {
    command::check(line.as_bytes());
    let mut commands = Commands::new(line);
    let command = commands.next().unwrap().unwrap();
    assert!(commands.next().is_none());
    command
}

fn refuse(frame: &str) -> DecodeError {
    command::check(frame.as_bytes());
    Commands::new(frame).find_map(Result::err).expect(frame)
}

#[test]
fn the_first_frame_of_the_javascript_sdk() {
    let frame = "{\"connect\":{\"token\":\"eyJ\",\"name\":\"js\"},\"id\":1}\n\
                 {\"subscribe\":{\"channel\":\"news\",\"flag\":1},\"id\":2}\n\
                 {\"subscribe\":{\"channel\":\"$vip\",\"token\":\"eyJ\",\"flag\":1},\"id\":3}";
    let commands: Vec<Command<'_>> = Commands::new(frame).map(Result::unwrap).collect();
    let connect = ConnectRequest {
        token: "eyJ".into(),
        name: "js".into(),
        ..Default::default()
    };
    let news = SubscribeRequest {
        channel: "news".into(),
        flag: 1,
        ..Default::default()
    };
    let vip = SubscribeRequest {
        channel: "$vip".into(),
        token: "eyJ".into(),
        ..news.clone()
    };
    assert_eq!(
        commands,
        [
            Command {
                id: 1,
                request: Some(Request::Connect(connect))
            },
            Command {
                id: 2,
                request: Some(Request::Subscribe(news))
            },
            Command {
                id: 3,
                request: Some(Request::Subscribe(vip))
            },
        ]
    );
}

#[test]
fn pongs_recovery_history_and_rpc() {
    assert_eq!(
        one("{}"),
        Command {
            id: 0,
            request: None
        }
    );
    let line = r#"{"id":9,"subscribe":{"channel":"chat:7","recover":true,"epoch":"hKqPwZbd","offset":20,"flag":3}}"#;
    let Some(Request::Subscribe(request)) = one(line).request else {
        panic!("no subscribe")
    };
    assert!(request.recover);
    assert_eq!(
        (request.offset, &*request.epoch, request.flag),
        (20, "hKqPwZbd", 3)
    );
    let line = r#"{"id":5,"history":{"channel":"chat:7","limit":2,"since":{"offset":10,"epoch":"hKqPwZbd"}}}"#;
    let since = Some(StreamPosition {
        offset: 10,
        epoch: "hKqPwZbd".into(),
    });
    let history = HistoryRequest {
        channel: "chat:7".into(),
        limit: 2,
        since,
        reverse: false,
    };
    assert_eq!(one(line).request, Some(Request::History(history)));
    let rpc = RpcRequest {
        data: Some(b"{}"),
        method: "getYear".into(),
    };
    let line = r#"{"id":8,"rpc":{"method":"getYear","data":{}}}"#;
    assert_eq!(one(line).request, Some(Request::Rpc(rpc)));
}

#[test]
fn server_side_subscriptions_and_headers_of_a_connect() {
    let line = r##"{"id":1,"connect":{"subs":{"#7":{"recover":true,"offset":4,"epoch":"e"},"a\u0062":{}},"headers":{"x-a":"1","x-b":null},"flag":1,"dict":"d"}}"##;
    let Some(Request::Connect(request)) = one(line).request else {
        panic!("no connect")
    };
    assert_eq!(request.subs.len(), 2);
    assert_eq!(request.subs["#7"].offset, 4);
    assert!(request.subs.contains_key("ab"));
    assert_eq!(request.headers["x-a"], "1");
    assert_eq!(request.headers["x-b"], "");
}

#[test]
fn payloads_keep_their_bytes() {
    for payload in [
        "null",
        "{ \"b\":1, \"a\" : [1.0,1e400,-0] }",
        "\"\\u00e9\\ud800\"",
        "123456789012345678901234567890",
        "[\t1 ]",
    ] {
        let line = format!("{{\"id\":1,\"publish\":{{\"channel\":\"c\",\"data\": {payload} }}}}");
        let publish = PublishRequest {
            channel: "c".into(),
            data: Some(payload.as_bytes()),
            ..Default::default()
        };
        assert_eq!(one(&line).request, Some(Request::Publish(publish)));
        check_payload(payload.as_bytes()).unwrap();
    }
    let absent = PublishRequest {
        channel: "c".into(),
        ..Default::default()
    };
    let line = r#"{"id":1,"publish":{"channel":"c"}}"#;
    assert_eq!(one(line).request, Some(Request::Publish(absent.clone())));
    let entry = PublishRequest { kind: 1, ..absent };
    let line = r#"{"id":1,"publish":{"channel":"c","type":1,"key":"k","removed":true}}"#;
    assert_eq!(one(line).request, Some(Request::Publish(entry)));
}

#[test]
fn strings_are_borrowed_unless_they_hold_escapes() {
    let line = r#"{"id":1,"subscribe":{"channel":"plain","token":"esc\u0061ped"}}"#;
    let Some(Request::Subscribe(request)) = one(line).request else {
        panic!("no subscribe")
    };
    assert!(matches!(request.channel, Cow::Borrowed("plain")));
    assert!(matches!(request.token, Cow::Owned(ref token) if token == "escaped"));
}

#[test]
fn the_first_request_of_the_protocols_order_counts() {
    let order = [
        "connect",
        "subscribe",
        "unsubscribe",
        "publish",
        "presence",
        "presence_stats",
        "history",
        "rpc",
        "send",
        "refresh",
        "sub_refresh",
        "ping",
    ];
    for (index, first) in order.iter().enumerate() {
        for second in &order[index..] {
            let line = if first == second {
                format!("{{\"id\":1,\"{first}\":{{}}}}")
            } else {
                format!("{{\"id\":1,\"{second}\":{{}},\"{first}\":{{}}}}")
            };
            assert!(one(&line).request.is_some());
        }
    }
    let line = r#"{"id":1,"publish":{"channel":"p"},"subscribe":{"channel":"s"},"connect":null}"#;
    assert!(
        matches!(one(line).request, Some(Request::Subscribe(request)) if request.channel == "s")
    );
}

#[test]
fn what_is_unknown_or_null_is_as_good_as_absent() {
    let line = r#"{"id":2,"new":[1],"subscribe":{"channel":"c","token":null,"offset":null,"tf":null,"shiny":{}}}"#;
    let subscribe = SubscribeRequest {
        channel: "c".into(),
        ..Default::default()
    };
    assert_eq!(one(line).request, Some(Request::Subscribe(subscribe)));
    assert_eq!(one(r#"{"id":2,"nothing":{}}"#).request, None);
    let line = r#"{"id":2,"subscribe":{"channel":"c","tf":{"key":"a"}}}"#;
    assert!(
        matches!(one(line).request, Some(Request::Subscribe(request)) if request.tags_filter == Some(RawFilter::Json(r#"{"key":"a"}"#)))
    );
}

#[test]
fn one_line_break_may_end_a_frame_and_no_line_is_empty() {
    assert_eq!(Commands::new("{}\n{}").count(), 2);
    assert_eq!(Commands::new("{}\n{}\n").count(), 2);
    for frame in ["", "\n", "{}\n\n", "\n{}", "{}\n\n{}", " ", "{}\n \n{}"] {
        assert!(matches!(refuse(frame), DecodeError::Empty), "{frame:?}");
    }
}

#[test]
fn nothing_is_read_behind_an_error() {
    let mut commands = Commands::new("{}\nbad\n{}");
    assert!(commands.next().unwrap().is_ok());
    assert!(commands.next().unwrap().is_err());
    assert!(commands.next().is_none());
    assert_eq!(commands.rest(), None);
}

#[test]
fn what_is_not_a_command_is_refused() {
    for line in [
        "x",
        "1",
        "[]",
        "[1,{}]",
        "\"{}\"",
        "{}{}",
        "{\"id\":1",
        "{\"id\":-1}",
        "{\"id\":1.5}",
        "{\"id\":4294967296}",
        "{\"id\":\"1\"}",
        "{\"id\":1,\"id\":2}",
        "{\"id\":1,\"subscribe\":[\"c\"]}",
        "{\"id\":1,\"subscribe\":{\"channel\":1}}",
        "{\"id\":1,\"subscribe\":{\"channel\":\"\\ud800\"}}",
        "{\"id\":1,\"subscribe\":{\"offset\":-1}}",
        "{\"id\":1,\"subscribe\":{\"offset\":18446744073709551616}}",
        "{\"id\":1,\"subscribe\":{\"recover\":1}}",
        "{\"id\":1,\"publish\":{\"data\":01}}",
        "{\"id\":1,\"publish\":{\"data\":\"\u{1}\"}}",
        "{\"id\":1,\"publish\":{\"data\":[1,]}}",
        "{\"id\":1,\"publish\":{\"data\":NaN}}",
    ] {
        assert!(matches!(refuse(line), DecodeError::Syntax(_)), "{line}");
    }
}

#[test]
fn depth_is_bounded_everywhere() {
    let nest = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    // The command and its request are two levels.
    let publish = |depth| format!("{{\"id\":1,\"publish\":{{\"data\":{}}}}}", nest(depth));
    one(&publish(MAX_DEPTH - 2));
    assert!(matches!(
        refuse(&publish(MAX_DEPTH - 1)),
        DecodeError::TooDeep
    ));
    let unknown = format!("{{\"unknown\":{}}}", nest(100_000));
    assert!(matches!(refuse(&unknown), DecodeError::TooDeep));
    check_payload(nest(MAX_DEPTH).as_bytes()).unwrap();
    assert!(matches!(
        check_payload(nest(MAX_DEPTH + 1).as_bytes()),
        Err(DecodeError::TooDeep)
    ));
    // Brackets in strings, and beside each other, are not deep.
    let wide = format!("[{}[]]", "[],".repeat(1000));
    check_payload(wide.as_bytes()).unwrap();
    let text = serde_json::to_string(&"[{\"\\".repeat(1000)).unwrap();
    check_payload(text.as_bytes()).unwrap();
}

/// An entry of a few bytes takes some hundred in memory.
#[test]
fn the_maps_of_a_connect_are_bounded() {
    for (name, value, most) in [("headers", "\"\"", MAX_HEADERS), ("subs", "{}", MAX_SUBS)] {
        let connect = |keys: &mut dyn Iterator<Item = usize>| {
            let entries: Vec<_> = keys.map(|key| format!("\"{key}\":{value}")).collect();
            format!(
                "{{\"id\":1,\"connect\":{{\"{name}\":{{{}}}}}}}",
                entries.join(",")
            )
        };
        let line = connect(&mut (0..most));
        let Some(Request::Connect(request)) = one(&line).request else {
            panic!("no connect")
        };
        assert_eq!(request.headers.len() + request.subs.len(), most);
        let text = refuse(&connect(&mut (0..=most))).to_string();
        let expected = format!(
            "length {}, expected an object with at most {most} keys",
            most + 1
        );
        assert!(text.contains(&expected), "{text}");
        // One that comes again is still one.
        let line = connect(&mut (0..=most).map(|key| key % 2));
        let Some(Request::Connect(request)) = one(&line).request else {
            panic!("no connect")
        };
        assert_eq!(request.headers.len() + request.subs.len(), 2);
    }
}

#[test]
fn errors_say_what_was_expected() {
    let text = refuse("{\"id\":true}").to_string();
    assert!(
        text.contains("expected u32") && text.contains("column"),
        "{text}"
    );
    assert!(
        refuse("{}\n\n")
            .to_string()
            .contains("separate commands by a single")
    );
    assert!(refuse(&"[".repeat(200)).to_string().contains("128"));
}

/// They go into logs, and into answers: a client that sends much where little is expected doesn't choose how long they are.
#[test]
fn errors_are_short_and_still_say_what_was_expected() {
    // Of one, two and four bytes, and such as are escaped when they are quoted.
    for character in ["x", "\u{e9}", "\u{1f600}", "\u{200b}", "\\n"] {
        for padding in ["", "y", "yy", "yyy"] {
            let long = format!("{padding}{}", character.repeat(20_000));
            for (line, expected) in [
                (format!("{{\"id\":\"{long}\"}}"), "expected u32"),
                (format!("\"{long}\""), "expected an object"),
                (
                    format!("{{\"connect\":{{\"subs\":\"{long}\"}}}}"),
                    "expected an object with",
                ),
            ] {
                let text = refuse(&line).to_string();
                assert!(text.len() < 400, "{} bytes", text.len());
                assert!(text.contains("invalid type: string \""), "{text}");
                assert!(text.contains(expected), "{text}");
                assert!(text.contains("at line 1 column"), "{text}");
            }
        }
    }
    // What is no command doesn't claim to be one.
    let text = check_payload(b"{]").unwrap_err().to_string();
    assert!(!text.contains("command"), "{text}");
}

/// Any JSON value, not too large.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_request() -> impl Strategy<Value = Value> {
    let field = prop_oneof![
        prop::sample::select(vec![
            "channel", "token", "epoch", "delta", "method", "name", "version"
        ])
        .prop_flat_map(|key| (Just(key), any::<String>().prop_map(Value::from))),
        prop::sample::select(vec![
            "recover",
            "positioned",
            "recoverable",
            "join_leave",
            "reverse"
        ])
        .prop_flat_map(|key| (Just(key), any::<bool>().prop_map(Value::from))),
        any::<u64>().prop_map(|offset| ("offset", Value::from(offset))),
        any::<i64>().prop_map(|flag| ("flag", Value::from(flag))),
        any::<i32>().prop_map(|number| ("type", Value::from(number))),
        any::<i32>().prop_map(|number| ("limit", Value::from(number))),
        any_json().prop_map(|data| ("data", data)),
        any_json().prop_map(|filter| ("tf", filter)),
        any_json().prop_map(|unknown| ("unknown", unknown)),
        prop::collection::btree_map(any::<String>(), any::<String>(), 0..3)
            .prop_map(|headers| ("headers", json!(headers))),
        (any::<u64>(), any::<String>())
            .prop_map(|(offset, epoch)| ("since", json!({"offset": offset, "epoch": epoch}))),
    ];
    let nulls = prop::sample::select(vec!["channel", "offset", "since", "flag", "recover"])
        .prop_map(|key| (key, Value::Null));
    let field = prop_oneof![9 => field, 1 => nulls];
    prop::collection::vec(field, 0..8).prop_map(|fields| {
        let fields = fields
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        Value::Object(fields.collect::<Map<String, Value>>())
    })
}

proptest! {
    /// What is valid is read, and means what a general parser reads.
    #[test]
    fn valid_commands_are_read_as_they_stand(
        id in any::<u32>(),
        kind in prop::sample::select(vec![
            "connect", "subscribe", "unsubscribe", "publish", "presence", "presence_stats",
            "history", "rpc", "send", "refresh", "sub_refresh", "ping", "unknown",
        ]),
        request in any_request(),
    ) {
        let line = json!({"id": id, kind: request}).to_string();
        let command = one(&line);
        prop_assert_eq!(command.id, id);
        prop_assert_eq!(command.request.is_some(), kind != "unknown");
    }

    /// Whatever comes, nothing panics and nothing is misread.
    #[test]
    fn any_text_is_read_or_refused(frame in "[\\[\\]{}\",:\\\\\\n a-z0-9.\u{1}\u{e9}-]{0,60}") {
        command::check(frame.as_bytes());
    }
}
