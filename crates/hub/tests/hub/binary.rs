//! Payloads of any bytes, and those who read JSON.

use serde_json::{Value, json};
use tautline_hub::config::{DataFormat, DeltaType};
use tautline_hub::engine::testkit::Seeded;
use tautline_hub::{ApiPublish, Frame};
use tautline_protocol::message::{Payload, Publication};
use tautline_protocol::{Encoding, Push, Reply};

use crate::support::{Client, Setup, World};

const CONNECT: &[u8] = b"\x04\x08\x01\x22\x00";
/// Subscribes to `room:a`.
const SUBSCRIBE: &[u8] = b"\x0c\x08\x02\x2a\x08\x0a\x06room:a";

fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.client.ping_interval = std::time::Duration::ZERO;
    let room = &mut setup.channel.namespaces[0];
    (room.join_leave, room.force_push_join_leave) = (false, false);
    room.publication_data_format = DataFormat::Binary;
    room.allow_tags_filter = true;
    room.allowed_delta_types = vec![DeltaType::Fossil];
    room.history_size = 1000;
    setup
}

fn publish(world: &mut World, data: impl Into<Payload>, tag: &str) {
    let request = ApiPublish {
        channel: "room:a".into(),
        data: data.into(),
        tags: [("kind".to_owned(), tag.to_owned())].into(),
        ..ApiPublish::default()
    };
    let now = world.now;
    let hub = &mut world.workers[0].hub;
    hub.api_publish(now, request, |result| assert!(result.is_ok()));
    world.settle();
}

fn subscribe(world: &mut World, client: Client, request: Value) -> Vec<Value> {
    let mut request = request;
    request["channel"] = json!("room:a");
    world.tell(client, json!({"id": 2, "subscribe": request}))
}

fn protobuf_subscriber(world: &mut World, worker: usize) -> Client {
    let client = world.open_with(worker, Encoding::Protobuf);
    for frame in [CONNECT, SUBSCRIBE] {
        world.send_frame(client, Frame::Protobuf(frame));
        world.settle();
    }
    world.workers[worker].out.messages.remove(&client.id);
    client
}

fn numbers(heard: &[Value]) -> Vec<u64> {
    let pushes = heard.iter();
    pushes
        .filter_map(|message| message["push"]["pub"]["data"].as_u64())
        .collect()
}

#[test]
fn who_reads_json_is_closed_by_what_is_not_and_others_go_on() {
    let mut world = World::with(setup());
    let reader = world.connect(0);
    subscribe(&mut world, reader, json!({}));
    let elsewhere = world.connect(0);
    world.tell(
        elsewhere,
        json!({"id": 2, "subscribe": {"channel": "news"}}),
    );
    let binary = protobuf_subscriber(&mut world, 0);
    publish(&mut world, "1", "x");
    publish(&mut world, "", "x");
    let heard = world.heard(reader);
    assert_eq!(numbers(&heard), [1]);
    assert_eq!(heard[1]["push"]["pub"]["data"], Value::Null, "of no bytes");
    publish(&mut world, b"\x00\xff\n{".as_slice(), "x");
    assert_eq!(world.closed(reader), Some((3506, true)));
    assert_eq!(world.closed(elsewhere), None);
    publish(&mut world, "2", "x");
    assert_eq!(world.workers[0].out.messages[&binary.id].len(), 4);
    assert_eq!(world.closed(binary), None);
}

#[test]
fn what_a_filter_keeps_out_harms_nobody() {
    let mut world = World::with(setup());
    let filtered = world.connect(0);
    let only_x = json!({"key": "kind", "cmp": "eq", "val": "x"});
    subscribe(&mut world, filtered, json!({"tf": only_x}));
    publish(&mut world, b"\xff".as_slice(), "y");
    publish(&mut world, "1", "x");
    assert_eq!(numbers(&world.heard(filtered)), [1]);
    publish(&mut world, b"\xff".as_slice(), "x");
    assert_eq!(world.closed(filtered), Some((3506, true)));
}

