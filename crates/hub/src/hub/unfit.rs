//! Payloads that can't be sent to whoever reads JSON.
//!
//! Where the namespace takes any bytes (`publication_data_format = "binary"`), a publication need not be
//! JSON, and a JSON connection can't be told it: that connection is closed with 3506, a code on which
//! clients don't come back, and others notice nothing. In all other namespaces payloads were checked
//! when they were published, and nothing is looked at here.

use std::sync::Arc;

use tautline_protocol::message::{Payload, Publication};
use tautline_protocol::{Disconnect, Encoding, json};

use super::channels::Role;
use super::run::Run;
use super::{Hub, SessionId};
use crate::Now;
use crate::outbox::Outbox;

/// Whether a payload can be part of a JSON message. One of no bytes is written as `null`.
pub(crate) fn is_json(payload: &Payload) -> bool {
    payload.is_empty() || json::check_payload(payload).is_ok()
}

/// Whether all of these can be sent to a connection.
pub(crate) fn fit(encoding: Encoding, publications: &[Arc<Publication>]) -> bool {
    encoding != Encoding::Json || publications.iter().all(|one| is_json(&one.data))
}

impl Hub {
    /// Closes the connections that would have to be sent something which they can't read. Called before
    /// a run is fanned out.
    pub(super) fn end_unfit<O: Outbox>(&mut self, now: Now, index: u32, run: &Run, out: &mut O) {
        let Some(channel) = self.channels.get(index) else {
            return;
        };
        if !channel.takes_bytes {
            return;
        }
        let publications = run.publications().iter();
        let foreign: Vec<_> = publications.filter(|one| !is_json(&one.data)).collect();
        if foreign.is_empty() {
            return;
        }
        let classes = channel.classes.as_deref();
        let subscribers = channel.subscribers.iter();
        let unfit: Vec<SessionId> = subscribers
            .filter(|subscriber| subscriber.encoding == Encoding::Json)
            .filter(|subscriber| matches!(subscriber.role, Role::Live | Role::Holding))
            .filter(|subscriber| {
                foreign.iter().any(|one| {
                    let is_new = one.offset == 0 || subscriber.from < one.offset;
                    is_new && classes.is_none_or(|all| all.passes(subscriber.class, one))
                })
            })
            .map(|subscriber| subscriber.session)
            .collect();
        for id in unfit {
            self.end(now, id, &Disconnect::INAPPROPRIATE_PROTOCOL, out);
        }
    }

    pub(super) fn encoding(&self, id: SessionId) -> Option<Encoding> {
        let session = self.sessions.get(id)?;
        Some(session.transport.encoding)
    }

    /// Whether a session can be sent these publications of a channel. If not, it is closed.
    pub(super) fn ensure_fit<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        takes_bytes: bool,
        publications: &[Arc<Publication>],
        out: &mut O,
    ) -> bool {
        let Some(encoding) = self.encoding(id) else {
            return false;
        };
        if !takes_bytes || fit(encoding, publications) {
            return true;
        }
        self.end(now, id, &Disconnect::INAPPROPRIATE_PROTOCOL, out);
        false
    }
}
