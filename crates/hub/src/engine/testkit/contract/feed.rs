//! Feeds: who gets which publications, in which order, with which offsets.

use std::sync::Arc;

use super::Subject;
use super::bench::{Bench, CLIENT, KEEP, info, publish, read};
use crate::engine::{Delivery, Publish, Published, WorkerId};

pub(super) fn offsets_count(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    let first = bench.publish("a", "1");
    let second = bench.publish("a", "2");
    assert_eq!((first.position.offset, second.position.offset), (1, 2));
    assert!(!first.position.epoch.is_empty() && &*first.position.epoch != "_");
    assert_eq!(first.position.epoch, second.position.epoch);
    assert_eq!(bench.read(read("a")).top, second.position);
    let unused = bench.read(read("b")).top;
    assert_eq!(unused.offset, 0);
    assert!(
        !unused.epoch.is_empty(),
        "a stream that was never used has an epoch"
    );
    assert_eq!(bench.publish("b", "1").position.epoch, unused.epoch);
}

pub(super) fn feed_is_ordered(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    bench.attach(0, "a");
    bench.attach(1, "a");
    bench.attach(1, "a");
    for data in ["x", "y", "z"] {
        bench.publish("a", data);
    }
    for worker in [0, 1] {
        assert_eq!(bench.fed(worker), ["a x 0>1", "a y 1>2", "a z 2>3"]);
    }
}

pub(super) fn feed_ends(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    bench.publish("a", "w");
    bench.attach(0, "a");
    bench.publish("a", "x");
    subject
        .engine()
        .detach(bench.now(), WorkerId(0), &"a".into());
    bench.publish("a", "y");
    assert_eq!(bench.fed(0), ["a x 1>2"]);
    assert!(bench.fed(1).is_empty());
    bench.attach(0, "a");
    bench.publish("a", "z");
    assert_eq!(bench.fed(0), ["a z 3>4"]);
}

pub(super) fn feeds_have_names(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    let info = info("c1", "ann");
    let mut names = Vec::new();
    for _ in 0..2 {
        bench.attach(0, "a");
        names.push(bench.serial.get());
        bench.publish("a", "x");
        subject
            .engine()
            .join(bench.now(), WorkerId(0), &"a".into(), &info, CLIENT);
        subject
            .engine()
            .leave(bench.now(), WorkerId(0), &"a".into(), &info, CLIENT);
        // Also waits until the engine is done with what has no outcome.
        bench.publish("a", "y");
        subject
            .engine()
            .detach(bench.now(), WorkerId(0), &"a".into());
    }
    let mut feeds = Vec::new();
    for _ in 0..8 {
        match bench.wait_for(0, |delivery| !matches!(delivery, Delivery::Outcome { .. })) {
            Delivery::Publication { feed, .. }
            | Delivery::Join { feed, .. }
            | Delivery::Leave { feed, .. } => feeds.push(feed),
            Delivery::Outcome { .. } | Delivery::Doubt { .. } | Delivery::Superseded { .. } => {
                unreachable!("outcomes were not waited for")
            }
        }
    }
    assert_eq!(
        feeds,
        [
            names[0], names[0], names[0], names[0], names[1], names[1], names[1], names[1]
        ]
    );
}

pub(super) fn no_history_no_position(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    bench.attach(0, "a");
    let published = bench.publish_with(
        0,
        Publish {
            history: None,
            ..publish("a", "x")
        },
    );
    assert_eq!(published, Published::default());
    assert_eq!(bench.publish("a", "y").position.offset, 1);
    assert_eq!(bench.fed(0), ["a x 0>0", "a y 0>1"]);
    assert_eq!(bench.offsets(read("a")), [1]);
}

pub(super) fn wishes_for_patches(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    bench.attach(1, "a");
    for (patch, history) in [(true, Some(KEEP)), (false, Some(KEEP)), (true, None)] {
        let request = Publish {
            patch,
            history,
            ..publish("a", "x")
        };
        bench.publish_with(0, request);
        let is_fed = |delivery: &Delivery| matches!(delivery, Delivery::Publication { .. });
        match bench.wait_for(1, is_fed) {
            Delivery::Publication { patch: wish, .. } => assert_eq!(wish, patch),
            _ => unreachable!("only publications were waited for"),
        }
    }
}

pub(super) fn publications_keep_their_exception(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    bench.attach(0, "a");
    for except in [None, Some(Arc::from("c1"))] {
        let except: Option<Arc<str>> = except;
        bench.publish_with(
            1,
            Publish {
                except: except.clone(),
                ..publish("a", "x")
            },
        );
        let is_it = |delivery: &Delivery| matches!(delivery, Delivery::Publication { .. });
        match bench.wait_for(0, is_it) {
            Delivery::Publication { publication, .. } => assert_eq!(publication.except, except),
            _ => unreachable!("only a publication was waited for"),
        }
        let page = bench.read(read("a"));
        let last = page.publications.last().map(|last| last.except.clone());
        assert_eq!(last, Some(except));
    }
}

pub(super) fn channels_are_separate(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    bench.attach(0, "a");
    bench.publish("a", "x");
    let other = bench.publish("b", "y").position;
    assert_eq!(other.offset, 1);
    assert_ne!(other.epoch, bench.read(read("a")).top.epoch);
    bench.change_presence(0, "b", &info("c1", "ann"), true);
    assert_eq!(bench.members("a").1, 0);
    assert_eq!(bench.fed(0), ["a x 0>1"]);
}
