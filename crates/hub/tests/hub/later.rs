//! An engine that answers later: commands wait, in order and within bounds.

use serde_json::{Value, json};
use tautline_hub::config::ClientOptions;
use tautline_hub::engine::testkit::DelayOptions;

use crate::support::{Client, Setup, World};

fn world() -> World {
    World::with(Setup {
        delays: Some(DelayOptions::default()),
        ..Setup::default()
    })
}

/// Lets the engine do one thing, and delivers what comes of it.
fn step(world: &mut World) -> bool {
    let any = world.delayed.as_ref().unwrap().step(world.now);
    for worker in 0..world.workers.len() {
        world.deliver(worker);
    }
    any
}

fn ids(heard: &[Value]) -> Vec<u64> {
    heard
        .iter()
        .filter_map(|message| message["id"].as_u64())
        .collect()
}

#[test]
fn commands_are_answered_in_order_and_input_is_not_wanted_meanwhile() {
    let mut world = world();
    let client = world.connect(0);
    let hub = |world: &World| world.workers[0].hub.wants_input(client.id);
    assert!(hub(&world));
    world.send_only(
        client,
        "{\"id\":2,\"subscribe\":{\"channel\":\"room:a\"}}\n{\"id\":3,\"publish\":{\"channel\":\"room:a\",\"data\":1}}",
    );
    assert!(!hub(&world));
    world.send_only(client, r#"{"id":4,"presence":{"channel":"room:a"}}"#);
    world.send_only(client, r#"{"id":5,"presence_stats":{"channel":"room:a"}}"#);
    world.send_only(
        client,
        r#"{"id":6,"history":{"channel":"room:a","limit":5}}"#,
    );
    world.send_only(client, r#"{"id":7,"unsubscribe":{"channel":"room:a"}}"#);
    world.send_only(client, r#"{"id":8,"unsubscribe":{"channel":"room:a"}}"#);
    assert!(world.heard(client).is_empty() && world.workers[0].out.resumed.is_empty());
    world.settle();
    let heard = world.heard(client);
    assert_eq!(ids(&heard), [2, 3, 4, 5, 6, 7, 8]);
    let answer = |id: u64| {
        heard
            .iter()
            .find(|message| message["id"] == json!(id))
            .unwrap()
    };
    assert_eq!(
        answer(5)["presence_stats"],
        json!({"num_clients": 1, "num_users": 1})
    );
    assert_eq!(answer(6)["history"]["publications"][0]["data"], json!(1));
    assert!(hub(&world));
    assert_eq!(
        world.workers[0].out.resumed,
        [client.id],
        "resumed once, at the end"
    );
}

#[test]
fn what_waits_is_bounded() {
    let options = ClientOptions {
        command_queue_max_size: 2000,
        allow_anonymous_connect_without_token: true,
        ..ClientOptions::default()
    };
    let delays = Some(DelayOptions::default());
    let mut world = World::with(Setup {
        client: options,
        delays,
        ..Setup::default()
    });
    let client = world.connect(0);
    world.send_only(client, r#"{"id":2,"subscribe":{"channel":"room:a"}}"#);
    let frame = r#"{"id":3,"unsubscribe":{"channel":"room:a"}}"#;
    // Each counts a little more than it has.
    let fits = 2000 / (frame.len() + 64);
    for _ in 0..fits {
        world.send_only(client, frame);
    }
    assert_eq!(world.closed(client), None);
    world.send_only(client, frame);
    assert_eq!(world.closed(client), Some((3008, false)));
    world.settle();
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
    let watcher = world.connect(0);
    world.tell(
        watcher,
        json!({"id": 2, "subscribe": {"channel": "room:a"}}),
    );
    let heard = world.tell(
        watcher,
        json!({"id": 3, "presence_stats": {"channel": "room:a"}}),
    );
    assert_eq!(
        heard[0]["presence_stats"]["num_clients"],
        json!(1),
        "its presence is gone"
    );
}

#[test]
fn a_session_that_goes_away_meanwhile_leaves_nothing_behind() {
    for steps in 0..12 {
        let mut world = world();
        let (client, watcher) = (world.connect(0), world.connect(1));
        world.tell(
            watcher,
            json!({"id": 2, "subscribe": {"channel": "room:a"}}),
        );
        world.send_only(client, r#"{"id":2,"subscribe":{"channel":"room:a"}}"#);
        for _ in 0..steps {
            step(&mut world);
        }
        world.drop_connection(client);
        world.settle();
        let heard = world.tell(
            watcher,
            json!({"id": 3, "presence_stats": {"channel": "room:a"}}),
        );
        let answer = heard
            .iter()
            .find(|message| message["id"] == json!(3))
            .unwrap();
        assert_eq!(
            answer["presence_stats"]["num_clients"],
            json!(1),
            "after {steps} steps"
        );
        assert_eq!(world.workers[0].hub.stats().channels, 0);
        let joins = heard
            .iter()
            .filter(|message| message["push"]["join"].is_object())
            .count();
        let leaves = heard
            .iter()
            .filter(|message| message["push"]["leave"].is_object())
            .count();
        // The watcher's own join was heard before.
        assert_eq!(joins, leaves, "after {steps} steps: {heard:?}");
    }
}

#[test]
fn what_is_published_meanwhile_is_neither_lost_nor_doubled() {
    for seed in 0..300 {
        let delays = Some(DelayOptions::default());
        let mut world = World::with(Setup {
            delays,
            seed,
            ..Setup::default()
        });
        let publisher = world.connect(0);
        let watcher = world.connect(1);
        world.tell(
            watcher,
            json!({"id": 2, "subscribe": {"channel": "room:a"}}),
        );
        for number in 1..=3 {
            world.tell(
                publisher,
                json!({"id": 3, "publish": {"channel": "room:a", "data": number}}),
            );
        }
        let client = world.connect(1);
        let recover = seed % 2 == 0;
        let request = json!({"channel": "room:a", "recover": recover, "offset": 1});
        world.send_only(client, &json!({"id": 2, "subscribe": request}).to_string());
        for number in 4..=7 {
            let frame = json!({"id": 3, "publish": {"channel": "room:a", "data": number}});
            world.send_only(publisher, &frame.to_string());
            for _ in 0..seed % 7 {
                step(&mut world);
            }
        }
        world.settle();
        let heard = world.heard(client);
        let result = &heard[0]["subscribe"];
        let from = result["offset"].as_u64().unwrap();
        let recovered = result["publications"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let pushed = heard
            .iter()
            .filter_map(|message| message["push"]["pub"]["offset"].as_u64());
        let offsets: Vec<u64> = recovered
            .iter()
            .map(|publication| publication["offset"].as_u64().unwrap())
            .chain(pushed)
            .collect();
        assert_eq!(
            offsets,
            (from + 1..=7).collect::<Vec<_>>(),
            "seed {seed}: {heard:?}"
        );
        assert_eq!(result["recovered"] == json!(true), recover, "seed {seed}");
    }
}

#[test]
fn failures_are_temporary_errors_and_leave_nothing_behind() {
    let delays = Some(DelayOptions {
        at_once: 0,
        failures: 100,
    });
    let mut world = World::with(Setup {
        delays,
        ..Setup::default()
    });
    let client: Client = world.connect(0);
    let error = json!({"code": 100, "message": "internal server error", "temporary": true});
    for command in ["subscribe", "publish"] {
        let request = json!({"channel": "room:a", "data": 1});
        let heard = world.tell(client, json!({"id": 2, command: request}));
        assert_eq!(heard, [json!({"id": 2, "error": error})]);
    }
    let stats = world.workers[0].hub.stats();
    assert_eq!((stats.channels, stats.subscriptions), (0, 0));
    assert_eq!(world.closed(client), None);
}

#[test]
fn nobody_is_cut_off_for_a_pong_that_we_do_not_read() {
    let mut world = world();
    let client = world.connect(0);
    world.seconds(26);
    assert_eq!(world.heard(client), [json!({})]);
    world.send_only(
        client,
        r#"{"id":2,"publish":{"channel":"room:a","data":1}}"#,
    );
    assert!(!world.workers[0].hub.wants_input(client.id));
    // The engine takes its time; the pong stays in the socket.
    for _ in 0..300 {
        world.now.monotonic += std::time::Duration::from_millis(100);
        let now = world.now;
        let worker = &mut world.workers[0];
        worker.hub.on_deadline(now, &mut worker.out);
    }
    assert_eq!(world.closed(client), None);
    world.settle();
    assert_eq!(ids(&world.heard(client)), [2]);
    world.send(client, "{}");
    assert_eq!(world.closed(client), None);
}
