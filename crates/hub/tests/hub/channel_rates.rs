//! What is done too often in a channel, by one client or by all of them, and how many it may reach.

use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::Operation;
use tautline_hub::config::NamespaceOptions;

use super::rates::{codes, publish, rate, setup};
use crate::support::{Client, Setup, World};

/// A namespace with rates; everybody may do everything in it.
fn rated(change: impl FnOnce(&mut NamespaceOptions)) -> Setup {
    let mut setup = setup();
    let room = setup.channel.namespaces.iter();
    let room = room.clone().find(|options| options.name == "room").unwrap();
    let mut rated = NamespaceOptions {
        name: "rated".into(),
        join_leave: false,
        force_push_join_leave: false,
        allow_presence_for_client: true,
        allow_history_for_client: true,
        ..room.clone()
    };
    change(&mut rated);
    setup.channel.namespaces.push(rated);
    setup
}

fn in_channel(command: &str, channel: &str) -> Value {
    json!({command: {"channel": channel, "data": 1}})
}

#[test]
fn a_namespace_has_rates_for_each_connection() {
    let mut world = World::with(rated(|options| {
        options.publish_rate_for_client = rate("2/s");
        options.presence_rate_for_client = rate("1/s");
        options.history_rate_for_client = rate("1/s");
    }));
    let (one, other) = (world.connect(0), world.connect(0));
    assert_eq!(
        codes(&mut world, one, 1, &in_channel("publish", "rated:a")),
        [0]
    );
    assert_eq!(
        codes(&mut world, one, 2, &in_channel("publish", "rated:b")),
        [0, 111]
    );
    assert_eq!(
        codes(&mut world, one, 3, &in_channel("publish", "room:a")),
        [0; 3],
        "another"
    );
    assert_eq!(
        codes(&mut world, other, 2, &in_channel("publish", "rated:a")),
        [0, 0]
    );
    assert_eq!(
        codes(&mut world, one, 1, &in_channel("presence", "rated:a")),
        [0]
    );
    let stats = in_channel("presence_stats", "rated:a");
    assert_eq!(
        codes(&mut world, one, 1, &stats),
        [111],
        "they are of a kind"
    );
    assert_eq!(
        codes(&mut world, one, 2, &in_channel("history", "rated:a")),
        [0, 111]
    );
    let over = world.workers[0].hub.counters().over_limit;
    for operation in Operation::ALL {
        let is_over = matches!(
            operation,
            Operation::Publish | Operation::PresenceStats | Operation::History
        );
        assert_eq!(
            over.namespace[operation.index()],
            u64::from(is_over),
            "{}",
            operation.name()
        );
    }
    assert_eq!(over.channel, [0; Operation::COUNT]);
    assert_eq!(over.client_command, [0; Operation::COUNT]);
    world.pass(Duration::from_millis(500));
    assert_eq!(
        codes(&mut world, one, 2, &in_channel("publish", "rated:a")),
        [0, 111]
    );
}

#[test]
fn each_namespace_has_its_own() {
    let mut setup = rated(|options| options.publish_rate_for_client = rate("2/s"));
    let mut other = setup.channel.namespaces.last().unwrap().clone();
    other.name = "other".into();
    setup.channel.namespaces.push(other);
    let mut world = World::with(setup);
    let client = world.connect(0);
    for channel in ["rated:a", "other:a"] {
        let publish = in_channel("publish", channel);
        assert_eq!(
            codes(&mut world, client, 3, &publish),
            [0, 0, 111],
            "{channel}"
        );
    }
}

#[test]
fn a_channel_has_rates_for_all_together_whatever_their_worker() {
    let mut world = World::with(rated(|options| {
        options.publish_rate_for_channel = rate("3/s");
        options.subscribe_rate_for_channel = rate("1/s");
    }));
    let (one, other) = (world.connect(0), world.connect(1));
    assert_eq!(
        codes(&mut world, one, 2, &in_channel("publish", "rated:a")),
        [0, 0]
    );
    assert_eq!(
        codes(&mut world, other, 2, &in_channel("publish", "rated:a")),
        [0, 111]
    );
    assert_eq!(
        codes(&mut world, other, 3, &in_channel("publish", "rated:b")),
        [0; 3]
    );
    assert_eq!(
        codes(&mut world, one, 1, &in_channel("subscribe", "rated:a")),
        [0]
    );
    assert_eq!(
        codes(&mut world, other, 1, &in_channel("subscribe", "rated:a")),
        [111]
    );
    world.seconds(1);
    assert_eq!(
        codes(&mut world, other, 1, &in_channel("subscribe", "rated:a")),
        [0]
    );
    let over = world.workers[1].hub.counters().over_limit;
    assert_eq!(over.channel[Operation::Publish.index()], 1);
    assert_eq!(over.channel[Operation::Subscribe.index()], 1);
}

