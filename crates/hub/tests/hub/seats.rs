//! How many connections a user may have.

use serde_json::json;
use tautline_hub::config::PersonalChannelOptions;

use crate::support::{Setup, World, token};

#[test]
fn a_user_has_as_many_connections_as_it_may_on_all_workers_together() {
    let mut setup = Setup::default();
    setup.client.user_connection_limit = 2;
    setup.client.pong_timeout = std::time::Duration::ZERO;
    let mut world = World::with(setup);
    let tabs = [world.connect_as(0, "42"), world.connect_as(1, "42")];
    // Having done nothing for a while doesn't make it count less.
    let unsubscribe = json!({"id": 2, "unsubscribe": {"channel": "news"}});
    for tab in tabs {
        world.tell(tab, unsubscribe.clone());
    }
    world.seconds(120);
    for worker in [0, 1] {
        let client = world.open(worker);
        world.tell(
            client,
            json!({"id": 1, "connect": {"token": token("42", None)}}),
        );
        assert_eq!(world.closed(client), Some((3504, true)));
    }
    world.connect_as(0, "43");
    for _ in 0..5 {
        world.connect(0);
    }
    // Who goes makes room; who isn't let in takes none.
    let failing = world.open(0);
    world.drop_connection(tabs[0]);
    world.tell(
        failing,
        json!({"id": 1, "connect": {"token": token("42", Some(0))}}),
    );
    world.connect_as(1, "42");
    let client = world.open(1);
    world.tell(
        client,
        json!({"id": 1, "connect": {"token": token("42", None)}}),
    );
    assert_eq!(world.closed(client), Some((3504, true)));
    let refused = |worker: usize| {
        let counters = world.workers[worker].hub.counters();
        counters.over_limit.user_connections
    };
    assert_eq!([refused(0), refused(1)], [[1, 0], [2, 0]]);
}

/// Nobody has set anything.
#[test]
fn one_user_does_not_take_all_connections() {
    let mut setup = Setup::default();
    setup.client.ping_interval = std::time::Duration::ZERO;
    assert_eq!(setup.client.user_connection_limit, 10_000);
    let mut world = World::with(setup);
    let greedy: Vec<_> = (0..10_000)
        .map(|index| world.connect_as(index % 2, "42"))
        .collect();
    let connect = json!({"id": 1, "connect": {"token": token("42", None)}});
    let client = world.open(1);
    world.tell(client, connect.clone());
    assert_eq!(world.closed(client), Some((3504, true)));
    world.connect_as(1, "43");
    world.drop_connection(greedy[0]);
    world.connect_as(1, "42");
    let client = world.open(1);
    world.tell(client, connect);
    assert_eq!(world.closed(client), Some((3504, true)));
    // A worker that ends takes its connections along.
    drop(world.workers.remove(0));
    world.connect_as(0, "42");
}

#[test]
fn where_one_is_enough_the_newest_stays() {
    let mut setup = Setup::default();
    setup.client.subscribe_to_user_personal_channel = PersonalChannelOptions {
        enabled: true,
        single_connection: true,
        ..PersonalChannelOptions::default()
    };
    let mut world = World::with(setup);
    let first = world.connect_as(0, "42");
    let (other, nobodies) = (
        world.connect_as(0, "43"),
        [0, 1].map(|worker| world.connect(worker)),
    );
    let second = world.connect_as(1, "42");
    assert_eq!(world.closed(first), Some((3504, true)));
    // Two at the same time: the one that was later stays, whoever hears of it first.
    let both = [0, 1].map(|worker| world.open(worker));
    for client in both {
        let connect = json!({"id": 1, "connect": {"token": token("42", None)}});
        world.send_only(client, &connect.to_string());
    }
    world.settle();
    assert_eq!(world.closed(second), Some((3504, true)));
    assert_eq!(
        both.map(|client| world.closed(client)),
        [Some((3504, true)), None]
    );
    for client in [other, nobodies[0], nobodies[1]] {
        assert_eq!(world.closed(client), None);
    }
    // One that isn't let in ends nobody.
    let failing = world.open(0);
    world.tell(
        failing,
        json!({"id": 1, "connect": {"token": token("42", Some(0))}}),
    );
    assert_eq!(world.closed(both[1]), None);
}
