//! Subscribers with filters, and subscribers that take patches.

use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::ApiPublish;
use tautline_hub::config::{DeltaType, RecoveryMode, SlowConsumerOption};
use tautline_hub::engine::testkit::Seeded;
use tautline_protocol::delta;

use crate::support::{Client, Setup, World, sign_claims};

fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.client.ping_interval = Duration::ZERO;
    let room = &mut setup.channel.namespaces[0];
    room.join_leave = false;
    room.force_push_join_leave = false;
    room.history_size = 1000;
    room.allow_tags_filter = true;
    room.allowed_delta_types = vec![DeltaType::Fossil];
    room.delta_publish = true;
    let mut cache = room.clone();
    cache.name = "cache".into();
    cache.force_recovery_mode = RecoveryMode::Cache;
    let mut auto = cache.clone();
    auto.name = "auto".into();
    auto.auto_cache_recover = true;
    setup.channel.namespaces.extend([cache, auto]);
    setup
}

fn publish(world: &mut World, channel: &str, data: &Value, tags: &[(&str, &str)]) {
    publish_only(world, channel, data, tags);
    world.settle();
}

/// Leaves the publication in the mailboxes.
fn publish_only(world: &mut World, channel: &str, data: &Value, tags: &[(&str, &str)]) {
    let tags = tags
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let request = ApiPublish {
        channel: channel.into(),
        data: data.to_string().into(),
        tags: tags.collect(),
        ..ApiPublish::default()
    };
    world.workers[0]
        .hub
        .api_publish(world.now, request, |result| {
            result.unwrap();
        });
}

fn subscribe(world: &mut World, client: Client, mut request: Value) -> Value {
    if request["channel"].is_null() {
        request["channel"] = json!("room:a");
    }
    let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
    heard[0].clone()
}

fn publications(heard: &[Value]) -> Vec<Value> {
    let pushes = heard.iter().map(|message| message["push"]["pub"].clone());
    pushes.filter(Value::is_object).collect()
}

fn data(publications: &[Value]) -> Vec<&Value> {
    publications
        .iter()
        .map(|publication| &publication["data"])
        .collect()
}

fn lang(value: &str) -> Value {
    json!({"key": "lang", "cmp": "eq", "val": value})
}

