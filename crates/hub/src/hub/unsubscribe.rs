//! The end of subscriptions: by the client, by the hub, with the session.

use std::sync::Arc;

use tautline_protocol::message::{ClientInfo, Unsubscribe, UnsubscribeRequest};
use tautline_protocol::{Disconnect, Push, Reply, Response, UnsubscribeCode};

use super::announce::Change;
use super::channels::Role;
use super::dispatch::{Progress, Refusal};
use super::waiting::Waiting;
use super::{Hub, SessionId};
use crate::Now;
use crate::application::UnsubscribeEvent;
use crate::engine::{EngineError, JoinLevel, Started, Ticket};
use crate::outbox::Outbox;

/// What has to be told to the engine about a subscription that ended.
pub(super) struct Ended {
    pub(super) channel: Arc<str>,
    info: Arc<ClientInfo>,
    in_presence: bool,
    announced: Option<JoinLevel>,
    /// The client had been told that it is subscribed.
    pub(super) had_begun: bool,
}

impl Hub {
    /// Unsubscribing from what one isn't subscribed to succeeds, and so does leaving what the server has made: that is there
    /// again when the client connects again.
    pub(super) fn unsubscribe(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &UnsubscribeRequest<'_>,
    ) -> Result<Progress, Refusal> {
        if request.channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let channel = self.channels.find(&request.channel);
        let ended = channel.and_then(|channel| self.detach_subscription(now, id, channel));
        let Some(ended) = ended else {
            return Ok(Progress::Answer(Response::Unsubscribe));
        };
        if ended.had_begun {
            self.tell_unsubscribed(now, id, &ended.channel, UnsubscribeEvent::BY_CLIENT);
        }
        let ticket = self.ticket();
        let removed = self.tell_ended(now, ticket, &ended);
        if let Started::Later = removed {
            self.wait(id, ticket, Waiting::Unsubscribe { command: number });
            return Ok(Progress::Wait);
        }
        // An entry that can't be removed now is the engine's to remove later; the subscription has
        // ended in any case.
        Ok(Progress::Answer(Response::Unsubscribe))
    }

    /// Ends a subscription for a reason that the client is told.
    pub(super) fn unsubscribe_with<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        channel: u32,
        code: UnsubscribeCode,
        out: &mut O,
    ) {
        let connected = self.sessions.connected(id);
        let subscription = connected.and_then(|connected| connected.subscription(channel));
        if subscription.is_some_and(|subscription| subscription.server_side) {
            // The client can't subscribe to it again by itself, but by connecting again.
            let disconnect = match code {
                UnsubscribeCode::InsufficientState => Some(Disconnect::INSUFFICIENT_STATE),
                UnsubscribeCode::Expired => Some(Disconnect::SUBSCRIPTION_EXPIRED),
                _ => None,
            };
            if let Some(disconnect) = disconnect {
                return self.end(now, id, &disconnect, out);
            }
        }
        if let Some(subscribing) = self.beginning(id, channel) {
            // The client is told once it knows that it has begun.
            subscribing.ended = Some(code.into());
            return self.set_sub_expiry(id, self.channels.key(channel), None);
        }
        self.push_unsubscribe(now, id, channel, code.into(), out);
    }

    /// Ends a subscription of either kind, and tells the client.
    pub(super) fn push_unsubscribe<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        channel: u32,
        unsubscribe: Unsubscribe,
        out: &mut O,
    ) {
        let entry = self.channels.get(channel);
        let Some(name) = entry.map(|channel| channel.name.clone()) else {
            return;
        };
        self.end_subscription(now, id, channel, unsubscribe.code);
        self.tally.unsubscribed(unsubscribe.code);
        let push = Push::Unsubscribe(name, unsubscribe);
        self.send(id, &Reply::Push(push), out);
    }

    /// Ends a subscription without waiting for the engine.
    pub(super) fn end_subscription(&mut self, now: Now, id: SessionId, channel: u32, code: u32) {
        let ended = self.drop_subscription(now, id, channel);
        if let Some(ended) = ended.filter(|ended| ended.had_begun) {
            self.tell_unsubscribed(now, id, &ended.channel, code);
        }
    }

    /// The same for one that has come to nothing: the application is not told of it.
    pub(super) fn drop_subscription(
        &mut self,
        now: Now,
        id: SessionId,
        channel: u32,
    ) -> Option<Ended> {
        let ended = self.detach_subscription(now, id, channel)?;
        // Nobody waits for the outcome, so nobody is told of it.
        let ticket = self.ticket();
        let _ = self.tell_ended(now, ticket, &ended);
        Some(ended)
    }

    /// Tells the engine that a subscription has ended. What it does about it takes effect in this
    /// order, whoever lives to see the outcome.
    fn tell_ended(
        &mut self,
        now: Now,
        ticket: Ticket,
        ended: &Ended,
    ) -> Started<Result<(), EngineError>> {
        let mut removed = Started::Done(Ok(()));
        if ended.in_presence {
            removed = self
                .engine
                .presence_remove(now, ticket, &ended.channel, &ended.info);
        }
        if let Some(level) = ended.announced {
            let change = Change {
                info: ended.info.clone(),
                level,
                is_join: false,
            };
            self.tell_change(now, &ended.channel, change);
        }
        removed
    }

    /// Takes a subscription out of session and channel; the last one ends the channel's feed.
    pub(super) fn detach_subscription(
        &mut self,
        now: Now,
        id: SessionId,
        channel: u32,
    ) -> Option<Ended> {
        let connected = self.sessions.connected_mut(id)?;
        let info = connected.info_in(Some(channel)).clone();
        let place = connected
            .subscriptions
            .iter()
            .position(|sub| sub.channel == channel)?;
        let subscription = connected.subscriptions.swap_remove(place);
        if connected.subscriptions.is_empty() {
            connected.subscriptions = Vec::new();
        }
        self.subscriptions -= 1;
        if !self.pushed.is_empty() {
            self.pushed.remove(&(id, channel));
        }
        self.forget_lag(id, channel);
        let slot = subscription.slot as usize;
        let entry = self.channels.get_mut(channel)?;
        let had_begun = entry.subscribers[slot].role != Role::Pending;
        entry.swap_remove(slot);
        let ended = Ended {
            had_begun,
            channel: entry.name.clone(),
            info,
            in_presence: subscription.in_presence,
            announced: subscription.announced,
        };
        subscription.leave(&self.config.rooms, &ended.channel);
        // The last subscriber took the place of the one that left.
        if let Some(moved) = entry.subscribers.get(slot).map(|moved| moved.session)
            && let Some(moved) = self.sessions.connected_mut(moved)
            && let Some(moved) = moved.subscription_mut(channel)
        {
            moved.slot = subscription.slot;
        }
        let entry = self.channels.get_mut(channel)?;
        if entry.subscribers.is_empty() {
            self.channels.remove(channel);
            self.engine.detach(now, self.worker, &ended.channel);
        } else if entry.subscribers.len() < entry.subscribers.capacity() / 4 {
            // A crowd that went home shouldn't leave its chairs behind.
            entry.subscribers.shrink_to(entry.subscribers.len() * 2);
        }
        Some(ended)
    }
}
