//! Subscriptions that are behind the head of their channel's stream, and those that can't keep up.
//!
//! A subscription is a cursor. At the head it gets what the feed brings. Behind it, for whatever
//! reason (its client came back and has missed much, it doesn't read as fast as others publish, the
//! feed has lost something), it is read on page by page: the next one when what was queued before
//! is written, until it stands at the head again. Never is more than a page queued for it, however
//! far behind it is, and no publication is skipped or repeated. If what comes next isn't kept any
//! more, the subscription ends with a code on which clients subscribe again, and are told then that
//! they can't recover.
//!
//! Those who are to have the newest instead are in `held`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tautline_protocol::message::Publication;
use tautline_protocol::{Push, Reply, UnsubscribeCode};

use super::channel_name::ChannelName;
use super::channels::{ChannelKey, Role, Subscriber};
use super::except::is_for;
use super::frame_type::FrameType;
use super::held::{Held, slow_consumer};
use super::operation::OverLimit;
use super::patches::Sequence;
use super::recovery::is_at_head;
use super::tokens::RefusedTokens;
use super::waiting::Pending;
use super::{Hub, SessionId};
use crate::Now;
use crate::config::{HubConfig, SlowConsumer};
use crate::engine::{EngineError, HistoryOptions, HistoryPage, HistoryRead, Started, weight};
use crate::outbox::Outbox;
use crate::trace::Step;

/// What a session has that is not at the head with all of its subscriptions.
#[derive(Default)]
pub(crate) struct Lag {
    /// Channels to be read on, one page each in turn.
    behind: VecDeque<ChannelKey>,
    /// The one for which the engine was asked.
    reading: Option<ChannelKey>,
    /// What is held of channels whose readers are to have the newest.
    pub(super) held: Vec<Held>,
    /// Waits for [`Hub::drained`].
    waits: bool,
    /// The engine was in trouble; when to ask it again.
    pub(crate) retry_at: Option<Duration>,
}

/// What a hub counts. Numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubCounters {
    /// Commands of clients that were executed, or refused.
    pub commands: u64,
    /// How often a subscription was set behind because its connection had no room for more.
    pub parked: u64,
    /// Pages that were sent to subscriptions which are behind.
    pub pages: u64,
    /// Subscriptions that were ended because what they need is not kept any more.
    pub lost: u64,
    /// Publications that were left out for a reader which can't keep up, by its namespace's policy.
    pub dropped: u64,
    /// Connections that were closed because too much waited for them.
    pub slow: u64,
    /// How often a connection's commands had to wait because its client didn't take the answers to those before.
    pub input_paused: u64,
    /// Sessions whose input had to wait until others had taken what it came to.
    pub held_up: u64,
    /// What was done too often.
    pub over_limit: OverLimit,
    /// Tokens that were refused.
    pub refused_tokens: RefusedTokens,
    /// Connections that were ended because their tokens were revoked.
    pub revoked_connections: u64,
    /// Subscriptions that were ended because their own tokens were.
    pub revoked_subscriptions: u64,
}

impl Hub {
    /// Nothing waits to be written to a session any more: the answer to
    /// [`Outbox::when_drained`]. Harmless for any session at any time.
    ///
    /// Returns how many publications were looked through for it, some thousands at the most. Most of them
    /// may be none that its client gets: whoever has many sessions to call this for sees by that when others
    /// should have their turn.
    pub fn drained<O: Outbox>(&mut self, now: Now, id: SessionId, out: &mut O) -> usize {
        let Some(session) = self.sessions.get_mut(id) else {
            return 0;
        };
        self.looked.publications = 0;
        session.answers = 0;
        session.is_tried = false;
        if let Some(lag) = session.lag.as_deref_mut() {
            lag.waits = false;
            self.pump(now, id, out);
        }
        self.resume_filtered(now, id, out);
        self.resume_input(now, id, out);
        self.settle(now, out);
        self.looked.publications
    }

    /// Reads on for a session as long as it has room, and others have not waited for too long: pages
    /// of which a filter lets nothing through take no room.
    pub(super) fn pump<O: Outbox>(&mut self, now: Now, id: SessionId, out: &mut O) {
        for turn in 0.. {
            let room = page_bytes(&self.config);
            let Some(session) = self.sessions.get_mut(id) else {
                return;
            };
            let Some(lag) = session.lag.as_deref_mut() else {
                return;
            };
            if lag.waits || lag.reading.is_some() || session.is_slow {
                return;
            }
            if lag.retry_at.is_some_and(|at| now.monotonic < at) {
                return;
            }
            lag.retry_at = None;
            if out.queued(id) >= room || turn == PAGES_AT_ONCE {
                lag.waits = true;
                out.when_drained(id);
                return;
            }
            if let Some(held) = lag.held.pop() {
                self.release(now, id, &held, out);
            } else if let Some(key) = lag.behind.pop_front() {
                self.read_on(now, id, key, out);
            } else {
                session.lag = None;
                return;
            }
        }
    }

