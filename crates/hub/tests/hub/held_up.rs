//! Sessions that have to wait because others can't take what they do.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Client, Worker, World};

fn publish(number: u64) -> String {
    json!({"id": number, "publish": {"channel": "news", "data": number}}).to_string()
}

fn ids(heard: &[Value]) -> Vec<u64> {
    let ids = heard.iter().filter_map(|message| message["id"].as_u64());
    ids.collect()
}

fn go_on(world: &mut World, client: Client) {
    let Worker { hub, out, .. } = &mut world.workers[client.worker];
    hub.go_on(world.now, client.id, out);
}

#[test]
fn who_is_held_up_does_nothing_more_until_it_goes_on() {
    let mut world = World::new();
    let (client, other) = (world.connect(0), world.connect(0));
    world.workers[0].out.full = true;
    let frame = [2, 3, 4].map(publish).join("\n");
    world.send(client, &frame);
    assert_eq!(
        ids(&world.heard(client)),
        [2],
        "and what was done is answered"
    );
    let wants = |world: &World, client: Client| world.workers[0].hub.wants_input(client.id);
    assert!(!wants(&world, client));
    world.send(client, &publish(5));
    assert_eq!(ids(&world.heard(client)), [0; 0]);
    assert!(world.workers[0].hub.kept_input(client.id) > 0);
    world.workers[0].out.full = false;
    world.send(other, &publish(9));
    assert_eq!(ids(&world.heard(other)), [9], "nobody else is");
    // Once more behind the next.
    world.workers[0].out.full = true;
    go_on(&mut world, client);
    assert_eq!(ids(&world.heard(client)), [3]);
    assert!(!wants(&world, client) && world.workers[0].out.resumed.is_empty());
    world.workers[0].out.full = false;
    go_on(&mut world, client);
    assert_eq!(ids(&world.heard(client)), [4, 5]);
    assert!(wants(&world, client));
    assert_eq!(world.workers[0].out.resumed, [client.id]);
    assert_eq!(world.workers[0].hub.counters().held_up, 2);
    // Who isn't held up doesn't go on.
    go_on(&mut world, client);
    go_on(&mut world, other);
    assert_eq!(world.workers[0].out.resumed, [client.id]);
}

/// The last command of a frame, and nothing behind it.
#[test]
fn who_is_held_up_is_not_read() {
    let mut world = World::new();
    let client = world.connect(0);
    world.workers[0].out.full = true;
    world.send(client, &publish(2));
    assert_eq!(ids(&world.heard(client)), [2]);
    assert!(!world.workers[0].hub.wants_input(client.id));
    // Its pong may be among what isn't read.
    world.pass(Duration::from_secs(120));
    assert_eq!(world.closed(client), None);
    world.workers[0].out.full = false;
    go_on(&mut world, client);
    assert!(world.workers[0].hub.wants_input(client.id));
    world.pass(Duration::from_secs(120));
    assert_eq!(world.closed(client).map(|(code, _)| code), Some(3012));
}

/// It is still not the client's fault, where it doesn't read either.
#[test]
fn who_is_held_up_need_not_have_read_what_came_behind_a_ping() {
    let mut world = World::new();
    let client = world.connect(0);
    world.workers[0].out.full = true;
    world.send(client, &publish(2));
    world.pass(Duration::from_secs(26));
    assert!(world.heard(client).contains(&json!({})), "a ping");
    world.workers[0].out.stall(client.id, 100);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.closed(client), None);
}
