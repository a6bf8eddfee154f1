//! What clients may still do, as the checker reckons: by what they have earned and not spent.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::rules::{
    Allowance, CHANNEL_HISTORY_CALLS, CHANNEL_PUBLISHES, CONNECTS, HISTORY_CALLS, PRESENCE_CALLS,
    PUBLISHES, RATED, RATED_PRESENCE_CALLS, RATED_PUBLISHES,
};

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
    /// In the namespace with rates of its own.
    rated_publishes: Account,
    rated_presence: Account,
}

impl ConnectionAccounts {
    pub(crate) fn new() -> Self {
        Self {
            history: Account::new(HISTORY_CALLS),
            presence: Account::new(PRESENCE_CALLS),
            rated_publishes: Account::new(RATED_PUBLISHES),
            rated_presence: Account::new(RATED_PRESENCE_CALLS),
        }
    }
}

/// Those of channels in the namespace with rates of its own: for what is published there, and for history.
#[derive(Default)]
pub(crate) struct ChannelAccounts(BTreeMap<String, (Account, Account)>);

impl ChannelAccounts {
    fn both(&mut self, channel: &str) -> &mut (Account, Account) {
        let accounts = self.0.entry(channel.to_owned());
        accounts.or_insert_with(|| {
            (
                Account::new(CHANNEL_PUBLISHES),
                Account::new(CHANNEL_HISTORY_CALLS),
            )
        })
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
}

/// The accounts that a command is charged to, in order: the first that is empty is the last which is asked.
pub(crate) fn accounts<'a>(
    connection: &'a mut ConnectionAccounts,
    users: &'a mut UserAccounts,
    channels: &'a mut ChannelAccounts,
    user: &'static str,
    command: &Value,
) -> Vec<&'a mut Account> {
    let rated = |kind: &str| {
        let channel = command[kind]["channel"].as_str()?;
        let (namespace, _) = channel.split_once(':')?;
        (namespace == RATED).then_some(channel)
    };
    let mut all = Vec::new();
    if command["history"].is_object() {
        all.push(&mut connection.history);
        if let Some(channel) = rated("history") {
            all.push(&mut channels.both(channel).1);
        }
    } else if command["presence"].is_object() {
        all.push(&mut connection.presence);
        if rated("presence").is_some() {
            all.push(&mut connection.rated_presence);
        }
    } else if command["publish"].is_object() {
        all.push(&mut users.both(user).0);
        if let Some(channel) = rated("publish") {
            all.push(&mut connection.rated_publishes);
            all.push(&mut channels.both(channel).0);
        }
    } else if command["connect"].is_object() {
        all.push(users.connects(user));
    }
    all
}
