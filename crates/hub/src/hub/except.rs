//! Publications that one connection is not to get: mostly its own, which its application has shown
//! already.
//!
//! What is left out is left out on the way to that connection, live or read on from history: its place in
//! the stream moves on, as behind a filter. A client knows only the offset of what it got last. Coming
//! back on another connection, it asks from there, and may get what it has published since: nobody can
//! tell whose that was but the client, by `info.client`. Pages of history, and the newest publication in
//! cache mode, are what they are.

use std::sync::Arc;

use tautline_protocol::message::Publication;

use super::channels::{Role, Subscriber};
use super::fanout::has_room;
use super::run::Run;
use super::sessions::Sessions;
use super::{Hub, SessionId};
use crate::outbox::Outbox;

/// Whether a connection is to get a publication.
pub(super) fn is_for(publication: &Publication, client: Option<&Arc<str>>) -> bool {
    publication.except.is_none() || publication.except.as_ref() != client
}

impl Hub {
    /// The session that isn't to get a publication, if it is one of this hub's.
    pub(super) fn excepted(&self, publication: &Publication) -> Option<SessionId> {
        let client = publication.except.as_ref()?;
        self.clients.get(client).copied()
    }

    /// Sends a publication, which is a run of its own, to all subscribers but one.
    #[cold]
    pub(super) fn fan_out_except<O: Outbox>(
        &mut self,
        index: u32,
        run: &Run,
        except: SessionId,
        out: &mut O,
    ) {
        let first = run.first_offset();
        let wants = |subscriber: &Subscriber, sessions: &Sessions| match subscriber.role {
            _ if subscriber.session == except => false,
            Role::Live => first == 0 || subscriber.from < first,
            Role::Behind => first == 0 && has_room(sessions, subscriber),
            Role::Pending | Role::Holding => false,
        };
        self.fan_out_run(index, run, out, wants);
    }
}
