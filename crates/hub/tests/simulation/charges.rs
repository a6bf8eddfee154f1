//! What clients may do, and how often; how many connections they may have; and when these end.

use serde_json::Value;

use crate::accounts::accounts;
use crate::rules::Seats;
use crate::world::{Simulation, Who};

impl Simulation {
    /// A command was answered, with the code of an error or 0: with 111 if and only if its account is empty.
    pub(crate) fn charge(&mut self, who: Who, command: &Value, code: u64) {
        let (now, is_prompt) = (self.node.now.monotonic, self.is_prompt());
        let is_connect = command["connect"].is_object();
        if is_connect && code == 0 {
            self.check_let_in(who);
        }
        let view = self.views.get_mut(&who).unwrap();
        if is_connect && code == 0 && is_prompt {
            self.seated.entry(view.user).or_default().push(view.number);
        }
        if !self.rules.rates {
            return assert_ne!(code, 111, "nothing is limited");
        }
        let (users, channels) = (&mut self.users, &mut self.channels);
        let mut accounts = accounts(&mut view.accounts, users, channels, view.user, command);
        if accounts.is_empty() {
            assert_ne!(code, 111, "it isn't limited: {command}");
        } else if is_connect && code == 109 {
            // Who doesn't say who he is has none.
        } else if is_prompt {
            let is_allowed = accounts.iter_mut().all(|account| account.spend(now));
            assert_eq!(is_allowed, code != 111, "{command} at {now:?}");
        } else if code == 0 {
            accounts.into_iter().for_each(|account| account.count(now));
        }
        let is_error = !matches!(code, 0 | 100);
        if is_error && !is_connect && is_prompt && !view.errors.spend(now) {
            view.has_erred = true;
        }
    }

    /// What must be true of all connections.
    pub(crate) fn check_views(&self) {
        let now = self.node.now.monotonic;
        for view in self.views.values() {
            view.check_cuts(now);
            assert!(
                !view.has_erred || view.ended.is_some(),
                "{} has caused too many errors",
                view.client
            );
            if let Seats::Most(most) = self.rules.seats {
                assert!(self.connected(view.user) <= most, "{}", view.user);
            }
        }
    }

    /// How many connections a user has.
    pub(crate) fn connected(&self, user: &str) -> usize {
        let views = self.views.values();
        let connected = views.filter(|view| view.user == user && view.is_connected());
        connected.count()
    }

    /// Whoever finds no seat has been let through by what he may do.
    fn charge_for_seat(&mut self, who: Who) {
        let (now, is_prompt) = (self.node.now.monotonic, self.is_prompt());
        let view = self.views.get_mut(&who).unwrap();
        if self.rules.rates && is_prompt && view.client.is_empty() {
            let connects = self.users.connects(view.user);
            assert!(connects.spend(now), "connected too often");
        }
    }

    /// A connection was ended because its user has others.
    pub(crate) fn check_seat(&mut self, who: Who) {
        self.charge_for_seat(who);
        let view = &self.views[&who];
        let (user, number) = (view.user, view.number);
        match self.rules.seats {
            Seats::Any => panic!("anybody may have any number of connections"),
            Seats::Most(most) => {
                assert!(view.client.is_empty(), "whoever is in stays in");
                let others = self.views.iter().filter(|(other, view)| {
                    view.user == user && view.may_be_connected() && **other != who
                });
                assert!(others.count() >= most, "there is a seat for {user}");
                assert!(!self.is_prompt() || self.connected(user) == most);
            }
            Seats::Single => {
                let mut others = self.seated[user].iter();
                let is_newer =
                    |other: &u64| *other > number || !self.is_prompt() && *other != number;
                assert!(others.any(is_newer), "the only one, or the newest");
            }
        }
    }
}
