//! Protobuf connections beside JSON ones.

use std::sync::Arc;

use serde_json::json;
use tautline_hub::Frame;
use tautline_hub::engine::testkit::DelayOptions;
use tautline_protocol::message::{
    ClientInfo, Payload, PresenceStatsResult, Publication, SubscribeResult,
};
use tautline_protocol::{Encoding, Push, Reply, Response};

use crate::support::{Client, Setup, World};

const CONNECT: &[u8] = b"\x04\x08\x01\x22\x00";
const SUBSCRIBE_NEWS: &[u8] = b"\x0a\x08\x02\x2a\x06\x0a\x04news";

fn send(world: &mut World, client: Client, frame: &[u8]) {
    world.send_frame(client, Frame::Protobuf(frame));
    world.settle();
}

/// What the client was told since it last looked, as it stands.
fn heard(world: &mut World, client: Client) -> Vec<Arc<[u8]>> {
    let messages = world.workers[client.worker].out.messages.remove(&client.id);
    messages.unwrap_or_default()
}

fn told(world: &mut World, client: Client, frame: &[u8]) -> Vec<Arc<[u8]>> {
    send(world, client, frame);
    heard(world, client)
}

fn connect(world: &mut World, worker: usize) -> Client {
    let client = world.open_with(worker, Encoding::Protobuf);
    let heard = told(world, client, CONNECT);
    assert_eq!(heard[0][1..4], *b"\x08\x01\x2a", "{heard:x?}");
    client
}

fn bytes(reply: &Reply) -> Arc<[u8]> {
    let mut bytes = Vec::new();
    Encoding::Protobuf.encode_reply(reply, &mut bytes);
    bytes.into()
}

fn answer(id: u32, response: Response) -> Arc<[u8]> {
    bytes(&Reply::Answer(id, Ok(response)))
}

#[test]
fn each_gets_publications_in_its_own_encoding() {
    let mut world = World::new();
    let json = world.connect_as(0, "7");
    world.tell(json, json!({"id": 2, "subscribe": {"channel": "news"}}));
    let readers: Vec<Client> = (0..3).map(|_| connect(&mut world, 0)).collect();
    for &reader in &readers {
        let heard = told(&mut world, reader, SUBSCRIBE_NEWS);
        assert_eq!(
            heard,
            [answer(2, Response::Subscribe(SubscribeResult::default()))]
        );
    }
    world.send(
        json,
        r#"{"id":3,"publish":{"channel":"news","data":{ "b":1.0,"a":[]}}}"#,
    );
    let push = world.heard(json).remove(1);
    assert_eq!(world.workers[0].out.prepared, 2, "one for each encoding");
    let info = ClientInfo {
        user: "7".into(),
        client: push["push"]["pub"]["info"]["client"]
            .as_str()
            .unwrap()
            .into(),
        ..Default::default()
    };
    let publication = Publication {
        // As it was published.
        data: Payload::from_static(br#"{ "b":1.0,"a":[]}"#),
        info: Some(Arc::new(info)),
        ..Default::default()
    };
    let expected = bytes(&Reply::Push(Push::Publication(
        "news".into(),
        Arc::new(publication),
    )));
    for reader in readers {
        assert_eq!(heard(&mut world, reader), std::slice::from_ref(&expected));
    }
}

#[test]
fn what_is_published_is_for_readers_of_json_too() {
    let mut world = World::new();
    let json = world.connect(0);
    world.tell(json, json!({"id": 2, "subscribe": {"channel": "news"}}));
    let author = connect(&mut world, 0);
    let publish = |data: &[u8]| {
        let mut frame = vec![12 + data.len() as u8, 8, 3, 0x3a, 8 + data.len() as u8];
        frame.extend_from_slice(b"\x0a\x04news\x12");
        frame.push(data.len() as u8);
        frame.extend_from_slice(data);
        frame
    };
    assert_eq!(
        told(&mut world, author, &publish(b"{\"a\":1}")),
        [answer(3, Response::Publish)]
    );
    assert_eq!(world.heard(json)[0]["push"]["pub"]["data"], json!({"a": 1}));
    let deep = "[".repeat(110);
    for data in [
        &b""[..],
        b"{",
        b"\xff",
        b"\"\xff\"",
        b"1 2",
        b"{}{}",
        deep.as_bytes(),
    ] {
        let heard = told(&mut world, author, &publish(data));
        // Its code, before the text that says why.
        let [reply] = &*heard else {
            panic!("{heard:x?}");
        };
        assert_eq!(reply[1..4], [8, 3, 0x12], "{data:x?}");
        assert_eq!(reply[5..7], [8, 107], "{data:x?}");
    }
    assert!(world.heard(json).is_empty());
}

#[test]
fn what_cannot_be_read_ends_the_session() {
    for frame in [&b""[..], b"\x02\x08", b"\x80", b"\x02\x0a\x00", b"{}"] {
        let mut world = World::new();
        let client = connect(&mut world, 0);
        send(&mut world, client, frame);
        assert_eq!(world.closed(client).unwrap().0, 3501, "{frame:x?}");
    }
    // What comes before it was executed, what comes behind it wasn't.
    let mut world = World::new();
    let client = connect(&mut world, 0);
    let mut frame = SUBSCRIBE_NEWS.to_vec();
    frame.extend_from_slice(b"\x02\x08\x05\x0a\x08\x03\x2a\x06\x0a\x04more");
    let heard = told(&mut world, client, &frame);
    assert_eq!(heard.len(), 1);
    assert_eq!(world.closed(client).unwrap().0, 3501);
}

#[test]
fn pings_and_pongs_are_single_bytes() {
    let mut world = World::new();
    let client = connect(&mut world, 0);
    world.seconds(26);
    assert_eq!(heard(&mut world, client), [Arc::from(&b"\0"[..])]);
    send(&mut world, client, b"\0");
    world.seconds(20);
    assert_eq!(world.closed(client), None);
    // A second one was not asked for.
    let mut world = World::new();
    let client = connect(&mut world, 0);
    send(&mut world, client, b"\0");
    assert_eq!(world.closed(client).unwrap().0, 3501);
}

#[test]
fn frames_wait_for_an_engine_that_answers_later() {
    let mut world = World::with(Setup {
        delays: Some(DelayOptions::default()),
        ..Setup::default()
    });
    let client = connect(&mut world, 0);
    // subscribe{room:a}, presence_stats{room:a}; and presence_stats once more, in a frame of its own.
    let subscribe = b"\x0c\x08\x02\x2a\x08\x0a\x06room:a\x0c\x08\x03\x4a\x08\x0a\x06room:a";
    world.send_frame(client, Frame::Protobuf(subscribe));
    assert!(!world.workers[0].hub.wants_input(client.id));
    world.send_frame(
        client,
        Frame::Protobuf(b"\x0c\x08\x04\x4a\x08\x0a\x06room:a"),
    );
    world.settle();
    let heard = heard(&mut world, client);
    let stats = PresenceStatsResult {
        num_clients: 1,
        num_users: 1,
    };
    for id in [3, 4] {
        let expected = answer(id, Response::PresenceStats(stats));
        assert!(heard.contains(&expected), "{heard:x?}");
    }
    assert_eq!(world.closed(client), None);
}
