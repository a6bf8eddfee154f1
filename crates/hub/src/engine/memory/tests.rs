//! The contract, and the bounds that the memory engine has besides.

use super::*;
use crate::engine::testkit::{self, DelayOptions, DelayedEngine, Seeded, Subject};
use crate::engine::{HistoryOptions, Idempotency};

struct Memory(MemoryEngine);

impl Subject for Memory {
    fn engine(&self) -> &dyn Engine {
        &self.0
    }
}

struct Delayed(DelayedEngine);

impl Subject for Delayed {
    fn engine(&self) -> &dyn Engine {
        &self.0
    }

    fn pump(&self, now: Now) {
        self.0.step(now);
    }
}

fn engine(max_channels: usize) -> MemoryEngine {
    MemoryEngine::new(
        MemoryOptions {
            max_channels,
            ..MemoryOptions::default()
        },
        Box::new(Seeded::new(7)),
    )
}

fn at(seconds: u64) -> Now {
    Now {
        monotonic: Duration::from_secs(seconds),
        unix: Duration::from_secs(seconds),
    }
}

fn ticket() -> Ticket {
    Ticket {
        worker: WorkerId(0),
        serial: 1,
    }
}

fn history(meta_ttl: u64) -> Option<HistoryOptions> {
    let ttl = Duration::from_secs(10);
    Some(HistoryOptions {
        size: 3,
        ttl,
        meta_ttl: Duration::from_secs(meta_ttl),
    })
}

fn publish(channel: &str, history: Option<HistoryOptions>) -> Publish {
    Publish {
        channel: channel.into(),
        data: "1".into(),
        info: None,
        except: None,
        tags: Default::default(),
        history,
        idempotency: None,
        version: None,
        patch: false,
    }
}

fn done<T>(started: Started<T>) -> T {
    match started {
        Started::Done(result) => result,
        Started::Later => panic!("the memory engine does everything at once"),
    }
}

#[test]
fn keeps_the_contract() {
    testkit::check(|| Memory(engine(1000)));
}

#[test]
fn channels_are_bounded_and_live_ones_go_on() {
    let engine = engine(2);
    for channel in ["a", "b"] {
        done(engine.publish(at(0), ticket(), publish(channel, history(100)))).unwrap();
    }
    let refused = done(engine.publish(at(0), ticket(), publish("c", history(100))));
    assert_eq!(refused, Err(EngineError::Full { limit: 2 }));
    assert_eq!(
        done(engine.attach(at(0), ticket(), &"c".into())),
        refused.map(|_| ())
    );
    done(engine.publish(at(0), ticket(), publish("a", history(100)))).unwrap();
    // What needs nothing to be kept works all the same.
    done(engine.publish(at(0), ticket(), publish("c", None))).unwrap();
    assert_eq!(engine.channels(), 2);
    let refusals = engine.refusals();
    assert_eq!((refusals.channels, refusals.bytes), (2, 0));
    assert_eq!(engine.limits().max_channels, 2);
}

#[test]
fn what_expires_makes_room() {
    let engine = engine(100);
    done(engine.attach(at(0), ticket(), &"fed".into())).unwrap();
    done(engine.publish(at(0), ticket(), publish("stream", history(20)))).unwrap();
    let idempotency = Some(Idempotency {
        key: "k".into(),
        ttl: Duration::from_secs(5),
    });
    let keyed = Publish {
        idempotency,
        ..publish("keyed", None)
    };
    done(engine.publish(at(0), ticket(), keyed)).unwrap();
    let info = Arc::new(ClientInfo::default());
    done(engine.presence_add(at(0), ticket(), &"present".into(), &info)).unwrap();
    assert_eq!(engine.channels(), 4);
    let sweep = |seconds| {
        for _ in 0..SHARDS {
            engine.maintain(at(seconds));
        }
        engine.channels()
    };
    assert_eq!(sweep(4), 4);
    assert_eq!(sweep(5), 3, "the key is forgotten");
    assert_eq!(sweep(19), 3);
    assert_eq!(sweep(20), 2, "the position is forgotten");
    done(engine.presence_remove(at(20), ticket(), &"present".into(), &info)).unwrap();
    engine.detach(at(20), WorkerId(0), &"fed".into());
    assert_eq!(engine.channels(), 0, "what is not used is gone at once");
}