#[test]
fn what_is_recovered_paged_or_read_is_looked_at_too() {
    let mut setup = setup();
    setup.client.recovery_max_publication_limit = 2;
    let mut world = World::with(setup);
    for number in 0..5 {
        publish(&mut world, number.to_string(), "x");
    }
    publish(&mut world, b"\xff".as_slice(), "x");
    // Within the reply; in the page behind it; in a history reply.
    for (request, closed) in [
        (json!({"recover": true, "offset": 4}), true),
        (json!({"recover": true, "offset": 0}), true),
        (json!({"recover": true, "offset": 6}), false),
        (json!({}), false),
    ] {
        let client = world.connect(1);
        subscribe(&mut world, client, request.clone());
        assert_eq!(world.closed(client).is_some(), closed, "{request}");
        if !closed {
            let read = json!({"channel": "room:a", "limit": 5});
            let heard = world.tell(client, json!({"id": 3, "history": read}));
            assert!(heard[0]["history"]["publications"].is_array());
            let read = json!({"channel": "room:a", "limit": 6});
            world.tell(client, json!({"id": 4, "history": read}));
            assert_eq!(world.closed(client), Some((3506, true)));
        }
    }
    assert_eq!(world.workers[1].hub.stats().clients, 0);
}

#[test]
fn bytes_are_published_where_they_may_be() {
    let mut world = World::with(setup());
    let client = protobuf_subscriber(&mut world, 0);
    // Two bytes; and no field at all.
    for frame in [
        b"\x10\x08\x03\x3a\x0c\x0a\x06room:a\x12\x02\x00\xff".as_slice(),
        b"\x0c\x08\x04\x3a\x08\x0a\x06room:a",
        // Not JSON, in a namespace for JSON.
        b"\x0d\x08\x05\x3a\x09\x0a\x04news\x12\x01\xff",
    ] {
        world.send_frame(client, Frame::Protobuf(frame));
        world.settle();
    }
    let messages = world.workers[0].out.messages[&client.id].clone();
    assert_eq!(*messages[0], *b"\x04\x08\x03\x42\x00");
    assert!(
        messages[1]
            .windows(4)
            .any(|bytes| bytes == b"\x22\x02\x00\xff")
    );
    assert_eq!(
        messages[4][1..7],
        // Error 107, whose text says why.
        *b"\x08\x05\x12\x50\x08\x6b",
        "an error: {:x?}",
        messages[4]
    );
    let reader = world.connect(0);
    let answer = world.tell(reader, json!({"id": 3, "publish": {"channel": "room:a"}}));
    assert_eq!(answer[0]["publish"], json!({}), "absent is empty");
}

/// Whatever is published, everybody gets exactly what was, or is closed at the first that it can't read.
#[test]
fn any_mixture_arrives_byte_for_byte_or_not_at_all() {
    for seed in 0..200 {
        let mut random = Seeded::new(seed);
        let mut world = World::with(setup());
        let binary = protobuf_subscriber(&mut world, random.below(2));
        let reader = world.connect(random.below(2));
        let patched = random.chance(50);
        let request = if patched {
            json!({"delta": "fossil"})
        } else {
            json!({})
        };
        subscribe(&mut world, reader, request);
        let mut expected = Vec::new();
        let mut first_foreign = None;
        for offset in 1..=random.below(12) as u64 {
            let length = random.below(200);
            let data: Vec<u8> = if random.chance(85) {
                json!({"n": offset, "text": "x".repeat(length)})
                    .to_string()
                    .into()
            } else {
                (0..length).map(|_| random.bits() as u8).collect()
            };
            let is_foreign = serde_json::from_slice::<Value>(&data).is_err() && !data.is_empty();
            if is_foreign && first_foreign.is_none() {
                first_foreign = Some(offset);
            }
            publish(&mut world, data.clone(), "x");
            let publication = Publication {
                data: data.into(),
                offset,
                tags: [("kind".to_owned(), "x".to_owned())].into(),
                ..Publication::default()
            };
            let push = Push::Publication("room:a".into(), publication.into());
            let mut bytes = Vec::new();
            Encoding::Protobuf.encode_reply(&Reply::Push(push), &mut bytes);
            expected.push(bytes);
        }
        let got = world.workers[binary.worker].out.messages.remove(&binary.id);
        let got: Vec<Vec<u8>> = got
            .unwrap_or_default()
            .iter()
            .map(|one| one.to_vec())
            .collect();
        assert_eq!(got, expected, "seed {seed}");
        let closed = world.closed(reader).map(|(code, _)| code);
        assert_eq!(closed, first_foreign.map(|_| 3506), "seed {seed}");
        let heard = world.heard(reader).len() as u64;
        let readable = first_foreign.map_or(expected.len() as u64, |first| first - 1);
        assert_eq!(heard, readable, "seed {seed}");
    }
}