#[test]
fn who_may_not_do_it_takes_nothing_from_those_who_may() {
    let mut world = World::with(rated(|options| {
        options.publish_rate_for_channel = rate("1/s");
        options.allow_publish_for_anonymous = false;
    }));
    let (stranger, user) = (world.connect(0), world.connect_as(0, "42"));
    assert_eq!(
        codes(&mut world, stranger, 9, &in_channel("publish", "rated:a")),
        [103; 9]
    );
    assert_eq!(
        codes(&mut world, user, 2, &in_channel("publish", "rated:a")),
        [0, 111]
    );
}

#[test]
fn who_comes_back_subscribes_to_everything_at_once() {
    let mut setup = rated(|options| options.subscribe_rate_for_client = rate("1/s"));
    setup.client.channel_limit = 5;
    let mut world = World::with(setup);
    let client = world.connect(0);
    for number in 0..5 {
        let subscribe = in_channel("subscribe", &format!("rated:{number}"));
        assert_eq!(codes(&mut world, client, 1, &subscribe), [0], "{number}");
    }
    codes(&mut world, client, 1, &in_channel("unsubscribe", "rated:0"));
    let again = in_channel("subscribe", "rated:0");
    assert_eq!(codes(&mut world, client, 2, &again), [0, 105]);
    codes(&mut world, client, 1, &in_channel("unsubscribe", "rated:0"));
    assert_eq!(codes(&mut world, client, 1, &again), [111]);
}

#[test]
fn rates_of_a_namespace_can_be_tried_out() {
    let mut world = World::with(rated(|options| {
        options.publish_rate_for_client = rate("2/s");
        options.publish_rate_for_channel = rate("1/s");
        options.rates_dry_run = true;
    }));
    let client = world.connect(0);
    assert_eq!(
        codes(&mut world, client, 4, &in_channel("publish", "rated:a")),
        [0; 4]
    );
    let over = world.workers[0].hub.counters().over_limit;
    assert_eq!(over.namespace[Operation::Publish.index()], 2);
    assert_eq!(over.channel[Operation::Publish.index()], 3);
}

#[test]
fn so_it_has_for_what_is_only_read() {
    let mut world = World::with(rated(|options| {
        options.presence_rate_for_channel = rate("1/s");
        options.history_rate_for_channel = rate("1/s");
    }));
    let (one, other) = (world.connect_as(0, "1"), world.connect_as(1, "2"));
    for command in ["presence", "history"] {
        let command = json!({command: {"channel": "rated:a"}});
        assert_eq!(codes(&mut world, one, 1, &command), [0], "{command}");
        assert_eq!(codes(&mut world, other, 1, &command), [111], "{command}");
    }
    world.seconds(1);
    for command in ["presence", "history"] {
        let command = json!({command: {"channel": "rated:a"}});
        assert_eq!(codes(&mut world, other, 1, &command), [0], "{command}");
    }
}

#[test]
fn a_channel_has_so_many_subscribers_of_all_workers() {
    for dry_run in [false, true] {
        let mut setup = Setup {
            dry_run,
            ..Setup::default()
        };
        setup.channel.without_namespace.max_subscribers = 2;
        let mut world = World::with(setup);
        let subscribe = |world: &mut World, client: Client, channel: &str| {
            let heard = world.tell(client, json!({"id": 2, "subscribe": {"channel": channel}}));
            heard.into_iter().find(|reply| reply["id"] == 2).unwrap()["error"].clone()
        };
        let clients = [0, 1, 0, 1].map(|worker| world.connect(worker));
        for client in &clients[..2] {
            assert_eq!(subscribe(&mut world, *client, "news"), Value::Null);
        }
        let error = subscribe(&mut world, clients[2], "news");
        let over = world.workers[0].hub.counters().over_limit.subscribers;
        if dry_run {
            assert_eq!((error, over), (Value::Null, [0, 1]));
            continue;
        }
        assert_eq!(over, [1, 0]);
        assert_eq!(error["code"], 106);
        let text = error["message"].as_str().unwrap();
        assert!(
            text.starts_with("limit exceeded: the channel has 2 subscribers"),
            "{text}"
        );
        assert_eq!(subscribe(&mut world, clients[2], "other"), Value::Null);
        assert_eq!(
            subscribe(&mut world, clients[2], "room:a"),
            Value::Null,
            "no limit"
        );
        // One leaves, and one goes.
        world.tell(
            clients[0],
            json!({"id": 3, "unsubscribe": {"channel": "news"}}),
        );
        assert_eq!(subscribe(&mut world, clients[3], "news"), Value::Null);
        assert_eq!(subscribe(&mut world, clients[0], "news")["code"], 106);
        world.drop_connection(clients[1]);
        assert_eq!(subscribe(&mut world, clients[0], "news"), Value::Null);
    }
}

