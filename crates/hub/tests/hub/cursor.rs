//! Subscriptions behind the head: those who come back late, and those who don't keep up.

use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::config::{ClientOptions, NamespaceOptions, SlowConsumerOption};
use tautline_hub::engine::testkit::DelayOptions;

use crate::support::{Client, Setup, World};

const QUEUE: usize = 64 * 1024;

/// `room` keeps a hundred thousand publications, `latest` and `newest` drop some.
fn setup() -> Setup {
    let mut setup = Setup {
        client: ClientOptions {
            queue_max_size: QUEUE,
            allow_anonymous_connect_without_token: true,
            ping_interval: Duration::ZERO,
            ..ClientOptions::default()
        },
        ..Setup::default()
    };
    let namespaces = &mut setup.channel.namespaces;
    namespaces[0].history_size = 100_000;
    namespaces[0].join_leave = false;
    namespaces[0].force_push_join_leave = false;
    let open = setup.channel.without_namespace.clone();
    for (name, slow_consumer, tag) in [
        ("latest", SlowConsumerOption::Latest, ""),
        ("keyed", SlowConsumerOption::Latest, "key"),
        ("newest", SlowConsumerOption::DropOldest, ""),
    ] {
        namespaces.push(NamespaceOptions {
            name: name.into(),
            slow_consumer,
            slow_consumer_key_tag: tag.into(),
            ..open.clone()
        });
    }
    setup
}

fn publish(world: &mut World, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let request = tautline_hub::ApiPublish {
            channel: channel.into(),
            data: number.to_string().into(),
            tags: [("key".to_owned(), (number % 3).to_string())].into(),
            ..tautline_hub::ApiPublish::default()
        };
        let now = world.now;
        world.workers[0].hub.api_publish(now, request, |result| {
            result.unwrap();
        });
        world.settle();
    }
}

fn subscribe(world: &mut World, client: Client, channel: &str) {
    let heard = world.tell(client, json!({"id": 2, "subscribe": {"channel": channel}}));
    assert!(heard[0]["subscribe"].is_object(), "{heard:?}");
}

fn numbers(heard: &[Value]) -> Vec<u64> {
    heard
        .iter()
        .filter_map(|message| message["push"]["pub"]["data"].as_u64())
        .collect()
}

/// From here on the client's connection takes nothing.
fn stall(world: &mut World, client: Client) {
    world.workers[client.worker]
        .out
        .stalled
        .insert(client.id, 0);
}

/// What waited is written, and the connection takes everything again.
fn flow(world: &mut World, client: Client) {
    world.workers[client.worker].out.stalled.remove(&client.id);
    world.settle();
}

/// The client's connection takes so much of what waits.
fn take(world: &mut World, client: Client, bytes: usize) {
    let out = &mut world.workers[client.worker].out;
    if let Some(waiting) = out.stalled.get_mut(&client.id) {
        *waiting -= bytes.min(*waiting);
    }
}

fn waiting(world: &World, client: Client) -> usize {
    world.workers[client.worker].out.stalled[&client.id]
}

