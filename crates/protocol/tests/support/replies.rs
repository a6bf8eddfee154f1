//! Replies of every kind: those of the golden file by name, and any.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use tautline_protocol::message::{
    ClientInfo, ConnectResult, Error, HistoryResult, Payload, PresenceResult, PresenceStatsResult,
    RefreshResult, RpcResult, StreamPosition, Subscribe, SubscribeResult, Unsubscribe,
};
use tautline_protocol::{
    Disconnect, ErrorCode, Publication, Push, Reply, Response, UnsubscribeCode,
};

fn publication(data: &str, offset: u64) -> Arc<Publication> {
    Arc::new(Publication {
        data: data.to_owned().into(),
        offset,
        ..Default::default()
    })
}

fn position(offset: u64) -> StreamPosition {
    StreamPosition {
        offset,
        epoch: "hKqPwZbd".into(),
    }
}

fn info() -> ClientInfo {
    ClientInfo {
        user: "7".into(),
        client: "8a3f".into(),
        ..Default::default()
    }
}

fn connected() -> ConnectResult {
    ConnectResult {
        client: "8a3f6f0e".into(),
        version: "0.1.0".into(),
        ping: 25,
        ..Default::default()
    }
}

/// The replies of `golden/messages.tsv`.
pub(crate) fn all() -> BTreeMap<&'static str, Reply> {
    let answer = |id, response| Reply::Answer(id, Ok(response));
    let push = Reply::Push;
    BTreeMap::from([
        ("ping of the server", Reply::Ping),
        (
            "error",
            Reply::Answer(3, Err(ErrorCode::PermissionDenied.into())),
        ),
        (
            "temporary error",
            Reply::Answer(9, Err(ErrorCode::Internal.into())),
        ),
        (
            "connected",
            answer(
                1,
                Response::Connect(ConnectResult {
                    client: "abc".into(),
                    pong: true,
                    ..connected()
                }),
            ),
        ),
        (
            "connected with everything",
            answer(1, Response::Connect(connected_with_everything())),
        ),
        (
            "subscribed",
            answer(2, Response::Subscribe(SubscribeResult::default())),
        ),
        (
            "subscribed with everything",
            answer(2, Response::Subscribe(subscribed_with_everything())),
        ),
        ("unsubscribed", answer(3, Response::Unsubscribe)),
        ("published", answer(4, Response::Publish)),
        (
            "nobody present",
            answer(6, Response::Presence(PresenceResult::default())),
        ),
        ("present", answer(6, Response::Presence(present()))),
        (
            "present stats",
            answer(
                7,
                Response::PresenceStats(PresenceStatsResult {
                    num_clients: 300,
                    num_users: 1,
                }),
            ),
        ),
        (
            "no history",
            answer(5, Response::History(HistoryResult::default())),
        ),
        (
            "stored",
            answer(
                5,
                Response::History(HistoryResult {
                    publications: vec![
                        publication(r#"{"text":"a"}"#, 11),
                        publication(r#"{"text":"b"}"#, 12),
                    ],
                    position: position(13),
                }),
            ),
        ),
        (
            "returned",
            answer(
                8,
                Response::Rpc(RpcResult {
                    data: Some(r#"{"year":2026}"#.into()),
                }),
            ),
        ),
        (
            "returned nothing",
            answer(8, Response::Rpc(RpcResult::default())),
        ),
        (
            "refreshed",
            answer(20, Response::Refresh(RefreshResult { ttl: Some(3600) })),
        ),
        (
            "sub refreshed",
            answer(21, Response::SubRefresh(RefreshResult { ttl: Some(900) })),
        ),
        (
            "publication",
            push(Push::Publication(
                "news".into(),
                publication(r#"{"v":1}"#, 1),
            )),
        ),
        (
            "publication with everything",
            push(publication_with_everything()),
        ),
        (
            "long publication",
            push(Push::Publication(
                "news".into(),
                publication(&format!("\"{}\"", "x".repeat(16_400)), 0),
            )),
        ),
        ("join", push(Push::Join("chat:7".into(), Arc::new(info())))),
        (
            "leave",
            push(Push::Leave(
                "chat:7".into(),
                Arc::new(ClientInfo {
                    chan_info: Some("1".into()),
                    ..info()
                }),
            )),
        ),
        (
            "unsubscribe push",
            push(Push::Unsubscribe(
                "news".into(),
                UnsubscribeCode::InsufficientState.into(),
            )),
        ),
        ("message", push(Push::Message(r#"{"to":"you"}"#.into()))),
        (
            "subscribe push",
            push(Push::Subscribe(
                "#7".into(),
                Subscribe {
                    recoverable: true,
                    positioned: true,
                    position: position(4),
                    data: Some("{}".into()),
                },
            )),
        ),
        (
            "connect push",
            push(Push::Connect(Box::new(ConnectResult {
                ttl: Some(600),
                data: Some("1".into()),
                subs: BTreeMap::from([("news".into(), SubscribeResult::default())]),
                session: Some("c1d2".into()),
                time: Some(1_700_000_000_123),
                ..connected()
            }))),
        ),
        (
            "disconnect push",
            push(Push::Disconnect(Disconnect::SHUTDOWN)),
        ),
        (
            "refresh push",
            push(Push::Refresh(RefreshResult { ttl: Some(600) })),
        ),
    ])
}

fn connected_with_everything() -> ConnectResult {
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
    ConnectResult {
        ttl: Some(3600),
        data: Some("[1]".into()),
        subs: BTreeMap::from([
            ("#7".into(), sub),
            ("news".into(), SubscribeResult::default()),
        ]),
        pong: true,
        session: Some("s-20".into()),
        node: Some("n-7f".into()),
        time: Some(-1),
        ..connected()
    }
}

fn subscribed_with_everything() -> SubscribeResult {
    let patch = Publication {
        data: r#""patch""#.into(),
        offset: 302,
        delta: true,
        ..Default::default()
    };
    SubscribeResult {
        ttl: Some(900),
        recoverable: true,
        positioned: true,
        epoch: "MnBvCxZa".into(),
        offset: 300,
        publications: vec![publication(r#""{\"v\":1}""#, 301), Arc::new(patch)],
        recovered: true,
        was_recovering: true,
        delta: true,
        data: Some(r#"{"hello":"wörld"}"#.into()),
    }
}

fn present() -> PresenceResult {
    let ann = ClientInfo {
        conn_info: Some(r#"{"name":"Ann"}"#.into()),
        chan_info: Some("1".into()),
        ..info()
    };
    let nobody = ClientInfo {
        client: "9b".into(),
        ..Default::default()
    };
    PresenceResult {
        presence: BTreeMap::from([
            ("8a3f".into(), Arc::new(ann)),
            ("9b".into(), Arc::new(nobody)),
        ]),
    }
}

fn publication_with_everything() -> Push {
    let info = ClientInfo {
        conn_info: Some(r#"{"name":"Ann"}"#.into()),
        chan_info: Some("[]".into()),
        ..info()
    };
    let publication = Publication {
        except: None,
        data: r#"{"text":"hi"}"#.into(),
        info: Some(Arc::new(info)),
        offset: 13,
        tags: BTreeMap::from([
            ("empty".into(), String::new()),
            ("lang".into(), "en".into()),
        ]),
        delta: true,
        time: 1_700_000_000_123,
        channel: Some("chat:7".into()),
    };
    Push::Publication("chat:*".into(), Arc::new(publication))
}

/// JSON as a general writer writes it, of all sizes around those where lengths grow.
fn any_payload() -> impl Strategy<Value = Payload> {
    let text = prop_oneof![
        9 => any::<String>(),
        3 => (100..150_usize).prop_map(|length| "x".repeat(length)),
        1 => (16_300..16_500_usize).prop_map(|length| "x".repeat(length)),
    ];
    text.prop_map(|text| serde_json::to_vec(&text).expect("a string").into())
}

fn any_text() -> impl Strategy<Value = Arc<str>> {
    any::<String>().prop_map(Arc::from)
}

fn any_info() -> impl Strategy<Value = Arc<ClientInfo>> {
    (
        any_text(),
        any_text(),
        option::of(any_payload()),
        option::of(any_payload()),
    )
        .prop_map(|(user, client, conn_info, chan_info)| {
            Arc::new(ClientInfo {
                user,
                client,
                conn_info,
                chan_info,
            })
        })
}

fn any_publication() -> impl Strategy<Value = Arc<Publication>> {
    (
        any_payload(),
        option::of(any_info()),
        any::<u64>(),
        btree_map(any::<String>(), any::<String>(), 0..3),
        any::<bool>(),
        any::<i64>(),
        option::of(any_text()),
    )
        .prop_map(|(data, info, offset, tags, delta, time, channel)| {
            Arc::new(Publication {
                except: None,
                data,
                info,
                offset,
                tags,
                delta,
                time,
                channel,
            })
        })
}

fn any_ttl() -> impl Strategy<Value = Option<u32>> {
    option::of(1..=u32::MAX)
}

fn any_subscribed() -> impl Strategy<Value = SubscribeResult> {
    (
        (
            any_ttl(),
            any_text(),
            any::<u64>(),
            vec(any_publication(), 0..3),
            option::of(any_payload()),
        ),
        (
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
        ),
    )
        .prop_map(
            |((ttl, epoch, offset, publications, data), flags)| SubscribeResult {
                ttl,
                recoverable: flags.0,
                positioned: flags.1,
                epoch,
                offset,
                publications,
                recovered: flags.2,
                was_recovering: flags.3,
                delta: flags.4,
                data,
            },
        )
}

fn any_connected() -> impl Strategy<Value = ConnectResult> {
    (
        (
            any_text(),
            any::<String>(),
            any_ttl(),
            option::of(any_payload()),
        ),
        btree_map(any_text(), any_subscribed(), 0..3),
        (
            any::<u32>(),
            any::<bool>(),
            option::of(any_text()),
            option::of(any_text()),
            option::of(any::<i64>()),
        ),
    )
        .prop_map(
            |((client, version, ttl, data), subs, (ping, pong, session, node, time))| {
                ConnectResult {
                    client,
                    version: version.into(),
                    ttl,
                    data,
                    subs,
                    ping,
                    pong,
                    session,
                    node,
                    time,
                }
            },
        )
}

fn any_position() -> impl Strategy<Value = StreamPosition> {
    (any::<u64>(), any_text()).prop_map(|(offset, epoch)| StreamPosition { offset, epoch })
}

fn any_response() -> impl Strategy<Value = Response> {
    let refreshed = || any_ttl().prop_map(|ttl| RefreshResult { ttl });
    prop_oneof![
        any_connected().prop_map(Response::Connect),
        any_subscribed().prop_map(Response::Subscribe),
        Just(Response::Unsubscribe),
        Just(Response::Publish),
        btree_map(any_text(), any_info(), 0..4)
            .prop_map(|presence| Response::Presence(PresenceResult { presence })),
        (any::<u32>(), any::<u32>()).prop_map(|(num_clients, num_users)| {
            Response::PresenceStats(PresenceStatsResult {
                num_clients,
                num_users,
            })
        }),
        (vec(any_publication(), 0..4), any_position()).prop_map(|(publications, position)| {
            Response::History(HistoryResult {
                publications,
                position,
            })
        }),
        option::of(any_payload()).prop_map(|data| Response::Rpc(RpcResult { data })),
        refreshed().prop_map(Response::Refresh),
        refreshed().prop_map(Response::SubRefresh),
    ]
}

fn any_push() -> impl Strategy<Value = Push> {
    prop_oneof![
        4 => (any_text(), any_publication())
            .prop_map(|(channel, publication)| Push::Publication(channel, publication)),
        1 => (any_text(), any_info()).prop_map(|(channel, info)| Push::Join(channel, info)),
        1 => (any_text(), any_info()).prop_map(|(channel, info)| Push::Leave(channel, info)),
        1 => (any_text(), any::<u32>(), any::<String>()).prop_map(|(channel, code, reason)| {
            Push::Unsubscribe(channel, Unsubscribe { code, reason: reason.into() })
        }),
        1 => (any_text(), any::<bool>(), any::<bool>(), any_position(), option::of(any_payload())).prop_map(
            |(channel, recoverable, positioned, position, data)| {
                Push::Subscribe(channel, Subscribe { recoverable, positioned, position, data })
            }
        ),
        1 => any_payload().prop_map(Push::Message),
        1 => any_connected().prop_map(|result| Push::Connect(Box::new(result))),
        1 => any_ttl().prop_map(|ttl| Push::Refresh(RefreshResult { ttl })),
        1 => (any::<u32>(), any::<String>())
            .prop_map(|(code, reason)| Push::Disconnect(Disconnect { code, reason: reason.into() })),
    ]
}

/// Any reply.
pub(crate) fn any_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        1 => Just(Reply::Ping),
        2 => (any::<u32>(), any::<u32>(), any::<String>(), any::<bool>()).prop_map(
            |(id, code, message, temporary)| {
                Reply::Answer(id, Err(Error { code, message: message.into(), temporary }))
            }
        ),
        8 => (any::<u32>(), any_response()).prop_map(|(id, response)| Reply::Answer(id, Ok(response))),
        8 => any_push().prop_map(Reply::Push),
    ]
}
