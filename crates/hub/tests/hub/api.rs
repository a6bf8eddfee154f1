//! What an operator's backend may ask for.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::json;
use tautline_hub::engine::testkit::DelayOptions;
use tautline_hub::{ApiHistory, ApiPresence, ApiPublish, PublishOutcome};
use tautline_protocol::message::{Error, StreamPosition};

use crate::support::{Setup, World};

type Slot<T> = Rc<RefCell<Option<T>>>;

/// A place for a result, and the callback that puts it there.
fn slot<T: 'static>() -> (Slot<T>, impl FnOnce(T) + 'static) {
    let slot: Slot<T> = Rc::default();
    let filled = slot.clone();
    (slot, move |result| {
        assert!(filled.borrow_mut().replace(result).is_none());
    })
}

fn publish(world: &mut World, request: ApiPublish) -> Result<PublishOutcome, Error> {
    let (slot, done) = slot();
    let now = world.now;
    world.workers[0].hub.api_publish(now, request, done);
    world.settle();
    slot.take().expect("the result is there")
}

fn request(channel: &str, data: &'static str) -> ApiPublish {
    ApiPublish {
        channel: channel.into(),
        data: data.into(),
        ..ApiPublish::default()
    }
}

fn code<T>(result: Result<T, Error>) -> u32 {
    result.err().map_or(0, |error| error.code)
}

