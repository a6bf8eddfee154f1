//! The outgoing sides of a worker's connections, as the hub sees them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tautline_hub::{FrameType, Outbox, SessionAddress, SessionId};
use tautline_protocol::{Disconnect, Encoding};
use tautline_websocket::proto::frame;
use tokio::task::coop::unconstrained;

use super::connection_log::ConnectionLog;
use super::link::{Ending, Link};
use super::room::{self, Room};
use super::rounds::Rounds;
use super::spoken::{Said, Spoken};
use super::stream::Stream;
use super::voice::{Framing, Prepared, Speech, Voice};
use super::waiters::{Leaving, Load, Waiters};
use crate::door::admission::AddressPermit;
use crate::http::admin::QueueReport;

/// What carries the messages of a session.
#[derive(Clone)]
enum Line {
    /// A WebSocket.
    Socket(Rc<RefCell<Link>>),
    /// The bodies of HTTP responses.
    Stream(Rc<RefCell<Stream>>),
}

/// The connections of one worker, by session.
#[derive(Default)]
pub(crate) struct Connections {
    slots: Vec<Option<Slot>>,
    /// Those for which something was queued.
    dirty: Rounds,
    /// Those of them that don't wait, where what is queued waits for more.
    urgent: Vec<SessionId>,
    /// By slot: whether it is among those.
    is_urgent: Vec<bool>,
    /// What is queued waits for more.
    delays: bool,
    /// Connections of which the hub is to be told that their queue is empty.
    drained: Vec<SessionId>,
    /// Those for which something waits.
    waiters: Waiters,
    /// Sessions that their voices want ended.
    over: Vec<(SessionId, Disconnect)>,
    /// Sessions that go on once a mailbox has room.
    held_up: Vec<(SessionId, Arc<Room>)>,
    /// What was said to them.
    spoken: Spoken,
    /// Tells of those that were chosen.
    log: Rc<RefCell<ConnectionLog>>,
    /// Kept for its capacity: where messages are put together.
    scratch: Vec<u8>,
}

impl Connections {
    /// What is logged of them.
    pub(crate) fn log(&self) -> &Rc<RefCell<ConnectionLog>> {
        &self.log
    }

    /// Makes `link` the connection of session `id`.
    pub(crate) fn insert(
        &mut self,
        id: SessionId,
        link: Rc<RefCell<Link>>,
        transport: &'static str,
    ) {
        link.borrow_mut().transport = self.spoken.transport(transport);
        self.put(id, Line::Socket(link));
    }

    /// Makes `stream` what carries the messages of session `id`.
    pub(crate) fn insert_stream(
        &mut self,
        id: SessionId,
        stream: Rc<RefCell<Stream>>,
        transport: &'static str,
    ) {
        stream.borrow_mut().transport = self.spoken.transport(transport);
        self.put(id, Line::Stream(stream));
    }

    /// The stream of session `id`, if it is there and has one.
    pub(crate) fn stream(&self, id: SessionId) -> Option<&Rc<RefCell<Stream>>> {
        match lookup(&self.slots, id)? {
            Line::Stream(stream) => Some(stream),
            Line::Socket(_) => None,
        }
    }

    /// A session that goes on once a mailbox has room.
    #[inline]
    pub(super) fn take_held_up(&mut self) -> Option<(SessionId, Arc<Room>)> {
        self.held_up.pop()
    }

    /// What was said to clients, by transport.
    pub(crate) fn spoken(&self) -> &Spoken {
        &self.spoken
    }

    /// What waited to be written to all of them, when that was last looked at.
    pub(crate) fn queues(&self) -> QueueReport {
        self.waiters.seen
    }

    /// Bytes of memory that what waits to be written holds.
    #[inline]
    pub(super) fn held(&self) -> usize {
        self.waiters.held()
    }

    /// Whether anything waits.
    pub(super) fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Finds out what waits to be written, and who takes it. `kept` tells how many bytes of a session's commands wait for that.
    pub(super) fn look(&mut self, now: Duration, kept: impl Fn(SessionId) -> usize) {
        let slots = &mut self.slots;
        self.waiters.look(now, |id, found| {
            if let Some(slot) = slot(slots, id) {
                let kept = kept(id);
                slot.waits = found(Load {
                    kept,
                    ..slot.load()
                });
            }
        });
    }

