//! Where a hub puts what it has to say to its connections.

use std::fmt;
use std::sync::Arc;

use tautline_protocol::{Disconnect, Encoding};

use crate::engine::WorkerId;
use crate::hub::FrameType;

/// Names a session of one hub. An index that is used again gets another generation, so a stale id
/// finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// Slot in the hub's table, dense from 0: callers may index their own tables by it.
    pub index: u32,
    /// How often the slot was used before.
    pub generation: u32,
}

/// What log lines call a session: `worker-slot-generation`, as no other session of the process is called, from before its
/// client has an id to its end.
///
/// ```
/// use tautline_hub::engine::WorkerId;
/// use tautline_hub::{SessionId, SessionName};
///
/// let id = SessionId { index: 17, generation: 3 };
/// let name = SessionName { worker: WorkerId(1), id };
/// assert_eq!(name.to_string(), "1-17-3");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionName {
    /// Whose it is.
    pub worker: WorkerId,
    /// What it is called there.
    pub id: SessionId,
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SessionId { index, generation } = self.id;
        write!(f, "{}-{index}-{generation}", self.worker.0)
    }
}

/// What a client names in requests that come beside its connection, on transports whose connection
/// carries messages in one direction only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionAddress {
    /// Secret: whoever knows it can send commands in the client's name.
    pub session: Arc<str>,
    /// The server process that holds the connection, where a client has to name it.
    pub node: Option<Arc<str>>,
}

/// The outgoing side of all connections of one worker, lent to the [`Hub`](crate::Hub) for the
/// length of a call.
///
/// A message is one reply or push in the session's encoding, without any framing of the transport;
/// or several pushes, one behind the other as
/// [`Encoding::append_reply`] puts them: publications of a channel that came together leave together.
/// Messages to one session are written in the order of the calls. Implementations queue; they
/// never block and never fail: what can't be written is known later by
/// [`Hub::transport_closed`](crate::Hub::transport_closed).
pub trait Outbox {
    /// A message made ready for many receivers, framing included. Cheap to use again and again.
    type Prepared;

    /// What the message is that is prepared or sent next, and how many of its kind it has: for who counts them.
    fn saying(&mut self, what: FrameType, count: usize) {
        let _ = (what, count);
    }

    /// Makes a message in this encoding ready for many receivers. Called once for a publication (or
    /// some that came together) and encoding, however many subscribers there are.
    fn prepare(&mut self, encoding: Encoding, message: &[u8]) -> Self::Prepared;

    /// Queues a prepared message and returns the bytes now waiting to be written to that
    /// session, this message included.
    fn send_prepared(&mut self, to: SessionId, message: &Self::Prepared) -> usize;

    /// Messages to some of these sessions follow at once. Whoever has so many connections that their memory isn't in
    /// a cache can fetch it for all of them together. Nothing else may come of it, and nothing need.
    fn anticipate(&self, to: impl Iterator<Item = SessionId>) {
        let _ = to;
    }

    /// Queues a message for one session and returns the bytes now waiting to be written to it.
    fn send(&mut self, to: SessionId, message: &[u8]) -> usize;

    /// Queues a ping of the transport's own for a session and returns the bytes now waiting to be written to
    /// it. Called for those sessions only whose transport has such
    /// ([`Pings::Transport`](crate::Pings::Transport), [`Pings::OneWayAndTransport`](crate::Pings::OneWayAndTransport)).
    fn ping(&mut self, to: SessionId) -> usize {
        self.queued(to)
    }

    /// How many bytes wait to be written to a session.
    fn queued(&self, to: SessionId) -> usize;

    /// How many bytes were ever written to a session, in the measure of [`queued`](Self::queued):
    /// together they say where in the stream the last message ends. It is what tells a slow reader from a
    /// dead one, and how a ping is known to have been written.
    fn written(&self, to: SessionId) -> u64;

    /// How many of these the client may have got by now: more than [`written`](Self::written) where messages
    /// count as written only when the client has acknowledged them. An answer to a ping that ends behind that is
    /// none.
    fn told(&self, to: SessionId) -> u64 {
        self.written(to)
    }

    /// Asks for one call of [`Hub::drained`](crate::Hub::drained) as soon as nothing waits to be
    /// written to the session any more: at once if nothing does, but not from inside this call.
    /// Asking twice before that is asking once.
    fn when_drained(&mut self, to: SessionId);

    /// Whether what a command of the session came to is more than others can take at the moment, such as a worker with
    /// subscribers that is behind. The session's next command then waits for [`Hub::go_on`](crate::Hub::go_on), which
    /// is to be called once for each `true`. Asked when a command was executed.
    fn holds_up(&mut self, id: SessionId) -> bool {
        let _ = id;
        false
    }

    /// The session takes input again: [`Hub::wants_input`](crate::Hub::wants_input) had become
    /// `false` for it and is `true` now. Whoever reads its connection should be woken. (With the
    /// memory engine and without an application this happens only behind a long history of which a session
    /// may know little.)
    fn resume(&mut self, to: SessionId);

    /// What the client of a session is told to name in requests beside its connection: goes into
    /// the result of its connect command. `None` where commands come by the connection itself.
    fn address(&self, to: SessionId) -> Option<SessionAddress> {
        let _ = to;
        None
    }

    /// Whether a token that the client of a session has sent may be looked at, or the application asked who it is. It is
    /// refused for a while with error 111, temporary, where too many from there let nobody in. `user` is who it is, where
    /// that is known. Only where it would be refused is it asked whether it `is_good` all the same, as far as that is known
    /// here; then it may.
    fn may_authenticate(
        &mut self,
        id: SessionId,
        user: Option<&str>,
        is_good: &dyn Fn() -> bool,
    ) -> bool {
        let _ = (id, user, is_good);
        true
    }

    /// A token that the client of a session has sent lets nobody in, and never has: it isn't one that has merely expired. Or
    /// the application has said that it isn't who it says it is: error 101 that isn't temporary, or disconnect 3500.
    fn note_failed_authentication(&mut self, id: SessionId, user: Option<&str>) {
        let _ = (id, user);
    }

    /// Ends a session's connection, after what is queued was written when `flush` is set, at once
    /// otherwise. The session is gone from the hub when this is called.
    fn close(&mut self, to: SessionId, disconnect: &Disconnect, flush: bool);
}
