//! The witness: whoever wants to know who comes and goes, and decides nothing.
//!
//! An [`Application`](crate::application::Application) is asked, and clients wait for it. A [`Witness`] is told what has
//! happened when it has, in the order in which it did, and nobody waits: what it does with that is its own business.
//! A hub without one pays a branch.
//!
//! Facts about one client follow each other: connected, then what it is subscribed to, then what it isn't any more, then
//! disconnected. A connection that came to nothing is not told of, and neither is a subscription that did.

use std::sync::Arc;

use tautline_protocol::Disconnect;
use tautline_protocol::message::ClientInfo;

use crate::{Now, SessionId, Transport};

/// Is told by one hub who comes and goes.
pub trait Witness {
    /// Takes note of a fact. Must return at once.
    fn note(&mut self, now: Now, fact: Fact<'_>);
}

/// What has happened.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Fact<'a> {
    /// A client has come in, and has been told so.
    Connected {
        /// By which session.
        session: SessionId,
        /// Who.
        client: &'a Arc<ClientInfo>,
        /// How.
        transport: Transport,
    },
    /// A client that had come in has gone.
    Disconnected {
        /// Who.
        client: &'a Arc<ClientInfo>,
        /// What the client was told; [`Disconnect::CONNECTION_CLOSED`] if it went by itself.
        disconnect: &'a Disconnect,
    },
    /// A subscription has begun.
    Subscribed {
        /// Whose.
        client: &'a Arc<ClientInfo>,
        /// To what.
        channel: &'a Arc<str>,
    },
    /// A subscription that had begun has ended.
    Unsubscribed {
        /// Whose.
        client: &'a Arc<ClientInfo>,
        /// To what.
        channel: &'a Arc<str>,
        /// Why, as in [`UnsubscribeEvent::code`](crate::application::UnsubscribeEvent::code).
        code: u32,
    },
    /// Somebody wanted the newest publication of a channel that keeps one
    /// ([`RecoveryMode::Cache`](crate::config::RecoveryMode::Cache)), and there was none.
    CacheMissed {
        /// Who.
        client: &'a Arc<ClientInfo>,
        /// Where.
        channel: &'a Arc<str>,
    },
}
