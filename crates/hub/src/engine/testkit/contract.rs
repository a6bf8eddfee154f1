//! The contract of engines, sentence by sentence.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tautline_protocol::message::ClientInfo;

use super::Subject;
use crate::Now;
use crate::engine::{
    Channel, Delivery, EngineError, HistoryOptions, HistoryPage, HistoryRead, Idempotency,
    JoinLevel, Mailbox, Members, Outcome, PresencePage, PresenceRead, Publish, Published, Started,
    Ticket, Version, WorkerId, info_weight, weight,
};

/// Something that every engine must do, with its name.
pub type Rule = (&'static str, fn(&dyn Subject));

const CLIENT: JoinLevel = JoinLevel::Client;

/// All rules.
pub const CONTRACT: &[Rule] = &[
    (
        "offsets count from one and come with the epoch",
        offsets_count,
    ),
    (
        "every worker attached gets each publication once and in order",
        feed_is_ordered,
    ),
    ("a worker that is not attached gets nothing", feed_ends),
    (
        "deliveries name the feed that brings them",
        feeds_have_names,
    ),
    (
        "without history there is no position",
        no_history_no_position,
    ),
    ("history is kept up to its size", size_limits_history),
    (
        "history is kept for its time, positions for longer",
        ttl_limits_history,
    ),
    (
        "a forgotten position begins a new epoch",
        meta_ttl_ends_the_epoch,
    ),
    ("pages forward go on behind a position", pages_forward),
    ("pages are bounded by bytes", pages_have_a_size),
    ("pages backward go on before a position", pages_backward),
    (
        "a page says whether it follows its position",
        pages_tell_holes,
    ),
    ("a key publishes once", keys_publish_once),
    (
        "what is no newer than the channel's version is not published",
        versions_only_grow,
    ),
    (
        "versions of another scope can't be compared",
        versions_have_a_scope,
    ),
    (
        "a key that came with a stale version has its outcome",
        keys_and_versions,
    ),
    (
        "history that is removed is gone, and the stream goes on",
        removed_history,
    ),
    (
        "the wish for a patch comes with the publication",
        wishes_for_patches,
    ),
    (
        "presence lists who was added and not removed",
        presence_lists,
    ),
    (
        "presence is listed in pages, from any place on",
        presence_in_pages,
    ),
    (
        "joins and leaves reach those attached, in order",
        joins_and_leaves,
    ),
    ("a user joins once and leaves once", users_join_once),
    (
        "a publication keeps whom it is not for",
        publications_keep_their_exception,
    ),
    ("channels know nothing of each other", channels_are_separate),
];

/// Checks every rule, each on a fresh engine.
///
/// # Panics
///
/// If a rule is broken; the rule's name is printed first.
pub fn check<S: Subject>(make: impl Fn() -> S) {
    for (name, rule) in CONTRACT {
        // Shown by the test harness only if the rule is broken.
        eprintln!("rule: {name}");
        rule(&make());
    }
}

#[derive(Default)]
struct Inbox(Mutex<Vec<Delivery>>);

impl Mailbox for Inbox {
    fn push(&self, delivery: Delivery) {
        self.0
            .lock()
            .expect("no test panics while pushing")
            .push(delivery);
    }
}

/// An engine with two workers, and a clock.
struct Bench<'a> {
    subject: &'a dyn Subject,
    inboxes: [Arc<Inbox>; 2],
    now: Cell<Duration>,
    serial: Cell<u64>,
}

