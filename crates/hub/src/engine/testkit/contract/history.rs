//! Histories: how long things are kept, and how they are read.

use std::time::Duration;

use super::Subject;
use super::bench::{Bench, KEEP, read};
use crate::engine::{HistoryRead, weight};

pub(super) fn size_limits_history(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    for _ in 0..12 {
        bench.publish("a", "x");
    }
    assert_eq!(bench.offsets(read("a")), [8, 9, 10, 11, 12]);
}

pub(super) fn ttl_limits_history(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    bench.publish("a", "x");
    bench.pass(KEEP.ttl - Duration::from_secs(1));
    let second = bench.publish("a", "y");
    bench.pass(KEEP.ttl - Duration::from_secs(1));
    assert_eq!(
        bench.offsets(read("a")),
        [1, 2],
        "each publication begins the time anew"
    );
    bench.pass(Duration::from_secs(1));
    let page = bench.read(HistoryRead {
        since: Some(2),
        ..read("a")
    });
    assert!(page.publications.is_empty());
    assert!(page.follows, "nothing is missing behind the top");
    assert_eq!(page.top, second.position);
    assert!(
        !bench
            .read(HistoryRead {
                since: Some(1),
                ..read("a")
            })
            .follows
    );
    assert_eq!(bench.publish("a", "z").position.offset, 3, "offsets go on");
    assert_eq!(bench.offsets(read("a")), [3]);
}

pub(super) fn meta_ttl_ends_the_epoch(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    let first = bench.publish("a", "x").position;
    bench.pass(KEEP.meta_ttl - Duration::from_secs(1));
    assert_eq!(bench.read(read("a")).top, first);
    bench.pass(KEEP.meta_ttl - Duration::from_secs(1));
    assert_eq!(
        bench.read(read("a")).top,
        first,
        "a reader keeps the position alive"
    );
    bench.pass(KEEP.meta_ttl);
    let second = bench.publish("a", "y").position;
    assert_eq!(second.offset, 1);
    assert_ne!(second.epoch, first.epoch);
    assert_eq!(bench.offsets(read("a")), [1]);
}

pub(super) fn pages_forward(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    for _ in 0..7 {
        bench.publish("a", "x");
    }
    let page = |since, limit| {
        let page = bench.read(HistoryRead {
            since,
            limit,
            ..read("a")
        });
        assert_eq!(page.top.offset, 7);
        page.publications
            .iter()
            .map(|publication| publication.offset)
            .collect::<Vec<_>>()
    };
    assert_eq!(page(None, Some(2)), [3, 4]);
    assert_eq!(page(Some(4), Some(2)), [5, 6]);
    assert_eq!(page(Some(6), Some(2)), [7]);
    assert_eq!(page(Some(0), Some(2)), [3, 4], "what is gone is skipped");
    assert_eq!(page(None, Some(0)), [0; 0]);
    for beyond in [7, 8, u64::MAX] {
        assert_eq!(page(Some(beyond), None), [0; 0]);
    }
}

pub(super) fn pages_have_a_size(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    for _ in 0..4 {
        bench.publish("a", "some data");
    }
    let weight = weight(&bench.read(read("a")).publications[0]);
    let page = |since, most, reverse| {
        bench.offsets(HistoryRead {
            since,
            max_bytes: Some(most),
            reverse,
            ..read("a")
        })
    };
    assert_eq!(page(None, 2 * weight, false), [1, 2]);
    assert_eq!(page(Some(2), 3 * weight - 1, false), [3, 4]);
    assert_eq!(page(Some(1), 2 * weight - 1, false), [2]);
    assert_eq!(page(Some(3), 0, false), [4], "one in any case");
    assert_eq!(page(None, 2 * weight, true), [4, 3]);
}

pub(super) fn pages_backward(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    for _ in 0..7 {
        bench.publish("a", "x");
    }
    let page = |since, limit| {
        bench.offsets(HistoryRead {
            since,
            limit,
            reverse: true,
            ..read("a")
        })
    };
    assert_eq!(page(None, None), [7, 6, 5, 4, 3]);
    assert_eq!(page(None, Some(2)), [7, 6]);
    assert_eq!(page(Some(6), Some(2)), [5, 4]);
    assert_eq!(page(Some(8), Some(2)), [7, 6]);
    for beside in [0, 1, 3, 9, u64::MAX] {
        assert_eq!(
            page(Some(beside), None),
            [0; 0],
            "what is right before {beside} is not kept"
        );
    }
}

pub(super) fn pages_tell_holes(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    let follows = |since| {
        bench
            .read(HistoryRead {
                since: Some(since),
                ..read("a")
            })
            .follows
    };
    assert!(follows(0), "nothing is missing from an empty stream");
    assert!(!follows(1), "a position that does not exist yet");
    for _ in 0..7 {
        bench.publish("a", "x");
    }
    for since in 0..10 {
        assert_eq!(follows(since), (2..=7).contains(&since), "since {since}");
    }
    assert!(!follows(u64::MAX));
}

pub(super) fn removed_history(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    bench.remove_history("unused");
    bench.attach(0, "a");
    bench.publish("a", "x");
    let top = bench.publish("a", "y").position;
    bench.remove_history("a");
    let page = bench.read(HistoryRead {
        since: Some(1),
        ..read("a")
    });
    assert_eq!(page.top, top, "the position stays");
    assert!(page.publications.is_empty() && !page.follows);
    let at_top = HistoryRead {
        since: Some(2),
        ..read("a")
    };
    assert!(
        bench.read(at_top).follows,
        "nothing is missing behind the top"
    );
    assert_eq!(bench.publish("a", "z").position.epoch, top.epoch);
    assert_eq!(bench.offsets(read("a")), [3]);
    assert_eq!(bench.fed(0), ["a x 0>1", "a y 1>2", "a z 2>3"]);
}