    /// Sessions to end whose clients have taken nothing of what waits for so long.
    pub(super) fn given_up(&self, now: Duration, limit: Duration) -> Vec<SessionId> {
        self.waiters.given_up(now, limit)
    }

    /// Sessions to end, so that what waits holds `much` less.
    pub(super) fn longest(&mut self, now: Duration, much: usize, dry_run: bool) -> Vec<SessionId> {
        let left = if dry_run {
            much
        } else {
            much.saturating_sub(self.drop_leaving())
        };
        self.waiters.longest(now, left)
    }

    /// Has those say nothing more whose sessions are over. Returns how much memory that gives back.
    pub(super) fn drop_leaving(&mut self) -> usize {
        self.waiters.drop_leaving()
    }

    /// Sessions to end whose clients have stopped reading, so that `much` less waits.
    pub(super) fn stalled(&self, now: Duration, much: usize) -> Vec<SessionId> {
        self.waiters.stalled(now, much)
    }

    /// Whether a session is chosen for the first time since something waits for it.
    pub(super) fn is_newly_chosen(&mut self, id: SessionId) -> bool {
        let place = slot(&mut self.slots, id).map_or(0, |slot| slot.waits);
        self.waiters.is_new(place)
    }

    fn put(&mut self, id: SessionId, line: Line) {
        let index = id.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(Slot {
            generation: id.generation,
            waits: 0,
            line,
        });
    }

    /// Forgets the connection of session `id`, if it is still known.
    pub(crate) fn remove(&mut self, id: SessionId) {
        self.take(id);
    }

    /// Forgets it, and returns it. What is still written to it counts until then.
    fn take(&mut self, id: SessionId) -> Option<Line> {
        slot(&mut self.slots, id)?;
        let slot = self.slots[id.index as usize].take()?;
        self.waiters.end(slot.waits);
        let leaving = match &slot.line {
            Line::Socket(link) => Leaving::Socket(Rc::downgrade(link)),
            Line::Stream(stream) => Leaving::Stream(Rc::downgrade(stream)),
        };
        self.waiters.leave(leaving);
        Some(slot.line)
    }

    /// Has the connection of session `id` flushed at the end of the turn.
    pub(crate) fn mark_dirty(&mut self, id: SessionId) {
        self.with(id, Said::NOTHING, |_, _| None, |_, _| None);
    }

    /// Says whether what is queued from now on waits for more.
    pub(crate) fn set_delays(&mut self, delays: bool) {
        self.delays = delays;
    }

    /// Whether connections wait for the next round.
    pub(super) fn is_round_awaited(&self) -> bool {
        self.dirty.is_next_awaited()
    }

    /// Begins to write to every connection for which something was queued, if the last round is over.
    pub(super) fn begin_round(&mut self) {
        self.dirty.begin();
    }

    /// Whether some of the round are still to be written to.
    pub(super) fn is_writing(&self) -> bool {
        !self.dirty.is_over()
    }

    /// What [`is_written_to`](Self::is_written_to) tells of what is queued by now.
    pub(super) fn place(&self) -> u64 {
        self.dirty.place()
    }

    /// Whether all was written that was queued at this place.
    pub(super) fn is_written_to(&self, place: u64) -> bool {
        self.dirty.has_come_to(place)
    }

    /// Writes to those connections which have no use for waiting, as there is enough for a write. They keep their place in
    /// the row.
    pub(super) fn write_urgent(&mut self) {
        if self.urgent.is_empty() {
            return;
        }
        let mut urgent = std::mem::take(&mut self.urgent);
        for id in &urgent {
            self.is_urgent[id.index as usize] = false;
        }
        at_once(|| {
            for some in urgent.chunks(AT_ONCE) {
                glance(&self.slots, some.iter().copied());
                for id in some {
                    self.write_to(*id, false);
                }
            }
        });
        urgent.clear();
        self.urgent = urgent;
    }

