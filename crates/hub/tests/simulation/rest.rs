//! What must be true in the end: when all is quiet, and when everybody is gone.

use std::time::Duration;

use tautline_hub::HubStats;

use crate::client::ClientModel;
use crate::rules::Seats;
use crate::world::Simulation;
use crate::{BY_USER, CHANNELS, CLIENTS, USERS, WORKERS};

impl Simulation {
    /// Lets everything that was begun come to its end.
    pub(crate) fn come_to_rest(&mut self) {
        // Who is gone is buried, or found out by its missing pong.
        let buries = self.random.chance(70);
        while buries && !self.ghosts.is_empty() {
            self.bury_one();
        }
        // An engine in trouble is asked again after a second. A loss at the end is found by the second
        // check of the position, which takes 45.
        let patience = match (self.weather.lossy, self.ghosts.is_empty()) {
            (true, _) => 120,
            (false, false) => 60,
            (false, true) => 5,
        };
        let end = self.node.now.monotonic + Duration::from_secs(patience);
        for round in 0.. {
            assert!(round < 20_000, "no rest after {round} rounds");
            if self.move_everything() {
                continue;
            }
            let mut hubs = self.node.workers.iter().map(|worker| &worker.hub);
            let is_settled = self.clients.iter().all(ClientModel::is_settled)
                && hubs.all(|hub| hub.unannounced() == 0);
            if is_settled && self.node.now.monotonic >= end {
                break;
            }
            self.node.pass(Duration::from_secs(1));
            self.check_node();
            self.refresh(100);
        }
    }

    fn move_everything(&mut self) -> bool {
        let delayed = self.node.delayed.clone();
        let mut any = delayed.is_some_and(|delayed| delayed.step(self.node.now));
        any |= self.node.answer();
        self.check_node();
        for worker in 0..WORKERS {
            any |= self.node.deliver(worker, |all| all);
            self.check_node();
        }
        for client in 0..CLIENTS {
            any |= self.forward(client, usize::MAX);
            any |= self.carry(client, usize::MAX, |all| all);
        }
        any
    }

    pub(crate) fn check_rest(&self) {
        for ghost in &self.ghosts {
            let view = &self.views[&(ghost.link.worker, ghost.link.id)];
            assert!(
                view.ended.is_some(),
                "{:?} of worker {} ({}) was never found out",
                ghost.link.id,
                ghost.link.worker,
                view.client
            );
        }
        for (channel, log) in self.logs.iter().enumerate() {
            for number in &log.acknowledged {
                assert!(
                    log.place(*number).is_some(),
                    "{number} was acknowledged and is not there"
                );
            }
            for number in &log.refused {
                assert_eq!(
                    log.place(*number),
                    None,
                    "{number} was refused and is there"
                );
            }
            for number in &log.stale {
                assert_eq!(log.place(*number), None, "{number} was old and is there");
            }
            assert!(
                self.fails() || log.entries.len() >= log.started,
                "something was not published"
            );
            for (index, client) in self.clients.iter().enumerate() {
                let who = format!("client {index} in {channel}");
                client.subscriptions[channel].check_rest(&who, log, self.weather.lossy);
            }
        }
        for channel in 0..CHANNELS.len() {
            let members = self.members(channel);
            assert_eq!(members, self.subscribers(channel), "who is in {channel}");
            let names = match channel {
                BY_USER => self.everybody(channel).into_values().collect(),
                _ => members,
            };
            for client in &self.clients {
                client.check_company(channel, &names);
            }
        }
        if self.rules.seats == Seats::Single {
            for user in USERS {
                assert!(self.connected(user) <= 1, "{user} is there twice");
            }
        }
    }

    pub(crate) fn everybody_leaves(&mut self) {
        for client in 0..CLIENTS {
            self.break_connection(client);
        }
        while !self.ghosts.is_empty() {
            self.bury_one();
        }
        while self.move_everything() {}
        for channel in 0..CHANNELS.len() {
            self.publish(0, channel);
        }
        let delayed = self.node.delayed.clone();
        while delayed
            .as_ref()
            .is_some_and(|delayed| delayed.step(self.node.now))
        {}
        for (index, worker) in self.node.workers.iter().enumerate() {
            assert!(worker.inbox.is_fed_nothing(), "worker {index} is still fed");
            assert_eq!(worker.hub.stats(), HubStats::default(), "worker {index}");
            assert_eq!(worker.hub.questions(), 0, "worker {index}");
        }
        for channel in 0..CHANNELS.len() {
            let (members, away) = (self.members(channel), self.away(channel));
            if self.is_exact() {
                assert_eq!(members, away, "somebody is left");
            }
            // Who was about to subscribe is present, too.
            let is_told = |client: &String| self.was_told(client);
            assert!(members.iter().all(is_told), "somebody is left: {members:?}");
        }
        if let Some(code) = &self.node.code {
            code.check_empty(self.is_exact());
        }
    }
}