    /// Sets a subscription behind the head, at `from`. Nothing is sent before the next
    /// [`pump`](Self::pump).
    pub(super) fn fall_behind(&mut self, id: SessionId, index: u32, from: u64) {
        let key = self.channels.key(index);
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let slot = session
            .connected()
            .and_then(|connected| connected.subscription(index))
            .map(|subscription| subscription.slot as usize);
        if let (Some(slot), Some(channel)) = (slot, self.channels.get_mut(index)) {
            channel.subscribers[slot].from = from;
            channel.subscribers[slot].miss();
            channel.set_role(slot, Role::Behind);
            let lag = session.lag.get_or_insert_default();
            lag.behind.push_back(key);
            self.to_pump.push(id);
        }
    }

    /// A session has more waiting than it should: each of its channels gets what its namespace
    /// says. The queue grows no more by their publications.
    pub(super) fn park(&mut self, id: SessionId) {
        let Some(connected) = self.sessions.connected(id) else {
            return;
        };
        let subscriptions = connected.subscriptions.iter();
        let places: Vec<(u32, usize)> = subscriptions
            .map(|subscription| (subscription.channel, subscription.slot as usize))
            .collect();
        for (index, slot) in places {
            let key = self.channels.key(index);
            let Some(channel) = self.channels.get_mut(index) else {
                continue;
            };
            let subscriber = channel.subscribers[slot];
            if subscriber.role != Role::Live {
                continue;
            }
            let position = channel.position(&subscriber);
            match slow_consumer(&self.config, &channel.name).0 {
                // A place in the stream is known only of those who are positioned, or were fed.
                SlowConsumer::Park if subscriber.positioned || channel.seen > 0 => {
                    self.counters.parked += 1;
                    if self.is_traced() {
                        self.observe_subscription(id, index, Step::Parked { offset: position });
                    }
                    self.fall_behind(id, index, position);
                }
                SlowConsumer::DropOldest | SlowConsumer::Latest => {
                    channel.subscribers[slot].from = position;
                    channel.set_role(slot, Role::Holding);
                    if let Some(session) = self.sessions.get_mut(id) {
                        let lag = session.lag.get_or_insert_default();
                        lag.held.push(Held::new(key));
                    }
                    self.to_pump.push(id);
                }
                SlowConsumer::Park | SlowConsumer::Disconnect => {}
            }
        }
    }

    /// Pumps the sessions that fell behind in the current call.
    pub(super) fn settle_lag<O: Outbox>(&mut self, now: Now, out: &mut O) {
        while let Some(id) = self.to_pump.pop() {
            self.pump(now, id, out);
        }
    }

    /// Forgets what a session has of a channel that it leaves.
    pub(super) fn forget_lag(&mut self, id: SessionId, index: u32) {
        let key = self.channels.key(index);
        if let Some(session) = self.sessions.get_mut(id)
            && let Some(lag) = session.lag.as_deref_mut()
        {
            lag.behind.retain(|channel| *channel != key);
            lag.held.retain(|held| held.channel != key);
            if lag.reading == Some(key) {
                lag.reading = None;
                // The others were waiting for this one.
                self.to_pump.push(id);
            }
        }
    }

