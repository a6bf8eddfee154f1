//! Deliveries to subscribers.
//!
//! A publication is encoded and made ready once for each encoding, and then handed to one
//! subscriber after the other. Nothing is looked up, allocated or written down for a subscriber:
//! how far the channel's feed has come is kept once, for all of them.

use std::sync::Arc;

use tautline_protocol::message::Publication;
use tautline_protocol::{Encoding, Push, Reply, UnsubscribeCode};

use super::channels::{Channel, Role, Subscriber};
use super::waiting::Waiting;
use super::{Hub, SessionId};
use crate::Now;
use crate::engine::{Delivery, FeedId};
use crate::outbox::Outbox;

/// A message on its way to many, made ready when it is first needed.
struct Prepared<'a, O: Outbox> {
    reply: &'a Reply,
    scratch: &'a mut Vec<u8>,
    /// By encoding.
    ready: [Option<O::Prepared>; Encoding::COUNT],
}

impl Hub {
    /// Passes on what an engine has put into the worker's mailbox, in its order. Leaves
    /// `deliveries` empty.
    pub fn deliver<O: Outbox>(&mut self, now: Now, deliveries: &mut Vec<Delivery>, out: &mut O) {
        for delivery in deliveries.drain(..) {
            match delivery {
                Delivery::Publication {
                    channel,
                    feed,
                    publication,
                    epoch,
                    previous,
                } => {
                    let Some(index) = self.fed_channel(&channel, feed) else {
                        continue;
                    };
                    if publication.offset == 0 {
                        self.deliver_unpositioned(index, publication, out);
                    } else {
                        self.deliver_publication(now, index, publication, epoch, previous, out);
                    }
                }
                Delivery::Join {
                    channel,
                    feed,
                    info,
                } => {
                    let Some(index) = self.fed_channel(&channel, feed) else {
                        continue;
                    };
                    self.deliver_presence(index, None, Push::Join(channel, info), out);
                }
                Delivery::Leave {
                    channel,
                    feed,
                    info,
                } => {
                    let Some(index) = self.fed_channel(&channel, feed) else {
                        continue;
                    };
                    // A session that left and came back must not hear of its own leaving.
                    let leaver = self.clients.get(&info.client).copied();
                    self.deliver_presence(index, leaver, Push::Leave(channel, info), out);
                }
                Delivery::Outcome { ticket, outcome } => self.on_outcome(now, ticket, outcome, out),
            }
            self.settle(now, out);
        }
    }

    /// The channel that a feed is for. What an earlier feed of the channel has left behind in the
    /// mailbox is for nobody: those who are subscribed now came later.
    fn fed_channel(&self, name: &str, feed: FeedId) -> Option<u32> {
        let index = self.channels.find(name)?;
        self.channels
            .get(index)
            .filter(|channel| channel.feed == feed)?;
        Some(index)
    }

    /// A publication that is not part of a stream: whoever is there gets it.
    fn deliver_unpositioned<O: Outbox>(
        &mut self,
        index: u32,
        publication: Arc<Publication>,
        out: &mut O,
    ) {
        let Some(channel) = self.channels.get(index) else {
            return;
        };
        let reply = Reply::Push(Push::Publication(channel.name.clone(), publication));
        self.fan_out(index, &reply, out, |subscriber| {
            matches!(subscriber.role, Role::Plain | Role::Positioned)
        });
    }

