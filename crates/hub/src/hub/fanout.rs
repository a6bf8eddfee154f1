//! Deliveries to subscribers.
//!
//! A publication is encoded and made ready once for each encoding, and then handed to one
//! subscriber after the other. Those of a channel which came together (a *run*) are one message:
//! what a subscriber costs then is paid once for all of them. Nothing is looked up, allocated or written down for a subscriber:
//! how far the channel's feed has come is kept once, for all of them.

use std::sync::Arc;

use tautline_protocol::message::Publication;
use tautline_protocol::{Encoding, Push, Reply, UnsubscribeCode};

use super::channels::{Channel, Role, Subscriber};
use super::class::Assortment;
use super::company::Passage;
use super::cursor::park_mark;
use super::frame_type::FrameType;
use super::run::Run;
use super::sessions::Sessions;
use super::{Hub, SessionId};
use crate::Now;
use crate::engine::{Channel as Name, Delivery, FeedId};
use crate::outbox::Outbox;

/// A message on its way to many, made ready when it is first needed.
struct Prepared<'a, O: Outbox, E> {
    encode: E,
    scratch: &'a mut Vec<u8>,
    /// By encoding.
    ready: [Option<O::Prepared>; Encoding::COUNT],
}

impl Hub {
    /// Passes on what an engine has put into the worker's mailbox, in its order. Leaves
    /// `deliveries` empty.
    pub fn deliver<O: Outbox>(&mut self, now: Now, deliveries: &mut Vec<Delivery>, out: &mut O) {
        let mut waiting = deliveries.drain(..).peekable();
        while let Some(delivery) = waiting.next() {
            match delivery {
                Delivery::Publication {
                    channel,
                    feed,
                    publication,
                    epoch,
                    previous,
                    patch,
                } => {
                    let Some(index) = self.fed_channel(&channel, feed) else {
                        continue;
                    };
                    if !self.take(now, index, &publication, &epoch, previous, out) {
                        continue;
                    }
                    let mut run = std::mem::take(&mut self.run);
                    let end = match waiting.peek() {
                        Some(_) => self.end_of_run(index, publication.offset),
                        None => 0,
                    };
                    run.begin(publication, end, patch);
                    while let Some(next) =
                        waiting.next_if(|next| run.is_continued_by(next, &channel, feed, &epoch))
                        && let Delivery::Publication { publication, .. } = next
                    {
                        self.follow(index, &publication);
                        run.push(publication);
                    }
                    self.tally.delivered().publications += run.publications().len() as u64;
                    self.end_unfit(now, index, &run, out);
                    self.fan_out_publications(index, &run, out);
                    run.clear();
                    self.run = run;
                }
                Delivery::Doubt { channel, feed } => {
                    if let Some(index) = self.fed_channel(&channel, feed) {
                        self.doubt(index);
                    }
                }
                Delivery::Join {
                    channel,
                    feed,
                    info,
                } => {
                    let one = Passage {
                        channel,
                        feed,
                        info,
                        is_join: true,
                    };
                    self.deliver_company(one, &mut waiting, out);
                }
                Delivery::Leave {
                    channel,
                    feed,
                    info,
                } => {
                    let one = Passage {
                        channel,
                        feed,
                        info,
                        is_join: false,
                    };
                    self.deliver_company(one, &mut waiting, out);
                }
                Delivery::Superseded { user, by } => self.end_superseded(now, &user, by, out),
                Delivery::Outcome { ticket, outcome } => self.on_outcome(now, ticket, outcome, out),
            }
            self.settle(now, out);
        }
    }

    /// The channel that a feed is for. What an earlier feed of the channel has left behind in the
    /// mailbox is for nobody: those who are subscribed now came later.
    pub(super) fn fed_channel(&self, name: &str, feed: FeedId) -> Option<u32> {
        let index = self.channels.find(name)?;
        self.channels
            .get(index)
            .filter(|channel| channel.feed == feed)?;
        Some(index)
    }