    /// One step forward for a subscription that is behind.
    fn read_on<O: Outbox>(&mut self, now: Now, id: SessionId, key: ChannelKey, out: &mut O) {
        let Some(slot) = self.slot_in(id, key, Role::Behind) else {
            return;
        };
        let Some(channel) = self.channels.by_key(key) else {
            return;
        };
        let from = channel.subscribers[slot].from;
        if channel.seen > 0 && from >= channel.seen {
            return self.catch_up(now, key, slot);
        }
        let limit = page_bytes(&self.config);
        let rest = channel.tail.as_ref().and_then(|tail| tail.behind(from));
        if let Some(page) = rest.map(|rest| one_page(rest, limit)) {
            let seen = channel.seen;
            return self.send_publications(now, id, key, &page, seen, out);
        }
        let Some(options) = history_options(&self.config, &channel.name) else {
            // Offsets come of histories only.
            return self.catch_up(now, key, slot);
        };
        let read = HistoryRead {
            channel: channel.name.clone(),
            options,
            since: Some(from),
            limit: Some(PAGE_PUBLICATIONS),
            max_bytes: Some(limit),
            reverse: false,
        };
        let shared = channel.reads.iter().find(|(since, _)| *since == from);
        if let Some((_, serial)) = shared
            && let Some(Pending::Page { waiters, .. }) = self.pending.get_mut(serial)
        {
            waiters.push(id);
            return self.note_reading(id, key);
        }
        let ticket = self.ticket();
        match self.engine.history(now, ticket, read) {
            Started::Done(result) => self.on_page(now, id, key, from, result, out),
            Started::Later => {
                let waiters = vec![id];
                let page = Pending::Page {
                    channel: key,
                    since: from,
                    waiters,
                };
                self.pending.insert(ticket.serial, page);
                if let Some(channel) = self.channels.by_key(key) {
                    channel.reads.push((from, ticket.serial));
                }
                self.note_reading(id, key);
            }
        }
    }

    fn note_reading(&mut self, id: SessionId, key: ChannelKey) {
        if let Some(session) = self.sessions.get_mut(id)
            && let Some(lag) = session.lag.as_deref_mut()
        {
            lag.reading = Some(key);
        }
    }

    /// A page that one or more sessions wait for is there.
    pub(super) fn on_pages<O: Outbox>(
        &mut self,
        now: Now,
        key: ChannelKey,
        since: u64,
        waiters: Vec<SessionId>,
        result: &Result<HistoryPage, EngineError>,
        out: &mut O,
    ) {
        if let Some(channel) = self.channels.by_key(key) {
            channel.reads.retain(|(other, _)| *other != since);
        }
        for id in waiters {
            let session = self.sessions.get_mut(id);
            let Some(lag) = session.and_then(|session| session.lag.as_deref_mut()) else {
                continue;
            };
            // Not so if the session has left the channel since, and perhaps come back.
            if lag.reading == Some(key) {
                lag.reading = None;
                self.on_page(now, id, key, since, result.clone(), out);
                self.pump(now, id, out);
            }
        }
    }

