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

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tautline_hub::application::UnsubscribeEvent;
use tautline_hub::witness::Fact;

use super::event::{Event, Kind};

/// What is of interest, and for how long who goes is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Connections.
    pub(crate) visits: bool,
    /// Their subscriptions.
    pub(crate) subscriptions: bool,
    pub(crate) channels: bool,
    pub(crate) misses: bool,
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
    /// When to look at what again. Some of it is out of date.
    timers: BinaryHeap<Reverse<(Duration, u64, Item)>>,
    timer: u64,
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
            visits: true,
            subscriptions: true,
            channels: true,
            misses: false,
            debounce: Duration::ZERO,
            restart_debounce: Duration::ZERO,
        })
    }

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

    /// Enters what has happened, at that Unix time in milliseconds.
    pub(crate) fn enter(&mut self, now: Duration, unix: u64, fact: Fact<'_>) {
        match fact {
            Fact::Connected { client, transport } => {
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
                self.subscribed(unix, &client.client, channel);
            }
            Fact::Unsubscribed {
                client,
                channel,
                code,
            } => self.unsubscribed(now, unix, &client.client, channel, code),
            Fact::CacheMissed { client, channel } => {
                self.missed(now, unix, channel, &client.client, &client.user);
            }
            _ => {}
        }
        self.settle(now);
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

    fn connected(&mut self, now: Duration, unix: u64, client: &Name, user: &Name, transport: &str) {
        if !self.terms.visits || self.clients.contains_key(client) {
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

    fn subscribed(&mut self, unix: u64, client: &Name, channel: &Name) {
        if self.terms.channels {
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
        if !self.terms.subscriptions {
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

    fn unsubscribed(&mut self, now: Duration, unix: u64, client: &Name, channel: &Name, code: u32) {
        let until = now + self.terms.debounce;
        if self.terms.channels
            && let Some(entry) = self.channels.get_mut(channel)
        {
            entry.subscribers = entry.subscribers.saturating_sub(1);
            if entry.subscribers == 0 {
                entry.empty = Some((unix, until));
                self.set_timer(until, Item::Channel(channel.clone()));
            }
        }
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
        if !self.terms.misses || self.missed.contains(channel) {
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

    fn set_timer(&mut self, until: Duration, item: Item) {
        self.timer += 1;
        self.timers.push(Reverse((until, self.timer, item)));
    }

    fn make_ready(&mut self, item: Item) {
        if self.is_ready.insert(item.clone()) {
            self.ready.push_back(item);
        }
    }

    /// The next difference, as an event; from then on it is told.
    fn next(&mut self, now: Duration) -> Option<Event> {
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
    fn sweep(&mut self, now: Duration) {
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

    /// What takes memory here.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let returning: usize = self.returning.values().map(VecDeque::len).sum();
        self.visits.len() + self.clients.len() + self.channels.len() + self.ready.len() + returning
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

    fn connected(&self, name: &Name) -> Event {
        let mut event = self.event(Kind::Connected, self.began, name);
        event.transport = Some(self.transport.to_string());
        event
    }

    fn subscription_event(&self, kind: Kind, time: u64, name: &Name, channel: &Name) -> Event {
        let mut event = self.event(kind, time, name);
        event.channel = Some(channel.to_string());
        event
    }
}

fn channel_event(kind: Kind, time: u64, channel: &Name) -> Event {
    let mut event = Event::new(kind, time, format!("channel:{channel}"));
    event.channel = Some(channel.to_string());
    event
}

/// Longer than any shutdown takes.
const RESTART: Duration = Duration::from_secs(2 * 3600);
/// Of who was there when the process ended: the client was told nothing.
const CRASHED: u32 = 0;
/// Events that wait to be written; beyond them differences wait as such.
const MOST_EVENTS: usize = 16 * 1024;
/// Fewer differences are not worth looking through.
const LEAST_SWEPT: usize = 1024;
/// Channels whose misses are remembered for the time of the debounce.
const MOST_MISSES: usize = 10_000;