/// Somebody who subscribes to names that he makes up leaves a position for each. They must keep nobody else from a channel,
/// nor take more memory than there may be.
#[test]
fn names_that_are_made_up_make_room_for_others() {
    let limit = 64 * 50;
    let engine = engine(limit);
    let read = |channel: &str, seconds| {
        let request = HistoryRead {
            channel: channel.into(),
            options: history(1_000_000).unwrap(),
            since: None,
            limit: Some(0),
            max_bytes: None,
            reverse: false,
        };
        done(engine.history(at(seconds), ticket(), request)).map(|page| page.top)
    };
    // What is in use: subscribed to, with a history, with a key that is remembered, with somebody in it.
    done(engine.attach(at(0), ticket(), &"live".into())).unwrap();
    let live = read("live", 0).unwrap();
    let idempotency = Some(Idempotency {
        key: "k".into(),
        ttl: Duration::from_secs(100_000),
    });
    let keyed = Publish {
        idempotency,
        ..publish("keyed", history(1_000_000))
    };
    let key = done(engine.publish(at(0), ticket(), keyed.clone())).unwrap();
    let info = Arc::new(ClientInfo::default());
    done(engine.presence_add(at(0), ticket(), &"present".into(), &info)).unwrap();
    let present = read("present", 0).unwrap();
    // And positions of what was published once, whose own time is over sooner than that of those which are made up.
    let mut used = Vec::new();
    for index in 0..100 {
        let name = format!("used-{index}");
        let request = publish(&name, history(1000));
        let position = done(engine.publish(at(0), ticket(), request))
            .unwrap()
            .position;
        used.push((name, position));
    }
    engine.maintain(at(10));
    for index in 0..10 * limit {
        read(&format!("made-up-{index}"), 20).unwrap();
        assert!(engine.channels() <= limit);
    }
    let armed = |engine: &MemoryEngine| -> usize {
        let shards = engine.shards.iter();
        let lens = shards.map(|shard| lock(shard).due.values().map(Vec::len).sum::<usize>());
        lens.sum()
    };
    assert!(armed(&engine) <= limit + 200, "{}", armed(&engine));
    assert_eq!(read("live", 20).unwrap(), live);
    assert_eq!(read("present", 20).unwrap(), present);
    for (name, position) in &used {
        assert_eq!(&read(name, 20).unwrap(), position, "{name} was used");
    }
    // Who may publish goes further: then it is the oldest that are forgotten, and told so.
    for round in 0..20 {
        for index in 0..limit / 10 {
            let name = format!("junk-{round}-{index}");
            let request = publish(&name, history(1_000_000));
            done(engine.publish(at(100 + round * 20), ticket(), request)).unwrap();
        }
        for _ in 0..SHARDS {
            engine.maintain(at(115 + round * 20));
        }
    }
    let kept = |name: &str| read(name, 500).unwrap().offset > 0;
    assert!(kept("junk-19-0"));
    // Each shard makes room for itself, and the hash is another in each run: in some, few names came.
    let forgotten = used.iter().filter(|(name, _)| !kept(name)).count();
    assert!(forgotten > used.len() / 2, "{forgotten}");
    assert_eq!(read("live", 500).unwrap(), live);
    let again = done(engine.publish(at(500), ticket(), keyed)).unwrap();
    assert_eq!((again.position, again.duplicate), (key.position, true));
    assert!(engine.channels() <= limit);
}

/// Where everything is in use, there is no room, and it costs nothing to be told so again.
#[test]
fn what_is_in_use_makes_no_room() {
    let engine = engine(640);
    for index in 0..640 {
        let channel = format!("live-{index}").into();
        done(engine.attach(at(0), ticket(), &channel)).unwrap();
    }
    let refused = Err(EngineError::Full { limit: 640 });
    for seconds in [0, 0, 5] {
        assert_eq!(
            done(engine.attach(at(seconds), ticket(), &"late".into())),
            refused
        );
    }
    assert_eq!(engine.channels(), 640);
}