    /// Writes to those connections whose turn it is in the round, as many as there is `room` for, which they take.
    pub(super) fn write(&mut self, room: &mut usize) {
        if *room == 0 || self.dirty.is_over() {
            return;
        }
        at_once(|| {
            loop {
                let some = self.dirty.next(AT_ONCE.min(*room));
                let count = some.len();
                if count == 0 {
                    return;
                }
                *room -= count;
                glance(&self.slots, some);
                for _ in 0..count {
                    if let Some(id) = self.dirty.pop() {
                        self.write_to(id, true);
                    }
                }
            }
        });
    }

    /// Writes to a connection what is queued for it; `in_turn` if it has left the row for that.
    fn write_to(&mut self, id: SessionId, in_turn: bool) {
        let Some(slot) = slot(&mut self.slots, id) else {
            return;
        };
        let waits = &mut slot.waits;
        match &slot.line {
            Line::Socket(link) => {
                let mut link = link.borrow_mut();
                if in_turn {
                    link.dirty = false;
                }
                match link.poll_flush() {
                    Poll::Ready(Ok(())) => {
                        self.waiters.note(waits, id, link.io.unsent());
                        if link.tell_drained && link.take_drained() {
                            self.drained.push(id);
                        }
                    }
                    Poll::Ready(Err(error)) => {
                        link.broken = Some(error);
                        link.waker.wake_by_ref();
                    }
                    Poll::Pending => self.waiters.note(waits, id, link.load().held),
                }
            }
            Line::Stream(stream) => {
                let mut stream = stream.borrow_mut();
                if in_turn {
                    stream.unmark_dirty();
                }
                if stream.offer() {
                    self.drained.push(id);
                }
                self.waiters.note(waits, id, stream.load().held);
            }
        }
    }

    /// Moves the sessions whose connections were drained, and of which the hub wants to know, to
    /// `drained`.
    pub(crate) fn take_drained(&mut self, drained: &mut VecDeque<SessionId>) {
        drained.extend(self.drained.drain(..));
    }

    /// A session that is to be ended, and what to tell its client.
    pub(crate) fn take_over(&mut self) -> Option<(SessionId, Disconnect)> {
        self.over.pop()
    }

    /// Lets `put` add to a socket's queue, or to a stream's, which counts as `said`, and returns how much waits
    /// there.
    fn with(
        &mut self,
        id: SessionId,
        said: Said,
        put_socket: impl FnOnce(&mut Link, &mut Vec<u8>) -> Option<Disconnect>,
        put_stream: impl FnOnce(&mut Stream, &mut Vec<u8>) -> Option<Disconnect>,
    ) -> usize {
        let (queued, waits, over) = match lookup(&self.slots, id) {
            Some(Line::Socket(link)) => {
                let mut link = link.borrow_mut();
                if !std::mem::replace(&mut link.dirty, true) {
                    self.dirty.push(id);
                }
                let over = put_socket(&mut link, &mut self.scratch);
                self.spoken.count(link.transport, said);
                (link.queue.len(), !link.tell_drained, over)
            }
            Some(Line::Stream(stream)) => {
                let mut stream = stream.borrow_mut();
                if stream.mark_dirty() {
                    self.dirty.push(id);
                }
                let over = put_stream(&mut stream, &mut self.scratch);
                self.spoken.count(stream.transport, said);
                (stream.queued(), !stream.tells_drained(), over)
            }
            None => return 0,
        };
        if self.delays && !(waits && queued < ENOUGH) {
            let index = id.index as usize;
            if self.is_urgent.len() <= index {
                self.is_urgent.resize(index + 1, false);
            }
            if !std::mem::replace(&mut self.is_urgent[index], true) {
                self.urgent.push(id);
            }
        }
        if let Some(disconnect) = over {
            self.over.push((id, disconnect));
        }
        queued
    }
}

/// How many connections are looked at together before they are written to: so many that what was looked at is still
/// in a cache when the last of them is written to.
const AT_ONCE: usize = 16;

/// Looks at what writing to these needs. With a thousand connections none of it is in a cache when its turn comes:
/// each write has the kernel go through memory of its own. Looked at right before each write, it would be waited
/// for each time; looked at without anything in between, the processor fetches it for all of them at once.
fn glance(slots: &[Option<Slot>], these: impl Iterator<Item = SessionId>) {
    let mut seen = 0_usize;
    for id in these {
        if let Some(Line::Socket(link)) = lookup(slots, id) {
            seen = seen.wrapping_add(link.borrow().glance());
        }
    }
    std::hint::black_box(seen);
}