#[test]
fn a_filter_lets_through_what_it_matches() {
    let mut world = World::with(setup());
    let clients = [world.connect(0), world.connect(0), world.connect(1)];
    for (client, filter) in clients.iter().zip(["en", "en", "de"]) {
        subscribe(&mut world, *client, json!({"tf": lang(filter)}));
    }
    let all = world.connect(1);
    subscribe(&mut world, all, json!({}));
    for (number, tag) in ["en", "de", "fr", "en"].iter().enumerate() {
        publish(&mut world, "room:a", &json!(number), &[("lang", tag)]);
    }
    let mut numbers = |client| {
        let heard = publications(&world.heard(client));
        heard
            .iter()
            .map(|p| p["data"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(clients[0]), [0, 3]);
    assert_eq!(numbers(clients[1]), [0, 3]);
    assert_eq!(numbers(clients[2]), [1]);
    assert_eq!(numbers(all), [0, 1, 2, 3]);
}

/// As many as one message takes, and more, are told apart one by one.
#[test]
fn a_filter_picks_from_all_that_come_together() {
    let mut world = World::with(setup());
    let clients = [world.connect(0), world.connect(1)];
    for (client, filter) in clients.iter().zip(["en", "de"]) {
        subscribe(&mut world, *client, json!({"tf": lang(filter)}));
    }
    let is_english = |number: usize| number.is_multiple_of(7) || number == 63 || number % 32 == 31;
    for number in 0..100 {
        let tag = if is_english(number) { "en" } else { "de" };
        publish_only(&mut world, "room:a", &json!(number), &[("lang", tag)]);
    }
    world.settle();
    let mut numbers = |client| {
        let heard = publications(&world.heard(client));
        let numbers = heard.iter().map(|one| one["data"].as_u64().unwrap());
        numbers.map(|number| number as usize).collect::<Vec<_>>()
    };
    let (english, others): (Vec<_>, Vec<_>) = (0..100).partition(|number| is_english(*number));
    assert_eq!(numbers(clients[0]), english);
    assert_eq!(numbers(clients[1]), others);
}

#[test]
fn a_filter_holds_for_what_is_recovered_and_for_pages_too() {
    let mut setup = setup();
    setup.client.recovery_max_publication_limit = 10;
    let mut world = World::with(setup);
    for number in 0..100 {
        let tag = if number % 3 == 0 { "en" } else { "de" };
        publish(&mut world, "room:a", &json!(number), &[("lang", tag)]);
    }
    let client = world.connect(1);
    let request = json!({"channel": "room:a", "recover": true, "offset": 0, "tf": lang("en")});
    let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
    let result = &heard[0]["subscribe"];
    assert_eq!(result["recovered"], json!(true));
    let recovered = result["publications"].as_array().unwrap();
    assert_eq!(
        data(recovered),
        [&json!(0), &json!(3), &json!(6), &json!(9)]
    );
    let rest = publications(&heard);
    let expected: Vec<Value> = (12..100).step_by(3).map(|number| json!(number)).collect();
    assert_eq!(data(&rest), expected.iter().collect::<Vec<_>>());
    publish(&mut world, "room:a", &json!(100), &[("lang", "de")]);
    publish(&mut world, "room:a", &json!(101), &[("lang", "en")]);
    assert_eq!(data(&publications(&world.heard(client))), [&json!(101)]);
}

#[test]
fn a_filter_that_lets_nothing_through_keeps_nobody_waiting() {
    let mut setup = setup();
    setup.channel.namespaces[0].history_size = 100_000;
    let mut world = World::with(setup);
    for number in 0..12_000 {
        publish_only(&mut world, "room:a", &json!(number), &[]);
    }
    world.settle();
    let client = world.connect(1);
    let request = json!({"channel": "room:a", "recover": true, "offset": 0, "tf": lang("en")});
    world.send_only(client, &json!({"id": 2, "subscribe": request}).to_string());
    let pages = |world: &World| world.workers[1].hub.counters().pages;
    assert!(
        (1..20).contains(&pages(&world)),
        "{} at once",
        pages(&world)
    );
    world.settle();
    assert!(pages(&world) > 20);
    publish(&mut world, "room:a", &json!("hello"), &[("lang", "en")]);
    let heard = publications(&world.heard(client));
    assert_eq!(data(&heard), [&json!("hello")]);
}

#[test]
fn a_filter_that_is_not_allowed_or_not_one_is_refused() {
    let mut world = World::with(setup());
    let client = world.connect(0);
    let refused = subscribe(
        &mut world,
        client,
        json!({"channel": "news", "tf": lang("en")}),
    );
    assert_eq!(refused["error"]["code"], json!(107));
    let refused = subscribe(&mut world, client, json!({"tf": {"cmp": "like"}}));
    assert_eq!(refused["error"]["code"], json!(107));
    assert_eq!(world.workers[0].hub.stats().subscriptions, 0);
}

/// What an SDK does with the publications of a subscription that takes patches.
#[derive(Default)]
struct Patched {
    base: Option<Vec<u8>>,
    patches: usize,
}

impl Patched {
    fn apply(&mut self, publication: &Value) -> Value {
        let text = publication["data"]
            .as_str()
            .expect("always a string")
            .as_bytes();
        let whole = if publication["delta"] == json!(true) {
            self.patches += 1;
            let base = self.base.as_ref().expect("a patch against something");
            delta::apply(base, text, 1 << 20).expect("made against what the client has")
        } else {
            text.to_vec()
        };
        self.base = Some(whole.clone());
        serde_json::from_slice(&whole).unwrap()
    }
}

fn reading(number: u64) -> Value {
    json!({"device": "pump-7", "status": "running", "site": "north bank \u{fc}ber", "rpm": number, "filling": "x".repeat(60)})
}

#[test]
fn patches_are_what_others_get_whole() {
    let mut world = World::with(setup());
    let clients = [world.connect(0), world.connect(0), world.connect(1)];
    for client in clients {
        let answer = subscribe(&mut world, client, json!({"delta": "fossil"}));
        assert_eq!(answer["subscribe"]["delta"], json!(true));
    }
    let plain = world.connect(0);
    assert!(subscribe(&mut world, plain, json!({}))["subscribe"]["delta"].is_null());
    for number in 0..20 {
        publish(&mut world, "room:a", &reading(number), &[]);
    }
    for client in clients {
        let mut patched = Patched::default();
        let heard = publications(&world.heard(client));
        for (number, publication) in heard.iter().enumerate() {
            assert_eq!(patched.apply(publication), reading(number as u64));
        }
        assert_eq!(
            (heard.len(), patched.patches),
            (20, 19),
            "one whole, the rest patches"
        );
    }
    let heard = publications(&world.heard(plain));
    assert_eq!(heard[7]["data"], reading(7));
    // One encoding, and for each publication: plain, whole or patch.
    assert!(world.workers[0].out.prepared <= 2 * 20 + 10);
}

/// Of half a kilobyte each, one by one and together, and the same again and again.
#[test]
fn alike_publications_are_one_whole_and_patches() {
    let mut world = World::with(setup());
    let client = world.connect(1);
    subscribe(&mut world, client, json!({"delta": "fossil"}));
    let long = |number: u64| json!({"text": "all the same ".repeat(38), "number": number / 2});
    for number in 0..10 {
        publish(&mut world, "room:a", &long(number), &[]);
    }
    for number in 10..80 {
        publish_only(&mut world, "room:a", &long(number), &[]);
    }
    world.settle();
    let mut patched = Patched::default();
    let heard = publications(&world.heard(client));
    let got: Vec<Value> = heard.iter().map(|one| patched.apply(one)).collect();
    assert_eq!(got, (0..80).map(long).collect::<Vec<_>>());
    assert_eq!(patched.patches, 79);
}

/// So many of these are patches, and put together they are the readings with these numbers.
fn assemble(patched: &mut Patched, publications: &[Value], numbers: std::ops::Range<u64>) -> usize {
    let before = patched.patches;
    let got: Vec<Value> = publications.iter().map(|one| patched.apply(one)).collect();
    assert_eq!(got, numbers.map(reading).collect::<Vec<_>>());
    patched.patches - before
}

#[test]
fn what_is_recovered_comes_as_patches_and_so_does_what_follows() {
    let mut world = World::with(setup());
    for number in 0..10 {
        publish(&mut world, "room:a", &reading(number), &[]);
    }
    // Whether or not somebody was there before.
    let other = world.connect(1);
    subscribe(&mut world, other, json!({"delta": "fossil"}));
    publish(&mut world, "room:a", &reading(10), &[]);
    for client in [world.connect(0), world.connect(1)] {
        recovers_patches(&mut world, client);
    }
}

fn recovers_patches(world: &mut World, client: Client) {
    let next = if client.worker == 0 { 11 } else { 14 };
    let request = json!({"delta": "fossil", "recover": true, "offset": 4});
    let result = subscribe(world, client, request)["subscribe"].clone();
    assert_eq!(result["recovered"], json!(true));
    let recovered = result["publications"].as_array().unwrap();
    let mut patched = Patched::default();
    let patches = assemble(&mut patched, recovered, 4..next);
    assert_eq!(patches, recovered.len() - 1, "the first is whole");
    for number in next..next + 3 {
        publish(world, "room:a", &reading(number), &[]);
    }
    let live = publications(&world.heard(client));
    assert_eq!(
        assemble(&mut patched, &live, next..next + 3),
        3,
        "has the base"
    );
}

#[test]
fn who_recovers_nothing_has_no_base_yet() {
    let mut world = World::with(setup());
    let other = world.connect(1);
    subscribe(&mut world, other, json!({"delta": "fossil"}));
    publish(&mut world, "room:a", &reading(0), &[]);
    let client = world.connect(1);
    let request = json!({"delta": "fossil", "recover": true, "offset": 1});
    let result = subscribe(&mut world, client, request)["subscribe"].clone();
    assert!(result["recovered"] == json!(true) && result["publications"].is_null());
    publish(&mut world, "room:a", &reading(1), &[]);
    publish(&mut world, "room:a", &reading(2), &[]);
    let mut patched = Patched::default();
    let live = publications(&world.heard(client));
    assert_eq!(assemble(&mut patched, &live, 1..3), 1);
}

#[test]
fn pages_are_patches_of_what_this_subscriber_got_before() {
    let mut setup = setup();
    setup.client.recovery_max_publication_limit = 5;
    let mut world = World::with(setup);
    for number in 0..900 {
        let tag = if number % 3 == 0 { "en" } else { "de" };
        publish_only(&mut world, "room:a", &reading(number), &[("lang", tag)]);
    }
    world.settle();
    for filter in [None, Some("en")] {
        let client = world.connect(0);
        let before = world.workers[0].hub.counters().pages;
        let mut request = json!({"delta": "fossil", "recover": true, "offset": 0});
        if let Some(lang) = filter {
            request["tf"] = self::lang(lang);
        }
        request["channel"] = json!("room:a");
        let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
        let result = &heard[0]["subscribe"];
        let mut all = result["publications"].as_array().unwrap().clone();
        all.extend(publications(&heard));
        let step = if filter.is_some() { 3 } else { 1 };
        let mut patched = Patched::default();
        let got: Vec<Value> = all.iter().map(|one| patched.apply(one)).collect();
        let expected: Vec<Value> = (0..900).step_by(step).map(reading).collect();
        assert_eq!(got, expected);
        let pages = (world.workers[0].hub.counters().pages - before) as usize;
        assert!(pages < 10);
        let whole = all.len() - patched.patches;
        assert!((1..=pages + 1).contains(&whole), "{whole} in {pages} pages");
    }
}

#[test]
fn who_was_parked_gets_patches_again_as_soon_as_it_has_caught_up() {
    let mut setup = setup();
    setup.client.queue_max_size = 8000;
    let mut world = World::with(setup);
    let client = world.connect(0);
    subscribe(&mut world, client, json!({"delta": "fossil"}));
    world.workers[0].out.stalled.insert(client.id, 0);
    for number in 0..300 {
        publish(&mut world, "room:a", &reading(number), &[]);
    }
    assert!(world.workers[0].hub.counters().parked > 0);
    world.workers[0].out.stalled.remove(&client.id);
    world.settle();
    publish(&mut world, "room:a", &reading(300), &[]);
    let heard = publications(&world.heard(client));
    let mut patched = Patched::default();
    assemble(&mut patched, &heard, 0..301);
    assert_eq!(
        heard[300]["delta"],
        json!(true),
        "the class got the same last"
    );
}

#[test]
fn the_publisher_may_ask_for_a_patch_where_the_namespace_does_not() {
    let mut setup = setup();
    setup.channel.namespaces[0].delta_publish = false;
    let mut world = World::with(setup);
    let client = world.connect(1);
    let answer = subscribe(&mut world, client, json!({"delta": "fossil"}));
    assert_eq!(answer["subscribe"]["delta"], json!(true));
    let mut patched = Patched::default();
    for (number, delta) in [(0, true), (1, true), (2, false), (3, true)] {
        let request = ApiPublish {
            channel: "room:a".into(),
            data: reading(number).to_string().into(),
            delta,
            ..ApiPublish::default()
        };
        let now = world.now;
        world.workers[0].hub.api_publish(now, request, |_| ());
        world.settle();
        let publication = publications(&world.heard(client)).remove(0);
        let is_patch = publication["delta"] == json!(true);
        assert_eq!(is_patch, delta && number > 0, "{number}");
        assert_eq!(patched.apply(&publication), reading(number));
    }
}

#[test]
fn patches_are_not_for_those_who_may_not_have_them() {
    let mut world = World::with(setup());
    let client = world.connect(0);
    let answer = subscribe(
        &mut world,
        client,
        json!({"channel": "news", "delta": "fossil"}),
    );
    assert_eq!(answer["subscribe"], json!({}));
}

/// Subscribers come, go, fall behind, and filter, while publications of all kinds come. Whatever they
/// get can be put together to what was published.
#[test]
fn patches_fit_whatever_happens() {
    for seed in 0..60 {
        let mut setup = setup();
        setup.client.queue_max_size = 8000;
        setup.client.recovery_max_publication_limit = 3;
        let latest = seed % 3 == 0;
        setup.channel.namespaces[0].slow_consumer = if latest {
            SlowConsumerOption::Latest
        } else {
            SlowConsumerOption::Park
        };
        let mut random = Seeded::new(seed);
        let mut world = World::with(setup);
        let mut published: Vec<(u64, Value)> = Vec::new();
        let mut clients: Vec<(Client, Patched, u64, bool)> = Vec::new();
        for step in 0..150_u64 {
            match random.below(10) {
                0 if clients.len() < 5 => {
                    let client = world.connect(random.below(2));
                    let offset = random.below(published.len() + 1) as u64;
                    let mut request = json!({"channel": "room:a", "delta": "fossil", "recover": true, "offset": offset});
                    let is_filtered = random.chance(50);
                    if is_filtered {
                        request["tf"] = lang("en");
                    }
                    world.send_only(client, &json!({"id": 2, "subscribe": request}).to_string());
                    clients.push((client, Patched::default(), offset, is_filtered));
                }
                1 if !clients.is_empty() => {
                    let client = clients[random.below(clients.len())].0;
                    let stalled = &mut world.workers[client.worker].out.stalled;
                    if stalled.remove(&client.id).is_none() {
                        stalled.insert(client.id, 0);
                    }
                    // Reads on while the feed is behind.
                    world.drain(client.worker);
                }
                2 => {
                    // No part of the stream; who has no room does without.
                    let request = ApiPublish {
                        channel: "room:a".into(),
                        data: reading(1000 + step).to_string().into(),
                        skip_history: true,
                        tags: [("lang".to_owned(), "en".to_owned())].into(),
                        ..ApiPublish::default()
                    };
                    let now = world.now;
                    world.workers[1].hub.api_publish(now, request, |_| ());
                }
                _ => {
                    let tag = if random.chance(70) { "en" } else { "de" };
                    let value = if random.chance(10) {
                        json!(step)
                    } else {
                        reading(step)
                    };
                    published.push((published.len() as u64 + 1, value.clone()));
                    publish_only(&mut world, "room:a", &value, &[("lang", tag)]);
                    if random.chance(50) {
                        world.deliver(random.below(2));
                    }
                }
            }
        }
        for (client, patched, from, is_filtered) in &mut clients {
            world.workers[client.worker].out.stalled.remove(&client.id);
            world.settle();
            let heard = world.heard(*client);
            let recovered = heard[1]["subscribe"]["publications"].as_array();
            let first = heard
                .iter()
                .find_map(|m| m["subscribe"]["publications"].as_array());
            let all = recovered.or(first).cloned().unwrap_or_default();
            let mut last = *from;
            for publication in all.into_iter().chain(publications(&heard)) {
                let Some(offset) = publication["offset"].as_u64() else {
                    assert!(patched.apply(&publication)["rpm"].as_u64() >= Some(1000));
                    continue;
                };
                assert!(offset > last, "seed {seed}");
                assert!(offset == last + 1 || *is_filtered || latest, "seed {seed}");
                last = offset;
                assert_eq!(
                    patched.apply(&publication),
                    published[offset as usize - 1].1,
                    "seed {seed}"
                );
            }
        }
    }
}

#[test]
fn the_newest_is_what_a_cache_recovers() {
    let mut world = World::with(setup());
    let client = world.connect(0);
    let request = json!({"channel": "cache:a", "recover": true});
    let result = subscribe(&mut world, client, request.clone())["subscribe"].clone();
    assert!(result["recovered"].is_null() && result["was_recovering"] == json!(true));
    for number in 1..=5 {
        let tag = if number == 5 { "de" } else { "en" };
        publish(&mut world, "cache:a", &json!(number), &[("lang", tag)]);
    }
    let client = world.connect(1);
    let result = subscribe(&mut world, client, request)["subscribe"].clone();
    assert_eq!(result["recovered"], json!(true));
    assert!(result["offset"].is_null(), "the one asked for");
    let recovered = result["publications"].as_array().unwrap();
    assert_eq!(data(recovered), [&json!(5)]);
    publish(&mut world, "cache:a", &json!(6), &[]);
    assert_eq!(data(&publications(&world.heard(client))), [&json!(6)]);

    let filtered = world.connect(1);
    let request = json!({"channel": "cache:a", "recover": true, "tf": lang("en")});
    let result = subscribe(&mut world, filtered, request)["subscribe"].clone();
    assert_eq!(
        data(result["publications"].as_array().unwrap()),
        [&json!(4)]
    );

    let current = world.connect(0);
    let request =
        json!({"channel": "cache:a", "recover": true, "offset": 6, "epoch": result["epoch"]});
    let result = subscribe(&mut world, current, request)["subscribe"].clone();
    assert_eq!(result["recovered"], json!(true));
    assert!(result["publications"].is_null(), "it has the newest");
}

#[test]
fn a_cache_may_be_recovered_without_asking() {
    let mut world = World::with(setup());
    publish(&mut world, "auto:a", &json!(1), &[]);
    publish(&mut world, "auto:a", &json!(2), &[]);
    let client = world.connect(0);
    let result = subscribe(&mut world, client, json!({"channel": "auto:a"}))["subscribe"].clone();
    assert_eq!(
        data(result["publications"].as_array().unwrap()),
        [&json!(2)]
    );
    assert_eq!(result["was_recovering"], json!(true));
    // So does what the server subscribes a client to.
    let token = sign_claims(&json!({"sub": "7", "channels": ["auto:a"]}));
    let client = world.open(0);
    let heard = world.tell(client, json!({"id": 1, "connect": {"token": token}}));
    let result = &heard[0]["connect"]["subs"]["auto:a"];
    assert_eq!(
        data(result["publications"].as_array().unwrap()),
        [&json!(2)]
    );
    assert_eq!(result["was_recovering"], json!(true));
    assert_eq!(result["recovered"], json!(true));
}

/// Pages of history are for whoever asks, and know of no patches.
#[test]
fn history_is_told_whole_and_as_it_is_to_those_who_take_patches() {
    let mut world = World::with(setup());
    let client = world.connect(0);
    let request = json!({"channel": "room:a", "delta": "fossil"});
    let result = subscribe(&mut world, client, request);
    assert_eq!(result["subscribe"]["delta"], json!(true));
    for number in 0..3 {
        let data = json!({"number": number, "filling": "x".repeat(100)});
        publish(&mut world, "room:a", &data, &[]);
    }
    let heard = world.heard(client);
    assert!(
        heard
            .iter()
            .all(|push| push["push"]["pub"]["data"].is_string())
    );
    assert_eq!(heard[1]["push"]["pub"]["delta"], json!(true));
    let ask = json!({"id": 3, "history": {"channel": "room:a", "limit": 10}});
    let heard = world.tell(client, ask);
    let page = heard[0]["history"]["publications"].as_array().unwrap();
    for (number, publication) in page.iter().enumerate() {
        assert_eq!(publication["data"]["number"], json!(number));
        assert!(publication["delta"].is_null(), "{publication}");
    }
    assert_eq!(page.len(), 3);
}
