//! Limits that are met: each is told in a clear text, and counted where it belongs.

use serde_json::{Value, json};
use tautline_hub::application::{ApplicationOptions, Interests};
use tautline_hub::config::TagsFilterTemplate;
use tautline_hub::engine::memory::MemoryOptions;
use tautline_hub::engine::testkit::DelayOptions;
use tautline_hub::{ApiPublish, Bound};

use crate::application::{Scripted, world_with};
use crate::support::{Client, Setup, World};

/// What was counted, but for what was never met.
fn met(world: &World) -> Vec<(&'static str, u64)> {
    let over = world.workers[0].hub.counters().over_limit.bounds;
    let all = Bound::ALL.map(|bound| (bound.name(), over[bound.index()]));
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn with(change: impl FnOnce(&mut Setup)) -> World {
    let mut setup = Setup::default();
    setup.client.ping_interval = std::time::Duration::ZERO;
    change(&mut setup);
    World::with(setup)
}

fn subscribe(world: &mut World, client: Client, more: &Value) -> Value {
    let mut request = json!({"channel": "room:a"});
    if !more.is_null() {
        request["tf"] = more.clone();
    }
    let heard = world.tell(client, json!({"id": 2, "subscribe": request}));
    heard[0].clone()
}

fn equals(value: &str) -> Value {
    json!({"key": "k", "cmp": "eq", "val": value})
}

#[test]
fn tags_filters_have_a_size() {
    let mut world = with(|setup| setup.channel.namespaces[0].allow_tags_filter = true);
    let client = world.connect(0);
    let mut deep = equals("v");
    for _ in 0..10 {
        deep = json!({"op": "not", "nodes": [deep]});
    }
    let values: Vec<_> = (0..300).map(|number| number.to_string()).collect();
    let nodes = vec![equals("v"); 70];
    for filter in [
        equals(&"v".repeat(5000)),
        deep,
        json!({"key": "k", "cmp": "in", "vals": values}),
        json!({"op": "and", "nodes": nodes}),
    ] {
        let answer = subscribe(&mut world, client, &filter);
        assert_eq!(answer["error"]["code"], 107, "{answer}");
    }
    assert_eq!(met(&world), [("tags_filter", 4)]);
    // What is wrong otherwise has met no limit.
    for filter in [
        json!({"op": "xor"}),
        json!({"key": "k", "cmp": "like", "val": "v"}),
    ] {
        let answer = subscribe(&mut world, client, &filter);
        assert_eq!(answer["error"]["code"], 107, "{answer}");
    }
    assert_eq!(met(&world), [("tags_filter", 4)]);
}

#[test]
fn a_channel_has_so_many_different_filters() {
    let mut world = with(|setup| setup.channel.namespaces[0].allow_tags_filter = true);
    let mut refused = None;
    for number in 0..=10_000 {
        let client = world.connect(0);
        let answer = subscribe(&mut world, client, &equals(&number.to_string()));
        if answer["error"].is_object() {
            refused = Some((number, answer["error"].clone()));
            break;
        }
    }
    let (number, error) = refused.expect("there is a limit");
    assert!((9_990..=10_000).contains(&number), "{number}");
    assert_eq!(error["code"], 106, "{error}");
    assert!(error["message"].as_str().unwrap().contains("filters"));
    assert_eq!(met(&world), [("filters", 1)]);
    // One that others have is no other.
    let client = world.connect(0);
    let answer = subscribe(&mut world, client, &equals("0"));
    assert!(answer["subscribe"].is_object(), "{answer}");
    assert_eq!(met(&world), [("filters", 1)]);
}

/// A client that is subscribed to a channel with so many publications, with and without a filter imposed.
fn with_history(publications: usize, most: usize, filter: bool) -> (World, Client) {
    let mut world = with(|setup| {
        setup.client.history_max_publication_limit = most;
        if filter {
            let filter = r#"{"key": "k", "cmp": "nex"}"#;
            setup.channel.namespaces[0].server_tags_filter =
                Some(TagsFilterTemplate::parse(filter).unwrap());
        }
    });
    let client = world.connect(0);
    subscribe(&mut world, client, &Value::Null);
    for number in 0..publications {
        let publish = json!({"channel": "room:a", "data": number});
        world.tell(client, json!({"id": 3, "publish": publish}));
    }
    world.heard(client);
    (world, client)
}

#[test]
fn history_that_is_cut_is_counted() {
    for filter in [false, true] {
        let (mut world, client) = with_history(6, 4, filter);
        let mut expected = 0;
        for (limit, reverse, since, count, cut) in [
            // As many as were asked for, or as there are.
            (0, false, 0, 0, false),
            (3, false, 0, 3, false),
            (4, false, 0, 4, false),
            (4, true, 7, 4, false),
            (100, false, 2, 4, false),
            (100, false, 6, 0, false),
            (-1, true, 3, 2, false),
            (100, false, 0, 4, true),
            (-1, false, 1, 4, true),
            (5, true, 7, 4, true),
        ] {
            let request = json!({
                "channel": "room:a", "limit": limit, "reverse": reverse, "since": {"offset": since},
            });
            let heard = world.tell(client, json!({"id": 5, "history": request}));
            let got = heard[0]["history"]["publications"].as_array();
            assert_eq!(got.map(Vec::len), Some(count), "{request} {heard:?}");
            expected += u64::from(cut);
            let expected: &[_] = match expected {
                0 => &[],
                count => &[("history", count)],
            };
            assert_eq!(met(&world), expected, "{request} filter: {filter}");
        }
    }
}

/// What isn't kept any more was cut off by nobody.
#[test]
fn history_that_is_short_is_not_cut() {
    let mut world = with(|setup| {
        setup.client.history_max_publication_limit = 4;
        setup.channel.namespaces[0].history_size = 3;
    });
    let client = world.connect(0);
    subscribe(&mut world, client, &Value::Null);
    for number in 0..6 {
        let publish = json!({"channel": "room:a", "data": number});
        world.tell(client, json!({"id": 3, "publish": publish}));
    }
    world.heard(client);
    for reverse in [false, true] {
        let request = json!({"channel": "room:a", "limit": 100, "reverse": reverse});
        let heard = world.tell(client, json!({"id": 5, "history": request}));
        let got = heard[0]["history"]["publications"].as_array();
        assert_eq!(got.map(Vec::len), Some(3), "{heard:?}");
    }
    assert_eq!(met(&world), []);
}

#[test]
fn presence_is_told_of_so_many() {
    let mut world = with(|setup| setup.client.presence_max_clients = 2);
    let clients = [0; 3].map(|_| world.connect(0));
    let ask = |world: &mut World| {
        let request = json!({"id": 9, "presence": {"channel": "room:a"}});
        world.tell(clients[0], request)[0].clone()
    };
    for (index, client) in clients.into_iter().enumerate() {
        subscribe(&mut world, client, &Value::Null);
        world.heard(clients[0]);
        let answer = ask(&mut world);
        assert_eq!(answer["error"].is_object(), index == 2, "{answer}");
    }
    assert_eq!(met(&world), [("presence", 1)]);
}

#[test]
fn handlers_at_work_and_their_time_are_bounded() {
    let application = Scripted::about(Interests::RPC);
    let options = ApplicationOptions {
        max_in_flight: 1,
        ..ApplicationOptions::default()
    };
    let mut setup = Setup::default();
    setup.client.ping_interval = std::time::Duration::ZERO;
    let mut world = world_with(&application, setup, options);
    let (client, other) = (world.connect(0), world.connect(0));
    world.send(client, r#"{"id":2,"rpc":{"method":"m"}}"#);
    let heard = world.tell(other, json!({"id": 2, "rpc": {"method": "m"}}));
    let message = heard[0]["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("max_in_flight") && message.contains("1 handlers"),
        "{message}"
    );
    assert_eq!(met(&world), [("handlers", 1)]);
    world.seconds(5);
    assert_eq!(world.heard(client)[0]["error"]["code"], 100);
    assert_eq!(met(&world), [("handlers", 1), ("handler_time", 1)]);
}

#[test]
fn calls_that_wait_for_the_engine_are_bounded() {
    let mut world = with(|setup| {
        setup.delays = Some(DelayOptions {
            at_once: 0,
            failures: 0,
        });
    });
    let mut refused = Vec::new();
    let told = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    for _ in 0..10_001 {
        let told = std::rc::Rc::clone(&told);
        let request = ApiPublish {
            channel: "room:a".into(),
            data: "1".into(),
            ..ApiPublish::default()
        };
        world.workers[0]
            .hub
            .api_publish(world.now, request, move |result| {
                told.borrow_mut().extend(result.err());
            });
    }
    refused.append(&mut told.borrow_mut());
    let [error] = &*refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.code, 111);
    assert!(
        error.message.contains("10000 calls wait for the engine"),
        "{error:?}"
    );
    assert_eq!(met(&world), [("engine_calls", 1)]);
}

/// What an engine has no room for is told by the name of the option, what that is set to, and what to do.
#[test]
fn what_the_engine_cannot_keep_is_told() {
    for (memory, text) in [
        (
            MemoryOptions {
                max_channels: 1,
                ..MemoryOptions::default()
            },
            "internal server error: the engine keeps state for 1 channels already, as many as it may \
             (engine.memory.max_channels); try again later, or have that limit raised",
        ),
        (
            MemoryOptions {
                max_bytes: 1000,
                ..MemoryOptions::default()
            },
            "internal server error: the engine keeps 1000 bytes of publications already, as many as it may \
             (engine.memory.max_bytes); try again later, or have that limit raised",
        ),
    ] {
        let mut world = with(|setup| setup.memory = memory.clone());
        let client = world.connect(0);
        subscribe(&mut world, client, &Value::Null);
        let error = json!({"code": 100, "message": text, "temporary": true});
        let refused = (0..100).find_map(|number| {
            let channel = format!("room:{number}");
            let request = json!({"channel": channel, "data": "x".repeat(200)});
            let heard = world.tell(client, json!({"id": 3, "publish": request}));
            let answer = heard.iter().find(|message| message["id"] == 3)?;
            answer.get("error").cloned()
        });
        assert_eq!(refused, Some(error));
    }
}