#[test]
fn the_api_publishes_with_tags_and_without_a_publisher() {
    let mut world = World::new();
    let client = world.connect(1);
    world.tell(client, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
    let tags = [("lang".to_owned(), "en".to_owned())].into();
    let outcome = publish(
        &mut world,
        ApiPublish {
            tags,
            ..request("room:a", r#"{"x":1}"#)
        },
    );
    let position = outcome.unwrap().position.unwrap();
    assert_eq!(position.offset, 1);
    let publication = json!({"data": {"x": 1}, "offset": 1, "tags": {"lang": "en"}});
    assert_eq!(
        world.heard(client),
        [json!({"push": {"channel": "room:a", "pub": publication}})]
    );
    let outcome = publish(
        &mut world,
        ApiPublish {
            skip_history: true,
            ..request("room:a", "2")
        },
    );
    assert_eq!(outcome.unwrap().position, None);
    assert_eq!(
        world.heard(client),
        [json!({"push": {"channel": "room:a", "pub": {"data": 2}}})]
    );
    assert_eq!(
        publish(&mut world, request("news", "1")).unwrap(),
        PublishOutcome::default()
    );
    let now = world.now;
    let (slot, done) = slot();
    world.workers[0].hub.api_history(
        now,
        ApiHistory {
            channel: "room:a".into(),
            ..ApiHistory::default()
        },
        done,
    );
    let history = slot.take().unwrap().unwrap();
    assert_eq!(history.publications.len(), 1, "the other was not kept");
    assert_eq!(history.position, position);
}

#[test]
fn the_api_is_checked() {
    let mut world = World::new();
    let long_key = Some("k".repeat(256));
    for (request, expected) in [
        (request("nope:1", "1"), 102),
        (request("", "1"), 107),
        (request("caf\u{e9}", "1"), 0),
        (request("news", ""), 107),
        (request("news", "{"), 107),
        (request("news", "1 2"), 107),
        (
            ApiPublish {
                data: b"\"\xff\"".as_slice().into(),
                ..request("news", "")
            },
            107,
        ),
        (
            ApiPublish {
                data: "[".repeat(200).into(),
                ..request("news", "")
            },
            107,
        ),
        (
            ApiPublish {
                idempotency_key: long_key,
                ..request("news", "1")
            },
            107,
        ),
        (request("$vault:x", "null"), 0),
    ] {
        assert_eq!(
            code(publish(&mut world, request.clone())),
            expected,
            "{request:?}"
        );
    }
    let deep = ApiPublish {
        data: format!("{}{}", "[".repeat(200), "]".repeat(200)).into(),
        ..request("news", "")
    };
    let refused = publish(&mut world, deep).unwrap_err();
    let expected = "nested deeper than 128 levels";
    assert!(refused.message.ends_with(expected), "{refused:?}");
    let now = world.now;
    let hub = &mut world.workers[0].hub;
    for (channel, expected) in [("nope:1", 102), ("news", 108), ("room:a", 0), ("", 107)] {
        let (presence, done) = slot();
        let request = ApiPresence {
            channel: channel.into(),
            ..ApiPresence::default()
        };
        hub.api_presence(now, request, done);
        assert_eq!(code(presence.take().unwrap()), expected);
        let (stats, done) = slot();
        hub.api_presence_stats(now, channel, done);
        assert_eq!(code(stats.take().unwrap()), expected);
        let (history, done) = slot();
        hub.api_history(
            now,
            ApiHistory {
                channel: channel.into(),
                ..ApiHistory::default()
            },
            done,
        );
        assert_eq!(code(history.take().unwrap()), expected);
    }
    for (epoch, offset, reverse, expected) in [("other", 1, false, 112), ("", 0, true, 107)] {
        let since = Some(StreamPosition {
            epoch: epoch.into(),
            offset,
        });
        let (history, done) = slot();
        let request = ApiHistory {
            channel: "room:a".into(),
            since,
            reverse,
            limit: None,
        };
        hub.api_history(now, request, done);
        assert_eq!(code(history.take().unwrap()), expected);
    }
}

#[test]
fn a_key_publishes_once_in_five_minutes() {
    let mut world = World::new();
    let keyed = || ApiPublish {
        idempotency_key: Some("m-118".into()),
        ..request("room:a", "1")
    };
    let first = publish(&mut world, keyed()).unwrap();
    world.seconds(299);
    let again = publish(&mut world, keyed()).unwrap();
    assert_eq!((again.position, again.duplicate), (first.position, true));
    world.seconds(2);
    assert!(!publish(&mut world, keyed()).unwrap().duplicate);
}

#[test]
fn a_slow_engine_answers_the_api_too() {
    let delays = Some(DelayOptions::default());
    let mut world = World::with(Setup {
        delays,
        ..Setup::default()
    });
    let (publication, done) = slot();
    let now = world.now;
    let hub = &mut world.workers[0].hub;
    hub.api_publish(now, request("room:a", "1"), done);
    let (history, done) = slot();
    let read = ApiHistory {
        channel: "room:a".into(),
        ..ApiHistory::default()
    };
    hub.api_history(now, read, done);
    let (presence, done) = slot();
    let request = ApiPresence {
        channel: "room:a".into(),
        ..ApiPresence::default()
    };
    hub.api_presence(now, request, done);
    let (stats, done) = slot();
    hub.api_presence_stats(now, "room:a", done);
    assert!(publication.borrow().is_none() && history.borrow().is_none());
    world.settle();
    assert_eq!(
        publication
            .take()
            .unwrap()
            .unwrap()
            .position
            .unwrap()
            .offset,
        1
    );
    assert_eq!(history.take().unwrap().unwrap().publications.len(), 1);
    assert!(presence.take().unwrap().unwrap().presence.is_empty());
    assert_eq!(stats.take().unwrap().unwrap().num_clients, 0);
}

#[test]
fn requests_that_wait_are_bounded_and_always_answered() {
    let delays = Some(DelayOptions {
        at_once: 0,
        failures: 50,
    });
    let mut world = World::with(Setup {
        delays,
        ..Setup::default()
    });
    let results: Rc<RefCell<Vec<u32>>> = Rc::default();
    let now = world.now;
    for _ in 0..10_100 {
        let results = results.clone();
        let done = move |result| results.borrow_mut().push(code::<PublishOutcome>(result));
        world.workers[0]
            .hub
            .api_publish(now, request("room:a", "1"), done);
    }
    assert_eq!(*results.borrow(), vec![111; 100], "too many at once");
    world.settle();
    assert_eq!(results.borrow().len(), 10_100);
    assert!(
        results.borrow()[100..]
            .iter()
            .all(|code| matches!(code, 0 | 100))
    );
}