    /// Notes that the feed has brought a publication. Whether it is for anybody.
    fn take<O: Outbox>(
        &mut self,
        now: Now,
        index: u32,
        publication: &Arc<Publication>,
        epoch: &Arc<str>,
        previous: u64,
        out: &mut O,
    ) -> bool {
        let offset = publication.offset;
        if offset > 0 {
            let Some(channel) = self.channels.get(index) else {
                return false;
            };
            if channel.epoch != *epoch {
                self.turn_epoch(now, index, epoch.clone(), previous, out);
            } else if offset <= channel.seen {
                // The feed has brought it before.
                return false;
            } else if previous > channel.seen && channel.positioned > 0 {
                self.fall_behind_all(index, previous);
            }
            let Some(channel) = self.channels.get_mut(index) else {
                return false;
            };
            // With the first of a feed nothing is known to be missed: who needs what comes before it has
            // fallen behind.
            if previous != channel.seen
                && channel.seen > 0
                && let Some(classes) = &mut channel.classes
            {
                classes.forget();
            }
            channel.seen = previous;
            channel.checked_at = now.monotonic;
            channel.suspected = false;
        }
        self.follow(index, publication);
        true
    }

    /// Notes a publication that follows right on what the feed has brought before.
    fn follow(&mut self, index: u32, publication: &Arc<Publication>) {
        let Some(channel) = self.channels.get_mut(index) else {
            return;
        };
        if publication.offset > 0 {
            if let Some(tail) = &mut channel.tail {
                tail.push(publication, channel.seen);
            }
            channel.seen = publication.offset;
        }
        if channel.holding > 0 {
            self.hold_for_all(index, publication);
        }
    }

    /// How far a run may go that begins with the publication at `offset`, so that each subscriber gets
    /// all of it or nothing: who subscribed just now has a claim only to what came later.
    fn end_of_run(&self, index: u32, offset: u64) -> u64 {
        let subscribers = self.channels.get(index).map(|channel| &channel.subscribers);
        let places = subscribers.into_iter().flatten().filter_map(|subscriber| {
            (subscriber.role == Role::Live && subscriber.from >= offset && offset > 0)
                .then_some(subscriber.from)
        });
        places.min().unwrap_or(u64::MAX)
    }

    /// Sends publications that came together to the subscribers of their channel who are to get them
    /// now.
    fn fan_out_publications<O: Outbox>(&mut self, index: u32, run: &Run, out: &mut O) {
        if let Some(except) = run
            .publications()
            .first()
            .and_then(|first| self.excepted(first))
        {
            return self.fan_out_except(index, run, except, out);
        }
        let first = run.first_offset();
        if first == 0 {
            // Not part of a stream: whoever is there gets them. (Who is behind gets them before what it
            // still has to read, and not at all while its connection has no room.)
            self.fan_out_run(index, run, out, |subscriber, sessions| {
                match subscriber.role {
                    Role::Live => true,
                    Role::Behind => has_room(sessions, subscriber),
                    Role::Pending | Role::Holding => false,
                }
            });
            return;
        }
        self.fan_out_run(index, run, out, |subscriber, _| {
            subscriber.role == Role::Live && subscriber.from < first
        });
    }

    /// Sends all of a run to the subscribers that `want` it, to each in its way.
    pub(super) fn fan_out_run<O: Outbox>(
        &mut self,
        index: u32,
        run: &Run,
        out: &mut O,
        wants: impl Fn(&Subscriber, &Sessions) -> bool,
    ) {
        let Some(channel) = self.channels.get(index) else {
            return;
        };
        let name = channel.name.clone();
        let is_assorted = channel.classes.is_some();
        if self.is_traced() {
            self.observe_run(index, run, out, &wants);
        }
        if is_assorted {
            return self.fan_out_assorted(index, &name, run, out, wants);
        }
        let encode = |encoding: Encoding, message: &mut Vec<u8>| {
            for publication in run.publications() {
                let push = Push::Publication(name.clone(), publication.clone());
                encoding.append_reply(&Reply::Push(push), message);
            }
        };
        out.saying(FrameType::PushPublication, run.publications().len());
        self.fan_out(index, encode, out, Kind::Publication, wants);
    }

