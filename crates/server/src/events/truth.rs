//! The ledger beside the truth: whatever happens, and whenever the process ends, who follows the events knows it in
//! the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tautline_hub::witness::Fact;
use tautline_hub::{SessionId, Transport};
use tautline_protocol::message::ClientInfo;
use tautline_protocol::{Disconnect, Encoding};

use super::event::{Event, Kind};
use super::ledger::{Ledger, Terms, Tracked};

const SECOND: Duration = Duration::from_secs(1);
const ALL: Tracked = Tracked {
    visits: true,
    subscriptions: true,
    channels: true,
    misses: true,
};
const TERMS: Terms = Terms {
    debounce: Duration::from_secs(5),
    restart_debounce: Duration::from_secs(30),
};

/// What a backend makes of events.
#[derive(Debug, Default)]
struct Backend {
    /// By visit: the user, and the channels.
    visits: BTreeMap<String, (String, BTreeSet<String>)>,
    occupied: BTreeSet<String>,
    heard: Vec<String>,
}

impl Backend {
    /// Every event must make sense after those before it.
    fn hear(&mut self, event: &Event) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (visit, user, channel) = (text(&event.visit), text(&event.user), text(&event.channel));
        self.heard
            .push(format!("{} {user} {channel}", event.kind.name()));
        match event.kind {
            Kind::Connected => {
                let before = self.visits.insert(visit, (user, BTreeSet::new()));
                assert!(before.is_none(), "connected twice");
            }
            Kind::Disconnected => {
                let (_, channels) = self.visits.remove(&visit).expect("it was connected");
                assert!(channels.is_empty(), "still in {channels:?}");
                assert!(event.duration.is_some() && event.reason.is_some() && event.code.is_some());
            }
            Kind::Subscribed => {
                let (_, channels) = self.visits.get_mut(&visit).expect("it is connected");
                assert!(channels.insert(channel), "subscribed twice");
            }
            Kind::Unsubscribed => {
                let (_, channels) = self.visits.get_mut(&visit).expect("it is connected");
                assert!(channels.remove(&channel), "not subscribed");
            }
            Kind::ChannelOccupied => assert!(self.occupied.insert(channel), "occupied twice"),
            Kind::ChannelVacated => assert!(self.occupied.remove(&channel), "not occupied"),
            Kind::CacheMiss => {}
        }
    }

    fn take_heard(&mut self) -> Vec<String> {
        std::mem::take(&mut self.heard)
    }
}

/// A server's clients, its ledger, and the backend; the books are what the ledger has told.
struct World {
    ledger: Ledger,
    now: Duration,
    clients: BTreeMap<u32, (Arc<ClientInfo>, BTreeSet<String>)>,
    next: u32,
    backend: Backend,
    written: Vec<Event>,
}

impl World {
    fn new() -> Self {
        Self {
            ledger: Ledger::new(TERMS),
            now: SECOND,
            clients: BTreeMap::new(),
            next: 0,
            backend: Backend::default(),
            written: Vec::new(),
        }
    }

    fn enter(&mut self, fact: Fact<'_>) {
        let unix = self.now.as_millis() as u64;
        self.ledger.enter(self.now, unix, ALL, fact);
    }

    fn connect(&mut self, user: &str) -> u32 {
        self.next += 1;
        let client = Arc::new(ClientInfo {
            user: user.into(),
            client: format!("client-{}", self.next).into(),
            conn_info: None,
            chan_info: None,
        });
        self.clients
            .insert(self.next, (client.clone(), BTreeSet::new()));
        self.enter(Fact::Connected {
            session: SessionId {
                index: self.next,
                generation: 0,
            },
            client: &client,
            transport: Transport::new("websocket", Encoding::Json),
        });
        self.next
    }

    fn disconnect(&mut self, id: u32) {
        let Some((client, channels)) = self.clients.remove(&id) else {
            return;
        };
        for channel in channels {
            self.enter(Fact::Unsubscribed {
                client: &client,
                channel: &channel.into(),
                code: 1,
            });
        }
        self.enter(Fact::Disconnected {
            client: &client,
            disconnect: &Disconnect::CONNECTION_CLOSED,
        });
    }

    fn toggle(&mut self, id: u32, channel: &str) {
        let Some((client, channels)) = self.clients.get_mut(&id) else {
            return;
        };
        let (client, is_new) = (client.clone(), channels.insert(channel.into()));
        if !is_new {
            channels.remove(channel);
        }
        let channel = &Arc::from(channel);
        if is_new {
            let client = &client;
            self.enter(Fact::Subscribed { client, channel });
        } else {
            self.enter(Fact::Unsubscribed {
                client: &client,
                channel,
                code: 0,
            });
        }
    }

