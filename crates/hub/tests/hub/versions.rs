//! Publications with a version: of messages that overtake each other, the newest counts.

use std::cell::Cell;
use std::rc::Rc;

use serde_json::json;
use tautline_hub::engine::testkit::DelayOptions;
use tautline_hub::{ApiPublish, PublishOutcome};

use crate::support::{Setup, World};

/// Publishes `data` with a version; the outcome, once it is there.
fn publish(world: &mut World, version: u64, epoch: &str, data: u64) -> Result<PublishOutcome, u32> {
    publish_with(world, "room:a", version, epoch, data, None)
}

fn publish_with(
    world: &mut World,
    channel: &str,
    version: u64,
    epoch: &str,
    data: u64,
    key: Option<&str>,
) -> Result<PublishOutcome, u32> {
    let request = ApiPublish {
        channel: channel.into(),
        data: data.to_string().into(),
        version,
        version_epoch: epoch.into(),
        idempotency_key: key.map(Into::into),
        ..ApiPublish::default()
    };
    let result = Rc::new(Cell::new(None));
    let told = result.clone();
    let now = world.now;
    let hub = &mut world.workers[0].hub;
    hub.api_publish(now, request, move |result| {
        told.set(Some(result.map_err(|error| error.code)));
    });
    world.settle();
    result.take().expect("answered")
}

#[test]
fn what_is_overtaken_is_not_published_and_that_is_a_success() {
    for delays in [None, Some(DelayOptions::default())] {
        let mut world = World::with(Setup {
            delays,
            ..Setup::default()
        });
        let client = world.connect(1);
        world.tell(client, json!({"id": 2, "subscribe": {"channel": "room:a"}}));
        let first = publish(&mut world, 17, "2026-08", 1).unwrap();
        assert!(!first.stale);
        assert_eq!(world.heard(client).len(), 1);
        for (version, epoch) in [(17, "2026-08"), (16, "2026-08"), (3, "")] {
            let again = publish(&mut world, version, epoch, 2).unwrap();
            assert!(again.stale && !again.duplicate);
            assert_eq!(again.position, first.position, "the current position");
        }
        assert!(world.heard(client).is_empty());
        let newer = publish(&mut world, 18, "2026-08", 3).unwrap();
        assert_eq!(newer.position.unwrap().offset, 2);
        let other = publish(&mut world, 1, "2026-09", 4).unwrap();
        assert_eq!(other.position.unwrap().offset, 3);
        assert_eq!(world.heard(client).len(), 2);
    }
}

#[test]
fn repeating_with_a_key_has_the_outcome_of_the_first_whatever_the_version() {
    let mut world = World::new();
    let mut publish = |version, key| {
        let outcome = publish_with(&mut world, "room:a", version, "", version, Some(key)).unwrap();
        let position = outcome.position.expect("history is on");
        (position.offset, outcome.duplicate, outcome.stale)
    };
    assert_eq!(publish(5, "k"), (1, false, false));
    assert_eq!(publish(9, "k"), (1, true, false));
    assert_eq!(publish(4, "l"), (1, false, true));
    assert_eq!(publish(9, "l"), (1, true, false));
    assert_eq!(publish(9, "m"), (2, false, false));
}

#[test]
fn versions_need_history_and_an_epoch_that_is_not_too_long() {
    let mut world = World::new();
    for _ in 0..2 {
        let outcome = publish_with(&mut world, "news", 1, "", 1, None).unwrap();
        assert_eq!(outcome, PublishOutcome::default(), "published both times");
    }
    assert_eq!(publish(&mut world, 1, &"e".repeat(256), 1), Err(107));
    assert!(publish(&mut world, 1, &"e".repeat(255), 1).is_ok());
}
