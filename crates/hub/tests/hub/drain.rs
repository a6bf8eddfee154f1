//! How a hub ends: one client after the other, who miss nothing and aren't missed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::config::ClientOptions;
use tautline_hub::engine::testkit::Seeded;
use tautline_protocol::Disconnect;

use crate::support::{Client, Setup, World};

/// In simulated time nobody answers pings.
fn world() -> World {
    let client = ClientOptions {
        allow_anonymous_connect_without_token: true,
        pong_timeout: Duration::ZERO,
        ..ClientOptions::default()
    };
    World::with(Setup {
        client,
        ..Setup::default()
    })
}

fn drain(world: &mut World, worker: usize, over: Duration) {
    let now = world.now;
    let worker = &mut world.workers[worker];
    worker.hub.drain(now, over, &mut worker.out);
}

fn join(world: &mut World, client: Client) -> Value {
    let subscribe = json!({"id": 2, "subscribe": {"channel": "room:a"}});
    let heard = world.tell(client, subscribe);
    let reply = heard.iter().find(|message| message["id"] == json!(2));
    reply.unwrap()["subscribe"].clone()
}

fn told(world: &World) -> usize {
    world.workers[0].out.closed.len()
}

fn publications(heard: &[Value]) -> Vec<u64> {
    let data = |message: &Value| message["push"]["pub"]["data"].as_u64();
    heard.iter().filter_map(data).collect()
}

#[test]
fn clients_are_told_in_an_even_row() {
    let mut world = world();
    for _ in 0..1000 {
        world.connect(0);
    }
    let idle = world.open(0);
    drain(&mut world, 0, Duration::from_secs(10));
    assert_eq!(told(&world), 0, "nobody is told before its time");
    let mut before = 0;
    for second in 1..=10 {
        for step in 1..=4 {
            world.pass(Duration::from_millis(250));
            let (now, most) = (told(&world), (second - 1) * 100 + step * 25 + 1);
            assert!(now <= most, "{now} after {second} s, step {step}");
        }
        let now = told(&world);
        assert!(now - before >= 90, "{} in a second", now - before);
        before = now;
    }
    world.pass(Duration::from_millis(250));
    assert_eq!(told(&world), 1001, "who never connected, too");
    assert_eq!(world.closed(idle), Some((3001, true)));
    let codes = world.workers[0].out.closed.values();
    let codes = codes.map(|(disconnect, flush)| (disconnect.code, *flush));
    assert_eq!(
        codes.collect::<BTreeSet<_>>(),
        BTreeSet::from([(3001, true)])
    );
    assert!(world.workers[0].hub.is_draining());
    let counted = world.workers[0].hub.disconnects();
    assert_eq!(counted.get(&Disconnect::SHUTDOWN.code), Some(&1001));
}

/// The hub is called at odd times, and sometimes late. What was missed meanwhile is not made up for: whoever takes the clients
/// in would meet all of them at once.
#[test]
fn in_no_time_are_more_told_than_were_to_be() {
    const CLIENTS: usize = 10_000;
    const RATE: usize = 2_000;
    /// What of a delay may be made up for, and the time between two calls.
    const GRAIN: Duration = Duration::from_millis(50);
    for seed in 0..4 {
        let mut random = Seeded::new(seed);
        let mut world = world();
        for _ in 0..CLIENTS {
            world.connect(0);
        }
        let begun = world.now.monotonic;
        drain(&mut world, 0, Duration::from_secs((CLIENTS / RATE) as u64));
        let (mut calls, mut stalled) = (vec![(begun, 0)], Duration::ZERO);
        while told(&world) < CLIENTS {
            let (step, is_late) = match random.below(100) {
                0 => (500 + random.below(1500) as u64, true),
                _ => (1 + random.below(30) as u64, false),
            };
            let step = Duration::from_millis(step);
            stalled += if is_late { step } else { Duration::ZERO };
            world.now.monotonic += step;
            let worker = &mut world.workers[0];
            worker.hub.on_deadline(world.now, &mut worker.out);
            calls.push((world.now.monotonic, told(&world)));
        }
        for (number, (from, _)) in calls.iter().enumerate().skip(1) {
            let before = calls[number - 1].1;
            for (until, now) in &calls[number..] {
                let most = (*until - *from + GRAIN).as_millis() as usize * RATE / 1000 + 1;
                let found = now - before;
                assert!(
                    found <= most,
                    "{found} between {from:?} and {until:?}, seed {seed}"
                );
            }
        }
        // And it isn't slower than it has to be.
        let took = world.now.monotonic - begun;
        let most = Duration::from_secs((CLIENTS / RATE) as u64) + stalled + 2 * GRAIN;
        assert!(took <= most, "{took:?}, of which {stalled:?} nobody called");
        assert_eq!(world.workers[0].hub.undrained(), 0);
    }
}

/// So many a second that are fewer than the hub looks.
#[test]
fn few_are_told_one_by_one() {
    let mut world = world();
    for _ in 0..8 {
        world.connect(0);
    }
    assert_eq!(world.workers[0].hub.undrained(), 8);
    drain(&mut world, 0, Duration::from_secs(2));
    for number in 0..8 {
        assert_eq!(told(&world), number);
        world.pass(Duration::from_millis(249));
        assert_eq!(told(&world), number, "before its time");
        world.pass(Duration::from_millis(1));
    }
    assert_eq!((told(&world), world.workers[0].hub.undrained()), (8, 0));
}

