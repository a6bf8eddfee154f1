//! What the witness is told, and when.

use std::sync::Arc;

use super::waiting::Waiting;
use super::{Hub, SessionId};
use crate::Now;
use crate::witness::{Fact, Witness};

impl Hub {
    /// Has somebody be told who comes and goes. To be called before there are sessions.
    pub fn set_witness(&mut self, witness: Box<dyn Witness>) {
        self.witness = Some(witness);
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
