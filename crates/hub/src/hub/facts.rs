//! What the witness is told, and when.

use std::sync::Arc;

use super::channels::Role;
use super::waiting::Waiting;
use super::{Hub, SessionId};
use crate::Now;
use crate::watch::PublishWatch;
use crate::witness::{Fact, Witness};

impl Hub {
    /// Has somebody be told who comes and goes, from now on. Who is there already, [`recount`](Self::recount) tells.
    pub fn set_witness(&mut self, witness: Box<dyn Witness>) {
        self.witness = Some(witness);
    }

    /// Has somebody choose among the publications of clients, from now on, or nobody.
    pub fn set_publish_watch(&mut self, watch: Option<Box<dyn PublishWatch>>) {
        self.publish_watch = watch;
    }

    /// Tells somebody of all who are there, as if each had just come: a client as connected, and then its
    /// subscriptions. For a witness that begins late, or wants to know more than before.
    pub fn recount(&self, now: Now, witness: &mut dyn Witness) {
        for id in self.sessions.ids() {
            let session = self.sessions.get(id).filter(|_| !self.is_coming(id));
            let Some((session, connected)) =
                session.and_then(|session| Some((session, session.connected()?)))
            else {
                continue;
            };
            let client = &connected.info;
            let fact = Fact::Connected {
                session: id,
                client,
                transport: session.transport,
            };
            witness.note(now, fact);
            for subscription in &connected.subscriptions {
                let Some(channel) = self.channels.get(subscription.channel) else {
                    continue;
                };
                let subscriber = channel.subscribers.get(subscription.slot as usize);
                // One that has not begun is told of when it does.
                if subscriber.is_some_and(|subscriber| subscriber.role != Role::Pending) {
                    let channel = &channel.name;
                    witness.note(now, Fact::Subscribed { client, channel });
                }
            }
        }
    }

    pub(super) fn note_connected(&mut self, now: Now, id: SessionId) {
        if let Some(witness) = &mut self.witness
            && let Some(session) = self.sessions.get(id)
            && let Some(connected) = session.connected()
        {
            let fact = Fact::Connected {
                session: id,
                client: &connected.info,
                transport: session.transport,
            };
            witness.note(now, fact);
        }
    }

    pub(super) fn note_disconnected(
        &mut self,
        now: Now,
        id: SessionId,
        disconnect: &tautline_protocol::Disconnect,
    ) {
        if self.witness.is_none() || self.is_coming(id) {
            return;
        }
        if let Some(witness) = &mut self.witness
            && let Some(connected) = self.sessions.connected(id)
        {
            let client = &connected.info;
            witness.note(now, Fact::Disconnected { client, disconnect });
        }
    }

    pub(super) fn note_subscribed(&mut self, now: Now, id: SessionId, index: u32) {
        if let Some(witness) = &mut self.witness
            && let Some(connected) = self.sessions.connected(id)
            && let Some(channel) = self.channels.get(index)
        {
            let (client, channel) = (&connected.info, &channel.name);
            witness.note(now, Fact::Subscribed { client, channel });
        }
    }

    pub(super) fn note_unsubscribed(
        &mut self,
        now: Now,
        id: SessionId,
        channel: &Arc<str>,
        code: u32,
    ) {
        if let Some(witness) = &mut self.witness
            && let Some(connected) = self.sessions.connected(id)
        {
            let client = &connected.info;
            let fact = Fact::Unsubscribed {
                client,
                channel,
                code,
            };
            witness.note(now, fact);
        }
    }

    pub(super) fn note_cache_miss(&mut self, now: Now, id: SessionId, index: u32) {
        if let Some(witness) = &mut self.witness
            && let Some(connected) = self.sessions.connected(id)
            && let Some(channel) = self.channels.get(index)
        {
            let (client, channel) = (&connected.info, &channel.name);
            witness.note(now, Fact::CacheMissed { client, channel });
        }
    }

    /// Whether a session's connect command is not answered yet.
    fn is_coming(&self, id: SessionId) -> bool {
        let session = self.sessions.get(id);
        let waiting = session.and_then(|session| session.waiting.as_deref());
        matches!(waiting, Some(Waiting::Connect(_)))
    }
}