    /// Sends a page that was read for one session.
    fn on_page<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        key: ChannelKey,
        since: u64,
        result: Result<HistoryPage, EngineError>,
        out: &mut O,
    ) {
        let Some(slot) = self.slot_in(id, key, Role::Behind) else {
            return;
        };
        let Some(channel) = self.channels.by_key(key) else {
            return;
        };
        if channel.subscribers[slot].from != since {
            return self.queue_behind(id, key);
        }
        let page = match result {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(session = %self.name_of(id), %error, "a page can't be read now");
                return self.retry(now, id, key);
            }
        };
        if *channel.epoch != *page.top.epoch {
            return self.turn_epoch(now, key.index, page.top.epoch, 0, out);
        }
        if !page.follows {
            self.counters.lost += 1;
            let code = UnsubscribeCode::InsufficientState;
            return self.unsubscribe_with(now, id, key.index, code, out);
        }
        let is_served = channel
            .tail
            .as_ref()
            .is_some_and(|tail| tail.behind(since).is_some());
        if page.publications.is_empty()
            && !is_served
            && !is_at_head(since, channel.seen, page.top.offset)
        {
            // An engine that says neither what comes next nor that it is gone.
            return self.retry(now, id, key);
        }
        self.send_publications(now, id, key, &page.publications, page.top.offset, out);
    }

    /// Sends what comes next to a subscription that is behind a stream which ends at `top`.
    fn send_publications<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        key: ChannelKey,
        publications: &[Arc<Publication>],
        top: u64,
        out: &mut O,
    ) {
        let Some(slot) = self.slot_in(id, key, Role::Behind) else {
            return;
        };
        let Some(channel) = self.channels.by_key(key) else {
            return;
        };
        let name = channel.name.clone();
        self.looked.publications += publications.len();
        if let Some(last) = publications.last() {
            channel.subscribers[slot].from = last.offset;
            self.counters.pages += 1;
        }
        let (from, seen) = (channel.subscribers[slot].from, channel.seen);
        let (classes, subscriber) = (channel.classes.as_deref(), channel.subscribers[slot]);
        let takes_bytes = channel.takes_bytes;
        let mut sequence = Sequence::new(classes, subscriber, &mut self.patches);
        let connected = self.sessions.connected(id);
        let client = connected.map(|connected| &connected.info.client);
        let publications: Vec<_> = publications
            .iter()
            .filter(|publication| is_for(publication, client))
            .filter_map(|publication| sequence.dress(publication))
            .collect();
        let last = sequence.last();
        channel.meet(slot, last.as_ref());
        if !self.send_fitting(now, id, &name, takes_bytes, publications, out) {
            return;
        }
        if is_at_head(from, seen, top) {
            self.catch_up(now, key, slot);
        } else {
            self.queue_behind(id, key);
        }
    }

    /// A subscription stands at the head (again).
    pub(super) fn catch_up(&mut self, now: Now, key: ChannelKey, slot: usize) {
        let Some(channel) = self.channels.by_key(key) else {
            return;
        };
        channel.set_role(slot, Role::Live);
        let Subscriber {
            positioned,
            session,
            ..
        } = channel.subscribers[slot];
        if self.is_traced() {
            self.observe_subscription(session, key.index, Step::CaughtUp);
        }
        if positioned {
            self.watch_position(now, key.index);
        }
    }

    fn queue_behind(&mut self, id: SessionId, key: ChannelKey) {
        if let Some(session) = self.sessions.get_mut(id) {
            let lag = session.lag.get_or_insert_default();
            lag.behind.push_back(key);
        }
    }

    fn retry(&mut self, now: Now, id: SessionId, key: ChannelKey) {
        self.queue_behind(id, key);
        if let Some(session) = self.sessions.get_mut(id) {
            let lag = session.lag.get_or_insert_default();
            lag.retry_at = Some(now.monotonic + RETRY);
            self.arm(id);
        }
    }

    /// The place of a session in a channel's list, if it is there in this role.
    pub(super) fn slot_in(&mut self, id: SessionId, key: ChannelKey, role: Role) -> Option<usize> {
        let connected = self.sessions.connected(id)?;
        let slot = connected.subscription(key.index)?.slot as usize;
        let channel = self.channels.by_key(key)?;
        (channel.subscribers.get(slot)?.role == role).then_some(slot)
    }

    /// Queues publications of a channel, as a page. Whether that went well: a session that can't be sent one of them is
    /// closed.
    pub(super) fn send_fitting<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        channel: &Arc<str>,
        takes_bytes: bool,
        publications: Vec<Arc<Publication>>,
        out: &mut O,
    ) -> bool {
        if !self.ensure_fit(now, id, takes_bytes, &publications, out) {
            return false;
        }
        for publication in publications {
            let push = Push::Publication(channel.clone(), publication);
            self.send_page(id, &Reply::Push(push), out);
        }
        true
    }

    /// Queues a message of a page. What is queued is bounded by the page, so the limit of the queue
    /// is not for it.
    pub(super) fn send_page<O: Outbox>(&mut self, id: SessionId, reply: &Reply, out: &mut O) {
        if self.is_traced() {
            self.observe_reply(id, reply, out);
        }
        if let Some(session) = self.sessions.get(id) {
            self.scratch.clear();
            let encoding = session.transport.encoding;
            encoding.encode_reply(reply, &mut self.scratch);
            out.saying(FrameType::of_reply(reply), 1);
            out.send(id, &self.scratch);
        }
    }
}

impl Lag {
    /// Whether something waits for room: nothing that can do without should be sent.
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }
}

/// How many bytes may wait before a session counts as having no room for more.
pub(super) fn park_mark(config: &HubConfig) -> usize {
    config.client.queue_max_size / 4
}

/// How much is read at once for a session that is behind.
pub(super) fn page_bytes(config: &HubConfig) -> usize {
    PAGE_BYTES.min(park_mark(config))
}

fn history_options(config: &HubConfig, channel: &str) -> Option<HistoryOptions> {
    let name = ChannelName::parse(config, channel).ok()?;
    config.channel.history(name.options)
}

fn one_page<'a>(
    rest: impl Iterator<Item = &'a Arc<Publication>>,
    limit: usize,
) -> Vec<Arc<Publication>> {
    let mut bytes = 0;
    rest.take(PAGE_PUBLICATIONS)
        .take_while(|publication| {
            let fits = bytes < limit;
            bytes += weight(publication);
            fits
        })
        .cloned()
        .collect()
}

/// A page: enough to keep a fast connection busy, little enough for ten thousand slow ones.
const PAGE_BYTES: usize = 64 * 1024;
pub(super) const PAGE_PUBLICATIONS: usize = 500;
/// How many pages are read for a session before others have their turn.
const PAGES_AT_ONCE: usize = 16;
/// How long an engine in trouble is left alone.
const RETRY: Duration = Duration::from_secs(1);
