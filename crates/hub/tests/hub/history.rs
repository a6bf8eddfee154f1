//! The history command.

use serde_json::{Value, json};
use tautline_hub::config::ClientOptions;

use crate::support::{Client, Setup, World};

fn subscribed(world: &mut World, publications: usize) -> Client {
    let client = world.connect(0);
    world.tell(client, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    for number in 1..=publications {
        world.tell(
            client,
            json!({"id": 3, "publish": {"channel": "room:a", "data": number}}),
        );
    }
    world.heard(client);
    client
}

fn history(world: &mut World, client: Client, mut request: Value) -> Value {
    request["channel"] = json!("room:a");
    world
        .tell(client, json!({"id": 5, "history": request}))
        .remove(0)
}

fn offsets(answer: &Value) -> Vec<u64> {
    let publications = answer["history"]["publications"].as_array().unwrap();
    publications
        .iter()
        .map(|publication| publication["offset"].as_u64().unwrap())
        .collect()
}

#[test]
fn pages_lead_through_the_stream_both_ways() {
    let mut world = World::new();
    let client = subscribed(&mut world, 12);
    let top = history(&mut world, client, json!({}));
    let epoch = top["history"]["epoch"].clone();
    assert_eq!(
        top["history"],
        json!({"publications": [], "epoch": epoch, "offset": 12})
    );
    assert_eq!(epoch.as_str().unwrap().len(), 8);

    for (request, expected) in [
        (json!({"limit": 2}), vec![3, 4]),
        (
            json!({"limit": 3, "since": {"offset": 10, "epoch": epoch}}),
            vec![11, 12],
        ),
        (json!({"limit": 3, "since": {"offset": 10}}), vec![11, 12]),
        (json!({"limit": -1}), (3..=12).collect()),
        (json!({"limit": 2, "reverse": true}), vec![12, 11]),
        (
            json!({"limit": 2, "reverse": true, "since": {"offset": 11, "epoch": epoch}}),
            vec![10, 9],
        ),
        (json!({"limit": 2, "since": {"offset": 0}}), vec![3, 4]),
        (json!({"limit": 2, "since": {"offset": u64::MAX}}), vec![]),
    ] {
        let answer = history(&mut world, client, request.clone());
        assert_eq!(offsets(&answer), expected, "{request}");
        assert_eq!(answer["history"]["offset"], json!(12));
    }
}

#[test]
fn there_is_a_largest_page() {
    let client = ClientOptions {
        history_max_publication_limit: 3,
        allow_anonymous_connect_without_token: true,
        ..ClientOptions::default()
    };
    let mut world = World::with(Setup {
        client,
        ..Setup::default()
    });
    let client = subscribed(&mut world, 5);
    for limit in [-1, i32::MIN, 4, i32::MAX] {
        assert_eq!(
            offsets(&history(&mut world, client, json!({"limit": limit}))),
            [1, 2, 3]
        );
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    let mut world = World::new();
    let outsider = world.connect(0);
    for (channel, code) in [
        ("room:a", 103),
        ("news", 108),
        ("nope:a", 102),
        ("caf\u{e9}", 107),
    ] {
        let heard = world.tell(outsider, json!({"id": 3, "history": {"channel": channel}}));
        assert_eq!(heard[0]["error"]["code"], json!(code), "{channel}");
    }
    let client = subscribed(&mut world, 3);
    let answer = history(
        &mut world,
        client,
        json!({"since": {"offset": 1, "epoch": "other"}}),
    );
    assert_eq!(
        answer["error"],
        json!({"code": 112, "message": "unrecoverable position"})
    );
    let answer = history(
        &mut world,
        client,
        json!({"reverse": true, "since": {"offset": 0}}),
    );
    assert_eq!(answer["error"]["code"], json!(107));
}

#[test]
fn history_is_as_long_and_as_old_as_its_namespace_says() {
    let mut setup = Setup::default();
    setup.client.ping_interval = std::time::Duration::ZERO;
    let room = &mut setup.channel.namespaces[0];
    (room.history_size, room.history_ttl) = (2, std::time::Duration::from_secs(7));
    let mut world = World::with(setup);
    let client = subscribed(&mut world, 3);
    let kept = |world: &mut World| offsets(&history(world, client, json!({"limit": -1})));
    assert_eq!(kept(&mut world), [2, 3]);
    world.seconds(6);
    assert_eq!(kept(&mut world), [2, 3]);
    world.seconds(2);
    assert_eq!(kept(&mut world), [0_u64; 0]);
}
