//! What clients may still do, as the checker reckons: by what they have earned and not spent.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::rules::{Allowance, CONNECTS, HISTORY_CALLS, PRESENCE_CALLS, PUBLISHES};

/// What somebody may do at a rate. Reckoned in nanoseconds that were earned, of which each time costs some.
pub(crate) struct Account {
    earned: u128,
    at: Duration,
    allowance: Allowance,
    /// How often it was done.
    times: u128,
}

impl Account {
    /// A new one is full.
    pub(crate) fn new(allowance: Allowance) -> Self {
        Self {
            earned: Self::cost(allowance) * u128::from(allowance.at_once),
            at: Duration::ZERO,
            allowance,
            times: 0,
        }
    }

    fn cost(allowance: Allowance) -> u128 {
        allowance.time.as_nanos() / u128::from(allowance.count)
    }

    /// Spends what one time costs, if it is there.
    pub(crate) fn spend(&mut self, now: Duration) -> bool {
        let cost = Self::cost(self.allowance);
        let most = cost * u128::from(self.allowance.at_once);
        self.earned = most.min(self.earned + (now - self.at).as_nanos());
        self.at = now;
        let is_there = self.earned >= cost;
        if is_there {
            self.earned -= cost;
        }
        is_there
    }

    /// It was done, somewhen before this: not more often than could have been earned since the beginning.
    pub(crate) fn count(&mut self, now: Duration) {
        self.times += 1;
        let cost = Self::cost(self.allowance);
        let most = u128::from(self.allowance.at_once) + now.as_nanos() / cost;
        assert!(self.times <= most, "{} times at {now:?}", self.times);
    }
}

/// Those of connections.
pub(crate) struct ConnectionAccounts {
    history: Account,
    presence: Account,
}

impl ConnectionAccounts {
    pub(crate) fn new() -> Self {
        Self {
            history: Account::new(HISTORY_CALLS),
            presence: Account::new(PRESENCE_CALLS),
        }
    }

    fn of(&mut self, command: &Value) -> Option<&mut Account> {
        if command["history"].is_object() {
            Some(&mut self.history)
        } else if command["presence"].is_object() {
            Some(&mut self.presence)
        } else {
            None
        }
    }
}

/// Those of users: for what they publish, and for new connections.
#[derive(Default)]
pub(crate) struct UserAccounts(BTreeMap<&'static str, (Account, Account)>);

impl UserAccounts {
    /// That for new connections.
    pub(crate) fn connects(&mut self, user: &'static str) -> &mut Account {
        &mut self.both(user).1
    }

    fn both(&mut self, user: &'static str) -> &mut (Account, Account) {
        let accounts = self.0.entry(user);
        accounts.or_insert_with(|| (Account::new(PUBLISHES), Account::new(CONNECTS)))
    }

    fn of(&mut self, user: &'static str, command: &Value) -> Option<&mut Account> {
        let (publishes, connects) = self.both(user);
        if command["publish"].is_object() {
            Some(publishes)
        } else if command["connect"].is_object() {
            Some(connects)
        } else {
            None
        }
    }
}

/// The account that a command is charged to, if it is limited.
pub(crate) fn account<'a>(
    connection: &'a mut ConnectionAccounts,
    users: &'a mut UserAccounts,
    user: &'static str,
    command: &Value,
) -> Option<&'a mut Account> {
    connection.of(command).or_else(|| users.of(user, command))
}
