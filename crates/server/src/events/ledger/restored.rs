//! What the process before this one has told, and what is to be made of it.

use std::collections::HashMap;
use std::time::Duration;

use tautline_hub::application::UnsubscribeEvent;

use super::told::channel_event;
use super::{Channel, Item, Leaving, Ledger, Name, Subscription, Visit};
use crate::events::event::{Event, Kind};

impl Ledger {
    /// Enters an event that the backend was told of, or will be, by the process before this one.
    pub(crate) fn restore(&mut self, event: &Event) {
        if event.redelivered {
            return;
        }
        let name = |text: &Option<String>| Name::from(text.as_deref().unwrap_or_default());
        let (visit, channel) = (name(&event.visit), name(&event.channel));
        match event.kind {
            Kind::Connected => {
                let known = Visit {
                    user: name(&event.user),
                    client: name(&event.client),
                    transport: name(&event.transport),
                    began: event.time,
                    told: true,
                    leaving: None,
                    subscriptions: HashMap::new(),
                };
                self.visits.insert(visit, known);
            }
            Kind::Disconnected => drop(self.visits.remove(&visit)),
            Kind::Subscribed => {
                if let Some(visit) = self.visits.get_mut(&visit) {
                    let subscription = Subscription {
                        began: event.time,
                        told: true,
                        leaving: None,
                    };
                    visit.subscriptions.insert(channel, subscription);
                }
            }
            Kind::Unsubscribed => {
                if let Some(visit) = self.visits.get_mut(&visit) {
                    visit.subscriptions.remove(&channel);
                }
            }
            Kind::ChannelOccupied => {
                let known = Channel {
                    told: true,
                    began: event.time,
                    ..Channel::default()
                };
                self.channels.insert(channel, known);
            }
            Kind::ChannelVacated => drop(self.channels.remove(&channel)),
            Kind::CacheMiss => {}
        }
    }

    /// All is entered. Nobody of them is here any more; users have some time to come back.
    pub(crate) fn restored(&mut self, now: Duration, unix: u64, reason: &str) {
        let until = now + self.terms.restart_debounce;
        let (reason, no_reason) = (Name::from(reason), Name::from(""));
        let mut items = Vec::new();
        // In the order of their time, so that who is gone longest is found first, and tests see the same.
        let mut visits: Vec<_> = self.visits.iter_mut().collect();
        visits.sort_by(|(a, one), (b, other)| (one.began, a).cmp(&(other.began, b)));
        for (name, visit) in visits {
            let until = if visit.user.is_empty() { now } else { until };
            visit.leaving = Some(Leaving {
                since: unix.max(visit.began),
                until,
                code: CRASHED,
                reason: reason.clone(),
            });
            for (channel, subscription) in &mut visit.subscriptions {
                subscription.leaving = Some(Leaving {
                    since: unix.max(subscription.began),
                    until,
                    code: UnsubscribeEvent::BY_DISCONNECT,
                    reason: no_reason.clone(),
                });
                items.push((until, Item::Subscription(name.clone(), channel.clone())));
            }
            if !visit.user.is_empty() {
                let returning = self.returning.entry(visit.user.clone()).or_default();
                returning.push_back(name.clone());
            }
            items.push((until, Item::Visit(name.clone())));
        }
        for (name, channel) in &mut self.channels {
            channel.empty = Some((unix.max(channel.began), until));
            items.push((until, Item::Channel(name.clone())));
        }
        for (until, item) in items {
            self.set_timer(until, item);
        }
    }

    /// All that the backend believes: what [`restore`](Self::restore) would make the same books of.
    pub(crate) fn believed(&self) -> impl Iterator<Item = Event> {
        let visits = self.visits.iter().filter(|(_, visit)| visit.told);
        let visits = visits.flat_map(|(name, visit)| {
            let begun = visit.connected(name);
            let subscriptions = visit.subscriptions.iter();
            let subscriptions = subscriptions.filter(|(_, subscription)| subscription.told);
            let subscriptions = subscriptions.map(move |(channel, subscription)| {
                visit.subscription_event(Kind::Subscribed, subscription.began, name, channel)
            });
            std::iter::once(begun).chain(subscriptions)
        });
        let channels = self.channels.iter().filter(|(_, channel)| channel.told);
        let channels = channels
            .map(|(name, channel)| channel_event(Kind::ChannelOccupied, channel.began, name));
        visits.chain(channels)
    }
}

/// Of who was there when the process ended: the client was told nothing.
const CRASHED: u32 = 0;
