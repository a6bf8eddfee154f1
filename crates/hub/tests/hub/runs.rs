//! Publications that come together leave together.

use serde_json::{Value, json};
use tautline_hub::config::DeltaType;
use tautline_protocol::{Encoding, delta};

use crate::support::{Client, Setup, World, replies};

fn publish_only(world: &mut World, client: Client, channel: &str, numbers: std::ops::Range<u64>) {
    let commands: Vec<_> = numbers
        .map(|number| {
            json!({"id": number + 10, "publish": {"channel": channel, "data": reading(number)}})
                .to_string()
        })
        .collect();
    world.send_only(client, &commands.join("\n"));
}

fn reading(number: u64) -> Value {
    json!({"device": "pump-7", "rpm": number, "filling": "x".repeat(60)})
}

fn subscribe(world: &mut World, client: Client, request: &Value) -> Value {
    world.tell(client, json!({"id": 2, "subscribe": request}))[0].clone()
}

/// The messages that a client got, each as the offsets of its publications.
fn messages(world: &mut World, client: Client) -> Vec<Vec<u64>> {
    let messages = world.workers[client.worker].out.messages.remove(&client.id);
    let offsets = |message: &[u8]| {
        replies(message)
            .map(|reply| reply["push"]["pub"]["offset"].as_u64().unwrap_or(0))
            .collect()
    };
    let messages = messages.unwrap_or_default();
    messages.iter().map(|message| offsets(message)).collect()
}

fn without_join_and_leave() -> Setup {
    let mut setup = Setup::default();
    let room = &mut setup.channel.namespaces[0];
    room.join_leave = false;
    room.force_push_join_leave = false;
    room.history_size = 100;
    room.allowed_delta_types = vec![DeltaType::Fossil];
    room.delta_publish = true;
    setup
}

#[test]
fn publications_of_a_channel_that_come_together_are_one_message() {
    let mut world = World::with(without_join_and_leave());
    let (author, reader) = (world.connect(0), world.connect(1));
    for channel in ["room:a", "room:b"] {
        subscribe(&mut world, reader, &json!({"channel": channel}));
    }
    publish_only(&mut world, author, "room:a", 0..3);
    publish_only(&mut world, author, "room:b", 0..2);
    publish_only(&mut world, author, "room:a", 3..4);
    world.settle();
    assert_eq!(
        messages(&mut world, reader),
        [vec![1, 2, 3], vec![1, 2], vec![4]]
    );
    publish_only(&mut world, author, "room:b", 2..152);
    world.settle();
    let lengths: Vec<_> = messages(&mut world, reader).iter().map(Vec::len).collect();
    assert_eq!(lengths, [64, 64, 22], "no message has more than 64");
}

#[test]
fn in_protobuf_they_stand_behind_their_lengths() {
    let mut world = World::new();
    let (author, reader) = (world.connect(0), world.open_with(1, Encoding::Protobuf));
    // Connect, then subscribe to `news`: fields 4 and 5 of a command.
    let frame = b"\x04\x08\x01\x22\x00\x0a\x08\x02\x2a\x06\x0a\x04news";
    world.send_frame(reader, tautline_hub::Frame::Protobuf(frame));
    world.settle();
    world.workers[1].out.messages.clear();
    publish_only(&mut world, author, "news", 0..3);
    world.settle();
    let messages = &world.workers[1].out.messages[&reader.id];
    let [message] = &messages[..] else {
        panic!("{} messages", messages.len());
    };
    let mut rest = &message[..];
    for _ in 0..3 {
        // Two bytes hold the length of what is written here.
        let length = usize::from(rest[0] & 0x7f) | usize::from(rest[1]) << 7;
        assert_eq!(rest[2], 4 << 3 | 2, "a push");
        rest = &rest[2 + length..];
    }
    assert_eq!(rest, b"");
}

#[test]
fn who_has_some_of_them_gets_the_rest() {
    let mut world = World::with(without_join_and_leave());
    let (author, early, late) = (world.connect(0), world.connect(0), world.connect(0));
    subscribe(&mut world, early, &json!({"channel": "room:a"}));
    publish_only(&mut world, author, "room:a", 0..2);
    let request = json!({"channel": "room:a", "recover": true, "offset": 0});
    world.send_only(late, &json!({"id": 2, "subscribe": request}).to_string());
    publish_only(&mut world, author, "room:a", 2..4);
    world.settle();
    assert_eq!(messages(&mut world, early).concat(), [1, 2, 3, 4]);
    let heard = world.heard(late);
    let recovered = heard[0]["subscribe"]["publications"].as_array().unwrap();
    assert_eq!(recovered.len(), 2);
    let pushed = heard[1..]
        .iter()
        .map(|reply| &reply["push"]["pub"]["offset"]);
    assert_eq!(pushed.collect::<Vec<_>>(), [&json!(3), &json!(4)]);
}

#[test]
fn patches_of_a_run_build_on_each_other() {
    let mut world = World::with(without_join_and_leave());
    let (author, reader) = (world.connect(0), world.connect(0));
    let request = json!({"channel": "room:a", "delta": "fossil"});
    subscribe(&mut world, reader, &request);
    let mut base: Option<Vec<u8>> = None;
    for run in 0..3 {
        publish_only(&mut world, author, "room:a", run * 5..(run + 1) * 5);
        world.settle();
        for (number, reply) in (run * 5..).zip(world.heard(reader)) {
            let publication = &reply["push"]["pub"];
            let text = publication["data"].as_str().unwrap().as_bytes();
            let is_patch = publication["delta"] == json!(true);
            assert_eq!(is_patch, number > 0, "all but the first are patches");
            let whole = match &base {
                Some(base) => delta::apply(base, text, 1 << 20).unwrap(),
                None => text.to_vec(),
            };
            assert_eq!(
                serde_json::from_slice::<Value>(&whole).unwrap(),
                reading(number)
            );
            base = Some(whole);
        }
    }
}
