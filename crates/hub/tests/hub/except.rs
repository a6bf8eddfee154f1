//! Publishers that don't get their own publications.

use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::ApiPublish;
use tautline_hub::config::{DeltaType, RecoveryMode, SlowConsumerOption};
use tautline_hub::engine::testkit::DelayOptions;

use crate::support::{Client, Setup, World};

fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.client.ping_interval = Duration::ZERO;
    setup.channel.without_namespace.exclude_publisher = true;
    let room = &mut setup.channel.namespaces[0];
    room.join_leave = false;
    room.force_push_join_leave = false;
    room.exclude_publisher = true;
    room.history_size = 1000;
    room.history_ttl = Duration::from_secs(3600);
    let mut cache = room.clone();
    cache.name = "cache".into();
    cache.force_recovery_mode = RecoveryMode::Cache;
    let mut latest = room.clone();
    latest.name = "latest".into();
    latest.slow_consumer = SlowConsumerOption::Latest;
    let mut delta = room.clone();
    delta.name = "delta".into();
    delta.allowed_delta_types = vec![DeltaType::Fossil];
    delta.delta_publish = true;
    setup.channel.namespaces.extend([cache, latest, delta]);
    setup
}

fn subscribe(world: &mut World, client: Client, mut request: Value) -> Vec<u64> {
    if request["channel"].is_null() {
        request["channel"] = json!("room:a");
    }
    let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
    let answer = heard.iter().find(|message| message["id"] == json!(2));
    let result = &answer.unwrap()["subscribe"];
    assert!(result.is_object(), "{heard:?}");
    let recovered = result["publications"].as_array();
    let recovered = recovered.into_iter().flatten();
    let numbers = recovered.map(|publication| publication["data"].as_u64().unwrap());
    numbers.chain(numbers_of(&heard)).collect()
}

fn publish(world: &mut World, client: Client, channel: &str, number: u64) {
    let request = json!({"channel": channel, "data": number});
    world.send(client, &json!({"id": 3, "publish": request}).to_string());
}

fn numbers_of(heard: &[Value]) -> Vec<u64> {
    let pushes = heard.iter().map(|message| &message["push"]["pub"]["data"]);
    pushes.filter_map(Value::as_u64).collect()
}

fn numbers(world: &mut World, client: Client) -> Vec<u64> {
    numbers_of(&world.heard(client))
}

#[test]
fn a_publisher_does_not_get_its_own_and_all_others_do() {
    for channel in ["news", "room:a"] {
        let mut world = World::with(setup());
        let (one, two, far) = (world.connect(0), world.connect(0), world.connect(1));
        for client in [one, two, far] {
            subscribe(&mut world, client, json!({"channel": channel}));
        }
        // In one frame, so that they could go out together.
        let commands = [(3, 1), (4, 2)].map(|(id, number)| {
            json!({"id": id, "publish": {"channel": channel, "data": number}}).to_string()
        });
        world.send(one, &commands.join("\n"));
        publish(&mut world, two, channel, 3);
        publish(&mut world, far, channel, 4);
        assert_eq!(numbers(&mut world, one), [3, 4], "{channel}");
        assert_eq!(numbers(&mut world, two), [1, 2, 4], "{channel}");
        assert_eq!(numbers(&mut world, far), [1, 2, 3], "{channel}");
    }
}

#[test]
fn no_gap_is_seen_and_no_position_is_lost() {
    for delays in [None, Some(DelayOptions::default())] {
        let mut world = World::with(Setup { delays, ..setup() });
        let (one, two) = (world.connect(0), world.connect(1));
        for client in [one, two] {
            subscribe(&mut world, client, json!({}));
        }
        for number in 1..=6 {
            publish(
                &mut world,
                [one, two][number as usize % 2],
                "room:a",
                number,
            );
        }
        // The position is compared with the engine's: nobody has missed anything.
        world.seconds(200);
        let heard = world.heard(one);
        assert_eq!(numbers_of(&heard), [1, 3, 5]);
        assert!(
            heard
                .iter()
                .all(|message| message["push"]["unsubscribe"].is_null())
        );
        // Subscribing again on the same connection brings none of them back.
        world.tell(one, json!({"id": 5, "unsubscribe": {"channel": "room:a"}}));
        publish(&mut world, one, "room:a", 7);
        publish(&mut world, two, "room:a", 8);
        let epoch = "";
        let again = json!({"recover": true, "offset": 5, "epoch": epoch});
        assert_eq!(subscribe(&mut world, one, again), [8]);
        publish(&mut world, one, "room:a", 9);
        publish(&mut world, two, "room:a", 10);
        assert_eq!(numbers(&mut world, one), [10]);
        // Another connection can't know what was its own.
        let back = world.connect(0);
        let request = json!({"recover": true, "offset": 5, "epoch": epoch});
        assert_eq!(subscribe(&mut world, back, request), [6, 7, 8, 9, 10]);
    }
}