impl<'a> Bench<'a> {
    fn new(subject: &'a dyn Subject) -> Self {
        let inboxes: [Arc<Inbox>; 2] = Default::default();
        for (index, inbox) in inboxes.iter().enumerate() {
            subject
                .engine()
                .register(WorkerId(index as u16), inbox.clone());
        }
        Self {
            subject,
            inboxes,
            now: Cell::default(),
            serial: Cell::new(0),
        }
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.now.get(),
            unix: self.now.get(),
        }
    }

    fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }

    fn ticket(&self, worker: u16) -> Ticket {
        self.serial.set(self.serial.get() + 1);
        Ticket {
            worker: WorkerId(worker),
            serial: self.serial.get(),
        }
    }

    /// The result of what was started with `ticket`, however long it takes.
    fn result<T>(
        &self,
        ticket: Ticket,
        started: Started<Result<T, EngineError>>,
        read: impl Fn(Outcome) -> Option<Result<T, EngineError>>,
    ) -> T {
        let result = match started {
            Started::Done(result) => result,
            Started::Later => {
                let is_it = |delivery: &Delivery| matches!(delivery, Delivery::Outcome { ticket: other, .. } if *other == ticket);
                match self.wait_for(ticket.worker.0, is_it) {
                    Delivery::Outcome { outcome, .. } => {
                        read(outcome).expect("the outcome is of the kind that was asked for")
                    }
                    _ => unreachable!("only outcomes were waited for"),
                }
            }
        };
        result.expect("the engine works")
    }

    fn wait_for(&self, worker: u16, is_it: impl Fn(&Delivery) -> bool) -> Delivery {
        for _ in 0..PATIENCE {
            let mut inbox = self.inboxes[usize::from(worker)]
                .0
                .lock()
                .expect("not poisoned");
            if let Some(place) = inbox.iter().position(&is_it) {
                return inbox.remove(place);
            }
            drop(inbox);
            self.subject.pump(self.now());
        }
        panic!("worker {worker} waits in vain for a delivery");
    }

    /// What was fed to a worker so far, as text. Outcomes stay.
    fn fed(&self, worker: u16) -> Vec<String> {
        for _ in 0..PATIENCE {
            self.subject.pump(self.now());
        }
        let mut inbox = self.inboxes[usize::from(worker)]
            .0
            .lock()
            .expect("not poisoned");
        let (outcomes, fed) = std::mem::take(&mut *inbox)
            .into_iter()
            .partition(|delivery| matches!(delivery, Delivery::Outcome { .. }));
        *inbox = outcomes;
        fed.into_iter().map(describe).collect()
    }

    fn attach(&self, worker: u16, channel: &str) {
        let ticket = self.ticket(worker);
        let started = self
            .subject
            .engine()
            .attach(self.now(), ticket, &channel.into());
        self.result(ticket, started, |outcome| match outcome {
            Outcome::Changed(result) => Some(result),
            _ => None,
        });
    }

    fn publish_with(&self, worker: u16, request: Publish) -> Published {
        let ticket = self.ticket(worker);
        let started = self.subject.engine().publish(self.now(), ticket, request);
        self.result(ticket, started, |outcome| match outcome {
            Outcome::Published(result) => Some(result),
            _ => None,
        })
    }

    fn publish(&self, channel: &str, data: &'static str) -> Published {
        self.publish_with(0, publish(channel, data))
    }

    fn read(&self, request: HistoryRead) -> HistoryPage {
        let ticket = self.ticket(0);
        let started = self.subject.engine().history(self.now(), ticket, request);
        self.result(ticket, started, |outcome| match outcome {
            Outcome::History(result) => Some(result),
            _ => None,
        })
    }

    fn offsets(&self, request: HistoryRead) -> Vec<u64> {
        let page = self.read(request);
        page.publications
            .iter()
            .map(|publication| publication.offset)
            .collect()
    }

    fn change_presence(&self, worker: u16, channel: &str, info: &Arc<ClientInfo>, add: bool) {
        let (ticket, channel) = (self.ticket(worker), Channel::from(channel));
        let engine = self.subject.engine();
        let started = if add {
            engine.presence_add(self.now(), ticket, &channel, info)
        } else {
            engine.presence_remove(self.now(), ticket, &channel, info)
        };
        self.result(ticket, started, |outcome| match outcome {
            Outcome::Changed(result) => Some(result),
            _ => None,
        });
    }

    fn remove_history(&self, channel: &str) {
        let ticket = self.ticket(0);
        let engine = self.subject.engine();
        let started = engine.remove_history(self.now(), ticket, &channel.into());
        self.result(ticket, started, |outcome| match outcome {
            Outcome::Changed(result) => Some(result),
            _ => None,
        });
    }

    fn presence(&self, request: PresenceRead) -> PresencePage {
        let ticket = self.ticket(0);
        let started = self.subject.engine().presence(self.now(), ticket, request);
        self.result(ticket, started, |outcome| match outcome {
            Outcome::Presence(result) => Some(result),
            _ => None,
        })
    }

    fn members(&self, channel: &str) -> (Members, u32, u32) {
        let name = Channel::from(channel);
        let page = self.presence(list(channel));
        assert_eq!(page.next, None);
        let ticket = self.ticket(0);
        let started = self
            .subject
            .engine()
            .presence_stats(self.now(), ticket, &name);
        let stats = self.result(ticket, started, |outcome| match outcome {
            Outcome::PresenceStats(result) => Some(result),
            _ => None,
        });
        assert_eq!(page.stats, stats);
        (page.members, stats.num_clients, stats.num_users)
    }
}

/// How often an engine is pumped before a test gives up.
const PATIENCE: usize = 1000;

