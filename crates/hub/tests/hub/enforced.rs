//! Filters that are imposed on subscribers: whatever they ask for, they get no more than these let through.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tautline_hub::ApiPublish;
use tautline_hub::config::{DeltaType, RecoveryMode, TagsFilterTemplate};
use tautline_hub::engine::testkit::DelayOptions;
use tautline_protocol::delta;
use tautline_protocol::filter::{FilterLimits, RawFilter};

use crate::support::{Client, Setup, World, sign_claims};

fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.client.ping_interval = Duration::ZERO;
    setup.client.recovery_max_publication_limit = 3;
    setup.client.rate_limit.client_command.enabled = false;
    let room = &mut setup.channel.namespaces[0];
    room.join_leave = false;
    room.force_push_join_leave = false;
    room.history_size = 1000;
    room.allow_tags_filter = true;
    room.allow_history_for_client = true;
    room.allowed_delta_types = vec![DeltaType::Fossil];
    room.delta_publish = true;
    let mut cache = room.clone();
    cache.name = "cache".into();
    cache.force_recovery_mode = RecoveryMode::Cache;
    let mut own = room.clone();
    own.name = "mine".into();
    own.server_tags_filter =
        Some(TagsFilterTemplate::parse(r#"{"key":"owner","cmp":"eq","val":"{{user}}"}"#).unwrap());
    setup.channel.namespaces.extend([cache, own]);
    setup
}

fn publish(world: &mut World, channel: &str, number: usize, tags: &BTreeMap<String, String>) {
    let request = ApiPublish {
        channel: channel.into(),
        data: json!({"number": number, "padding": "a text that patches can be made of"})
            .to_string()
            .into(),
        tags: tags.clone(),
        ..ApiPublish::default()
    };
    let publish = |result: Result<_, _>| {
        result.unwrap();
    };
    world.workers[0]
        .hub
        .api_publish(world.now, request, publish);
}

fn tagged(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

fn ticket(channel: &str, filter: &Value) -> String {
    sign_claims(&json!({"sub": "42", "channel": channel, "server_tags_filter": filter}))
}

fn lang(value: &str) -> Value {
    json!({"key": "lang", "cmp": "eq", "val": value})
}

/// The numbers of publications, whether they are patches or not.
#[derive(Default)]
struct Reader {
    base: Vec<u8>,
    numbers: Vec<u64>,
}

impl Reader {
    fn read(&mut self, publication: &Value, takes_patches: bool) {
        let data = if takes_patches {
            let text = publication["data"].as_str().unwrap().as_bytes();
            self.base = if publication["delta"] == json!(true) {
                delta::apply(&self.base, text, 1_000_000).unwrap()
            } else {
                text.to_vec()
            };
            serde_json::from_slice(&self.base).unwrap()
        } else {
            publication["data"].clone()
        };
        self.numbers.push(data["number"].as_u64().unwrap());
    }

    fn hear(&mut self, heard: &[Value], takes_patches: bool) {
        for message in heard {
            let list = message["subscribe"]["publications"].as_array();
            for publication in list.into_iter().flatten() {
                self.read(publication, takes_patches);
            }
            let publication = &message["push"]["pub"];
            if publication.is_object() {
                self.read(publication, takes_patches);
            }
        }
    }
}

fn history(world: &mut World, client: Client, request: Value) -> (Vec<u64>, Value) {
    let heard = world.tell(client, json!({"id": 7, "history": request}));
    let answer = heard
        .iter()
        .find(|message| message["id"] == json!(7))
        .unwrap();
    let result = answer["history"].clone();
    let list = result["publications"].as_array();
    let list = list.unwrap_or_else(|| panic!("{answer}")).iter();
    let numbers = list.map(|publication| publication["data"]["number"].as_u64().unwrap());
    (numbers.collect(), result)
}

#[test]
fn a_token_says_what_its_bearer_may_know_live_recovered_and_from_history() {
    for delays in [None, Some(DelayOptions::default())] {
        let mut world = World::with(Setup { delays, ..setup() });
        for number in 0..40 {
            let tag = if number % 4 == 0 { "en" } else { "de" };
            publish(&mut world, "room:a", number, &tagged(&[("lang", tag)]));
        }
        world.settle();
        let client = world.connect_as(1, "42");
        let token = ticket("room:a", &lang("en"));
        let request = json!({"channel": "room:a", "token": token, "recover": true, "offset": 0});
        let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
        assert_eq!(heard[0]["subscribe"]["recovered"], json!(true));
        let mut reader = Reader::default();
        reader.hear(&heard, false);
        for (number, tag) in [(40, "de"), (41, "en")] {
            publish(&mut world, "room:a", number, &tagged(&[("lang", tag)]));
        }
        world.settle();
        reader.hear(&world.heard(client), false);
        let expected: Vec<u64> = (0..40).step_by(4).chain([41]).collect();
        assert_eq!(reader.numbers, expected);

        let all = json!({"channel": "room:a", "limit": 100});
        let (numbers, result) = history(&mut world, client, all);
        assert_eq!(numbers, expected);
        assert_eq!(result["offset"], json!(42), "the top is no secret");
        let page = json!({"channel": "room:a", "limit": 3, "since": {"offset": 9, "epoch": ""}});
        assert_eq!(history(&mut world, client, page).0, [12, 16, 20]);
        let back = json!({"channel": "room:a", "limit": 3, "reverse": true});
        assert_eq!(history(&mut world, client, back).0, [41, 36, 32]);
        let top = json!({"channel": "room:a"});
        assert_eq!(history(&mut world, client, top).0, [0; 0]);
        let other = json!({"channel": "room:a", "limit": 3, "since": {"offset": 1, "epoch": "X"}});
        let heard = world.tell(client, json!({"id": 8, "history": other}));
        assert_eq!(heard[0]["error"]["code"], json!(112));
    }
}

#[test]
fn a_client_can_narrow_it_and_not_widen_it() {
    let mut world = World::with(setup());
    let client = world.connect_as(1, "42");
    let token = ticket("room:a", &lang("en"));
    let own = json!({"op": "or", "nodes": [
        {"key": "lang", "cmp": "ex"},
        {"key": "secret", "cmp": "ex"},
    ]});
    let own = json!({"op": "and", "nodes": [own, {"key": "kind", "cmp": "neq", "val": "x"}]});
    let request = json!({"channel": "room:a", "token": token, "tf": own});
    world.tell(client, json!({"id": 2, "subscribe": request}));
    for (number, tags) in [
        (1, tagged(&[("lang", "en")])),
        (2, tagged(&[("lang", "de")])),
        (3, tagged(&[("secret", "1")])),
        (4, tagged(&[("lang", "en"), ("kind", "x")])),
        (5, tagged(&[])),
    ] {
        publish(&mut world, "room:a", number, &tags);
    }
    world.settle();
    let mut reader = Reader::default();
    reader.hear(&world.heard(client), false);
    assert_eq!(reader.numbers, [1]);
}

#[test]
fn a_namespace_can_give_everybody_his_own() {
    let mut world = World::with(setup());
    let clients = ["42", "43"].map(|user| world.connect_as(1, user));
    for client in clients {
        world.tell(client, json!({"id": 2, "subscribe": {"channel": "mine:a"}}));
    }
    for (number, owner) in [(1, "42"), (2, "43"), (3, ""), (4, "42")] {
        publish(&mut world, "mine:a", number, &tagged(&[("owner", owner)]));
    }
    world.settle();
    let numbers = clients.map(|client| {
        let mut reader = Reader::default();
        reader.hear(&world.heard(client), false);
        reader.numbers
    });
    assert_eq!(numbers, [vec![1, 4], vec![2]]);
    // Without a subscription, too.
    let stranger = world.connect_as(0, "43");
    let page = json!({"channel": "mine:a", "limit": 10});
    assert_eq!(history(&mut world, stranger, page.clone()).0, [2]);
    let nobody = world.connect(0);
    for command in [
        json!({"id": 3, "subscribe": {"channel": "mine:a"}}),
        json!({"id": 3, "history": page}),
    ] {
        let heard = world.tell(nobody, command);
        assert_eq!(heard[0]["error"]["code"], json!(103));
    }
}

#[test]
fn a_new_token_changes_what_follows() {
    let mut world = World::with(setup());
    let client = world.connect_as(1, "42");
    let own = json!({"key": "kind", "cmp": "eq", "val": "a"});
    let request = json!({
        "channel": "room:a", "token": ticket("room:a", &lang("en")), "tf": own, "delta": "fossil",
    });
    world.tell(client, json!({"id": 2, "subscribe": request}));
    let mut reader = Reader::default();
    let mut number = 0;
    let mut round = |world: &mut World, reader: &mut Reader| {
        for (lang, kind) in [
            ("en", "a"),
            ("de", "a"),
            ("de", "b"),
            ("de", "a"),
            ("en", "b"),
        ] {
            number += 1;
            publish(
                world,
                "room:a",
                number,
                &tagged(&[("lang", lang), ("kind", kind)]),
            );
        }
        world.settle();
        reader.hear(&world.heard(client), true);
        std::mem::take(&mut reader.numbers)
    };
    assert_eq!(round(&mut world, &mut reader), [1]);
    let refresh = |world: &mut World, token: String| {
        let request = json!({"channel": "room:a", "token": token});
        let heard = world.tell(client, json!({"id": 3, "sub_refresh": request}));
        assert!(heard[0]["sub_refresh"].is_object(), "{heard:?}");
    };
    refresh(&mut world, ticket("room:a", &lang("de")));
    assert_eq!(round(&mut world, &mut reader), [7, 9]);
    let all = json!({"channel": "room:a", "limit": 100});
    let (numbers, _) = history(&mut world, client, all);
    assert_eq!(
        numbers,
        [2, 3, 4, 7, 8, 9],
        "what the token says, whatever the client asked for"
    );
    // A token that says nothing of it opens nothing.
    refresh(
        &mut world,
        crate::support::channel_token("42", "room:a", None),
    );
    assert_eq!(round(&mut world, &mut reader), [12, 14]);
    let heard = world.tell(
        client,
        json!({"id": 4, "sub_refresh": {
            "channel": "room:a", "token": ticket("room:a", &json!({"op": "xor"})),
        }}),
    );
    assert_eq!(heard[0]["error"]["code"], json!(103));
    assert_eq!(round(&mut world, &mut reader), [17, 19]);
}

#[test]
fn a_subscription_without_a_filter_can_get_one() {
    let mut world = World::with(setup());
    let (client, other) = (world.connect_as(1, "42"), world.connect_as(1, "42"));
    for client in [client, other] {
        world.tell(client, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    }
    let request = json!({"channel": "room:a", "token": ticket("room:a", &lang("en"))});
    world.tell(client, json!({"id": 3, "sub_refresh": request}));
    for (number, lang) in [(1, "en"), (2, "de")] {
        publish(&mut world, "room:a", number, &tagged(&[("lang", lang)]));
    }
    world.settle();
    let numbers = [client, other].map(|client| {
        let mut reader = Reader::default();
        reader.hear(&world.heard(client), false);
        reader.numbers
    });
    assert_eq!(numbers, [vec![1], vec![1, 2]]);
}

#[test]
fn a_filter_that_can_not_be_read_opens_nothing() {
    let mut world = World::with(setup());
    let client = world.connect_as(1, "42");
    for filter in [
        json!({}),
        json!("x"),
        json!({"key": "a", "cmp": "like", "val": "b"}),
        json!(1),
    ] {
        let request = json!({"channel": "room:a", "token": ticket("room:a", &filter)});
        let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
        assert_eq!(heard[0]["error"]["code"], json!(103), "{filter}");
        let claims = json!({"sub": "42", "subs": {"room:a": {"server_tags_filter": filter}}});
        let other = world.open(0);
        let token = sign_claims(&claims);
        let heard = world.tell(other, json!({"id": 1, "connect": {"token": token}}));
        assert_eq!(heard[0]["error"]["code"], json!(103), "{filter}");
    }
}

/// A channel with as many publications that nobody may know of but the English, and one for them; and an
/// English subscriber.
fn long_history(world: &mut World, hidden: usize) -> Client {
    for number in 0..hidden {
        publish(world, "room:a", number, &tagged(&[]));
        if number % 1000 == 0 {
            // An engine takes only so many at once.
            world.settle();
        }
    }
    publish(world, "room:a", hidden, &tagged(&[("lang", "en")]));
    world.settle();
    let client = world.connect_as(1, "42");
    let request = json!({"channel": "room:a", "token": ticket("room:a", &lang("en"))});
    world.tell(client, json!({"id": 2, "subscribe": request}));
    client
}

fn long_setup() -> Setup {
    let mut setup = setup();
    setup.channel.namespaces[0].history_size = 20_000;
    setup
}

#[test]
fn what_is_hidden_does_not_end_a_page() {
    for delays in [None, Some(DelayOptions::default())] {
        let mut world = World::with(Setup {
            delays,
            ..long_setup()
        });
        let client = long_history(&mut world, 12_000);
        let page = json!({"channel": "room:a", "limit": 10});
        assert_eq!(history(&mut world, client, page).0, [12_000]);
        let page = json!({"channel": "room:a", "limit": 10, "since": {"offset": 12_001}});
        assert_eq!(history(&mut world, client, page).0, [0; 0]);
        let page = json!({"channel": "room:a", "limit": 10, "reverse": true});
        assert_eq!(history(&mut world, client, page).0, [12_000]);
        let page = json!({"channel": "room:a", "limit": 1, "reverse": true});
        assert_eq!(history(&mut world, client, page).0, [12_000]);
    }
}

/// What is queued for a connection is bounded, so a page is, too; the rest of it is behind its last one.
#[test]
fn a_page_of_what_is_not_hidden_has_a_bound_of_bytes() {
    let mut setup = setup();
    setup.client.queue_max_size = 4_000;
    let mut world = World::with(setup);
    let client = world.connect_as(1, "42");
    for number in 0..60 {
        let lang = ["en", "de"][number % 2];
        publish(&mut world, "room:a", number, &tagged(&[("lang", lang)]));
    }
    let request = json!({"channel": "room:a", "token": ticket("room:a", &lang("en"))});
    world.tell(client, json!({"id": 2, "subscribe": request}));
    let (mut all, mut since, mut pages) = (Vec::new(), 0, 0);
    loop {
        let page = json!({"channel": "room:a", "limit": 100, "since": {"offset": since}});
        let ask = json!({"id": 3, "history": page});
        world.send(client, &ask.to_string());
        let messages = world.workers[1].out.messages.remove(&client.id).unwrap();
        assert!(messages[0].len() < 4_000, "{} bytes", messages[0].len());
        let page: Value = serde_json::from_slice(&messages[0]).unwrap();
        let publications = page["history"]["publications"].as_array().unwrap();
        let Some(last) = publications.last() else {
            break;
        };
        since = last["offset"].as_u64().unwrap();
        let numbers = publications.iter();
        all.extend(numbers.map(|publication| publication["data"]["number"].as_u64().unwrap()));
        pages += 1;
    }
    assert!(pages > 1);
    assert_eq!(all, (0..60).step_by(2).collect::<Vec<_>>());
}

#[test]
fn others_have_their_turn_while_a_long_history_is_looked_through() {
    let mut world = World::with(long_setup());
    let client = long_history(&mut world, 12_000);
    let other = world.connect_as(1, "43");
    let ask = |world: &mut World, behind: &str| {
        let ask = json!({"id": 3, "history": {"channel": "room:a", "limit": 10}});
        world.send_only(client, &format!("{ask}{behind}"));
        assert!(world.heard(client).is_empty(), "all at once");
        assert!(!world.workers[1].hub.wants_input(client.id));
    };
    // What comes behind it waits.
    ask(
        &mut world,
        "\n{\"id\":4,\"unsubscribe\":{\"channel\":\"x\"}}",
    );
    world.send_only(client, r#"{"id":5,"unsubscribe":{"channel":"y"}}"#);
    let mut turns = 0;
    while world.drain(1) {
        turns += 1;
        let heard = world.tell_only(other, json!({"id": 2, "unsubscribe": {"channel": "x"}}));
        assert_eq!(heard.len(), 1, "nobody else waits");
    }
    assert!((6..20).contains(&turns), "{turns}");
    let heard = world.heard(client);
    let ids: Vec<_> = heard.iter().map(|reply| reply["id"].clone()).collect();
    assert_eq!(ids, [json!(3), json!(4), json!(5)]);
    assert_eq!(
        heard[0]["history"]["publications"][0]["offset"],
        json!(12_001)
    );
    assert_eq!(world.workers[1].out.resumed, [client.id]);
    // Whoever goes in the middle leaves nothing behind.
    ask(&mut world, "");
    world.drain(1);
    world.drop_connection(client);
    while world.drain(1) {}
    assert_eq!(world.workers[1].hub.stats().clients, 1);
}

/// However much it says at once, and however many say it.
#[test]
fn many_questions_take_no_longer_than_one() {
    let mut world = World::with(long_setup());
    let client = long_history(&mut world, 1_500);
    let other = world.connect_as(1, "42");
    let request = json!({"channel": "room:a", "token": ticket("room:a", &lang("en"))});
    world.tell(other, json!({"id": 2, "subscribe": request}));
    let ask = |id: usize| json!({"id": id, "history": {"channel": "room:a", "limit": 10}});
    let frame: Vec<_> = (3..53).map(|id| ask(id).to_string()).collect();
    // A quarter of them in a frame, and each of the rest in one of its own.
    world.send_only(client, &frame[..12].join("\n"));
    for command in &frame[12..] {
        world.send_only(client, command);
    }
    assert_eq!(world.heard(client).len(), 1, "the second is on its way");
    assert!(
        world.tell_only(other, ask(3)).is_empty(),
        "in the same moment"
    );
    let mut answers = 1;
    let mut looked_through = 0;
    while let Some(id) = world.workers[1].out.asked.pop_first() {
        let worker = &mut world.workers[1];
        let now = world.now;
        let cost = worker.hub.drained(now, id, &mut worker.out);
        assert!((1..=2_500).contains(&cost), "{cost}");
        looked_through += cost;
        let heard = world.heard(client);
        assert!(heard.len() <= 2, "{}", heard.len());
        answers += heard.len();
    }
    assert_eq!(answers, 50);
    assert_eq!(world.heard(other).len(), 1);
    assert!(looked_through >= 49 * 1_501, "{looked_through}");
    // The next moment has as much again.
    world.now.monotonic += Duration::from_millis(1);
    assert_eq!(world.tell_only(other, ask(4)).len(), 1);
}

#[test]
fn who_asks_for_a_long_history_and_reads_nothing_is_found_out() {
    let mut setup = long_setup();
    setup.client.ping_interval = Duration::from_secs(25);
    let mut world = World::with(setup);
    let clients = [(); 2].map(|()| long_history(&mut world, 6_000));
    let ask = json!({"id": 3, "history": {"channel": "room:a", "limit": 10}}).to_string();
    let [deaf, slow] = clients;
    for client in clients {
        let stalled = &mut world.workers[1].out.stalled;
        stalled.insert(client.id, 150);
        world.send_only(client, &ask);
    }
    for _ in 0..60 {
        world.seconds(1);
        // A little at a time, and never all.
        if let Some(waiting) = world.workers[1].out.stalled.get_mut(&slow.id) {
            *waiting -= 2;
        }
    }
    assert_eq!(world.closed(deaf), Some((3012, true)), "no pong");
    assert_eq!(world.closed(slow), None);
    world.workers[1].out.stalled.clear();
    world.settle();
    let heard = world.heard(slow);
    assert!(heard.iter().any(|reply| reply["id"] == 3), "{heard:?}");
}

#[test]
fn a_history_that_begins_anew_while_it_is_looked_through_is_said_to() {
    let mut world = World::with(long_setup());
    let client = long_history(&mut world, 6_000);
    world.send_only(
        client,
        &json!({"id": 3, "history": {"channel": "room:a", "limit": 10}}).to_string(),
    );
    // Longer than positions are remembered.
    world.now.monotonic += Duration::from_secs(40 * 24 * 3600);
    world.settle();
    let heard = world.heard(client);
    assert_eq!(heard[0]["error"]["code"], json!(112), "{heard:?}");
}

fn filters() -> impl Strategy<Value = Value> {
    let key = prop_oneof![Just("a"), Just("b")];
    let value = prop_oneof![Just("1"), Just("2"), Just("3")];
    let leaf = prop_oneof![
        (
            key.clone(),
            prop_oneof![Just("eq"), Just("neq"), Just("gte")],
            value.clone()
        )
            .prop_map(|(key, cmp, val)| json!({"key": key, "cmp": cmp, "val": val})),
        (key.clone(), prop_oneof![Just("ex"), Just("nex")])
            .prop_map(|(key, cmp)| json!({"key": key, "cmp": cmp})),
        (
            key,
            prop_oneof![Just("in"), Just("nin")],
            proptest::collection::vec(value, 1..3)
        )
            .prop_map(|(key, cmp, vals)| json!({"key": key, "cmp": cmp, "vals": vals})),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            (
                prop_oneof![Just("and"), Just("or")],
                proptest::collection::vec(inner.clone(), 1..3)
            )
                .prop_map(|(op, nodes)| json!({"op": op, "nodes": nodes})),
            inner.prop_map(|node| json!({"op": "not", "nodes": [node]})),
        ]
    })
}

fn tags() -> impl Strategy<Value = BTreeMap<String, String>> {
    let value = || proptest::option::of(prop_oneof![Just("1"), Just("2"), Just("3")]);
    (value(), value()).prop_map(|(a, b)| {
        let pairs = [("a", a), ("b", b)].into_iter();
        let pairs = pairs.filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
        pairs.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a client asks for, and however the engine answers: what it sees of a channel is what its
    /// token lets through, and of what it gets by itself, what its own filter does, too.
    #[test]
    fn nobody_sees_more_than_is_imposed(
        imposed in filters(),
        own in proptest::option::of(filters()),
        before in proptest::collection::vec(tags(), 0..12),
        after in proptest::collection::vec(tags(), 1..12),
        is_cache: bool,
        recovers: bool,
        takes_patches: bool,
        is_late: bool,
        limit in 1_usize..8,
        reverse: bool,
        since in proptest::option::of(1_u64..20),
    ) {
        let delays = is_late.then(DelayOptions::default);
        let mut world = World::with(Setup { delays, ..setup() });
        let channel = if is_cache { "cache:a" } else { "room:a" };
        for (number, tags) in before.iter().enumerate() {
            publish(&mut world, channel, number, tags);
        }
        world.settle();
        let client = world.connect_as(1, "42");
        let mut request = json!({"channel": channel, "token": ticket(channel, &imposed)});
        if let Some(own) = &own {
            request["tf"] = own.clone();
        }
        if recovers {
            request["recover"] = json!(true);
        }
        if takes_patches {
            request["delta"] = json!("fossil");
        }
        world.send_only(client, &json!({"id": 2, "subscribe": request}).to_string());
        for (number, tags) in after.iter().enumerate() {
            publish(&mut world, channel, before.len() + number, tags);
        }
        world.settle();
        let mut reader = Reader::default();
        reader.hear(&world.heard(client), takes_patches);

        let all: Vec<_> = before.iter().chain(&after).collect();
        let parse = |filter: &Value| {
            let text = filter.to_string();
            RawFilter::Json(&text).parse(&FilterLimits::default()).unwrap()
        };
        let (imposed, own) = (parse(&imposed), own.as_ref().map(parse));
        let passes = |number: u64| {
            let tags = all[number as usize];
            imposed.matches(tags) && own.as_ref().is_none_or(|own| own.matches(tags))
        };
        prop_assert!(reader.numbers.iter().all(|number| passes(*number)), "{:?}", reader.numbers);
        if recovers && !is_cache {
            let expected: Vec<u64> = (0..all.len() as u64).filter(|number| passes(*number)).collect();
            prop_assert_eq!(&reader.numbers, &expected);
        }

        let mut page = json!({"channel": channel, "limit": limit, "reverse": reverse});
        if let Some(since) = since {
            page["since"] = json!({"offset": since, "epoch": ""});
        }
        let (numbers, _) = history(&mut world, client, page);
        let len = all.len() as u64;
        let mut numbered: Vec<u64> = (0..len).collect();
        if let Some(since) = since {
            // The publication with offset n has number n - 1.
            match reverse {
                true if since > len + 1 => numbered.clear(),
                true => numbered.retain(|number| number + 1 < since),
                false => numbered.retain(|number| number + 1 > since),
            }
        }
        if reverse {
            numbered.reverse();
        }
        numbered.retain(|number| imposed.matches(all[*number as usize]));
        numbered.truncate(limit);
        prop_assert_eq!(numbers, numbered);
    }
}
