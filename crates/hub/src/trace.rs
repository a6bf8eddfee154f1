//! Following somebody live: what a hub tells an operator who wants to know what is going on.
//!
//! A trace is asked for by [`Hub::trace`](crate::Hub::trace) and costs nothing but a comparison where there is none. Its events say what was
//! said, payloads and tokens included: whoever shows them to people leaves out what these may not see.

use std::sync::Arc;

use tautline_protocol::message::Publication;
use tautline_protocol::{Disconnect, Reply, Request};

/// Whom to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Follow {
    /// All connections of a user, those that are still to come too; the anonymous one's name is empty.
    User(String),
    /// The connection with this id.
    Client(String),
    /// What concerns a channel: who subscribes, publishes, is refused, and leaves; and what is published, once
    /// for all subscribers.
    Channel(String),
    /// Whatever is refused, limited or ended by the hub, to anybody, those who never get in too.
    Refusals,
}

/// Names a trace of one hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub(crate) u64);

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub struct TraceEvent<'a> {
    /// Whose connection it is; empty for anonymous users, for those who have not authenticated, and for what concerns
    /// a channel as a whole.
    pub user: &'a str,
    /// The connection's id; empty if it has none yet.
    pub client: &'a str,
    /// What carries its messages, if it is about one connection.
    pub transport: Option<&'static str>,
    /// How many bytes waited to be written to it before, where that is known.
    pub queued: Option<usize>,
    /// The channel that it is about, if it is about one.
    pub channel: Option<&'a str>,
    /// What.
    pub step: Step<'a>,
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step<'a> {
    /// A command came in.
    Command {
        /// Its id; 0 for what expects no reply.
        number: u32,
        /// What is asked for; `None` for the answer to a ping.
        request: Option<&'a Request<'a>>,
    },
    /// A frame can't be read.
    Unreadable(&'a str),
    /// A command was refused. The reply follows, or the end.
    Refused {
        /// Its id.
        number: u32,
        /// What the client is told, in words.
        told: &'a str,
        /// What it isn't told: by which rule.
        why: Option<&'a str>,
    },
    /// Something was done more often than a limit allows that is only tried out (`dry_run`): nothing came of it.
    OverLimit {
        /// Which limit.
        why: &'a str,
    },
    /// A reply or a push was queued for the connection.
    Reply(&'a Reply),
    /// Publications were queued, as they came: for the connection, or for all of a channel's subscribers that are at
    /// the head and may have them.
    Publications {
        /// They are one message.
        publications: &'a [Arc<Publication>],
        /// For how many.
        receivers: usize,
    },
    /// The connection has no room: the subscription stands where it is, and is read on from there later.
    Parked {
        /// Offset of the last publication that it was sent.
        offset: u64,
    },
    /// The subscription is at the head of its stream again.
    CaughtUp,
    /// The hub ended the connection, or heard that it is gone.
    Ended(&'a Disconnect),
}