#[test]
fn the_order_is_nobodys_to_know() {
    let mut world = world();
    let clients: Vec<Client> = (0..100).map(|_| world.connect(0)).collect();
    drain(&mut world, 0, Duration::from_secs(10));
    world.seconds(5);
    let told = clients.iter().map(|client| world.closed(*client).is_some());
    let told: Vec<bool> = told.collect();
    let early = told[..50].iter().filter(|told| **told).count();
    assert!((10..=40).contains(&early), "{early} of the first fifty");
}

#[test]
fn without_time_all_are_told_now() {
    let mut world = world();
    let clients: Vec<Client> = (0..10).map(|_| world.connect(0)).collect();
    drain(&mut world, 0, Duration::ZERO);
    for client in clients {
        assert_eq!(world.closed(client), Some((3001, true)));
    }
}

#[test]
fn a_second_call_has_those_that_are_left_go_sooner() {
    let mut world = world();
    for _ in 0..100 {
        world.connect(0);
    }
    drain(&mut world, 0, Duration::from_secs(100));
    world.seconds(20);
    assert!((18..=20).contains(&told(&world)), "{}", told(&world));
    drain(&mut world, 0, Duration::from_secs(8));
    world.seconds(4);
    assert!((56..=60).contains(&told(&world)), "{}", told(&world));
    drain(&mut world, 0, Duration::ZERO);
    assert_eq!(told(&world), 100);
    // After the last, somebody opens a connection and says nothing.
    let late = world.open(0);
    drain(&mut world, 0, Duration::ZERO);
    assert_eq!(world.closed(late), Some((3001, true)));
}

#[test]
fn nobody_is_let_in_any_more() {
    let mut world = world();
    let (before, other) = (world.open(0), world.connect(1));
    drain(&mut world, 0, Duration::from_secs(10));
    let after = world.open(0);
    for client in [before, after] {
        world.tell(client, json!({"id": 1, "connect": {}}));
        assert_eq!(world.closed(client), Some((3001, true)));
    }
    assert_eq!(world.closed(other), None, "only this hub ends");
    world.connect(1);
}

/// While others go, who is still there is served, and who comes back elsewhere has missed nothing, and was not missed.
#[test]
fn who_comes_back_in_time_was_never_away() {
    let mut world = world();
    let witness = world.connect_as(1, "witness");
    let first = join(&mut world, witness);
    let clients: Vec<Client> = (0..50)
        .map(|number| world.connect_as(0, &format!("user-{number}")))
        .collect();
    for client in &clients {
        join(&mut world, *client);
    }
    world.heard(witness);
    let members = world.members("room:a");
    drain(&mut world, 0, Duration::from_secs(5));
    let mut published = 0;
    let mut sequences = vec![Vec::new(); clients.len()];
    let mut away: BTreeSet<usize> = (0..clients.len()).collect();
    let mut heard_by_witness = Vec::new();
    while !away.is_empty() {
        published += 1;
        let publish = json!({"id": 9, "publish": {"channel": "room:a", "data": published}});
        heard_by_witness.extend(world.tell(witness, publish));
        world.pass(Duration::from_millis(100));
        heard_by_witness.extend(world.heard(witness));
        for number in away.clone() {
            let heard = world.heard(clients[number]);
            sequences[number].extend(publications(&heard));
            if world.closed(clients[number]).is_none() {
                continue;
            }
            away.remove(&number);
            let back = world.connect_as(1, &format!("user-{number}"));
            let offset = first["offset"].as_u64().unwrap_or(0) + sequences[number].len() as u64;
            let subscribe = json!({
                "channel": "room:a", "recover": true, "epoch": first["epoch"], "offset": offset,
            });
            let heard = world.tell(back, json!({"id": 2, "subscribe": subscribe}));
            let result = heard.iter().find(|message| message["id"] == json!(2));
            let result = &result.unwrap()["subscribe"];
            assert_eq!(result["recovered"], json!(true), "{result}");
            let missed = result["publications"].as_array().cloned();
            let missed = missed.unwrap_or_default();
            sequences[number].extend(missed.iter().map(|one| one["data"].as_u64().unwrap()));
            assert!(sequences[number].iter().copied().eq(1..=published));
            // Back on the other hub, where the test goes on without it.
        }
        assert!(published < 100, "some are never told");
    }
    let leaves = heard_by_witness
        .iter()
        .filter(|message| message["push"]["leave"].is_object());
    assert_eq!(leaves.count(), 0);
    assert!(world.members("room:a").is_superset(&members));
    assert_eq!(
        world.workers[0].hub.stats(),
        tautline_hub::HubStats::default()
    );
}

/// Who goes by himself is gone, as ever.
#[test]
fn whoever_leaves_meanwhile_has_left() {
    let mut world = world();
    let witness = world.connect_as(1, "witness");
    let leaver = world.connect_as(0, "leaver");
    for client in [witness, leaver] {
        join(&mut world, client);
    }
    world.heard(witness);
    drain(&mut world, 0, Duration::from_secs(10));
    world.drop_connection(leaver);
    world.settle();
    let heard = world.heard(witness);
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0]["push"]["leave"]["info"]["user"], json!("leaver"));
    assert_eq!(world.members("room:a").len(), 1);
}
