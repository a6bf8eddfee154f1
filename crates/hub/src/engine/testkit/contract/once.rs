//! Idempotency keys and versions: what is published once, or not at all.

use std::time::Duration;

use super::Subject;
use super::bench::{Bench, KEEP, publish, read};
use crate::engine::{Idempotency, Publish, Version};

pub(super) fn keys_publish_once(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    bench.attach(0, "a");
    bench.attach(0, "b");
    let keyed = |channel: &str, key: &str| {
        let idempotency = Some(Idempotency {
            key: key.into(),
            ttl: Duration::from_secs(300),
        });
        bench.publish_with(
            1,
            Publish {
                idempotency,
                ..publish(channel, "x")
            },
        )
    };
    let first = keyed("a", "k");
    assert!(!first.duplicate);
    bench.publish("a", "y");
    bench.pass(Duration::from_secs(299));
    let again = keyed("a", "k");
    assert_eq!((again.position, again.duplicate), (first.position, true));
    assert!(!keyed("a", "l").duplicate && !keyed("b", "k").duplicate);
    bench.pass(Duration::from_secs(1));
    assert!(!keyed("a", "k").duplicate, "forgotten after its time");
    assert_eq!(
        bench.fed(0),
        ["a x 0>1", "a y 1>2", "a x 2>3", "b x 0>1", "a x 3>4"]
    );
}

/// Publishes with a version, and says whether that was stale.
fn versioned(bench: &Bench<'_>, number: u64, epoch: &str, data: &'static str) -> bool {
    let version = Some(Version {
        number,
        epoch: epoch.into(),
    });
    let published = bench.publish_with(
        0,
        Publish {
            version,
            ..publish("a", data)
        },
    );
    assert_eq!(published.position, bench.read(read("a")).top);
    assert!(!published.duplicate);
    published.stale
}

pub(super) fn versions_only_grow(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    bench.attach(0, "a");
    assert!(!versioned(&bench, 2, "", "v2"));
    assert!(versioned(&bench, 2, "", "again"));
    assert!(versioned(&bench, 1, "", "late"));
    assert!(!versioned(&bench, 7, "", "v7"));
    bench.publish("a", "without");
    assert!(versioned(&bench, 7, "", "again"), "the version stays");
    bench.remove_history("a");
    bench.pass(KEEP.ttl);
    assert!(versioned(&bench, 6, "", "late"), "and outlives the entries");
    let unkept = Publish {
        history: None,
        version: Some(Version {
            number: 1,
            epoch: "".into(),
        }),
        ..publish("a", "unkept")
    };
    assert!(!bench.publish_with(0, unkept).stale, "has no version");
    assert_eq!(
        bench.fed(0),
        ["a v2 0>1", "a v7 1>2", "a without 2>3", "a unkept 0>0"]
    );
    bench.pass(KEEP.meta_ttl);
    assert!(!versioned(&bench, 1, "", "anew"), "a new stream has none");
}

pub(super) fn versions_have_a_scope(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    assert!(!versioned(&bench, 9, "x", "1"));
    assert!(versioned(&bench, 9, "x", "2"));
    assert!(versioned(&bench, 9, "", "3"), "compares with any");
    assert!(!versioned(&bench, 1, "y", "4"), "another scope");
    assert!(versioned(&bench, 1, "y", "5"));
    assert!(!versioned(&bench, 1, "x", "6"), "the old one is forgotten");
    assert_eq!(bench.offsets(read("a")), [1, 2, 3]);
}

pub(super) fn keys_and_versions(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    let keyed = |key: &str, number| {
        let idempotency = Some(Idempotency {
            key: key.into(),
            ttl: Duration::from_secs(300),
        });
        let version = Some(Version {
            number,
            epoch: "".into(),
        });
        let published = bench.publish_with(
            0,
            Publish {
                idempotency,
                version,
                ..publish("a", "x")
            },
        );
        (
            published.position.offset,
            published.duplicate,
            published.stale,
        )
    };
    assert_eq!(keyed("k", 5), (1, false, false));
    assert_eq!(keyed("k", 6), (1, true, false), "the key is known");
    assert_eq!(keyed("l", 5), (1, false, true), "the version is old");
    assert_eq!(keyed("m", 6), (2, false, false));
    assert_eq!(keyed("l", 7), (1, true, false), "as the first time");
    assert_eq!(bench.offsets(read("a")), [1, 2]);
}