    /// The same where some have filters or take patches.
    fn fan_out_assorted<O: Outbox>(
        &mut self,
        index: u32,
        name: &Name,
        run: &Run,
        out: &mut O,
        wants: impl Fn(&Subscriber, &Sessions) -> bool,
    ) {
        let Self {
            channels,
            sessions,
            full,
            scratch,
            config,
            patches,
            ..
        } = self;
        let Some(Channel {
            subscribers,
            classes: Some(classes),
            ..
        }) = channels.get_mut(index)
        else {
            return;
        };
        let mark = park_mark(config);
        let mut assortment: Assortment<'_, O> =
            Assortment::new(name, run, classes, &mut patches.encoder, scratch);
        for subscriber in subscribers {
            if !assortment.is_for(subscriber) {
                continue;
            }
            if !wants(subscriber, sessions) {
                // It has not what its class got last: patches begin anew.
                subscriber.miss();
                continue;
            }
            let message = assortment.take(subscriber, out);
            let queued = out.send_prepared(subscriber.session, message);
            if queued > mark {
                full.push((subscriber.session, queued));
            }
        }
        if !full.is_empty() {
            self.on_full(index, Kind::Publication);
        }
    }

    /// The feed has lost what comes before `previous`, or some of it: those who miss it read it.
    pub(super) fn fall_behind_all(&mut self, index: u32, previous: u64) {
        let Some(channel) = self.channels.get(index) else {
            return;
        };
        let subscribers = channel.subscribers.iter();
        let behind: Vec<(SessionId, u64)> = subscribers
            .filter(|subscriber| subscriber.role == Role::Live && subscriber.positioned)
            .map(|subscriber| (subscriber.session, channel.position(subscriber)))
            .filter(|(_, position)| *position < previous)
            .collect();
        for (id, position) in behind {
            self.fall_behind(id, index, position);
        }
    }

    /// It isn't known (any more) how far the feed has come. Who is positioned reads on from where it
    /// is, and is live again when that is the end of the stream.
    pub(super) fn doubt(&mut self, index: u32) {
        self.fall_behind_all(index, u64::MAX);
        let Some(channel) = self.channels.get_mut(index) else {
            return;
        };
        let seen = std::mem::take(&mut channel.seen);
        for subscriber in &mut channel.subscribers {
            if matches!(subscriber.role, Role::Live | Role::Holding) {
                subscriber.from = subscriber.from.max(seen);
            }
        }
        if let Some(tail) = &mut channel.tail {
            tail.clear();
        }
        if let Some(classes) = &mut channel.classes {
            classes.forget();
        }
    }

    /// Keeps a publication for those who have no room and are to have the newest.
    fn hold_for_all(&mut self, index: u32, publication: &Arc<Publication>) {
        let Some(channel) = self.channels.get(index) else {
            return;
        };
        let except = self.excepted(publication);
        let subscribers = channel.subscribers.iter();
        let holding: Vec<SessionId> = subscribers
            .filter(|subscriber| subscriber.role == Role::Holding)
            .filter(|subscriber| Some(subscriber.session) != except)
            // Unless it has had this one before it began, or has no claim to it.
            .filter(|subscriber| publication.offset == 0 || subscriber.from < publication.offset)
            .filter(|subscriber| {
                let classes = channel.classes.as_deref();
                classes.is_none_or(|classes| classes.passes(subscriber.class, publication))
            })
            .map(|subscriber| subscriber.session)
            .collect();
        for id in holding {
            self.hold(id, index, publication);
        }
    }

    /// The channel's stream has begun anew. Who has a place in the old one has to find one in the
    /// new.
    pub(super) fn turn_epoch<O: Outbox>(
        &mut self,
        now: Now,
        index: u32,
        epoch: Arc<str>,
        seen: u64,
        out: &mut O,
    ) {
        let Some(channel) = self.channels.get_mut(index) else {
            return;
        };
        channel.epoch = epoch;
        channel.seen = seen;
        if let Some(tail) = &mut channel.tail {
            tail.clear();
        }
        if let Some(classes) = &mut channel.classes {
            classes.forget();
        }
        // Those who are not positioned stay, and offsets count anew for them.
        for subscriber in &mut channel.subscribers {
            if !subscriber.positioned {
                subscriber.from = 0;
            }
        }
        if channel.positioned + channel.following + channel.holding > 0 {
            self.end_incomplete(now, index, |_| true, out);
        }
    }

