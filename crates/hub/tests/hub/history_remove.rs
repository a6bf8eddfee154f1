//! Removing what a channel keeps, and what that is to those who are subscribed, come back, or lag.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::ApiPublish;
use tautline_hub::config::RecoveryMode;
use tautline_hub::engine::testkit::DelayOptions;

use crate::support::{Client, Setup, World};

fn publish(world: &mut World, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let request = ApiPublish {
            channel: "room:a".into(),
            data: number.to_string().into(),
            ..ApiPublish::default()
        };
        let now = world.now;
        let hub = &mut world.workers[0].hub;
        hub.api_publish(now, request, |result| assert!(result.is_ok()));
        world.settle();
    }
}

/// The code of the error, 0 for none.
fn remove(world: &mut World, channel: &str) -> u32 {
    let code = Rc::new(Cell::new(None));
    let told = code.clone();
    let now = world.now;
    let hub = &mut world.workers[0].hub;
    hub.api_history_remove(now, channel, move |result| {
        told.set(Some(result.err().map_or(0, |error| error.code)));
    });
    world.settle();
    code.get().expect("answered")
}

fn subscribe(world: &mut World, client: Client, request: Value) -> Value {
    world
        .tell(client, json!({"id": 2, "subscribe": request}))
        .remove(0)["subscribe"]
        .clone()
}

fn numbers(heard: &[Value]) -> Vec<u64> {
    let pushes = heard.iter();
    pushes
        .filter_map(|message| message["push"]["pub"]["data"].as_u64())
        .collect()
}

fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.client.ping_interval = Duration::ZERO;
    let room = &mut setup.channel.namespaces[0];
    (room.join_leave, room.force_push_join_leave) = (false, false);
    room.history_size = 100_000;
    setup
}

#[test]
fn who_is_at_the_head_notices_nothing() {
    for delays in [None, Some(DelayOptions::default())] {
        let mut world = World::with(Setup { delays, ..setup() });
        let client = world.connect(1);
        subscribe(&mut world, client, json!({"channel": "room:a"}));
        publish(&mut world, 1..=3);
        assert_eq!(remove(&mut world, "room:a"), 0);
        publish(&mut world, 4..=5);
        // Beyond a check of the position.
        world.seconds(50);
        assert_eq!(numbers(&world.heard(client)), [1, 2, 3, 4, 5]);
        let read = json!({"id": 5, "history": {"channel": "room:a", "limit": 10}});
        let page = world.tell(client, read).remove(0)["history"].clone();
        assert_eq!(page["offset"], json!(5), "offsets go on");
        assert_eq!(page["publications"][0]["offset"], json!(4));
    }
}

#[test]
fn who_comes_back_is_told_what_can_not_be_recovered() {
    let mut world = World::with(setup());
    let client = world.connect(1);
    let first = subscribe(&mut world, client, json!({"channel": "room:a"}));
    publish(&mut world, 1..=3);
    remove(&mut world, "room:a");
    publish(&mut world, 4..=4);
    let since = |offset| json!({"channel": "room:a", "recover": true, "offset": offset, "epoch": first["epoch"]});
    for (offset, recovered) in [(2, Value::Null), (3, json!(true)), (4, json!(true))] {
        let client = world.connect(0);
        let result = subscribe(&mut world, client, since(offset));
        assert_eq!(result["recovered"], recovered, "from {offset}");
        assert_eq!(result["epoch"], first["epoch"], "the epoch goes on");
    }
    let client = world.connect(0);
    let mut request = since(2);
    request["flag"] = json!(2);
    let refused = world.tell(client, json!({"id": 2, "subscribe": request}));
    assert_eq!(refused[0]["error"]["code"], json!(112));
}

#[test]
fn who_lags_gets_what_was_read_already_and_is_then_told_to_come_again() {
    let mut setup = setup();
    setup.client.queue_max_size = 64 * 1024;
    let mut world = World::with(setup);
    let parked = world.connect(0);
    subscribe(&mut world, parked, json!({"channel": "room:a"}));
    let out = &mut world.workers[0].out;
    out.stalled.insert(parked.id, 0);
    publish(&mut world, 1..=5000);
    remove(&mut world, "room:a");
    publish(&mut world, 5001..=5003);
    world.workers[0].out.stalled.remove(&parked.id);
    world.settle();
    let mut heard = world.heard(parked);
    let last = heard.pop().unwrap();
    assert_eq!(last["push"]["unsubscribe"]["code"], json!(2500));
    let got = numbers(&heard);
    let expected: Vec<u64> = (1..=got.len() as u64).collect();
    assert_eq!(got, expected, "no hole before that");
    assert!(got.len() < 5000);
    assert_eq!(world.workers[0].hub.counters().lost, 1);
    let request = json!({"channel": "room:a", "recover": true, "offset": got.len()});
    let again = subscribe(&mut world, parked, request);
    assert!(again["recovered"].is_null());
    assert_eq!(again["offset"], json!(5003));
}

#[test]
fn a_cache_that_is_emptied_recovers_nothing() {
    let mut setup = setup();
    setup.channel.namespaces[0].force_recovery_mode = RecoveryMode::Cache;
    let mut world = World::with(setup);
    publish(&mut world, 1..=2);
    remove(&mut world, "room:a");
    let recover = json!({"channel": "room:a", "recover": true});
    let client = world.connect(0);
    let result = subscribe(&mut world, client, recover.clone());
    assert!(result["recovered"].is_null() && result["publications"].is_null());
    assert_eq!(result["was_recovering"], json!(true));
    publish(&mut world, 3..=3);
    let client = world.connect(0);
    let result = subscribe(&mut world, client, recover);
    assert_eq!(result["publications"][0]["data"], json!(3));
}

#[test]
fn removing_has_its_errors() {
    let mut world = World::new();
    for (channel, code) in [
        ("room:unused", 0),
        ("news", 108),
        ("nope:a", 102),
        ("", 107),
    ] {
        assert_eq!(remove(&mut world, channel), code, "{channel}");
    }
}
