//! The end of the node: its clients are told to come back elsewhere, one after the other, while life goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tautline_hub::SessionId;

use crate::faults::Fault;
use crate::world::{Simulation, Who};
use crate::{BY_USER, WORKERS};

/// A node that drains.
pub(crate) struct Draining {
    begun: Duration,
    over: Duration,
    /// What [`Node::made_up`](crate::network::Node) was at the beginning.
    made_up: Duration,
    /// By worker.
    workers: Vec<Worker>,
    /// By channel: the connections that were told to come back, by their ids, and whose they are. They are
    /// present still: who comes back to another node was never away.
    away: BTreeMap<usize, BTreeMap<String, String>>,
    /// All connections that were told to come back.
    told: BTreeSet<String>,
}

/// The sessions that a worker had, and how many of their clients were told.
struct Worker {
    sessions: BTreeSet<SessionId>,
    told: u128,
}

/// How coarse the node's clocks are, and how often some are told.
const COARSE: Duration = Duration::from_millis(50);

impl Draining {
    /// How many of so many should have been told after some time.
    fn share(&self, count: usize, elapsed: Duration) -> u128 {
        let elapsed = elapsed.min(self.over).as_nanos();
        count as u128 * elapsed / self.over.as_nanos()
    }
}

impl Simulation {
    /// Ends the node over some seconds, in which everything goes on.
    pub(crate) fn drain(&mut self) {
        let begun = self.node.now.monotonic;
        let over = Duration::from_millis(500 + self.random.below(3000) as u64);
        let sessions = |worker: usize| {
            let open = self.views.iter().filter(|(who, view)| {
                let is_there = view.ended.is_none();
                who.0 == worker && is_there
            });
            open.map(|((_, id), _)| *id).collect()
        };
        let workers = (0..WORKERS).map(|worker| Worker {
            sessions: sessions(worker),
            told: 0,
        });
        self.draining = Some(Draining {
            begun,
            over,
            made_up: self.node.made_up,
            workers: workers.collect(),
            away: BTreeMap::new(),
            told: BTreeSet::new(),
        });
        let over = match self.weather.fault {
            Some(Fault::HasteDrain) => over / 2,
            _ => over,
        };
        self.node.drain(over);
        self.check_node();
        // Whoever lets the hubs wait gets a longer row, and not a faster one.
        while self.made_up() < self.draining.as_ref().unwrap().over + COARSE {
            for _ in 0..3 {
                self.step();
                self.check_node();
            }
            for _ in 0..10 {
                self.node.pass(Duration::from_millis(10));
            }
            self.check_node();
        }
    }

    /// How much of the time since the row began was made use of, at the least.
    fn made_up(&self) -> Duration {
        let draining = self.draining.as_ref();
        draining.map_or(Duration::ZERO, |draining| {
            self.node.made_up - draining.made_up
        })
    }

    /// A session was ended because the node ends; what it was subscribed to.
    pub(crate) fn check_told(&mut self, who: Who, channels: Vec<usize>) {
        let now = self.node.now.monotonic;
        let view = &self.views[&who];
        let (client, user) = (view.client.clone(), view.user);
        let draining = self.draining.as_mut().expect("the node goes on");
        for channel in channels {
            let away = draining.away.entry(channel).or_default();
            away.insert(client.clone(), user.to_owned());
        }
        draining.told.insert(client.clone());
        let elapsed = now - draining.begun;
        let count = draining.workers[who.0].sessions.len();
        let due = draining.share(count, elapsed);
        let worker = &mut draining.workers[who.0];
        if client.is_empty() {
            // It may have been its turn, or it wanted to come in.
            return;
        }
        worker.told += 1;
        assert!(
            worker.told <= due,
            "{} of {count} were told after {elapsed:?}",
            worker.told
        );
    }

    /// A client has connected.
    pub(crate) fn check_let_in(&self, who: Who) {
        if let Some(draining) = &self.draining {
            // It may have asked before.
            let is_known = draining.workers[who.0].sessions.contains(&who.1);
            assert!(is_known, "let in after the end");
        }
    }

    /// Nobody stays for longer than the row has room.
    pub(crate) fn check_draining(&self) {
        let Some(draining) = &self.draining else {
            return;
        };
        let elapsed = self.made_up();
        for (index, worker) in draining.workers.iter().enumerate() {
            let is_there = |id: &&SessionId| {
                let view = self.views.get(&(index, **id));
                view.is_some_and(|view| view.ended.is_none())
            };
            let left = worker.sessions.iter().filter(is_there).count();
            let count = worker.sessions.len();
            let due = draining.share(count, elapsed.saturating_sub(COARSE));
            assert!(
                left as u128 + due <= count as u128,
                "{left} of {count} are left after {elapsed:?}"
            );
        }
    }

    /// Others were told that somebody has left a channel, a user where that is what they are told of.
    pub(crate) fn check_left(&self, channel: usize, client: &str, user: &str) {
        let draining = self.draining.as_ref();
        let away = draining.and_then(|draining| draining.away.get(&channel));
        // An engine that takes its time may tell of what was before.
        let Some(away) = away.filter(|_| self.is_exact()) else {
            return;
        };
        let is_away = match channel {
            BY_USER => away.values().any(|known| known == user),
            _ => away.contains_key(client),
        };
        assert!(!is_away, "{client} ({user}) comes back, and has left");
    }

    /// Whether the client of a connection was told to come back elsewhere.
    pub(crate) fn was_told(&self, client: &str) -> bool {
        let draining = self.draining.as_ref();
        draining.is_some_and(|draining| draining.told.contains(client))
    }

    /// Who is present in a channel though it isn't subscribed any more.
    pub(crate) fn away(&self, channel: usize) -> BTreeSet<String> {
        let draining = self.draining.as_ref();
        let away = draining.and_then(|draining| draining.away.get(&channel));
        away.into_iter()
            .flat_map(|away| away.keys().cloned())
            .collect()
    }
}
