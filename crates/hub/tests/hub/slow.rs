//! Clients that don't read.

use serde_json::json;
use tautline_hub::config::{ClientOptions, SlowConsumerOption};

use crate::support::{Client, Setup, Worker, World};

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

/// Of one that is only tried out, up to 16 times as much, and counted once until all is taken.
#[test]
fn how_much_may_wait_can_be_tried_out() {
    let client = ClientOptions {
        queue_max_size: 2000,
        allow_anonymous_connect_without_token: true,
        ..ClientOptions::default()
    };
    let mut setup = Setup {
        client,
        dry_run: true,
        ..Setup::default()
    };
    setup.channel.namespaces[0].slow_consumer = SlowConsumerOption::Disconnect;
    let mut world = World::with(setup);
    let (publisher, reader) = (world.connect(0), world.connect(0));
    world.tell(reader, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    world.workers[0].out.stalled.insert(reader.id, 0);
    let over = |world: &World| world.workers[0].hub.counters().over_limit.queue;
    let publish = json!({"id": 3, "publish": {"channel": "room:a", "data": "x".repeat(500)}});
    while waiting(&world, reader) < 20_000 {
        world.tell(publisher, publish.clone());
        assert_eq!(world.closed(reader), None);
    }
    assert_eq!(over(&world), [0, 1]);
    // It takes all of it, and begins anew.
    let Worker { hub, out, .. } = &mut world.workers[0];
    out.stalled.insert(reader.id, 0);
    hub.drained(world.now, reader.id, out);
    while waiting(&world, reader) < 20_000 {
        world.tell(publisher, publish.clone());
    }
    assert_eq!((world.closed(reader), over(&world)), (None, [0, 2]));
    for _ in 0..100 {
        world.tell(publisher, publish.clone());
    }
    assert_eq!(world.closed(reader), Some((3008, false)));
    assert_eq!(over(&world), [1, 2]);
}

/// A client whose connection takes nothing, and many commands of it, each in a line.
fn deaf(world: &mut World) -> (Client, Vec<String>) {
    let client = world.connect(0);
    world.workers[0].out.stalled.insert(client.id, 0);
    let command = |id| format!(r#"{{"id":{id},"subscribe":{{"channel":"c{id}"}}}}"#);
    (client, (2..100).map(command).collect())
}

fn waiting(world: &World, client: Client) -> usize {
    world.workers[0].out.stalled[&client.id]
}

fn wants_input(world: &World, client: Client) -> bool {
    world.workers[0].hub.wants_input(client.id)
}

/// The ids of what was answered.
fn answered(world: &mut World, client: Client) -> Vec<u64> {
    let heard = world.heard(client);
    heard
        .iter()
        .filter_map(|reply| reply["id"].as_u64())
        .collect()
}

/// All that waits is taken, and no more than that.
fn take_all(world: &mut World, client: Client) {
    let Worker { hub, out, .. } = &mut world.workers[0];
    out.stalled.insert(client.id, 0);
    assert!(out.asked.remove(&client.id), "it wants to know");
    hub.drained(world.now, client.id, out);
}

#[test]
fn who_takes_no_answers_is_not_listened_to_until_he_does() {
    let mut world = world();
    let (client, commands) = deaf(&mut world);
    let (one, others) = commands.split_at(60);
    world.send(client, &one.join("\n"));
    // What was on its way already.
    for command in others {
        world.send(client, command);
    }
    let paused = |world: &World| world.workers[0].hub.counters().input_paused;
    let mut all = Vec::new();
    for round in 1.. {
        all.extend(answered(&mut world, client));
        if all.len() == commands.len() {
            break;
        }
        assert!(!wants_input(&world, client), "round {round}");
        let waits = waiting(&world, client);
        assert!((500..600).contains(&waits), "{waits} in round {round}");
        assert_eq!(paused(&world), round);
        take_all(&mut world, client);
    }
    assert_eq!(all, (2..100).collect::<Vec<_>>());
    assert!(wants_input(&world, client));
    assert_eq!(
        world.workers[0].out.resumed,
        [client.id],
        "once, at the end"
    );
    assert_eq!(world.closed(client), None);
    assert_eq!(world.workers[0].hub.stats().subscriptions, commands.len());
}

#[test]
fn what_is_kept_of_who_takes_no_answers_is_bounded() {
    let mut world = world();
    let (client, commands) = deaf(&mut world);
    world.send(client, &commands.join("\n"));
    let kept = |world: &World| world.workers[0].hub.kept_input(client.id);
    assert!(kept(&world) > 1000, "the rest of the frame");
    let frame = "{}".repeat(5000);
    let limit = ClientOptions::default().command_queue_max_size;
    for frames in 1.. {
        world.send(client, &frame);
        if world.closed(client).is_some() {
            assert!((100..106).contains(&frames), "{frames}");
            break;
        }
        assert!(kept(&world) <= limit);
    }
    assert_eq!(world.closed(client), Some((3008, false)));
    // Frames cost something however short they are.
    let (client, commands) = deaf(&mut world);
    world.send(client, &commands.join("\n"));
    for frames in 1.. {
        world.send(client, "{}");
        if world.closed(client).is_some() {
            assert!((15_000..17_000).contains(&frames), "{frames}");
            break;
        }
    }
}

#[test]
fn publications_go_on_beside_commands_that_wait() {
    let mut world = world();
    let (client, commands) = deaf(&mut world);
    let publisher = world.connect(1);
    world.tell(client, json!({"id": 1, "subscribe": {"channel": "c"}}));
    world.send(client, &commands.join("\n"));
    let before = answered(&mut world, client).len();
    world.tell(
        publisher,
        json!({"id": 2, "publish": {"channel": "c", "data": 7}}),
    );
    assert!(!wants_input(&world, client));
    take_all(&mut world, client);
    world.workers[0].out.stalled.remove(&client.id);
    world.settle();
    let heard = world.heard(client);
    let replies = heard.iter().filter(|reply| reply["id"].is_u64()).count();
    assert_eq!(before + replies, commands.len());
    let lost_or_told = heard.iter().any(|reply| reply["push"].is_object());
    assert!(lost_or_told, "{heard:?}");
    assert_eq!(world.closed(client), None);
}

#[test]
fn who_is_behind_with_publications_is_listened_to() {
    let mut world = world();
    let (client, publisher) = (world.connect(0), world.connect(1));
    world.tell(client, json!({"id": 2, "subscribe": {"channel": "c"}}));
    world.workers[0].out.stalled.insert(client.id, 0);
    let data = "x".repeat(300);
    for _ in 0..3 {
        world.tell(
            publisher,
            json!({"id": 2, "publish": {"channel": "c", "data": data}}),
        );
    }
    assert!(waiting(&world, client) > 500, "more than a quarter");
    let heard = world.tell(client, json!({"id": 3, "unsubscribe": {"channel": "c"}}));
    assert_eq!(heard.last(), Some(&json!({"id": 3, "unsubscribe": {}})));
    assert!(wants_input(&world, client));
}
