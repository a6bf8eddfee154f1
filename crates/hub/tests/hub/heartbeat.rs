//! Pings, pongs, and connections that never connect.

use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::config::ClientOptions;
use tautline_hub::engine::testkit::DelayOptions;
use tautline_hub::{Pings, Transport};
use tautline_protocol::Encoding;

use crate::support::{Client, Setup, World, sign_claims, token};

#[test]
fn pings_come_at_a_random_time_first_and_then_regularly() {
    let mut firsts = Vec::new();
    for seed in 0..40 {
        let mut world = World::with(Setup {
            seed,
            ..Setup::default()
        });
        let client = world.connect(0);
        let mut pings = Vec::new();
        for tenth in 1..=1000 {
            world.pass(Duration::from_millis(100));
            if world.heard(client) == [json!({})] {
                pings.push(tenth);
                world.send(client, "{}");
            }
        }
        assert!(
            (125..=251).contains(&pings[0]),
            "first ping after {} tenths",
            pings[0]
        );
        assert!(
            pings
                .windows(2)
                .all(|pair| (250..=252).contains(&(pair[1] - pair[0])))
        );
        assert_eq!(world.closed(client), None);
        firsts.push(pings[0]);
    }
    firsts.sort_unstable();
    firsts.dedup();
    assert!(firsts.len() > 20, "first pings are spread: {firsts:?}");
}