#[test]
fn publications_are_bounded_by_bytes() {
    let options = MemoryOptions {
        max_bytes: 10_000,
        ..MemoryOptions::default()
    };
    let engine = MemoryEngine::new(options, Box::new(Seeded::new(7)));
    let many = HistoryOptions {
        size: 100,
        ..history(20).unwrap()
    };
    let publish = |name: &str, seconds| {
        let request = Publish {
            data: vec![b'1'; 1000].into(),
            ..publish(name, Some(many))
        };
        done(engine.publish(at(seconds), ticket(), request))
    };
    let refused = (0..100).find_map(|_| publish("a", 0).err());
    let limit = 10_000;
    assert_eq!(refused, Some(EngineError::OutOfMemory { limit }));
    let kept = engine.bytes();
    assert!((8000..=10_000).contains(&kept), "{kept}");
    assert_eq!(publish("b", 0), Err(EngineError::OutOfMemory { limit }));
    let refusals = engine.refusals();
    assert_eq!((refusals.channels, refusals.bytes), (0, 2));
    // What is not kept needs no room.
    let unkept = Publish {
        history: None,
        ..self::publish("a", None)
    };
    done(engine.publish(at(0), ticket(), unkept)).unwrap();
    engine.maintain(at(10));
    assert_eq!(engine.bytes(), 0, "all have expired");
    publish("b", 10).unwrap();
}

#[test]
fn a_full_history_takes_another_for_its_oldest() {
    let engine = MemoryEngine::new(
        MemoryOptions {
            max_bytes: 3000,
            ..MemoryOptions::default()
        },
        Box::new(Seeded::new(7)),
    );
    let options = HistoryOptions {
        size: 2,
        ..history(20).unwrap()
    };
    for _ in 0..50 {
        let request = Publish {
            data: vec![b'1'; 1000].into(),
            ..publish("a", Some(options))
        };
        done(engine.publish(at(0), ticket(), request)).unwrap();
    }
    assert!(engine.bytes() <= 3000);
}

#[test]
fn streams_that_were_only_read_are_forgotten_soon() {
    let engine = engine(100);
    let read = HistoryRead {
        channel: "a".into(),
        options: history(1_000_000).unwrap(),
        since: None,
        limit: Some(0),
        max_bytes: None,
        reverse: false,
    };
    let first = done(engine.history(at(0), ticket(), read.clone()))
        .unwrap()
        .top;
    assert_eq!(
        done(engine.history(at(3599), ticket(), read.clone()))
            .unwrap()
            .top,
        first
    );
    assert_ne!(
        done(engine.history(at(7199), ticket(), read)).unwrap().top,
        first
    );
}

/// The wrapper for tests must itself keep the contract, or tests with it prove nothing.
#[test]
fn the_delayed_engine_keeps_the_contract_too() {
    for seed in 0..20 {
        testkit::check(|| {
            let options = DelayOptions {
                at_once: 30,
                failures: 0,
            };
            Delayed(DelayedEngine::new(Arc::new(engine(1000)), options, seed))
        });
    }
}

#[test]
fn keys_that_are_forgotten_too_early_are_counted() {
    let engine = engine(10);
    let keyed = |number: usize| {
        let idempotency = Some(Idempotency {
            key: number.to_string().into(),
            ttl: Duration::from_secs(5),
        });
        Publish {
            idempotency,
            ..publish("a", None)
        }
    };
    for number in 0..MAX_KEYS {
        done(engine.publish(at(0), ticket(), keyed(number))).unwrap();
    }
    assert_eq!(engine.refusals().keys, 0);
    for number in 0..3 {
        done(engine.publish(at(0), ticket(), keyed(MAX_KEYS + number))).unwrap();
    }
    assert_eq!(engine.refusals().keys, 3);
    // Those that have had their time are no loss.
    for number in 0..3 {
        done(engine.publish(at(6), ticket(), keyed(number))).unwrap();
    }
    assert_eq!(engine.refusals().keys, 3);
}