const KEEP: HistoryOptions = HistoryOptions {
    size: 5,
    ttl: Duration::from_secs(60),
    meta_ttl: Duration::from_secs(7200),
};

fn publish(channel: &str, data: &'static str) -> Publish {
    Publish {
        channel: channel.into(),
        data: Bytes::from_static(data.as_bytes()),
        info: None,
        tags: Default::default(),
        except: None,
        history: Some(KEEP),
        idempotency: None,
        version: None,
        patch: false,
    }
}

fn read(channel: &str) -> HistoryRead {
    HistoryRead {
        channel: channel.into(),
        options: KEEP,
        since: None,
        limit: None,
        max_bytes: None,
        reverse: false,
    }
}

fn list(channel: &str) -> PresenceRead {
    PresenceRead {
        channel: channel.into(),
        after: None,
        wrap: false,
        limit: usize::MAX,
        max_bytes: usize::MAX,
    }
}

fn describe(delivery: Delivery) -> String {
    match delivery {
        Delivery::Publication {
            channel,
            publication,
            previous,
            ..
        } => {
            let data = String::from_utf8_lossy(&publication.data).into_owned();
            format!("{channel} {data} {previous}>{}", publication.offset)
        }
        Delivery::Join { channel, info, .. } => format!("{channel} +{}", info.client),
        Delivery::Leave { channel, info, .. } => format!("{channel} -{}", info.client),
        Delivery::Outcome { .. } => "outcome".into(),
        Delivery::Superseded { .. } => panic!("this is no engine's to tell"),
        Delivery::Doubt { .. } => "doubt".into(),
    }
}

fn info(client: &str, user: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        client: client.into(),
        user: user.into(),
        ..ClientInfo::default()
    })
}