#[test]
fn who_does_not_answer_is_gone() {
    let mut world = World::new();
    let client = world.connect(0);
    let mut since_ping = None;
    for tenth in 0..400 {
        world.pass(Duration::from_millis(100));
        if !world.heard(client).is_empty() {
            since_ping = Some(tenth);
        }
        if world.closed(client).is_some() {
            // Other traffic is no answer.
            assert!((79..=82).contains(&(tenth - since_ping.unwrap())));
            assert_eq!(world.closed(client), Some((3012, true)));
            return;
        }
        if since_ping.is_some() {
            world.send(client, r#"{"id":5,"unsubscribe":{"channel":"x"}}"#);
            world.heard(client);
        }
    }
    panic!("still there");
}

#[test]
fn how_long_a_pong_took_is_counted() {
    let mut world = World::new();
    let client = world.connect(0);
    let pongs = |world: &World| {
        let counters = world.workers[0].hub.client_counters();
        let mut all = counters.transports.values();
        all.next().unwrap().pongs.total()
    };
    while world.heard(client) != [json!({})] {
        assert_eq!(pongs(&world).0, 0);
        world.pass(Duration::from_millis(100));
    }
    world.pass(Duration::from_millis(300));
    world.send(client, "{}");
    assert_eq!(pongs(&world), (1, Duration::from_millis(300)));
    // What answers no ping isn't one.
    world.send(client, "{}");
    assert_eq!(pongs(&world).0, 1);
}

#[test]
fn each_ping_allows_one_pong() {
    let mut world = World::new();
    let client = world.connect(0);
    world.send(client, "{}");
    assert_eq!(world.closed(client), Some((3501, true)), "no ping yet");
    let client = world.connect(0);
    world.seconds(26);
    assert_eq!(world.heard(client), [json!({})]);
    world.send(client, "{}");
    assert_eq!(world.closed(client), None);
    world.send(client, "{}");
    assert_eq!(world.closed(client), Some((3501, true)), "a second one");
}

#[test]
fn a_command_without_an_id_counts_as_a_pong() {
    let mut world = World::new();
    let client = world.connect(0);
    world.seconds(26);
    world.send(client, r#"{"subscribe":{"channel":"news"}}"#);
    assert_eq!(world.closed(client), None);
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
}

#[test]
fn pings_and_pongs_can_be_turned_off() {
    let options = |ping_interval, pong_timeout| ClientOptions {
        ping_interval: Duration::from_secs(ping_interval),
        pong_timeout: Duration::from_secs(pong_timeout),
        allow_anonymous_connect_without_token: true,
        ..ClientOptions::default()
    };
    let mut world = World::with(Setup {
        client: options(0, 8),
        ..Setup::default()
    });
    let client = world.open(0);
    let heard = world.tell(client, json!({"id": 1, "connect": {}}));
    assert!(heard[0]["connect"]["ping"].is_null() && heard[0]["connect"]["pong"].is_null());
    world.seconds(1000);
    assert!(world.heard(client).is_empty() && world.closed(client).is_none());

    let mut world = World::with(Setup {
        client: options(25, 0),
        ..Setup::default()
    });
    let client = world.open(0);
    let heard = world.tell(client, json!({"id": 1, "connect": {}}));
    assert_eq!(heard[0]["connect"]["ping"], json!(25));
    assert!(heard[0]["connect"]["pong"].is_null());
    world.seconds(1000);
    assert!((38..=40).contains(&world.heard(client).len()));
    assert_eq!(world.closed(client), None);
}

/// Connected over something that has pings of its own.
fn connect_through(world: &mut World, pings: Pings) -> (Client, Value) {
    let transport = Transport::new("frames", Encoding::Json).with_pings(pings);
    let client = world.open_through(0, transport);
    let heard = world.tell(client, json!({"id": 1, "connect": {}}));
    (client, heard[0]["connect"].clone())
}

fn transport_pong(world: &mut World, client: Client) {
    let now = world.now;
    let worker = &mut world.workers[0];
    worker.hub.pong_came(now, client.id, &worker.out);
}

/// Lets half a minute pass at most, until one more ping of the transport's has come.
fn next_ping(world: &mut World, client: Client) {
    let pings = |world: &World| world.workers[0].out.pings.get(&client.id).copied();
    let before = pings(world);
    for _ in 0..300 {
        world.pass(Duration::from_millis(100));
        assert_eq!(world.closed(client), None);
        if pings(world) != before {
            return;
        }
    }
    panic!("no ping");
}

#[test]
fn a_transport_may_have_pings_of_its_own() {
    for (pings, are_seen) in [(Pings::Transport, false), (Pings::OneWayAndTransport, true)] {
        let mut world = World::new();
        let (client, result) = connect_through(&mut world, pings);
        let seen = if are_seen { json!(25) } else { Value::Null };
        assert_eq!(result["ping"], seen, "{result}");
        assert!(result["pong"].is_null(), "{result}");
        for _ in 0..5 {
            next_ping(&mut world, client);
            let heard = world.heard(client);
            let expected = if are_seen { vec![json!({})] } else { vec![] };
            assert_eq!(heard, expected, "{pings:?}");
            world.pass(Duration::from_secs(7));
            transport_pong(&mut world, client);
            // One more is none too many (RFC 6455, section 5.5.3).
            transport_pong(&mut world, client);
        }
        next_ping(&mut world, client);
        world.pass(Duration::from_millis(7_900));
        assert_eq!(world.closed(client), None);
        world.pass(Duration::from_millis(300));
        assert_eq!(world.closed(client), Some((3012, true)));
        // That was its last word, and the session is gone.
        transport_pong(&mut world, client);
    }
}

#[test]
fn what_the_transport_asks_is_not_answered_by_the_protocol_nor_the_other_way_round() {
    for pings in [Pings::Transport, Pings::OneWayAndTransport] {
        let mut world = World::new();
        let (client, _) = connect_through(&mut world, pings);
        next_ping(&mut world, client);
        world.heard(client);
        world.send(client, "{}");
        assert_eq!(world.closed(client), Some((3501, true)), "{pings:?}");
    }
    let mut world = World::new();
    let client = world.connect(0);
    world.seconds(25);
    assert_eq!(world.heard(client), [json!({})]);
    assert_eq!(world.workers[0].out.pings.len(), 0);
    transport_pong(&mut world, client);
    world.seconds(9);
    assert_eq!(world.closed(client), Some((3012, true)));
}

#[test]
fn the_transports_pings_have_their_turn_in_the_queue_too() {
    let mut world = World::new();
    let (client, _) = connect_through(&mut world, Pings::Transport);
    world.workers[0].out.stall(client.id, 100_000);
    next_ping(&mut world, client);
    // It reads, slowly, what was before the ping.
    for _ in 0..20 {
        world.seconds(1);
        let stalled = world.workers[0].out.stalled.get_mut(&client.id);
        *stalled.unwrap() -= 5_000;
        assert_eq!(world.closed(client), None);
    }
    // Then nothing more, the ping included.
    world.seconds(17);
    assert_eq!(world.closed(client), Some((3012, true)));
}

#[test]
fn answers_by_the_clock_keep_nobody_who_reads_nothing() {
    // The protocol's: an answer to what wasn't written is one that nobody asked for.
    let mut world = World::new();
    let client = world.connect(0);
    world.workers[0].out.stall(client.id, 100_000);
    world.seconds(25);
    world.send(client, "{}");
    assert_eq!(world.closed(client), Some((3501, true)));
    // The transport's: it does no harm, and no good.
    let mut world = World::new();
    let (client, _) = connect_through(&mut world, Pings::Transport);
    world.workers[0].out.stall(client.id, 100_000);
    next_ping(&mut world, client);
    transport_pong(&mut world, client);
    world.pass(Duration::from_millis(8_300));
    assert_eq!(world.closed(client), Some((3012, true)));
}

#[test]
fn who_does_not_connect_is_gone_too() {
    let mut world = World::new();
    let client = world.open(0);
    world.pass(Duration::from_millis(9_900));
    assert_eq!(world.closed(client), None);
    world.pass(Duration::from_millis(200));
    assert_eq!(world.closed(client), Some((3502, true)));
    let over = world.workers[0].hub.counters().over_limit;
    assert_eq!(over.unauthenticated, [1, 0]);
    let client = world.open(0);
    world.seconds(9);
    world.send(client, r#"{"id":1,"connect":{}}"#);
    world.seconds(5);
    assert_eq!(world.closed(client), None);
}

#[test]
fn time_to_connect_can_be_tried_out() {
    let mut world = World::with(Setup {
        dry_run: true,
        ..Setup::default()
    });
    let client = world.open(0);
    let over = |world: &World| world.workers[0].hub.counters().over_limit.unauthenticated;
    world.pass(Duration::from_millis(9_900));
    assert_eq!(over(&world), [0, 0]);
    world.pass(Duration::from_millis(200));
    assert_eq!((world.closed(client), over(&world)), (None, [0, 1]));
    world.send(client, r#"{"id":1,"connect":{}}"#);
    assert!(!world.heard(client).is_empty());
    // Nothing is listened to from one that was refused.
    let refused = world.open(0);
    world.send(
        refused,
        &json!({"id": 1, "connect": {"token": token("42", Some(0))}}).to_string(),
    );
    world.seconds(11);
    assert!(world.closed(refused).is_some());
}

#[test]
fn deadlines_out_of_turn_do_nothing() {
    let mut world = World::new();
    let client = world.connect(0);
    for _ in 0..100 {
        let now = world.now;
        let worker = &mut world.workers[0];
        worker.hub.on_deadline(now, &mut worker.out);
    }
    assert!(world.heard(client).is_empty());
    // Time jumps over many deadlines at once: the ping is sent, and may still be answered.
    world.now.monotonic += Duration::from_secs(3600);
    let now = world.now;
    let worker = &mut world.workers[0];
    worker.hub.on_deadline(now, &mut worker.out);
    assert_eq!(world.heard(client), [json!({})]);
    world.send(client, "{}");
    world.seconds(10);
    assert_eq!(world.closed(client), None);
}

#[test]
fn who_is_refused_because_the_engine_failed_is_gone_too() {
    let token = sign_claims(&json!({"sub": "eve", "channels": ["room:a"]}));
    for seed in 0..20 {
        let delays = DelayOptions {
            at_once: 0,
            failures: 100,
        };
        let mut world = World::with(Setup {
            delays: Some(delays),
            seed,
            ..Setup::default()
        });
        let client = world.open(0);
        let connect = json!({"id": 1, "connect": {"token": token}});
        world.send_only(client, &connect.to_string());
        // The engine takes its time.
        world.now.monotonic += Duration::from_secs(seed);
        let heard = world.tell(client, json!({"id": 2, "presence": {"channel": "room:a"}}));
        assert_eq!(heard[0]["error"]["code"], json!(100));
        world.seconds(60);
        assert_eq!(world.closed(client), Some((3502, true)), "seed {seed}");
    }
}