    fn deliver_publication<O: Outbox>(
        &mut self,
        now: Now,
        index: u32,
        publication: Arc<Publication>,
        epoch: Arc<str>,
        previous: u64,
        out: &mut O,
    ) {
        let offset = publication.offset;
        let Some(channel) = self.channels.get(index) else {
            return;
        };
        if channel.epoch != epoch {
            self.set_aside(index, &publication, &epoch, previous);
            self.turn_epoch(now, index, epoch, previous, out);
        } else if offset <= channel.seen {
            // The feed has brought it before.
            return;
        } else {
            self.set_aside(index, &publication, &epoch, previous);
        }
        let Some(channel) = self.channels.get_mut(index) else {
            return;
        };
        let seen = std::mem::replace(&mut channel.seen, offset);
        channel.checked_at = now.monotonic;
        channel.suspected = false;
        if previous > seen && channel.positioned > 0 {
            self.end_incomplete(now, index, |subscriber| previous > subscriber.from, out);
        }
        let Some(channel) = self.channels.get(index) else {
            return;
        };
        let reply = Reply::Push(Push::Publication(channel.name.clone(), publication));
        self.fan_out(index, &reply, out, |subscriber| match subscriber.role {
            Role::Plain | Role::Positioned => subscriber.from < offset,
            Role::PendingPlain | Role::PendingPositioned => false,
        });
    }

    /// Keeps a publication for those whose subscribe command is not answered yet.
    fn set_aside(
        &mut self,
        index: u32,
        publication: &Arc<Publication>,
        epoch: &Arc<str>,
        previous: u64,
    ) {
        let waiting = self
            .channels
            .get(index)
            .filter(|channel| channel.pending > 0);
        let Some(channel) = waiting else {
            return;
        };
        for subscriber in &channel.subscribers {
            if subscriber.role == Role::PendingPositioned
                && let Some(session) = self.sessions.get_mut(subscriber.session)
                && let Some(Waiting::Subscribe(subscribing)) = session.waiting.as_deref_mut()
                && subscribing.channel == index
            {
                subscribing.buffer.push(publication, epoch, previous);
            }
        }
    }

    /// The channel's stream has begun anew. Who is positioned in the old one has to do so, too.
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
        if channel.positioned > 0 {
            self.end_incomplete(now, index, |_| true, out);
        }
    }

    /// Ends the positioned subscriptions that missed something: their clients subscribe again and
    /// recover.
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
            .filter(|subscriber| subscriber.role == Role::Positioned && is_incomplete(subscriber))
            .map(|subscriber| subscriber.session)
            .collect();
        for id in incomplete {
            self.unsubscribe_with(now, id, index, UnsubscribeCode::InsufficientState, out);
        }
    }

    fn deliver_presence<O: Outbox>(
        &mut self,
        index: u32,
        except: Option<SessionId>,
        push: Push,
        out: &mut O,
    ) {
        self.fan_out(index, &Reply::Push(push), out, |subscriber| {
            subscriber.join_leave && Some(subscriber.session) != except
        });
    }

    /// Sends a message to the subscribers of a channel that `wants` it.
    fn fan_out<O: Outbox>(
        &mut self,
        index: u32,
        reply: &Reply,
        out: &mut O,
        wants: impl Fn(&Subscriber) -> bool,
    ) {
        let Self {
            channels,
            sessions,
            slow,
            scratch,
            config,
            ..
        } = self;
        let Some(Channel { subscribers, .. }) = channels.get(index) else {
            return;
        };
        let limit = config.client.queue_max_size;
        let mut prepared: Prepared<'_, O> = Prepared {
            reply,
            scratch,
            ready: Default::default(),
        };
        for subscriber in subscribers {
            if !wants(subscriber) {
                continue;
            }
            let message = prepared.get(subscriber.encoding, out);
            if out.send_prepared(subscriber.session, message) > limit
                && let Some(session) = sessions.get_mut(subscriber.session)
                && !std::mem::replace(&mut session.is_slow, true)
            {
                slow.push(subscriber.session);
            }
        }
    }
}

impl<O: Outbox> Prepared<'_, O> {
    fn get(&mut self, encoding: Encoding, out: &mut O) -> &O::Prepared {
        self.ready[encoding.index()].get_or_insert_with(|| {
            self.scratch.clear();
            encoding.encode_reply(self.reply, self.scratch);
            out.prepare(self.scratch)
        })
    }
}
