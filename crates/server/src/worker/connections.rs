//! The outgoing sides of a worker's connections, as the hub sees them.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tautline_hub::{Outbox, SessionId};
use tautline_protocol::{Disconnect, Encoding};
use tautline_websocket::conn::WriteQueue;
use tautline_websocket::proto::frame;
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;

/// A connection's socket and what waits to be written to it.
///
/// Two parties hold it: the connection's task, which reads, and the worker's table, through which
/// the hub writes. Writing needs no wake of the task: [`Connections::flush`] writes straight to the
/// socket, on the task's behalf, so that only a socket which would block wakes it later.
pub(crate) struct Link {
    pub(crate) io: TcpStream,
    pub(crate) queue: WriteQueue,
    /// How messages are written, which also says in what kind of frames.
    pub(crate) encoding: Encoding,
    /// Set when the session is over: the task says goodbye and ends.
    pub(crate) ending: Option<Ending>,
    /// Why writing failed; the task ends the session.
    pub(crate) broken: Option<io::Error>,
    /// Wakes the connection's task.
    waker: Waker,
    /// Whether the link is on the table's list of those to be flushed.
    dirty: bool,
    /// How many bytes were written so far.
    written: u64,
    /// The hub wants to know when the queue is empty.
    tell_drained: bool,
}

/// How the hub ended a session.
pub(crate) struct Ending {
    pub(crate) disconnect: Disconnect,
    /// Whether what is queued is still to be written.
    pub(crate) flush: bool,
}

impl Link {
    pub(crate) fn new(io: TcpStream, encoding: Encoding) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            io,
            queue: WriteQueue::default(),
            encoding,
            ending: None,
            broken: None,
            waker: Waker::noop().clone(),
            dirty: false,
            written: 0,
            tell_drained: false,
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
        let result = self.queue.poll_write(&mut cx, &mut self.io);
        self.written += (before - self.queue.len()) as u64;
        result
    }

    /// Whether the hub is to be told, now, that the queue is empty.
    pub(crate) fn take_drained(&mut self) -> bool {
        self.queue.is_empty() && std::mem::take(&mut self.tell_drained)
    }
}

/// The connections of one worker, by session.
#[derive(Default)]
pub(crate) struct Connections {
    slots: Vec<Slot>,
    dirty: Vec<SessionId>,
    /// Connections of which the hub is to be told that their queue is empty.
    drained: Vec<SessionId>,
    /// Kept for its capacity: where prepared messages are put together.
    scratch: Vec<u8>,
}

impl Connections {
    /// Makes `link` the connection of session `id`.
    pub(crate) fn insert(&mut self, id: SessionId, link: Rc<RefCell<Link>>) {
        let index = id.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some((id.generation, link));
    }

    /// Forgets the connection of session `id`, if it is still known.
    pub(crate) fn remove(&mut self, id: SessionId) {
        if lookup(&self.slots, id).is_some() {
            self.slots[id.index as usize] = None;
        }
    }

    /// Has the connection of session `id` flushed at the end of the turn.
    pub(crate) fn mark_dirty(&mut self, id: SessionId) {
        self.with(id, |_| ());
    }

    /// Writes to every connection for which something was queued since the last call.
    pub(crate) fn flush(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        // Tokio lets a task do so many operations and then has it wait for its next turn, whether or not
        // the socket is ready. It would count the writes of a fan-out as those of the task that happens
        // to run, and after the first hundred each connection's own task would be woken for its write. How
        // long this takes is bounded already: one write for each connection.
        let mut all = pin!(unconstrained(poll_fn(|_| {
            self.flush_all();
            Poll::Ready(())
        })));
        let _ = all.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Moves the sessions whose connections were drained, and of which the hub wants to know, to
    /// `drained`.
    pub(crate) fn take_drained(&mut self, drained: &mut Vec<SessionId>) {
        drained.append(&mut self.drained);
    }

    fn flush_all(&mut self) {
        let Self {
            slots,
            dirty,
            drained,
            ..
        } = self;
        for id in dirty.drain(..) {
            let Some(link) = lookup(slots, id) else {
                continue;
            };
            let mut link = link.borrow_mut();
            link.dirty = false;
            match link.poll_flush() {
                Poll::Ready(Ok(())) => {
                    if link.tell_drained && link.take_drained() {
                        drained.push(id);
                    }
                }
                Poll::Ready(Err(error)) => {
                    link.broken = Some(error);
                    link.waker.wake_by_ref();
                }
                Poll::Pending => {}
            }
        }
    }

    /// Lets `put` add to a connection's queue, and returns how much waits there.
    fn with(&mut self, id: SessionId, put: impl FnOnce(&mut Link)) -> usize {
        let Some(link) = lookup(&self.slots, id) else {
            return 0;
        };
        let mut link = link.borrow_mut();
        if !std::mem::replace(&mut link.dirty, true) {
            self.dirty.push(id);
        }
        put(&mut link);
        link.queue.len()
    }
}

/// The generation of the session that has the slot, and its link.
type Slot = Option<(u32, Rc<RefCell<Link>>)>;

fn lookup(slots: &[Slot], id: SessionId) -> Option<&Rc<RefCell<Link>>> {
    match slots.get(id.index as usize) {
        Some(Some((generation, link))) if *generation == id.generation => Some(link),
        _ => None,
    }
}

/// JSON goes in text frames, which is how browsers know that it is text.
fn op_code(encoding: Encoding) -> frame::OpCode {
    match encoding {
        Encoding::Json => frame::OpCode::Text,
        _ => frame::OpCode::Binary,
    }
}

/// A message in a frame of its own. What goes to many is framed once and shared.
impl Outbox for Connections {
    type Prepared = Bytes;

    fn prepare(&mut self, encoding: Encoding, message: &[u8]) -> Bytes {
        self.scratch.clear();
        frame::write_unmasked(op_code(encoding), message, &mut self.scratch);
        Bytes::copy_from_slice(&self.scratch)
    }

    fn send_prepared(&mut self, to: SessionId, message: &Bytes) -> usize {
        self.with(to, |link| link.queue.push_shared(message))
    }

    fn send(&mut self, to: SessionId, message: &[u8]) -> usize {
        self.with(to, |link| {
            frame::write_unmasked(op_code(link.encoding), message, &mut link.queue);
        })
    }

    fn queued(&self, to: SessionId) -> usize {
        lookup(&self.slots, to).map_or(0, |link| link.borrow().queue.len())
    }

    fn written(&self, to: SessionId) -> u64 {
        lookup(&self.slots, to).map_or(0, |link| link.borrow().written)
    }

    fn when_drained(&mut self, to: SessionId) {
        // Flushing finds out, at the end of the turn or when the socket takes more.
        self.with(to, |_| ());
        if let Some(link) = lookup(&self.slots, to) {
            link.borrow_mut().tell_drained = true;
        }
    }

    fn resume(&mut self, to: SessionId) {
        if let Some(link) = lookup(&self.slots, to) {
            link.borrow().waker.wake_by_ref();
        }
    }

    fn close(&mut self, to: SessionId, disconnect: &Disconnect, flush: bool) {
        if lookup(&self.slots, to).is_none() {
            return;
        }
        if let Some((_, link)) = self.slots[to.index as usize].take() {
            let mut link = link.borrow_mut();
            link.ending = Some(Ending {
                disconnect: disconnect.clone(),
                flush,
            });
            link.waker.wake_by_ref();
        }
    }
}
