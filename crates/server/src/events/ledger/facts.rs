//! What happens, entered into the books.

use std::collections::HashMap;
use std::time::Duration;

use tautline_hub::application::UnsubscribeEvent;
use tautline_hub::witness::Fact;

use super::{Item, Leaving, Ledger, Name, Subscription, Tracked, Visit};

impl Ledger {
    /// Enters what has happened, at that Unix time in milliseconds. Of what isn't tracked nothing begins; what has begun
    /// ends all the same, but for subscribers of channels: those are a number, in which each has to be counted both
    /// times or not at all.
    pub(crate) fn enter(&mut self, now: Duration, unix: u64, tracked: Tracked, fact: Fact<'_>) {
        match fact {
            Fact::Connected {
                client, transport, ..
            } if tracked.visits => {
                self.connected(now, unix, &client.client, &client.user, transport.name);
            }
            Fact::Disconnected { client, disconnect } => {
                self.disconnected(
                    now,
                    unix,
                    &client.client,
                    disconnect.code,
                    &disconnect.reason,
                );
            }
            Fact::Subscribed { client, channel } => {
                self.subscribed(unix, tracked, &client.client, channel);
            }
            Fact::Unsubscribed {
                client,
                channel,
                code,
            } => {
                if tracked.channels {
                    self.one_less(now, unix, channel);
                }
                self.unsubscribed(now, unix, &client.client, channel, code);
            }
            Fact::CacheMissed { client, channel } if tracked.misses => {
                self.missed(now, unix, channel, &client.client, &client.user);
            }
            _ => {}
        }
        self.settle(now);
    }

    fn connected(&mut self, now: Duration, unix: u64, client: &Name, user: &Name, transport: &str) {
        if self.clients.contains_key(client) {
            return;
        }
        if let Some(name) = self.next_returning(user)
            && let Some(visit) = self.visits.get_mut(&name)
        {
            visit.leaving = None;
            visit.client = client.clone();
            // It has come back in time, and has as much again to subscribe again.
            let until = now + self.terms.debounce;
            let mut items = Vec::new();
            for (channel, subscription) in &mut visit.subscriptions {
                if let Some(leaving) = &mut subscription.leaving {
                    leaving.until = until;
                    items.push(Item::Subscription(name.clone(), channel.clone()));
                }
            }
            self.clients.insert(client.clone(), name.clone());
            for item in items {
                self.set_timer(until, item);
            }
            return self.make_ready(Item::Visit(name));
        }
        let visit = Visit {
            user: user.clone(),
            client: client.clone(),
            transport: transport.into(),
            began: unix,
            told: false,
            leaving: None,
            subscriptions: HashMap::new(),
        };
        self.visits.insert(client.clone(), visit);
        self.clients.insert(client.clone(), client.clone());
        self.make_ready(Item::Visit(client.clone()));
    }

    fn next_returning(&mut self, user: &Name) -> Option<Name> {
        let returning = self.returning.get_mut(user)?;
        let name = returning.pop_front();
        if returning.is_empty() {
            self.returning.remove(user);
        }
        name
    }

    fn disconnected(&mut self, now: Duration, unix: u64, client: &Name, code: u32, reason: &str) {
        let Some(name) = self.clients.remove(client) else {
            return;
        };
        let Some(visit) = self.visits.get_mut(&name) else {
            return;
        };
        // Nobody knows an anonymous user again.
        let is_known = !visit.user.is_empty();
        let until = now
            + if is_known {
                self.terms.debounce
            } else {
                Duration::ZERO
            };
        visit.leaving = Some(Leaving {
            since: unix,
            until,
            code,
            reason: reason.into(),
        });
        if is_known {
            let returning = self.returning.entry(visit.user.clone()).or_default();
            returning.push_back(name.clone());
        }
        self.set_timer(until, Item::Visit(name));
    }

    fn subscribed(&mut self, unix: u64, tracked: Tracked, client: &Name, channel: &Name) {
        if tracked.channels {
            let entry = self.channels.entry(channel.clone()).or_default();
            entry.subscribers += 1;
            entry.empty = None;
            if !entry.told {
                if entry.subscribers == 1 {
                    entry.began = unix;
                }
                self.make_ready(Item::Channel(channel.clone()));
            }
        }
        if !tracked.subscriptions {
            return;
        }
        let Some(name) = self.clients.get(client).cloned() else {
            return;
        };
        let Some(visit) = self.visits.get_mut(&name) else {
            return;
        };
        let subscription = visit.subscriptions.entry(channel.clone());
        let subscription = subscription.or_insert(Subscription {
            began: unix,
            told: false,
            leaving: None,
        });
        subscription.leaving = None;
        if !subscription.told {
            self.make_ready(Item::Subscription(name, channel.clone()));
        }
    }

    /// A channel has lost a subscriber.
    pub(crate) fn one_less(&mut self, now: Duration, unix: u64, channel: &Name) {
        let until = now + self.terms.debounce;
        if let Some(entry) = self.channels.get_mut(channel) {
            entry.subscribers = entry.subscribers.saturating_sub(1);
            if entry.subscribers == 0 {
                entry.empty = Some((unix, until));
                self.set_timer(until, Item::Channel(channel.clone()));
            }
        }
    }

    fn unsubscribed(&mut self, now: Duration, unix: u64, client: &Name, channel: &Name, code: u32) {
        let until = now + self.terms.debounce;
        let Some(name) = self.clients.get(client).cloned() else {
            return;
        };
        let Some(visit) = self.visits.get_mut(&name) else {
            return;
        };
        let may_return = code == UnsubscribeEvent::BY_DISCONNECT && !visit.user.is_empty();
        if let Some(subscription) = visit.subscriptions.get_mut(channel) {
            let until = if may_return { until } else { now };
            subscription.leaving = Some(Leaving {
                since: unix,
                until,
                code,
                reason: Name::from(""),
            });
            self.set_timer(until, Item::Subscription(name, channel.clone()));
        }
    }

    fn missed(&mut self, now: Duration, unix: u64, channel: &Name, client: &Name, user: &Name) {
        if self.missed.contains(channel) {
            return;
        }
        if self.missed.len() >= MOST_MISSES {
            self.dropped += 1;
            return;
        }
        let item = Item::Miss(channel.clone(), client.clone(), user.clone(), unix);
        self.missed.insert(channel.clone());
        self.set_timer(now + self.terms.debounce, item.clone());
        self.make_ready(item);
    }
}

/// Channels whose misses are remembered for the time of the debounce.
const MOST_MISSES: usize = 10_000;
