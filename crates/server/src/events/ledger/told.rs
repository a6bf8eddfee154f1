//! From what is different to events.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use tautline_hub::application::UnsubscribeEvent;

use super::{Item, Leaving, Ledger, Name, Visit};
use crate::events::event::{Event, Kind};

impl Ledger {
    /// The next difference, as an event; from then on it is told.
    pub(super) fn next(&mut self, now: Duration) -> Option<Event> {
        loop {
            let item = self.ready.pop_front()?;
            self.is_ready.remove(&item);
            let event = match &item {
                Item::Visit(name) => self.next_of_visit(now, name),
                Item::Subscription(name, channel) => {
                    let visit = self.visits.get_mut(name);
                    visit.and_then(|visit| visit.next_of_subscription(now, name, channel))
                }
                Item::Channel(name) => self.next_of_channel(now, name),
                Item::Miss(channel, client, user, time) => {
                    let mut event = channel_event(Kind::CacheMiss, *time, channel);
                    event.client = Some(client.to_string());
                    event.user = Some(user.to_string());
                    Some(event)
                }
            };
            if event.is_some() {
                return event;
            }
        }
    }

    /// Forgets what has come and gone while there was no room to tell of it.
    pub(super) fn sweep(&mut self, now: Duration) {
        let mut ready = std::mem::take(&mut self.ready);
        ready.retain(|item| {
            let is_left = self.is_different(now, item);
            if !is_left {
                self.is_ready.remove(item);
            }
            is_left
        });
        self.swept = ready.len();
        self.ready = ready;
    }

    /// Forgets the timers that are out of date: who comes and goes all the time would leave one each time, for as long as
    /// the debounce is.
    pub(super) fn sweep_timers(&mut self) {
        let mut timers = std::mem::take(&mut self.timers).into_vec();
        let mut kept = HashSet::new();
        timers.retain(|Reverse((until, _, item))| {
            self.waited_until(item) == Some(*until) && kept.insert(item.clone())
                || matches!(item, Item::Miss(..))
        });
        self.timers_swept = timers.len();
        self.timers = timers.into();
    }

    /// Until when something is waited for; not of misses, each of which has one timer.
    fn waited_until(&self, item: &Item) -> Option<Duration> {
        let until = |leaving: &Option<Leaving>| leaving.as_ref().map(|leaving| leaving.until);
        match item {
            Item::Visit(name) => until(&self.visits.get(name)?.leaving),
            Item::Subscription(name, channel) => {
                until(&self.visits.get(name)?.subscriptions.get(channel)?.leaving)
            }
            Item::Channel(name) => self.channels.get(name)?.empty.map(|(_, until)| until),
            Item::Miss(..) => None,
        }
    }

    /// Whether there is something to be told. What is over, and was never told, is forgotten.
    fn is_different(&mut self, now: Duration, item: &Item) -> bool {
        let is_gone = |leaving: &Option<Leaving>| {
            let leaving = leaving.as_ref();
            leaving.is_some_and(|leaving| leaving.until <= now)
        };
        match item {
            Item::Visit(name) => {
                let Some(visit) = self.visits.get(name) else {
                    return false;
                };
                let is_gone = is_gone(&visit.leaving);
                if is_gone && !visit.told {
                    self.remove_visit(name);
                    return false;
                }
                is_gone == visit.told
            }
            Item::Subscription(name, channel) => {
                let Some(visit) = self.visits.get_mut(name) else {
                    return false;
                };
                let subscription = visit.subscriptions.get(channel);
                let Some((told, is_gone)) =
                    subscription.map(|one| (one.told, is_gone(&one.leaving)))
                else {
                    return false;
                };
                if is_gone && !told {
                    visit.subscriptions.remove(channel);
                    return false;
                }
                is_gone == told
            }
            Item::Channel(name) => {
                let Some(channel) = self.channels.get(name) else {
                    return false;
                };
                if channel.empty.is_some() && !channel.told {
                    self.channels.remove(name);
                    return false;
                }
                !channel.told || channel.empty.is_some()
            }
            Item::Miss(..) => {
                self.dropped += 1;
                false
            }
        }
    }

    fn remove_visit(&mut self, name: &Name) -> Option<Visit> {
        let visit = self.visits.remove(name)?;
        if let Some(returning) = self.returning.get_mut(&visit.user) {
            returning.retain(|other| other != name);
            if returning.is_empty() {
                self.returning.remove(&visit.user);
            }
        }
        Some(visit)
    }