    /// Some of the events are written and told.
    fn write(&mut self, most: usize) {
        for event in self.ledger.take(most) {
            self.backend.hear(&event);
            self.written.push(event);
        }
    }

    /// The process is killed, and another one started.
    fn crash(&mut self) {
        self.clients.clear();
        self.now = Duration::ZERO;
        self.ledger = Ledger::new(TERMS);
        for event in &self.written {
            self.ledger.restore(event);
        }
        // The books may be written anew.
        let believed: Vec<_> = self.ledger.believed().collect();
        self.ledger = Ledger::new(TERMS);
        for event in &believed {
            self.ledger.restore(event);
        }
        self.ledger.restored(self.now, 7, "node crashed");
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.ledger.settle(self.now);
    }

    /// Time passes until nobody is waited for.
    fn come_to_rest(&mut self) {
        while let Some(next) = self.ledger.next_deadline() {
            self.now = self.now.max(next);
            self.ledger.settle(self.now);
            self.write(usize::MAX);
        }
        loop {
            self.ledger.settle(self.now);
            if self.ledger.waiting() == 0 {
                return;
            }
            self.write(usize::MAX);
        }
    }

    fn check(&self) {
        let mut told: Vec<_> = self.backend.visits.values().cloned().collect();
        told.sort();
        let truth = self.clients.values();
        let mut truth: Vec<_> = truth
            .map(|(client, channels)| (client.user.to_string(), channels.clone()))
            .collect();
        truth.sort();
        assert_eq!(told, truth, "who is connected, and subscribed to what");
        let occupied = self.clients.values().flat_map(|(_, channels)| channels);
        assert_eq!(self.backend.occupied, occupied.cloned().collect());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Connect(&'static str),
    Disconnect(u32),
    Toggle(u32, &'static str),
    Pass(u64),
    Write(usize),
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let user = prop_oneof![Just("ann"), Just("bob"), Just("")];
    let channel = prop_oneof![Just("a"), Just("b"), Just("c")];
    let step = prop_oneof![
        6 => user.prop_map(Step::Connect),
        5 => (0u32..8).prop_map(Step::Disconnect),
        8 => ((0u32..8), channel).prop_map(|(id, channel)| Step::Toggle(id, channel)),
        4 => (0u64..9).prop_map(Step::Pass),
        6 => (0usize..6).prop_map(Step::Write),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn who_follows_the_events_knows_the_truth_in_the_end(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            // Of those who are there, whichever it is.
            let id = |world: &World, id: u32| {
                let ids: Vec<_> = world.clients.keys().copied().collect();
                ids.get(id as usize % ids.len().max(1)).copied().unwrap_or(0)
            };
            match step {
                Step::Connect(user) => drop(world.connect(user)),
                Step::Disconnect(place) => world.disconnect(id(&world, place)),
                Step::Toggle(place, channel) => {
                    let id = id(&world, place);
                    world.toggle(id, channel);
                }
                Step::Pass(seconds) => world.pass(SECOND * seconds as u32),
                Step::Write(most) => world.write(most),
                Step::Crash => world.crash(),
            }
        }
        world.come_to_rest();
        world.check();
        world.crash();
        world.come_to_rest();
        world.check();
    }
}

#[test]
fn a_page_that_is_loaded_again_is_no_disconnect() {
    let mut world = World::new();
    let page = world.connect("ann");
    world.toggle(page, "a");
    world.write(usize::MAX);
    assert_eq!(
        world.backend.take_heard(),
        ["connected ann ", "channel_occupied  a", "subscribed ann a"]
    );
    world.disconnect(page);
    world.pass(SECOND * 4);
    let page = world.connect("ann");
    // It has as much again to subscribe.
    world.pass(SECOND * 4);
    world.write(usize::MAX);
    let heard = world.backend.take_heard();
    assert_eq!(heard, ["channel_vacated  a"], "nobody was there for 8 s");
    world.toggle(page, "a");
    world.pass(SECOND * 60);
    world.write(usize::MAX);
    assert_eq!(world.backend.take_heard(), ["channel_occupied  a"]);
    // Who doesn't come back is told gone, and since when.
    world.disconnect(page);
    let gone = world.now.as_millis() as u64;
    world.pass(SECOND * 5 - Duration::from_millis(1));
    assert_eq!(world.ledger.waiting(), 0, "a moment before");
    world.pass(Duration::from_millis(1));
    world.write(usize::MAX);
    let mut heard = world.backend.take_heard();
    heard.sort();
    assert_eq!(
        heard,
        [
            "channel_vacated  a",
            "disconnected ann ",
            "unsubscribed ann a"
        ]
    );
    let last = world.written.last().expect("there are events");
    assert_eq!((last.kind, last.time), (Kind::Disconnected, gone));
    assert_eq!(last.duration, Some(gone - 1000));
    assert_eq!(last.client.as_deref(), Some("client-2"));
    assert_eq!(last.visit.as_deref(), Some("client-1"));
}

#[test]
fn who_leaves_a_channel_without_going_is_told_at_once() {
    let mut world = World::new();
    let client = world.connect("ann");
    world.toggle(client, "a");
    world.write(usize::MAX);
    world.backend.take_heard();
    world.toggle(client, "a");
    world.write(usize::MAX);
    assert_eq!(world.backend.take_heard(), ["unsubscribed ann a"]);
    // That of the channel's emptiness, too, has its time.
    world.pass(SECOND * 5);
    world.write(usize::MAX);
    assert_eq!(world.backend.take_heard(), ["channel_vacated  a"]);
}

#[test]
fn nobody_is_waited_for_who_could_not_be_known_again() {
    let mut world = World::new();
    let client = world.connect("");
    world.disconnect(client);
    world.write(usize::MAX);
    assert_eq!(
        world.backend.take_heard(),
        ["connected  ", "disconnected  "]
    );
}

#[test]
fn after_a_crash_users_have_time_to_come_back_and_the_rest_is_told_gone() {
    let mut world = World::new();
    for user in ["ann", "bob", ""] {
        let client = world.connect(user);
        world.toggle(client, "a");
        world.toggle(client, user);
    }
    world.write(usize::MAX);
    world.backend.take_heard();
    world.crash();
    world.pass(SECOND * 29);
    let ann = world.connect("ann");
    world.toggle(ann, "a");
    world.write(usize::MAX);
    let mut heard = world.backend.take_heard();
    heard.sort();
    let only_nobody = ["disconnected  ", "unsubscribed  ", "unsubscribed  a"];
    assert_eq!(heard, only_nobody);
    world.come_to_rest();
    let heard = world.backend.take_heard();
    assert!(heard.contains(&"disconnected bob ".to_owned()), "{heard:?}");
    assert!(
        !heard.contains(&"channel_vacated  a".to_owned()),
        "{heard:?}"
    );
    assert!(
        heard.contains(&"channel_vacated  bob".to_owned()),
        "{heard:?}"
    );
    let crashed = world.written.iter().filter(|event| {
        event.kind == Kind::Disconnected && event.reason.as_deref() == Some("node crashed")
    });
    assert_eq!(crashed.count(), 2);
    world.check();
}

#[test]
fn a_channel_that_has_nothing_is_told_of_once_in_a_while() {
    let mut world = World::new();
    let client = world.connect("ann");
    let info = world.clients[&client].0.clone();
    let miss = |world: &mut World| {
        let channel = &Arc::from("a");
        world.enter(Fact::CacheMissed {
            client: &info,
            channel,
        });
        world.write(usize::MAX);
        let heard = world.backend.take_heard();
        heard
            .iter()
            .filter(|text| text.starts_with("cache_miss"))
            .count()
    };
    assert_eq!(miss(&mut world), 1);
    assert_eq!(miss(&mut world), 0);
    world.pass(SECOND * 5);
    assert_eq!(miss(&mut world), 1);
}

/// However often somebody comes and goes within the time that is waited for, it is known once.
#[test]
fn who_comes_and_goes_all_the_time_takes_no_more_memory() {
    let mut world = World::new();
    let stays = world.connect("ann");
    // Waited for all the time, and not by what comes later.
    let goes = world.connect("cid");
    world.toggle(goes, "c");
    world.write(usize::MAX);
    world.disconnect(goes);
    for round in 0..10_000 {
        world.toggle(stays, "a");
        let page = world.connect("bob");
        world.toggle(page, "b");
        world.disconnect(page);
        if round % 10 == 0 {
            world.pass(Duration::from_millis(1));
            world.write(usize::MAX);
        }
    }
    assert!(world.ledger.size() < 5000, "{}", world.ledger.size());
    // What is left of it is told when it is time.
    world.come_to_rest();
    world.check();
}

/// While there is no room, what comes and goes costs nothing, and what is left of it is told later.
#[test]
fn what_comes_and_goes_while_there_is_no_room_is_not_told() {
    let mut world = World::new();
    let stays = world.connect("ann");
    for _ in 0..40_000 {
        let client = world.connect("");
        world.toggle(client, "a");
        world.disconnect(client);
        let user = world.connect("cid");
        world.toggle(user, "b");
        world.disconnect(user);
        world.pass(SECOND / 10);
    }
    assert!(world.ledger.waiting() <= 16 * 1024);
    assert!(world.ledger.size() < 5000, "{}", world.ledger.size());
    let late = world.connect("bob");
    world.disconnect(stays);
    world.come_to_rest();
    assert!(world.written.len() < 17_000, "{}", world.written.len());
    world.check();
    assert!(world.clients.contains_key(&late));
}