#[test]
fn who_is_far_behind_catches_up_page_by_page_while_others_publish() {
    let mut world = World::with(setup());
    publish(&mut world, "room:a", 1..=20_000);
    let client = world.connect(1);
    stall(&mut world, client);
    let request = json!({"channel": "room:a", "recover": true, "offset": 0});
    world.send(client, &json!({"id": 2, "subscribe": request}).to_string());
    let mut heard = world.heard(client);
    assert_eq!(heard[0]["subscribe"]["recovered"], json!(true));
    let mut got: Vec<u64> = heard.remove(0)["subscribe"]["publications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|publication| publication["data"].as_u64().unwrap())
        .collect();
    let mut next = 20_001;
    for round in 0.. {
        assert!(round < 1000, "never at the head");
        got.extend(numbers(&heard));
        let is_at_head = got.last() == Some(&(next - 1));
        if is_at_head {
            break;
        }
        assert!(waiting(&world, client) < QUEUE, "at most a page waits");
        publish(&mut world, "room:a", next..=next + 9);
        next += 10;
        // All that waited is written, and the next page is queued.
        stall(&mut world, client);
        let worker = &mut world.workers[client.worker];
        assert!(worker.out.asked.remove(&client.id));
        worker.hub.drained(world.now, client.id, &mut worker.out);
        heard = world.heard(client);
    }
    assert_eq!(got, (1..next).collect::<Vec<_>>());
    publish(&mut world, "room:a", next..=next);
    assert_eq!(numbers(&world.heard(client)), [next], "live");
}

#[test]
fn a_slow_reader_is_parked_and_misses_nothing() {
    for delays in [
        None,
        Some(DelayOptions {
            at_once: 30,
            failures: 0,
        }),
    ] {
        let mut world = World::with(Setup { delays, ..setup() });
        let (slow, fast) = (world.connect(1), world.connect(1));
        for client in [slow, fast] {
            subscribe(&mut world, client, "room:a");
            // Parked with the other one, although nothing much happens here.
            subscribe(&mut world, client, "room:b");
        }
        stall(&mut world, slow);
        publish(&mut world, "room:a", 1..=3000);
        publish(&mut world, "room:b", 1..=2);
        assert_eq!(world.closed(slow), None);
        let parked = waiting(&world, slow);
        assert!(
            (QUEUE / 4..QUEUE / 4 + 200).contains(&parked),
            "{parked} bytes wait"
        );
        assert_eq!(numbers(&world.heard(fast)).len(), 3002);
        assert_eq!(world.workers[1].hub.counters().parked, 2);
        flow(&mut world, slow);
        publish(&mut world, "room:a", 3001..=3001);
        let heard = world.heard(slow);
        let of = |channel: &str| {
            let heard = heard
                .iter()
                .filter(|message| message["push"]["channel"] == json!(channel));
            numbers(&heard.cloned().collect::<Vec<_>>())
        };
        assert_eq!(of("room:a"), (1..=3001).collect::<Vec<_>>());
        assert_eq!(of("room:b"), [1, 2]);
        let counters = world.workers[1].hub.counters();
        assert_eq!((counters.lost, counters.dropped, counters.slow), (0, 0, 0));
    }
}

#[test]
fn who_is_parked_for_longer_than_history_lasts_is_told() {
    let mut setup = setup();
    setup.channel.namespaces[0].history_size = 100;
    let mut world = World::with(setup);
    let client = world.connect(0);
    subscribe(&mut world, client, "room:a");
    stall(&mut world, client);
    publish(&mut world, "room:a", 1..=5000);
    flow(&mut world, client);
    let heard = world.heard(client);
    let got = numbers(&heard);
    assert_eq!(got, (1..=got.len() as u64).collect::<Vec<_>>());
    assert_eq!(
        heard.last().unwrap()["push"]["unsubscribe"]["code"],
        json!(2500)
    );
    assert_eq!(world.workers[0].hub.counters().lost, 1);
}

/// What has the offset that comes next may be of a stream that began anew, of which the feed has said nothing
/// yet.
#[test]
fn who_is_parked_reads_no_other_stream_than_the_one_it_began() {
    let mut setup = setup();
    setup.channel.namespaces[0].history_meta_ttl = Duration::from_secs(100);
    let mut world = World::with(setup);
    let client = world.connect(1);
    subscribe(&mut world, client, "room:a");
    stall(&mut world, client);
    publish(&mut world, "room:a", 1..=3000);
    let got = numbers(&world.heard(client));
    assert!(got.len() < 1000, "it is parked");
    world.now.monotonic += Duration::from_secs(400);
    for number in 0..2000 {
        let request = tautline_hub::ApiPublish {
            channel: "room:a".into(),
            data: (100_000 + number).to_string().into(),
            ..tautline_hub::ApiPublish::default()
        };
        let now = world.now;
        let hub = &mut world.workers[0].hub;
        hub.api_publish(now, request, |result| {
            result.unwrap();
        });
    }
    world.workers[1].out.stalled.clear();
    while world.drain(1) {}
    let heard = world.heard(client);
    assert_eq!(numbers(&heard), [0; 0]);
    let last = &heard.last().unwrap()["push"]["unsubscribe"];
    assert_eq!(last["code"], json!(2500), "{heard:?}");
}

#[test]
fn the_latest_is_what_a_slow_reader_gets() {
    let mut world = World::with(setup());
    let client = world.connect(1);
    for channel in ["latest:a", "keyed:a"] {
        subscribe(&mut world, client, channel);
    }
    stall(&mut world, client);
    publish(&mut world, "latest:a", 1..=3000);
    let got = numbers(&world.heard(client));
    publish(&mut world, "keyed:a", 1..=3000);
    assert!(numbers(&world.heard(client)).is_empty());
    flow(&mut world, client);
    let heard = numbers(&world.heard(client));
    let (keyed, latest): (Vec<u64>, Vec<u64>) = (
        heard[..heard.len() - 1].to_vec(),
        heard[heard.len() - 1..].to_vec(),
    );
    assert_eq!(keyed, [2998, 2999, 3000], "one for each key, in order");
    assert_eq!(latest, [3000]);
    let dropped = world.workers[1].hub.counters().dropped;
    assert_eq!(dropped, 3000 - got.len() as u64 - 1 + 3000 - 3);
    publish(&mut world, "latest:a", 3001..=3001);
    assert_eq!(numbers(&world.heard(client)), [3001], "live");
}

#[test]
fn who_comes_again_without_room_gets_the_latest_of_what_came_since() {
    let mut world = World::with(setup());
    let (client, other) = (world.connect(1), world.connect(1));
    for client in [client, other] {
        subscribe(&mut world, client, "latest:a");
    }
    stall(&mut world, client);
    publish(&mut world, "latest:a", 1..=3000);
    world.tell(
        client,
        json!({"id": 3, "unsubscribe": {"channel": "latest:a"}}),
    );
    subscribe(&mut world, client, "latest:a");
    publish(&mut world, "latest:a", 3001..=3005);
    flow(&mut world, client);
    let heard = numbers(&world.heard(client));
    assert_eq!(heard.first(), Some(&3001), "{heard:?}");
    assert_eq!(heard.last(), Some(&3005), "{heard:?}");
    publish(&mut world, "latest:a", 3006..=3006);
    assert_eq!(numbers(&world.heard(client)), [3006], "live");
}

#[test]
fn the_oldest_is_what_a_slow_reader_does_without() {
    let mut world = World::with(setup());
    let client = world.connect(1);
    subscribe(&mut world, client, "newest:a");
    stall(&mut world, client);
    publish(&mut world, "newest:a", 1..=3000);
    let before = numbers(&world.heard(client));
    assert_eq!(before, (1..=before.len() as u64).collect::<Vec<_>>());
    flow(&mut world, client);
    let after = numbers(&world.heard(client));
    assert_eq!(
        after,
        (3001 - after.len() as u64..=3000).collect::<Vec<_>>()
    );
    assert!(after.len() > 50, "as many as there is room for");
    let dropped = world.workers[1].hub.counters().dropped;
    assert_eq!(dropped, 3000 - (before.len() + after.len()) as u64);
}

#[test]
fn what_is_held_for_a_slow_reader_has_a_bound_of_bytes() {
    let mut world = World::with(setup());
    let client = world.connect(1);
    subscribe(&mut world, client, "newest:a");
    stall(&mut world, client);
    let size = 3_000;
    for _ in 0..100 {
        let request = tautline_hub::ApiPublish {
            channel: "newest:a".into(),
            data: json!("x".repeat(size)).to_string().into(),
            ..tautline_hub::ApiPublish::default()
        };
        let now = world.now;
        let hub = &mut world.workers[0].hub;
        hub.api_publish(now, request, |result| {
            result.unwrap();
        });
        world.settle();
    }
    world.heard(client);
    flow(&mut world, client);
    let held = world.heard(client).len();
    assert!(held > 0 && held * size <= QUEUE / 4, "{held}");
}

#[test]
fn who_leaves_while_behind_leaves_nothing_behind() {
    let delays = Some(DelayOptions::default());
    let mut world = World::with(Setup { delays, ..setup() });
    publish(&mut world, "room:a", 1..=2000);
    for steps in 0..12 {
        let client = world.connect(1);
        let request = json!({"channel": "room:a", "recover": true, "offset": 0});
        world.send_only(client, &json!({"id": 2, "subscribe": request}).to_string());
        for _ in 0..steps {
            world.delayed.as_ref().unwrap().step(world.now);
            world.deliver(1);
        }
        world.send(client, r#"{"id":3,"unsubscribe":{"channel":"room:a"}}"#);
        let heard = world.heard(client);
        let end = heard
            .iter()
            .position(|message| message["unsubscribe"].is_object());
        assert_eq!(end, Some(heard.len() - 1), "nothing comes behind it");
        assert_eq!(world.workers[1].hub.stats().subscriptions, 0);
        // And back in, from where it was.
        let request = json!({"channel": "room:a", "recover": true, "offset": 1990});
        let heard = world.tell(client, json!({"id": 4, "subscribe": request}));
        assert_eq!(
            heard[0]["subscribe"]["publications"]
                .as_array()
                .unwrap()
                .len(),
            10
        );
        world.drop_connection(client);
        world.settle();
    }
}

#[test]
fn an_engine_in_trouble_is_asked_again() {
    let delays = Some(DelayOptions {
        at_once: 0,
        failures: 30,
    });
    let mut world = World::with(Setup {
        delays,
        seed: 3,
        ..setup()
    });
    let client = world.connect(1);
    let mut published = 0;
    while published < 2000 {
        let request = tautline_hub::ApiPublish {
            channel: "room:a".into(),
            data: "1".into(),
            ..tautline_hub::ApiPublish::default()
        };
        world.workers[0].hub.api_publish(world.now, request, |_| ());
        published += 1;
    }
    world.settle();
    let recovered = loop {
        let request = json!({"channel": "room:a", "recover": true, "offset": 0});
        let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
        if heard[0]["subscribe"].is_object() {
            break heard;
        }
    };
    let mut count = recovered[0]["subscribe"]["publications"]
        .as_array()
        .unwrap()
        .len();
    count += numbers(&recovered).len();
    for _ in 0..100 {
        world.seconds(1);
        count += numbers(&world.heard(client)).len();
    }
    let heard = world.tell(client, json!({"id": 3, "history": {"channel": "room:a"}}));
    let history = heard
        .iter()
        .find(|message| message["id"] == json!(3))
        .unwrap();
    if let Some(top) = history["history"]["offset"].as_u64() {
        assert_eq!(count as u64, top);
    }
    assert!(count > 1000, "{count}");
}

#[test]
fn a_slow_reader_is_alive_as_long_as_it_reads() {
    let mut setup = setup();
    setup.client.ping_interval = Duration::from_secs(25);
    let mut world = World::with(setup);
    let (reader, dead) = (world.connect(0), world.connect(0));
    for client in [reader, dead] {
        subscribe(&mut world, client, "room:a");
        stall(&mut world, client);
    }
    publish(&mut world, "room:a", 1..=3000);
    // The reader's connection takes a little all the time; the ping is behind all that.
    for _ in 0..100 {
        world.seconds(1);
        take(&mut world, reader, 100);
    }
    assert_eq!(world.closed(dead), Some((3012, true)));
    assert_eq!(world.closed(reader), None);
    // Until it takes no more.
    world.seconds(20);
    assert_eq!(world.closed(reader), Some((3012, true)));
}
