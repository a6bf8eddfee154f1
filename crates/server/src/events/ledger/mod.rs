//! What is, beside what the backend was told of it; and from the difference, what to tell next.
//!
//! Workers enter facts as they happen. A difference becomes an event at once, but for what may be undone in a moment: who
//! goes has `debounce` to come back, and then nothing has happened. While there is no room for events differences wait,
//! and what comes and goes meanwhile is never told of: memory is bounded by what is and by what was told, and the
//! backend gets to know the truth in the end.
//!
//! No clock, no threads, no files: time is an argument.
//!
//! A **visit** is what the backend is told of: it begins with a connection, and lasts for as long as the same user comes back
//! within the time. It has the id of the connection that it began with.
//!
//! - `facts`: what happens, entered;
//! - `told`: what is different, as events;
//! - `restored`: what an earlier process has told.

mod facts;
mod restored;
mod told;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::event::Event;

/// What of a fact is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tracked {
    /// Connections.
    pub(crate) visits: bool,
    /// Their subscriptions.
    pub(crate) subscriptions: bool,
    pub(crate) channels: bool,
    pub(crate) misses: bool,
}

/// For how long who goes is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) debounce: Duration,
    /// The same for those who were there when the process before this one ended.
    pub(crate) restart_debounce: Duration,
}

/// The books.
pub(crate) struct Ledger {
    terms: Terms,
    visits: HashMap<Name, Visit>,
    /// Which visit a connection is, by connection id.
    clients: HashMap<Name, Name>,
    /// Visits whose users may come back, the one that is gone longest first.
    returning: HashMap<Name, VecDeque<Name>>,
    channels: HashMap<Name, Channel>,
    /// Channels of which it was told just now that they had nothing.
    missed: HashSet<Name>,
    /// When to look at what again. Some of it is out of date: who has come back, or has gone once more.
    timers: BinaryHeap<Reverse<(Duration, u64, Item)>>,
    timer: u64,
    /// How many of them were left when it was last looked through.
    timers_swept: usize,
    /// What may be different from what was told, each once.
    ready: VecDeque<Item>,
    is_ready: HashSet<Item>,
    /// How many of them were left when it was last looked through.
    swept: usize,
    /// Events that nobody has fetched yet.
    events: VecDeque<Event>,
    dropped: u64,
}

type Name = Arc<str>;

struct Visit {
    user: Name,
    /// The connection that it is at the moment.
    client: Name,
    transport: Name,
    /// Unix time in milliseconds.
    began: u64,
    told: bool,
    leaving: Option<Leaving>,
    subscriptions: HashMap<Name, Subscription>,
}

/// Who has gone, and may come back until then.
#[derive(Clone)]
struct Leaving {
    since: u64,
    until: Duration,
    code: u32,
    reason: Name,
}

struct Subscription {
    began: u64,
    told: bool,
    leaving: Option<Leaving>,
}

#[derive(Default)]
struct Channel {
    subscribers: usize,
    told: bool,
    /// When it began, and since when and until when it is waited for another subscriber.
    began: u64,
    empty: Option<(u64, Duration)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Item {
    Visit(Name),
    Subscription(Name, Name),
    Channel(Name),
    /// A channel that had nothing, who wanted it, and when.
    Miss(Name, Name, Name, u64),
}

impl Ledger {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            terms,
            visits: HashMap::new(),
            clients: HashMap::new(),
            returning: HashMap::new(),
            channels: HashMap::new(),
            missed: HashSet::new(),
            timers: BinaryHeap::new(),
            timer: 0,
            timers_swept: 0,
            ready: VecDeque::new(),
            is_ready: HashSet::new(),
            swept: 0,
            events: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Books into which nothing is entered but what was told.
    pub(super) fn for_reading() -> Self {
        Self::new(Terms {
            debounce: Duration::ZERO,
            restart_debounce: Duration::ZERO,
        })
    }

    /// Waits for that long for who goes from now on.
    pub(crate) fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// Makes events of what is different from what was told, as far as there is room for them here.
    pub(crate) fn settle(&mut self, now: Duration) {
        while let Some(Reverse((until, _, _))) = self.timers.peek() {
            if *until > now {
                break;
            }
            if let Some(Reverse((_, _, item))) = self.timers.pop() {
                if let Item::Miss(channel, ..) = &item {
                    self.missed.remove(channel);
                } else {
                    self.make_ready(item);
                }
            }
        }
        while self.events.len() < MOST_EVENTS
            && let Some(event) = self.next(now)
        {
            self.events.push_back(event);
        }
        if self.ready.len() >= 2 * self.swept.max(LEAST_SWEPT) {
            self.sweep(now);
        }
        if self.timers.len() >= 2 * self.timers_swept.max(LEAST_SWEPT) {
            self.sweep_timers();
        }
    }

    /// Takes the oldest events out, `most` at the most.
    pub(crate) fn take(&mut self, most: usize) -> Vec<Event> {
        let count = most.min(self.events.len());
        self.events.drain(..count).collect()
    }

    /// How many events nobody has taken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.events.len()
    }

    /// When to [`settle`](Self::settle) though nothing has happened.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.timers.peek().map(|Reverse((until, _, _))| *until)
    }

    /// Who has gone is not waited for any longer.
    pub(crate) fn hurry(&mut self, now: Duration) {
        while let Some(Reverse((_, _, item))) = self.timers.pop() {
            match &item {
                Item::Visit(name) => {
                    let visit = self.visits.get_mut(name);
                    if let Some(leaving) = visit.and_then(|visit| visit.leaving.as_mut()) {
                        leaving.until = leaving.until.min(now);
                    }
                }
                Item::Subscription(visit, channel) => {
                    let visit = self.visits.get_mut(visit);
                    let subscription = visit.and_then(|visit| visit.subscriptions.get_mut(channel));
                    if let Some(leaving) = subscription.and_then(|one| one.leaving.as_mut()) {
                        leaving.until = leaving.until.min(now);
                    }
                }
                Item::Channel(name) => {
                    let channel = self.channels.get_mut(name);
                    if let Some((_, until)) = channel.and_then(|channel| channel.empty.as_mut()) {
                        *until = (*until).min(now);
                    }
                }
                Item::Miss(channel, ..) => {
                    self.missed.remove(channel);
                    continue;
                }
            }
            self.make_ready(item);
        }
        self.settle(now);
    }

    /// Who goes from now on is expected back after a restart.
    pub(crate) fn expect_restart(&mut self) {
        self.terms.debounce = self.terms.debounce.max(RESTART);
    }

    /// How many misses were not told of because there were too many.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn set_timer(&mut self, until: Duration, item: Item) {
        self.timer += 1;
        self.timers.push(Reverse((until, self.timer, item)));
    }

    fn make_ready(&mut self, item: Item) {
        if self.is_ready.insert(item.clone()) {
            self.ready.push_back(item);
        }
    }

    /// What takes memory here.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let returning: usize = self.returning.values().map(VecDeque::len).sum();
        let timers = self.timers.len();
        self.visits.len()
            + self.clients.len()
            + self.channels.len()
            + self.ready.len()
            + returning
            + timers
    }
}

/// Longer than any shutdown takes.
const RESTART: Duration = Duration::from_secs(2 * 3600);
/// Events that wait to be written; beyond them differences wait as such.
const MOST_EVENTS: usize = 16 * 1024;
/// Fewer differences, or timers, are not worth looking through.
const LEAST_SWEPT: usize = 1024;