#[test]
fn a_publisher_that_is_behind_reads_on_without_its_own() {
    let mut setup = setup();
    setup.client.recovery_max_publication_limit = 2;
    let mut world = World::with(setup);
    let (one, two) = (world.connect(0), world.connect(1));
    for number in 1..=20 {
        publish(
            &mut world,
            [one, two][number as usize % 2],
            "room:a",
            number,
        );
    }
    let request = json!({"recover": true, "offset": 0, "epoch": ""});
    let expected: Vec<u64> = (1..=20).step_by(2).collect();
    assert_eq!(subscribe(&mut world, one, request), expected);
}

#[test]
fn the_newest_is_the_newest_whoever_has_published_it() {
    let mut world = World::with(setup());
    let one = world.connect(0);
    publish(&mut world, one, "cache:a", 1);
    let request = json!({"channel": "cache:a", "recover": true});
    assert_eq!(subscribe(&mut world, one, request), [1]);
}

#[test]
fn what_is_held_for_a_slow_publisher_is_not_its_own() {
    let mut world = World::with(setup());
    let (one, two) = (world.connect(0), world.connect(1));
    subscribe(&mut world, one, json!({"channel": "latest:a"}));
    let limit = 1024 * 1024;
    world.workers[0].out.stalled.insert(one.id, limit / 2);
    publish(&mut world, two, "latest:a", 1);
    publish(&mut world, two, "latest:a", 2);
    publish(&mut world, one, "latest:a", 3);
    world.workers[0].out.stalled.remove(&one.id);
    world.settle();
    let heard = numbers(&mut world, one);
    assert_eq!(heard.last(), Some(&2), "{heard:?}");
}

#[test]
fn patches_are_made_against_what_a_publisher_has() {
    let mut world = World::with(setup());
    let (one, two) = (world.connect(0), world.connect(1));
    for client in [one, two] {
        subscribe(
            &mut world,
            client,
            json!({"channel": "delta:a", "delta": "fossil"}),
        );
    }
    let text = |number: u64| format!("a text of which patches can be made, number {number}");
    for (publisher, number) in [(two, 1), (two, 2), (one, 3), (two, 4), (two, 5)] {
        let request = json!({"channel": "delta:a", "data": text(number)});
        world.send(publisher, &json!({"id": 3, "publish": request}).to_string());
    }
    let mut base = Vec::new();
    let mut whole = 0;
    let mut read = Vec::new();
    for message in world.heard(one) {
        let publication = &message["push"]["pub"];
        let Some(data) = publication["data"].as_str() else {
            continue;
        };
        base = if publication["delta"] == json!(true) {
            tautline_protocol::delta::apply(&base, data.as_bytes(), 10_000).unwrap()
        } else {
            whole += 1;
            data.as_bytes().to_vec()
        };
        read.push(serde_json::from_slice::<String>(&base).unwrap());
    }
    assert_eq!(read, [1, 2, 4, 5].map(text));
    assert_eq!(whole, 2, "the first, and the one behind its own");
}

#[test]
fn the_api_can_publish_for_a_client() {
    let mut world = World::with(Setup::default());
    let (one, two) = (world.connect(0), world.connect(1));
    let heard = world.tell(one, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    let id = heard
        .iter()
        .find_map(|message| message["push"]["join"]["info"]["client"].as_str());
    let id = id.unwrap().to_owned();
    world.tell(two, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    let publish = |exclude_client: String| ApiPublish {
        channel: "room:a".into(),
        data: "7".into(),
        exclude_client,
        ..ApiPublish::default()
    };
    for (exclude_client, is_fine) in [
        (id, true),
        ("x".repeat(255), true),
        ("x".repeat(256), false),
    ] {
        let now = world.now;
        let hub = &mut world.workers[1].hub;
        hub.api_publish(now, publish(exclude_client), move |result| {
            assert_eq!(result.is_ok(), is_fine);
        });
    }
    world.settle();
    assert_eq!(numbers(&mut world, one), [7]);
    assert_eq!(numbers(&mut world, two), [7, 7]);
}