fn offsets_count(subject: &dyn Subject) {
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

fn feed_is_ordered(subject: &dyn Subject) {
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

fn feed_ends(subject: &dyn Subject) {
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

fn feeds_have_names(subject: &dyn Subject) {
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

fn no_history_no_position(subject: &dyn Subject) {
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

fn size_limits_history(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    for _ in 0..12 {
        bench.publish("a", "x");
    }
    assert_eq!(bench.offsets(read("a")), [8, 9, 10, 11, 12]);
}

fn ttl_limits_history(subject: &dyn Subject) {
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

fn meta_ttl_ends_the_epoch(subject: &dyn Subject) {
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

fn pages_forward(subject: &dyn Subject) {
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

fn pages_have_a_size(subject: &dyn Subject) {
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

fn pages_backward(subject: &dyn Subject) {
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

fn pages_tell_holes(subject: &dyn Subject) {
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

fn keys_publish_once(subject: &dyn Subject) {
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

fn versions_only_grow(subject: &dyn Subject) {
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

fn versions_have_a_scope(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    assert!(!versioned(&bench, 9, "x", "1"));
    assert!(versioned(&bench, 9, "x", "2"));
    assert!(versioned(&bench, 9, "", "3"), "compares with any");
    assert!(!versioned(&bench, 1, "y", "4"), "another scope");
    assert!(versioned(&bench, 1, "y", "5"));
    assert!(!versioned(&bench, 1, "x", "6"), "the old one is forgotten");
    assert_eq!(bench.offsets(read("a")), [1, 2, 3]);
}

fn keys_and_versions(subject: &dyn Subject) {
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

fn removed_history(subject: &dyn Subject) {
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

fn wishes_for_patches(subject: &dyn Subject) {
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

fn presence_lists(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    let (ann, ann_too, bob) = (info("c1", "ann"), info("c2", "ann"), info("c3", "bob"));
    assert_eq!(bench.members("a"), (Members::new(), 0, 0));
    for (worker, info) in [(0, &ann), (1, &ann_too), (1, &bob), (0, &ann)] {
        bench.change_presence(worker, "a", info, true);
    }
    let (members, clients, users) = bench.members("a");
    assert_eq!(
        members.keys().map(|client| &**client).collect::<Vec<_>>(),
        ["c1", "c2", "c3"]
    );
    assert_eq!(members["c3"], bob);
    assert_eq!((clients, users), (3, 2));
    bench.change_presence(0, "a", &ann, false);
    bench.change_presence(0, "a", &ann, false);
    assert_eq!((bench.members("a").1, bench.members("a").2), (2, 2));
    bench.change_presence(1, "a", &ann_too, false);
    bench.change_presence(1, "a", &bob, false);
    assert_eq!(bench.members("a"), (Members::new(), 0, 0));
}

fn presence_in_pages(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    for client in ["c5", "c1", "c3", "c2", "c4"] {
        bench.change_presence(0, "a", &info(client, "ann"), true);
    }
    let page = |after: Option<&str>, wrap, limit, max_bytes| {
        let page = bench.presence(PresenceRead {
            after: after.map(Into::into),
            wrap,
            limit,
            max_bytes,
            ..list("a")
        });
        assert_eq!((page.stats.num_clients, page.stats.num_users), (5, 1));
        let members = page.members.keys().map(ToString::to_string);
        (
            members.collect::<Vec<_>>().join(" "),
            page.next.as_deref().unwrap_or("-").to_owned(),
        )
    };
    let is = |page: (String, String), members: &str, next: &str| {
        assert_eq!((&*page.0, &*page.1), (members, next));
    };
    let all = usize::MAX;
    is(page(None, false, 2, all), "c1 c2", "c2");
    is(page(Some("c2"), false, 2, all), "c3 c4", "c4");
    is(page(Some("c4"), false, 2, all), "c5", "-");
    is(page(Some("c4"), false, 1, all), "c5", "-");
    is(page(Some("c5"), false, 2, all), "", "-");
    is(page(Some("c25"), false, 1, all), "c3", "c3");
    is(page(Some("c3"), true, 3, all), "c1 c4 c5", "c1");
    is(page(Some("c3"), true, 9, all), "c1 c2 c3 c4 c5", "-");
    is(page(None, true, 9, all), "c1 c2 c3 c4 c5", "-");
    let weight = info_weight(&info("c1", "ann"));
    is(page(None, false, all, 2 * weight), "c1 c2", "c2");
    is(page(None, false, all, 3 * weight - 1), "c1 c2", "c2");
    is(page(None, false, all, 0), "c1", "c1");
}

fn joins_and_leaves(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    bench.attach(0, "a");
    let (engine, channel, ann) = (subject.engine(), Channel::from("a"), info("c1", "ann"));
    engine.join(bench.now(), WorkerId(1), &channel, &ann, CLIENT);
    bench.publish_with(1, publish("a", "x"));
    engine.leave(bench.now(), WorkerId(1), &channel, &ann, CLIENT);
    bench.publish_with(1, publish("a", "y"));
    assert_eq!(bench.fed(0), ["a +c1", "a x 0>1", "a -c1", "a y 1>2"]);
    assert!(bench.fed(1).is_empty());
}

fn publications_keep_their_exception(subject: &dyn Subject) {
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

fn users_join_once(subject: &dyn Subject) {
    const USER: JoinLevel = JoinLevel::User;
    let bench = Bench::new(subject);
    bench.attach(0, "a");
    let (engine, channel) = (subject.engine(), Channel::from("a"));
    let tabs = [info("c1", "ann"), info("c2", "ann"), info("c3", "bob")];
    let join = |worker, tab: &Arc<ClientInfo>| {
        engine.join(bench.now(), WorkerId(worker), &channel, tab, USER);
        // Waits until the engine is done with what has no outcome.
        bench.publish_with(worker, publish("a", "x"));
    };
    let leave = |worker, tab: &Arc<ClientInfo>| {
        engine.leave(bench.now(), WorkerId(worker), &channel, tab, USER);
        bench.publish_with(worker, publish("a", "x"));
    };
    let told = || {
        let fed = bench.fed(0).into_iter();
        fed.filter(|fed| !fed.contains('>')).collect::<Vec<_>>()
    };
    join(0, &tabs[0]);
    join(1, &tabs[1]);
    join(1, &tabs[2]);
    assert_eq!(told(), ["a +c1", "a +c3"]);
    leave(0, &tabs[0]);
    assert!(told().is_empty(), "ann is still there");
    leave(1, &tabs[2]);
    leave(1, &tabs[1]);
    assert_eq!(told(), ["a -c3", "a -c2"]);
    join(1, &tabs[0]);
    assert_eq!(told(), ["a +c1"], "anew");
    let nobody = [info("n1", ""), info("n2", "")];
    join(0, &nobody[0]);
    join(1, &nobody[1]);
    leave(0, &nobody[0]);
    assert_eq!(told(), ["a +n1", "a +n2", "a -n1"], "no user in common");
    // Another channel is another company.
    bench.attach(0, "b");
    engine.join(bench.now(), WorkerId(1), &"b".into(), &tabs[1], USER);
    bench.publish_with(1, publish("b", "x"));
    assert!(told().contains(&"b +c2".to_owned()));
}

fn channels_are_separate(subject: &dyn Subject) {
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
