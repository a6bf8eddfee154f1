//! Clients that don't read.

use serde_json::json;
use tautline_hub::config::{ClientOptions, SlowConsumerOption};

use crate::support::{Setup, World};

fn world() -> World {
    let client = ClientOptions {
        queue_max_size: 2000,
        allow_anonymous_connect_without_token: true,
        ..ClientOptions::default()
    };
    let mut setup = Setup {
        client,
        ..Setup::default()
    };
    setup.channel.namespaces[0].slow_consumer = SlowConsumerOption::Disconnect;
    World::with(setup)
}

#[test]
fn a_slow_consumer_hurts_itself_only() {
    let mut world = world();
    let publisher = world.connect(0);
    let clients = [world.connect(0), world.connect(0), world.connect(1)];
    for client in clients {
        world.tell(client, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    }
    for client in clients {
        world.heard(client);
    }
    world.workers[0].out.stalled.insert(clients[0].id, 0);
    let mut sent = 0;
    while world.closed(clients[0]).is_none() {
        world.tell(
            publisher,
            json!({"id": 3, "publish": {"channel": "room:a", "data": sent}}),
        );
        sent += 1;
        assert!(sent < 100, "never closed");
    }
    assert_eq!(
        world.closed(clients[0]),
        Some((3008, false)),
        "without a flush"
    );
    let waiting = world.workers[0].out.stalled[&clients[0].id];
    assert!(
        (2001..2500).contains(&waiting),
        "{waiting} bytes were waiting"
    );
    for client in &clients[1..] {
        let heard = world.heard(*client);
        let publications = heard
            .iter()
            .filter(|message| message["push"]["pub"].is_object());
        assert_eq!(publications.count(), sent);
        assert!(
            heard
                .iter()
                .any(|message| message["push"]["leave"].is_object())
        );
    }
    assert_eq!(world.workers[0].hub.stats().clients, 2);
}

#[test]
fn replies_count_too_and_nothing_more_is_executed() {
    let mut world = world();
    let client = world.connect(0);
    world.workers[0].out.stalled.insert(client.id, 0);
    let frame: Vec<String> = (2..200)
        .map(|id| format!(r#"{{"id":{id},"subscribe":{{"channel":"c{id}"}}}}"#))
        .collect();
    world.send(client, &frame.join("\n"));
    assert_eq!(world.closed(client), Some((3008, false)));
    assert!(world.heard(client).len() < 100);
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
}
