//! A connection's socket, and what waits to be written to it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tautline_protocol::{Disconnect, Encoding};
use tautline_websocket::conn::WriteQueue;
use tokio::io::AsyncWrite as _;

use super::voice::Voice;
use super::waiters::Load;
use crate::door::admission::AddressPermit;
use crate::io::Io;

/// A connection's socket and what waits to be written to it.
///
/// Two parties hold it: the connection's task, which reads, and the worker's table, through which
/// the hub writes. Writing needs no wake of the task: [`Connections::write`](super::connections::Connections::write) writes straight to the
/// socket, on the task's behalf, so that only a socket which would block wakes it later. Where the socket is a
/// stream of an HTTP/2 connection, the task of that is woken, once for all of its streams that are written to
/// in a turn.
///
/// In this order in memory: a fan-out needs what comes first of it, down to the beginning of the queue, of thousands
/// of links of which none is in a cache.
#[repr(C)]
pub(crate) struct Link {
    /// Whether the link is on the table's list of those to be flushed.
    pub(super) dirty: bool,
    /// The hub wants to know when the queue is empty.
    pub(super) tell_drained: bool,
    /// How messages are written, which also says in what kind of frames.
    pub(crate) encoding: Encoding,
    /// Its transport's place among what was said.
    pub(super) transport: u8,
    /// How many bytes were written so far.
    pub(super) written: u64,
    /// Puts what the hub says into the client's own words; `None` where these are the protocol's.
    pub(crate) voice: Option<Box<dyn Voice>>,
    pub(crate) io: Io,
    pub(crate) queue: WriteQueue,
    /// Wakes the connection's task.
    pub(super) waker: Waker,
    /// Set when the session is over: the task says goodbye and ends.
    pub(crate) ending: Option<Ending>,
    /// Among those of its address, if it counts.
    pub(crate) address_permit: Option<AddressPermit>,
    /// Why writing failed; the task ends the session.
    pub(crate) broken: Option<io::Error>,
}

/// How the hub ended a session.
pub(crate) struct Ending {
    pub(crate) disconnect: Disconnect,
    /// Whether what is queued is still to be written.
    pub(crate) flush: bool,
}

impl Link {
    pub(crate) fn new(io: Io, encoding: Encoding) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            dirty: false,
            tell_drained: false,
            encoding,
            transport: 0,
            written: 0,
            voice: None,
            io,
            queue: WriteQueue::default(),
            waker: Waker::noop().clone(),
            ending: None,
            address_permit: None,
            broken: None,
        }))
    }

    /// Remembers whom to wake: the task that is polling.
    pub(crate) fn register(&mut self, cx: &Context<'_>) {
        if !self.waker.will_wake(cx.waker()) {
            self.waker = cx.waker().clone();
        }
    }

    /// Writes as much as the socket takes. Pending when some is left; the task is woken when the
    /// socket takes more.
    pub(crate) fn poll_flush(&mut self) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(&self.waker);
        let before = self.queue.len();
        let result = self.io.poll_write_queue(&mut cx, &mut self.queue);
        self.written += (before - self.queue.len()) as u64;
        ready!(result)?;
        if self.io.holds_back() {
            return Pin::new(&mut self.io).poll_flush(&mut cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Looks at what queueing and writing a message need, without changing any of it.
    pub(super) fn glance(&self) -> usize {
        self.queue.len() + usize::from(self.io.is_writable())
    }

    /// What waits, that which was written and is not on its way yet too.
    pub(super) fn load(&self) -> Load {
        let unsent = self.io.unsent();
        Load {
            held: self.queue.held() + unsent,
            queued: self.queue.len() + unsent,
            written: self.io.progress(self.written),
            kept: 0,
            is_socket: true,
        }
    }

    /// Forgets what waits: nobody is to have it any more, and what was written may end within a frame. So the
    /// connection has to end, without another word.
    pub(super) fn drop_queue(&mut self) {
        self.queue = WriteQueue::default();
        self.io.abort();
        self.broken = Some(io::ErrorKind::ConnectionAborted.into());
        self.waker.wake_by_ref();
    }

    /// Whether the hub is to be told, now, that the queue is empty.
    pub(crate) fn take_drained(&mut self) -> bool {
        self.queue.is_empty() && std::mem::take(&mut self.tell_drained)
    }
}
