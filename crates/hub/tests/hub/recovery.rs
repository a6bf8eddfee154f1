//! Coming back without missing anything.

use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::config::ClientOptions;
use tautline_hub::engine::Delivery;

use crate::support::{Client, Setup, World};

fn publish(world: &mut World, publisher: Client, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        world.tell(
            publisher,
            json!({"id": 9, "publish": {"channel": "room:a", "data": number}}),
        );
    }
}

/// Subscribes and returns the result.
fn subscribe(world: &mut World, client: Client, mut request: Value) -> Value {
    request["channel"] = json!("room:a");
    let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
    assert_eq!(heard[0]["id"], json!(2));
    heard[0].clone()
}

fn recover(world: &mut World, worker: usize, epoch: &Value, offset: u64) -> Value {
    let client = world.connect(worker);
    let request = json!({"recover": true, "epoch": epoch, "offset": offset});
    subscribe(world, client, request)["subscribe"].clone()
}

fn numbers(result: &Value) -> Vec<u64> {
    let publications = result["publications"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    publications
        .iter()
        .map(|publication| publication["data"].as_u64().unwrap())
        .collect()
}

fn pushed(heard: &[Value]) -> Vec<u64> {
    heard
        .iter()
        .filter_map(|message| message["push"]["pub"]["data"].as_u64())
        .collect()
}

#[test]
fn who_comes_back_gets_what_was_missed() {
    let mut world = World::new();
    let publisher = world.connect(0);
    let first = world.connect(0);
    let result = subscribe(&mut world, first, json!({}))["subscribe"].clone();
    let epoch = result["epoch"].clone();
    assert_eq!(
        result,
        json!({"recoverable": true, "positioned": true, "epoch": epoch})
    );
    publish(&mut world, publisher, 1..=8);
    for since in 0..=8 {
        let result = recover(&mut world, 1, &epoch, since);
        assert_eq!(result["recovered"], json!(true));
        assert_eq!(result["was_recovering"], json!(true));
        assert_eq!(
            result["offset"].as_u64().unwrap_or(0),
            since,
            "the requested offset"
        );
        assert_eq!(result["epoch"], epoch);
        assert_eq!(numbers(&result), (since + 1..=8).collect::<Vec<_>>());
        assert_eq!(result["publications"].is_null(), since == 8);
    }
}

#[test]
fn what_is_gone_is_said_to_be_gone() {
    let mut world = World::new();
    let publisher = world.connect(0);
    publish(&mut world, publisher, 1..=12);
    let epoch = recover(&mut world, 0, &json!(""), 12)["epoch"].clone();
    for (epoch_asked, since, recovered) in [
        (&epoch, 1, false),
        (&epoch, 2, true),
        (&epoch, 12, true),
        (&epoch, 13, false),
        (&json!("other"), 12, false),
        (&json!(""), 2, true),
        (&epoch, u64::MAX, false),
    ] {
        let result = recover(&mut world, 1, epoch_asked, since);
        assert_eq!(
            result["recovered"] == json!(true),
            recovered,
            "{epoch_asked} {since}"
        );
        assert_eq!(result["was_recovering"], json!(true));
        if !recovered {
            assert!(result["publications"].is_null());
            assert_eq!(result["offset"], json!(12), "the top");
            assert_eq!(result["epoch"], epoch);
        }
    }
    // What expired is gone too, but being at the top is still being at the top.
    world.seconds(60);
    assert_eq!(recover(&mut world, 0, &epoch, 12)["recovered"], json!(true));
    assert!(recover(&mut world, 0, &epoch, 11)["recovered"].is_null());
}

#[test]
fn more_than_fits_into_the_reply_follows_it() {
    let client = ClientOptions {
        recovery_max_publication_limit: 4,
        allow_anonymous_connect_without_token: true,
        ..ClientOptions::default()
    };
    let mut world = World::with(Setup {
        client,
        ..Setup::default()
    });
    let publisher = world.connect(0);
    publish(&mut world, publisher, 1..=9);
    assert_eq!(
        numbers(&recover(&mut world, 0, &json!(""), 5)),
        [6, 7, 8, 9]
    );
    let client = world.connect(0);
    let request =
        json!({"id": 2, "subscribe": {"channel": "room:a", "recover": true, "offset": 2}});
    let heard = world.tell(client, request);
    let result = &heard[0]["subscribe"];
    assert_eq!(result["recovered"], json!(true));
    assert_eq!(result["offset"], json!(2), "the requested offset");
    assert_eq!(numbers(result), [3, 4, 5, 6]);
    assert_eq!(pushed(&heard), [7, 8, 9]);
    publish(&mut world, publisher, 10..=10);
    assert_eq!(pushed(&world.heard(client)), [10], "live again");
}

#[test]
fn who_can_do_without_is_told_by_an_error() {
    let mut world = World::new();
    let publisher = world.connect(0);
    publish(&mut world, publisher, 1..=12);
    let client = world.connect(0);
    let request = json!({"recover": true, "offset": 1, "flag": 3});
    let answer = subscribe(&mut world, client, request);
    assert_eq!(
        answer["error"],
        json!({"code": 112, "message": "unrecoverable position"})
    );
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
    let members = world.tell(client, json!({"id": 4, "subscribe": {"channel": "room:a"}}));
    assert!(
        members[0]["subscribe"].is_object(),
        "the client may try again"
    );
    let client = world.connect(0);
    let request = json!({"recover": true, "offset": 9, "flag": 2});
    assert_eq!(
        numbers(&subscribe(&mut world, client, request)["subscribe"]),
        [10, 11, 12]
    );
}

#[test]
fn recovery_that_is_not_on_is_not_done() {
    let mut world = World::new();
    let client = world.connect(0);
    let request = json!({"channel": "news", "recover": true, "offset": 3});
    let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
    assert_eq!(
        heard,
        [json!({"id": 2, "subscribe": {"was_recovering": true}})]
    );
}

#[test]
fn a_subscription_begins_without_gap_or_duplicate_whatever_waits_in_the_mailbox() {
    let mut world = World::new();
    let publisher = world.connect(0);
    let watcher = world.connect(1);
    subscribe(&mut world, watcher, json!({}));
    world.heard(watcher);
    publish(&mut world, publisher, 1..=2);
    // Published, but not yet delivered on worker 1.
    for number in 3..=4 {
        let frame = format!(r#"{{"id":9,"publish":{{"channel":"room:a","data":{number}}}}}"#);
        world.send_only(publisher, &frame);
    }
    let late = world.connect(1);
    assert_eq!(
        pushed(&world.heard(watcher)),
        [1, 2, 3, 4],
        "connecting settles the mailboxes"
    );
    for number in 5..=6 {
        let frame = format!(r#"{{"id":9,"publish":{{"channel":"room:a","data":{number}}}}}"#);
        world.send_only(publisher, &frame);
    }
    world.send_only(
        late,
        r#"{"id":2,"subscribe":{"channel":"room:a","recover":true,"offset":3}}"#,
    );
    let heard = world.heard(late);
    assert_eq!(numbers(&heard[0]["subscribe"]), [4, 5, 6]);
    world.settle();
    publish(&mut world, publisher, 7..=7);
    assert_eq!(pushed(&world.heard(late)), [7]);
    assert_eq!(pushed(&world.heard(watcher)), [5, 6, 7]);
}

/// Loses what is in a worker's mailbox, as an engine between nodes might.
fn lose(world: &mut World, worker: usize) {
    assert!(!world.workers[worker].inbox.take().is_empty());
}

const INCOMPLETE: &str = r#"{"code":2500,"reason":"insufficient state"}"#;

fn incomplete() -> Value {
    let unsubscribe: Value = serde_json::from_str(INCOMPLETE).unwrap();
    json!({"push": {"channel": "room:a", "unsubscribe": unsubscribe}})
}

#[test]
fn a_gap_in_the_feed_is_filled_from_history() {
    let mut world = World::new();
    let publisher = world.connect(0);
    let client = world.connect(1);
    subscribe(&mut world, client, json!({}));
    publish(&mut world, publisher, 1..=1);
    world.heard(client);
    world.send_only(
        publisher,
        r#"{"id":9,"publish":{"channel":"room:a","data":2}}"#,
    );
    lose(&mut world, 1);
    publish(&mut world, publisher, 3..=3);
    publish(&mut world, publisher, 4..=4);
    assert_eq!(pushed(&world.heard(client)), [2, 3, 4], "in order");
    assert_eq!(world.workers[1].hub.stats().subscriptions, 1);
}

#[test]
fn a_gap_that_can_not_be_filled_ends_the_subscription() {
    let mut world = World::new();
    let publisher = world.connect(0);
    let client = world.connect(1);
    subscribe(&mut world, client, json!({}));
    world.heard(client);
    for number in 1..=11 {
        let frame = json!({"id": 9, "publish": {"channel": "room:a", "data": number}});
        world.send_only(publisher, &frame.to_string());
    }
    lose(&mut world, 1);
    publish(&mut world, publisher, 12..=12);
    assert_eq!(world.heard(client), [incomplete()]);
    assert_eq!(world.workers[1].hub.stats().subscriptions, 0);
    assert_eq!(world.workers[1].hub.counters().lost, 1);
}

#[test]
fn who_subscribed_behind_the_gap_is_not_bothered() {
    let mut world = World::new();
    let publisher = world.connect(0);
    let (early, late) = (world.connect(1), world.connect(1));
    subscribe(&mut world, early, json!({}));
    world.send_only(
        publisher,
        r#"{"id":9,"publish":{"channel":"room:a","data":1}}"#,
    );
    lose(&mut world, 1);
    subscribe(&mut world, late, json!({}));
    world.heard(early);
    publish(&mut world, publisher, 2..=2);
    assert_eq!(pushed(&world.heard(early)), [1, 2]);
    assert_eq!(pushed(&world.heard(late)), [2]);
}

#[test]
fn what_comes_twice_is_delivered_once() {
    let mut world = World::new();
    let publisher = world.connect(0);
    let client = world.connect(1);
    subscribe(&mut world, client, json!({}));
    world.send_only(
        publisher,
        r#"{"id":9,"publish":{"channel":"room:a","data":1}}"#,
    );
    let copies = world.workers[1].inbox.take();
    let [
        Delivery::Publication {
            channel,
            feed,
            publication,
            epoch,
            previous,
            patch,
        },
    ] = &copies[..]
    else {
        panic!("not a publication: {copies:?}");
    };
    let copy = Delivery::Publication {
        channel: channel.clone(),
        feed: *feed,
        publication: publication.clone(),
        epoch: epoch.clone(),
        previous: *previous,
        patch: *patch,
    };
    world.workers[1]
        .inbox
        .put_back(copies.into_iter().chain([copy]).collect());
    world.settle();
    assert_eq!(pushed(&world.heard(client)), [1]);
}

#[test]
fn a_new_epoch_ends_positioned_subscriptions() {
    new_epoch(|setup| setup.channel.namespaces[0].history_meta_ttl = Duration::from_secs(100));
}

#[test]
fn positions_are_remembered_as_long_as_all_channels_have_it_where_a_namespace_says_nothing() {
    new_epoch(|setup| setup.channel.history_meta_ttl = Duration::from_secs(100));
}

/// Positions are forgotten after 100 s.
fn new_epoch(forgetting: fn(&mut Setup)) {
    let mut setup = Setup::default();
    forgetting(&mut setup);
    // No check of the position comes in between, which would keep the stream alive.
    setup.client.channel_position_check_delay = Duration::from_secs(1000);
    let mut world = World::with(setup);
    let publisher = world.connect(0);
    let client = world.connect(1);
    publish(&mut world, publisher, 1..=1);
    subscribe(&mut world, client, json!({}));
    world.heard(client);
    pass_with_pongs(&mut world, &[publisher, client], 120);
    publish(&mut world, publisher, 2..=2);
    assert_eq!(world.heard(client), [incomplete()]);
    let result = subscribe(&mut world, client, json!({}));
    assert_eq!(result["subscribe"]["offset"], json!(1));
}

#[test]
fn loss_at_the_very_end_is_found_by_asking() {
    let mut world = World::new();
    let publisher = world.connect(0);
    let client = world.connect(1);
    subscribe(&mut world, client, json!({}));
    publish(&mut world, publisher, 1..=1);
    world.heard(client);
    pass_with_pongs(&mut world, &[publisher, client], 100);
    assert!(world.heard(client).is_empty(), "nothing is wrong");
    world.send_only(
        publisher,
        r#"{"id":9,"publish":{"channel":"room:a","data":2}}"#,
    );
    lose(&mut world, 1);
    pass_with_pongs(&mut world, &[publisher, client], 45);
    assert_eq!(pushed(&world.heard(client)), [2]);
    publish(&mut world, publisher, 3..=3);
    assert_eq!(pushed(&world.heard(client)), [3]);
}

#[test]
fn being_a_little_behind_is_not_loss() {
    let mut world = World::new();
    let publisher = world.connect(0);
    let client = world.connect(1);
    subscribe(&mut world, client, json!({}));
    world.heard(client);
    pass_with_pongs(&mut world, &[publisher, client], 39);
    world.send_only(
        publisher,
        r#"{"id":9,"publish":{"channel":"room:a","data":1}}"#,
    );
    let on_its_way = world.workers[1].inbox.take();
    pass_with_pongs(&mut world, &[publisher, client], 2);
    world.workers[1].inbox.put_back(on_its_way);
    world.settle();
    pass_with_pongs(&mut world, &[publisher, client], 100);
    assert_eq!(pushed(&world.heard(client)), [1]);
    assert_eq!(world.workers[1].hub.stats().subscriptions, 1);
}

/// Lets time pass while clients answer their pings. Keeps what else they hear.
pub(crate) fn pass_with_pongs(world: &mut World, clients: &[Client], seconds: u64) {
    for _ in 0..seconds {
        world.seconds(1);
        for client in clients {
            let out = &mut world.workers[client.worker].out;
            let messages = out.messages.entry(client.id).or_default();
            let before = messages.len();
            messages.retain(|message| **message != *b"{}");
            for _ in messages.len()..before {
                world.send(*client, "{}");
            }
        }
    }
}