/// Does a burst of writes.
///
/// Tokio lets a task do so many operations and then has it wait for its next turn, whether or not the socket is ready. It
/// would count the writes of a fan-out as those of the task that happens to run, and after the first hundred each
/// connection's own task would be woken for its write. How long this takes is bounded already: one write for each connection.
fn at_once(mut write: impl FnMut()) {
    let mut all = pin!(unconstrained(poll_fn(|_| {
        write();
        Poll::Ready(())
    })));
    let _ = all.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

/// How many bytes make a write that is worth it.
const ENOUGH: usize = 16 * 1024;

/// A session's connection.
struct Slot {
    generation: u32,
    /// Its place among those for which something waits; 0 for none.
    waits: u32,
    line: Line,
}

impl Slot {
    /// What waits.
    fn load(&self) -> Load {
        match &self.line {
            Line::Socket(link) => link.borrow().load(),
            Line::Stream(stream) => stream.borrow().load(),
        }
    }
}

fn lookup(slots: &[Option<Slot>], id: SessionId) -> Option<&Line> {
    let slot = slots.get(id.index as usize)?.as_ref()?;
    (slot.generation == id.generation).then_some(&slot.line)
}

fn slot(slots: &mut [Option<Slot>], id: SessionId) -> Option<&mut Slot> {
    let slot = slots.get_mut(id.index as usize)?.as_mut()?;
    (slot.generation == id.generation).then_some(slot)
}

/// JSON goes in text frames, which is how browsers know that it is text.
fn op_code(encoding: Encoding) -> frame::OpCode {
    match encoding {
        Encoding::Json => frame::OpCode::Text,
        _ => frame::OpCode::Binary,
    }
}

/// Has a socket's voice say something, and queues it.
fn speak(
    link: &mut Link,
    scratch: &mut Vec<u8>,
    say: impl FnOnce(&mut dyn Voice, &mut Speech<'_>) -> Option<Disconnect>,
) -> Option<Disconnect> {
    let voice = link.voice.as_deref_mut()?;
    scratch.clear();
    let over = say(voice, &mut Speech::new(Framing::Text, scratch));
    tautline_websocket::proto::Output::put(&mut link.queue, scratch);
    over
}

/// A message in a frame of its own. What goes to many is framed once and shared.
impl Outbox for Connections {
    type Prepared = Prepared;

    fn saying(&mut self, what: FrameType, count: usize) {
        self.spoken.next(what, count);
    }

    #[inline]
    fn holds_up(&mut self, id: SessionId) -> bool {
        let room = room::take();
        room.is_some_and(|room| {
            self.held_up.push((id, room));
            true
        })
    }

    fn prepare(&mut self, encoding: Encoding, message: &[u8]) -> Prepared {
        self.scratch.clear();
        frame::write_unmasked(op_code(encoding), message, &mut self.scratch);
        Prepared::new(&self.scratch, message.len(), self.spoken.said(message))
    }

    fn send_prepared(&mut self, to: SessionId, message: &Prepared) -> usize {
        self.with(
            to,
            message.said(),
            |link, scratch| {
                if link.voice.is_some() {
                    return speak(link, scratch, |voice, speech| {
                        voice.messages(message.message(), speech)
                    });
                }
                link.queue.push_shared(message.frame());
                None
            },
            |stream, scratch| stream.push_prepared(message, scratch),
        )
    }

    fn anticipate(&self, to: impl Iterator<Item = SessionId>) {
        glance(&self.slots, to);
    }

    fn send(&mut self, to: SessionId, message: &[u8]) -> usize {
        let said = self.spoken.said(message);
        self.with(
            to,
            said,
            |link, scratch| {
                if link.voice.is_some() {
                    return speak(link, scratch, |voice, speech| {
                        voice.messages(message, speech)
                    });
                }
                frame::write_unmasked(op_code(link.encoding), message, &mut link.queue);
                None
            },
            |stream, scratch| stream.push(message, scratch),
        )
    }

    fn ping(&mut self, to: SessionId) -> usize {
        self.spoken.next(FrameType::ServerPing, 1);
        let said = self.spoken.said(&[]);
        self.with(
            to,
            said,
            |link, _| {
                frame::write_unmasked(frame::OpCode::Ping, b"", &mut link.queue);
                None
            },
            // Bodies of responses have nothing of the kind.
            |_, _| None,
        )
    }

    fn queued(&self, to: SessionId) -> usize {
        match lookup(&self.slots, to) {
            Some(Line::Socket(link)) => link.borrow().queue.len(),
            Some(Line::Stream(stream)) => stream.borrow().queued(),
            None => 0,
        }
    }

    fn written(&self, to: SessionId) -> u64 {
        match lookup(&self.slots, to) {
            Some(Line::Socket(link)) => link.borrow().written,
            Some(Line::Stream(stream)) => stream.borrow().written(),
            None => 0,
        }
    }

    fn told(&self, to: SessionId) -> u64 {
        match lookup(&self.slots, to) {
            Some(Line::Socket(link)) => link.borrow().written,
            Some(Line::Stream(stream)) => stream.borrow().told(),
            None => 0,
        }
    }

    fn when_drained(&mut self, to: SessionId) {
        // Flushing finds out, at the end of the turn or when there is room for more.
        self.with(
            to,
            Said::NOTHING,
            |link, _| {
                link.tell_drained = true;
                None
            },
            |stream, _| {
                stream.tell_drained();
                None
            },
        );
    }

    fn resume(&mut self, to: SessionId) {
        match lookup(&self.slots, to) {
            Some(Line::Socket(link)) => link.borrow().waker.wake_by_ref(),
            // Commands for streams come one request at a time, and wait in the hub; but a request may be answered only now.
            Some(Line::Stream(stream)) => stream.borrow().wake(),
            None => {}
        }
    }

    fn address(&self, to: SessionId) -> Option<SessionAddress> {
        match lookup(&self.slots, to)? {
            Line::Stream(stream) => stream.borrow().address().cloned(),
            Line::Socket(link) => link.borrow().voice.as_ref()?.address().cloned(),
        }
    }

    fn may_authenticate(
        &mut self,
        id: SessionId,
        user: Option<&str>,
        is_good: &dyn Fn() -> bool,
    ) -> bool {
        let may = |permit: &Option<AddressPermit>| {
            let permit = permit.as_ref();
            permit.is_none_or(|permit| permit.may_authenticate(user, is_good))
        };
        match lookup(&self.slots, id) {
            Some(Line::Socket(link)) => may(&link.borrow().address_permit),
            Some(Line::Stream(stream)) => may(stream.borrow().address_permit()),
            None => true,
        }
    }

    fn note_failed_authentication(&mut self, id: SessionId, user: Option<&str>) {
        let note = |permit: &Option<AddressPermit>| {
            if let Some(permit) = permit {
                permit.note_failed_authentication(user);
            }
        };
        match lookup(&self.slots, id) {
            Some(Line::Socket(link)) => note(&link.borrow().address_permit),
            Some(Line::Stream(stream)) => note(stream.borrow().address_permit()),
            None => {}
        }
    }

    fn close(&mut self, to: SessionId, disconnect: &Disconnect, flush: bool) {
        self.log.borrow_mut().end(to, disconnect);
        let Some(line) = self.take(to) else {
            return;
        };
        let ending = Ending {
            disconnect: disconnect.clone(),
            flush,
        };
        match line {
            Line::Socket(link) => {
                let mut link = link.borrow_mut();
                if flush {
                    speak(&mut link, &mut self.scratch, |voice, speech| {
                        voice.end(disconnect, speech);
                        None
                    });
                }
                if !flush && link.load().queued > 0 {
                    // The peer doesn't read, and would not read a Close behind all that either.
                    link.drop_queue();
                }
                link.ending = Some(ending);
                link.waker.wake_by_ref();
            }
            Line::Stream(stream) => {
                stream.borrow_mut().end(ending, &mut self.scratch);
            }
        }
    }
}

#[cfg(test)]
mod tests;