/// What the options are when nobody says anything.
#[test]
fn channels_have_limits_where_nobody_has_set_any() {
    let options = NamespaceOptions::default();
    assert_eq!(options.publish_rate_for_channel, rate("10000/s"));
    assert_eq!(options.client_deliveries_per_second, 5_000_000);
    assert_eq!(options.max_subscribers, 250_000);
    // Connections enough that none of them meets its own limits, in one channel.
    let mut world = World::with(setup());
    let crowd: Vec<_> = (0..12).map(|index| world.connect(index % 2)).collect();
    let mut answers = Vec::new();
    for client in &crowd {
        answers.extend(codes(&mut world, *client, 1000, &publish()));
    }
    assert!(answers[..10_000].iter().all(|code| *code == 0));
    assert!(answers[10_000..].iter().all(|code| *code == 111));
    assert_eq!(
        codes(
            &mut world,
            crowd[0],
            1,
            &json!({"publish": {"channel": "other", "data": 1}})
        ),
        [0]
    );
    let over = |worker: usize| world.workers[worker].hub.counters().over_limit;
    let refused = [0, 1].map(|worker| over(worker).channel[Operation::Publish.index()]);
    assert_eq!(refused, [1000, 1000]);
}

/// A publication to many costs more than one to few, whichever worker they are on and whoever has subscribed them.
#[test]
fn what_clients_publish_may_come_to_so_many_deliveries() {
    for dry_run in [false, true] {
        let mut world = World::with(rated(|options| {
            options.client_deliveries_per_second = 10;
            options.rates_dry_run = dry_run;
        }));
        let publisher = world.connect(0);
        let crowd: Vec<_> = (0..4).map(|index| world.connect(index % 2)).collect();
        for client in &crowd {
            codes(&mut world, *client, 1, &in_channel("subscribe", "rated:a"));
        }
        let one = in_channel("publish", "rated:a");
        // Two seconds' worth at once, four for each.
        let refused = if dry_run { 0 } else { 111 };
        assert_eq!(
            codes(&mut world, publisher, 7, &one),
            [0, 0, 0, 0, 0, refused, refused],
        );
        let over = world.workers[0].hub.counters().over_limit.deliveries;
        if dry_run {
            assert_eq!(over, [0, 2]);
            continue;
        }
        assert_eq!(over, [2, 0]);
        assert_eq!(
            codes(&mut world, publisher, 9, &in_channel("publish", "rated:b")),
            [0; 9],
            "nobody is there"
        );
        world.pass(Duration::from_millis(400));
        assert_eq!(codes(&mut world, publisher, 2, &one), [0, 111]);
        // With half of them gone it comes to half as many.
        for client in &crowd[..2] {
            world.drop_connection(*client);
        }
        world.pass(Duration::from_millis(400));
        assert_eq!(codes(&mut world, publisher, 3, &one), [0, 0, 111]);
        let heard = world.tell(publisher, {
            let mut command = one.clone();
            command["id"] = json!(3);
            command
        });
        let text = heard[0]["error"]["message"].as_str().unwrap();
        assert!(
            text.contains("client_deliveries_per_second allows (10)"),
            "{text}"
        );
    }
}

/// More subscribers than may be reached in all the time that counts.
#[test]
fn a_crowd_of_any_size_is_told_something_now_and_then() {
    let mut world = World::with(rated(|options| options.client_deliveries_per_second = 1));
    let publisher = world.connect(0);
    for index in 0..4 {
        let client = world.connect(index % 2);
        codes(&mut world, client, 1, &in_channel("subscribe", "rated:a"));
    }
    let one = in_channel("publish", "rated:a");
    assert_eq!(codes(&mut world, publisher, 2, &one), [0, 111]);
    world.seconds(3);
    assert_eq!(codes(&mut world, publisher, 1, &one), [111]);
    world.seconds(1);
    assert_eq!(codes(&mut world, publisher, 2, &one), [0, 111]);
}