    /// Ends subscriptions that missed something which can't be had any more: their clients
    /// subscribe again, and learn what can be recovered.
    pub(super) fn end_incomplete<O: Outbox>(
        &mut self,
        now: Now,
        index: u32,
        is_incomplete: impl Fn(&Subscriber) -> bool,
        out: &mut O,
    ) {
        let Some(channel) = self.channels.get(index) else {
            return;
        };
        let subscribers = channel.subscribers.iter();
        let incomplete: Vec<SessionId> = subscribers
            .filter(|subscriber| match subscriber.role {
                Role::Live | Role::Holding => subscriber.positioned,
                Role::Behind => true,
                Role::Pending => false,
            })
            .filter(|subscriber| is_incomplete(subscriber))
            .map(|subscriber| subscriber.session)
            .collect();
        self.counters.lost += incomplete.len() as u64;
        for id in incomplete {
            self.unsubscribe_with(now, id, index, UnsubscribeCode::InsufficientState, out);
        }
    }

    /// Sends a message to the subscribers of a channel that `wants` it.
    pub(super) fn fan_out<O: Outbox>(
        &mut self,
        index: u32,
        encode: impl Fn(Encoding, &mut Vec<u8>),
        out: &mut O,
        kind: Kind,
        wants: impl Fn(&Subscriber, &Sessions) -> bool,
    ) {
        let Self {
            channels,
            sessions,
            full,
            scratch,
            config,
            ..
        } = self;
        let Some(Channel { subscribers, .. }) = channels.get(index) else {
            return;
        };
        let mark = park_mark(config);
        let mut prepared: Prepared<'_, O, _> = Prepared {
            encode,
            scratch,
            ready: Default::default(),
        };
        for some in subscribers.chunks(AT_ONCE) {
            out.anticipate(some.iter().map(|subscriber| subscriber.session));
            for subscriber in some {
                if !wants(subscriber, sessions) {
                    continue;
                }
                let message = prepared.get(subscriber.encoding, out);
                let queued = out.send_prepared(subscriber.session, message);
                if queued > mark {
                    full.push((subscriber.session, queued));
                }
            }
        }
        if !full.is_empty() {
            self.on_full(index, kind);
        }
    }

    /// Some have no room for what was just sent to them.
    #[cold]
    fn on_full(&mut self, index: u32, kind: Kind) {
        let limit = self.config.client.queue_max_size;
        let mut full = std::mem::take(&mut self.full);
        for (id, queued) in full.drain(..) {
            self.park(id);
            let connected = self.sessions.connected(id);
            let subscription = connected.and_then(|connected| connected.subscription(index));
            let slot = subscription.map(|subscription| subscription.slot as usize);
            let channel = self.channels.get(index);
            let subscriber = channel
                .zip(slot)
                .map(|(channel, slot)| channel.subscribers[slot]);
            // Who gets no more publications until there is room is within its limit.
            let is_live = subscriber.is_some_and(|subscriber| subscriber.role == Role::Live);
            if queued > limit && (is_live || kind == Kind::Event) {
                self.over_queue(id, queued);
            }
        }
        self.full = full;
    }
}

#[cold]
pub(super) fn has_room(sessions: &Sessions, subscriber: &Subscriber) -> bool {
    let session = sessions.get(subscriber.session);
    let lag = session.and_then(|session| session.lag.as_deref());
    lag.is_none_or(|lag| !lag.waits())
}

/// Subscribers that the outbox is told of together.
const AT_ONCE: usize = 16;

/// What is fanned out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Publication,
    /// Somebody came or left. Nobody may miss it, so it counts against the limit of the queue.
    Event,
}

impl<O: Outbox, E: Fn(Encoding, &mut Vec<u8>)> Prepared<'_, O, E> {
    fn get(&mut self, encoding: Encoding, out: &mut O) -> &O::Prepared {
        self.ready[encoding.index()].get_or_insert_with(|| {
            self.scratch.clear();
            (self.encode)(encoding, self.scratch);
            out.prepare(encoding, self.scratch)
        })
    }
}