    fn next_of_visit(&mut self, now: Duration, name: &Name) -> Option<Event> {
        let visit = self.visits.get_mut(name)?;
        let gone = visit.leaving.clone().filter(|leaving| leaving.until <= now);
        let Some(leaving) = gone else {
            if visit.told {
                return None;
            }
            visit.told = true;
            return Some(visit.connected(name));
        };
        let subscription = visit.subscriptions.iter();
        let mut told = subscription.filter(|(_, subscription)| subscription.told);
        if let Some(channel) = told.next().map(|(channel, _)| channel.clone())
            && let Some(subscription) = visit.subscriptions.remove(&channel)
        {
            let ended = subscription.leaving.unwrap_or(Leaving {
                code: UnsubscribeEvent::BY_DISCONNECT,
                ..leaving
            });
            let mut event =
                visit.subscription_event(Kind::Unsubscribed, ended.since, name, &channel);
            event.code = Some(ended.code);
            event.duration = Some(ended.since.saturating_sub(subscription.began));
            // Before all else, until it has no more.
            let item = Item::Visit(name.clone());
            if self.is_ready.insert(item.clone()) {
                self.ready.push_front(item);
            }
            return Some(event);
        }
        let visit = self.remove_visit(name)?;
        let mut event = visit.event(Kind::Disconnected, leaving.since, name);
        event.code = Some(leaving.code);
        event.reason = Some(leaving.reason.to_string());
        event.duration = Some(leaving.since.saturating_sub(visit.began));
        visit.told.then_some(event)
    }

    fn next_of_channel(&mut self, now: Duration, name: &Name) -> Option<Event> {
        let channel = self.channels.get_mut(name)?;
        match channel.empty {
            None if channel.told => None,
            None => {
                channel.told = true;
                Some(channel_event(Kind::ChannelOccupied, channel.began, name))
            }
            Some((_, until)) if until > now && channel.told => None,
            Some((since, _)) => {
                let channel = self.channels.remove(name)?;
                let mut event = channel_event(Kind::ChannelVacated, since, name);
                event.duration = Some(since.saturating_sub(channel.began));
                channel.told.then_some(event)
            }
        }
    }
}

impl Visit {
    fn next_of_subscription(
        &mut self,
        now: Duration,
        name: &Name,
        channel: &Name,
    ) -> Option<Event> {
        if !self.told {
            return None;
        }
        let subscription = self.subscriptions.get_mut(channel)?;
        let gone = subscription.leaving.clone();
        let Some(leaving) = gone.filter(|leaving| leaving.until <= now) else {
            if std::mem::replace(&mut subscription.told, true) {
                return None;
            }
            let began = subscription.began;
            return Some(self.subscription_event(Kind::Subscribed, began, name, channel));
        };
        let subscription = self.subscriptions.remove(channel)?;
        let mut event = self.subscription_event(Kind::Unsubscribed, leaving.since, name, channel);
        event.code = Some(leaving.code);
        event.duration = Some(leaving.since.saturating_sub(subscription.began));
        subscription.told.then_some(event)
    }

    fn event(&self, kind: Kind, time: u64, name: &Name) -> Event {
        // What happens to the connections of a user is told in order; to those of nobody, one by one.
        let key = match &*self.user {
            "" => format!("visit:{name}"),
            user => format!("user:{user}"),
        };
        let mut event = Event::new(kind, time, key);
        event.user = Some(self.user.to_string());
        event.client = Some(self.client.to_string());
        event.visit = Some(name.to_string());
        event
    }

    pub(super) fn connected(&self, name: &Name) -> Event {
        let mut event = self.event(Kind::Connected, self.began, name);
        event.transport = Some(self.transport.to_string());
        event
    }

    pub(super) fn subscription_event(
        &self,
        kind: Kind,
        time: u64,
        name: &Name,
        channel: &Name,
    ) -> Event {
        let mut event = self.event(kind, time, name);
        event.channel = Some(channel.to_string());
        event
    }
}

pub(super) fn channel_event(kind: Kind, time: u64, channel: &Name) -> Event {
    let mut event = Event::new(kind, time, format!("channel:{channel}"));
    event.channel = Some(channel.to_string());
    event
}
