//! What keeps a session between its polls.
//!
//! A session's *pad* is what requests of it meet: the poll that waits, the messages that aren't
//! acknowledged, the number of the last frame of commands. Its *keeper* is a task that answers the poll
//! when there is something to say or it has waited long enough, and ends the session when none has come
//! for too long.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::ops::RangeInclusive;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tautline_hub::SessionId;
use tautline_protocol::{Disconnect, Encoding};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep};

use super::super::admission::{Permit, Permits};
use super::super::entry::Seat;
use super::super::plain::Publisher;
use super::intake::{Intake, Over, Taken};
use super::requests::Kind;
use crate::http::counters::Dropped;
use crate::worker::Worker;
use crate::worker::link::Ending;
use crate::worker::stream::Stream;

/// What an answer carries at most, unless a single message is longer; one that goes on, in all its parts.
const MAX_BYTES: usize = 64 * 1024;
const MAX_MESSAGES: usize = 1000;

/// What a poll is answered with, or a part of that.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// As they leave.
    pub(super) messages: Vec<u8>,
    /// What to poll with next.
    pub(super) next: u64,
    /// Set when the session is over, and these are the last messages.
    pub(super) end: Option<Disconnect>,
}

/// Why a poll is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// By another one.
    Overtaken,
    /// It acknowledges what can't be.
    UnknownNumber { expected: RangeInclusive<u64> },
}

/// What is to be done with a frame of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Execute,
    /// Nothing: it was executed before.
    Done,
    /// Nothing yet: there is no room for it.
    Waits,
    /// Nothing: one before it didn't come.
    Missing {
        expected: u64,
    },
    /// Nothing: the session is over.
    Over,
}

/// A session's pad. Not to be borrowed across turns of the worker.
pub(crate) type Pad = Rc<RefCell<State>>;

/// The pads of a worker's sessions.
#[derive(Default)]
pub(crate) struct Pads {
    pads: HashMap<SessionId, Pad>,
    /// How many sessions had their ids from here.
    named: u64,
}

impl Pads {
    pub(super) fn get(&self, id: SessionId) -> Option<Pad> {
        self.pads.get(&id).cloned()
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.pads.len()
    }

    /// An id for a session that isn't the hub's.
    fn fresh(&mut self) -> SessionId {
        self.named += 1;
        let [a, b, c, d, index @ ..] = self.named.to_be_bytes();
        SessionId {
            index: u32::from_be_bytes(index),
            generation: u32::from_be_bytes([a, b, c, d]),
        }
    }

    /// Answers all polls that wait, with what there is: their keepers may have no more time for it.
    pub(crate) fn answer_all(&self) {
        let now = Instant::now();
        for pad in self.pads.values() {
            pad.borrow_mut().end_poll(now);
        }
    }
}

/// What requests of a session meet.
pub(crate) struct State {
    stream: Rc<RefCell<Stream>>,
    poll: Option<Waiting>,
    /// Number of the last frame of commands that was executed.
    frames: u64,
    /// How long the session stays without a poll, and since when there is none.
    patience: Duration,
    idle_since: Instant,
    /// Whether a client was told that the session is over.
    has_told_end: bool,
    is_closed: bool,
    /// Where pieces wait, in a session that isn't the hub's.
    intake: Option<Box<Intake>>,
    /// Makes commands of what a client sends that doesn't speak the protocol.
    publisher: Option<Box<Publisher>>,
}

/// Who waits for an answer.
pub(crate) enum Asker {
    /// For one answer.
    Once(oneshot::Sender<Result<Answer, Unanswered>>),
    /// For parts, as they come.
    Parts(Parts),
}

/// An answer that goes on. What it holds is bounded by what an answer may carry.
pub(crate) struct Parts {
    sender: mpsc::UnboundedSender<Result<Answer, Unanswered>>,
    /// Closed when nobody reads the answer any more.
    reader: oneshot::Sender<()>,
    /// The first part says that it begins.
    has_begun: bool,
    /// Where the next part begins.
    next: u64,
    bytes: usize,
    messages: usize,
}

/// The other end of an answer that goes on.
pub(crate) struct Parting {
    pub(super) parts: mpsc::UnboundedReceiver<Result<Answer, Unanswered>>,
    _reader: oneshot::Receiver<()>,
}

impl Parts {
    pub(super) fn new() -> (Self, Parting) {
        let (sender, parts) = mpsc::unbounded_channel();
        let (reader, held) = oneshot::channel();
        let this = Self {
            sender,
            reader,
            has_begun: false,
            next: 0,
            bytes: MAX_BYTES,
            messages: MAX_MESSAGES,
        };
        let parting = Parting {
            parts,
            _reader: held,
        };
        (this, parting)
    }
}

impl Asker {
    fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Once(answer) => answer.poll_closed(cx).is_ready(),
            Self::Parts(parts) => parts.reader.poll_closed(cx).is_ready(),
        }
    }

    /// It gets no answer. Where one has begun, it ends.
    fn refuse(self, why: Unanswered) {
        match self {
            Self::Once(answer) => {
                let _ = answer.send(Err(why));
            }
            Self::Parts(parts) if !parts.has_begun => {
                let _ = parts.sender.send(Err(why));
            }
            Self::Parts(_) => {}
        }
    }
}

/// A poll that waits.
struct Waiting {
    asker: Asker,
    /// What it acknowledged.
    number: u64,
    until: Instant,
}

/// Looks after a session of the hub's from now on. `publisher` is for a client that doesn't speak the protocol.
pub(super) fn begin(seat: Seat, kind: Kind, patience: Duration, publisher: Option<Publisher>) {
    let mut state = State::new(Rc::clone(&seat.stream), patience, None);
    state.publisher = publisher.map(Box::new);
    let (worker, id) = (Rc::clone(&seat.worker), seat.id);
    look_after(worker, kind, id, Rc::new(RefCell::new(state)), seat);
}

/// Looks after a session of a tunnel from now on. Who has its pad hears of its end there.
pub(crate) fn begin_tunnel(
    worker: &Rc<Worker>,
    stream: Rc<RefCell<Stream>>,
    patience: Duration,
    permits: (Permit, Permits),
) -> (SessionId, Pad) {
    let state = State::new(stream, patience, Some(Box::default()));
    let pad = Rc::new(RefCell::new(state));
    let id = worker.turn(|_, state| state.tunnels.fresh());
    let (worker, its) = (Rc::clone(worker), Rc::clone(&pad));
    look_after(worker, Kind::Tunnel, id, its, permits);
    (id, pad)
}

fn look_after<S: 'static>(worker: Rc<Worker>, kind: Kind, id: SessionId, pad: Pad, seat: S) {
    let its = Rc::clone(&pad);
    worker.turn(|_, state| kind.pads(state).pads.insert(id, its));
    let patience = pad.borrow().patience;
    let kept = Kept {
        worker,
        kind,
        id,
        pad,
        _seat: seat,
    };
    spawn_local(async move {
        let mut timer = pin!(tokio::time::sleep(patience));
        let is_lost = poll_fn(|cx| kept.pad.borrow_mut().keep(cx, timer.as_mut())).await;
        if is_lost {
            let worker = &kept.worker;
            worker.count_http(|counters| counters.dropped(Dropped::Poll));
        }
        drop(kept);
    });
}

/// A session that has a pad.
struct Kept<S> {
    worker: Rc<Worker>,
    kind: Kind,
    id: SessionId,
    pad: Pad,
    _seat: S,
}

impl<S> Drop for Kept<S> {
    fn drop(&mut self) {
        let (kind, id) = (self.kind, self.id);
        self.worker
            .turn(|_, state| kind.pads(state).pads.remove(&id));
        self.pad.borrow_mut().leave();
    }
}

impl State {
    fn new(stream: Rc<RefCell<Stream>>, patience: Duration, intake: Option<Box<Intake>>) -> Self {
        Self {
            stream,
            poll: None,
            frames: 0,
            patience,
            idle_since: Instant::now(),
            has_told_end: false,
            is_closed: false,
            intake,
            publisher: None,
        }
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.stream.borrow().encoding()
    }

    /// A poll has come: acknowledges what is before `number`. Returns whether the hub is to be told
    /// that nothing waits any more.
    pub(super) fn poll(&mut self, number: u64, hold: Duration, mut asker: Asker) -> bool {
        let mut stream = self.stream.borrow_mut();
        if let Err(expected) = stream.acknowledge(number) {
            asker.refuse(Unanswered::UnknownNumber { expected });
            return false;
        }
        if let Asker::Parts(parts) = &mut asker {
            parts.next = number;
        }
        let until = Instant::now() + hold;
        let waiting = Waiting {
            asker,
            number,
            until,
        };
        if let Some(older) = self.poll.replace(waiting) {
            older.asker.refuse(Unanswered::Overtaken);
        }
        if let Some(intake) = &self.intake {
            // What was acknowledged has made room.
            intake.wake();
        }
        stream.wake();
        stream.take_drained()
    }

    /// What is to be done with the frame of that number. One that is to be executed counts as such.
    pub(super) fn number(&mut self, number: u64) -> Outcome {
        let expected = self.frames + 1;
        if number < expected {
            return Outcome::Done;
        }
        if number > expected {
            return Outcome::Missing { expected };
        }
        if self.is_closed || self.stream.borrow().is_ended() {
            return Outcome::Over;
        }
        self.frames = number;
        Outcome::Execute
    }

    /// The command that comes of a line which a client has sent that doesn't speak the protocol, or the end of its
    /// session. `None` where nothing is heard any more.
    pub(super) fn hear(&mut self, line: &[u8]) -> Option<Result<String, Disconnect>> {
        let publisher = self.publisher.as_mut()?;
        (!self.stream.borrow().is_ended()).then(|| publisher.command(line))
    }

    /// Whether its client speaks the protocol.
    pub(super) fn speaks_protocol(&self) -> bool {
        self.publisher.is_none()
    }

    /// Lets the piece of that number wait until it is taken. Those who wait with it hear of it then.
    pub(super) fn offer(&mut self, number: u64, data: Bytes, answer: oneshot::Sender<Outcome>) {
        let expected = self.frames + 1;
        let is_over = self.is_closed || self.stream.borrow().is_ended();
        let outcome = match &mut self.intake {
            _ if number < expected => Outcome::Done,
            _ if number > expected => Outcome::Missing { expected },
            Some(intake) if !is_over => return intake.offer(data, answer),
            _ => Outcome::Over,
        };
        // Nobody to tell any more is nothing to tell.
        let _ = answer.send(outcome);
    }

    /// The next piece of what the client sends, or that there will be none: not for sessions of the hub's.
    pub(crate) fn take(&mut self, cx: &Context<'_>) -> Poll<Taken> {
        let Some(intake) = &mut self.intake else {
            return Poll::Ready(Taken::Over(None));
        };
        let taken = ready!(intake.take(cx));
        if let Taken::Piece(_) = taken {
            self.frames += 1;
        }
        Poll::Ready(taken)
    }

    /// Ready when the client is gone, with nothing taken of what it has sent.
    pub(crate) fn poll_over(&mut self, cx: &Context<'_>) -> Poll<Over> {
        match &mut self.intake {
            Some(intake) => intake.poll_over(cx),
            None => Poll::Ready(None),
        }
    }

    /// Has the client told a message, as it is to leave.
    pub(crate) fn put(&self, message: Bytes) {
        let mut stream = self.stream.borrow_mut();
        if !stream.is_ended() {
            stream.push_raw(message);
            stream.wake();
        }
    }

    /// Bytes of memory that what waits to be acknowledged holds.
    pub(crate) fn held(&self) -> usize {
        self.stream.borrow().held()
    }

    /// Whether what waits to be acknowledged is less than so many bytes, and messages.
    pub(crate) fn holds_less_than(&self, bytes: usize, messages: usize) -> bool {
        let stream = self.stream.borrow();
        stream.queued() < bytes && stream.len() < messages
    }

    /// Has the client told, behind all that waits, that the session is over. The first word counts.
    pub(crate) fn end(&self, disconnect: Disconnect) {
        let mut stream = self.stream.borrow_mut();
        if !stream.is_ended() {
            let flush = true;
            stream.end(Ending { disconnect, flush }, &mut Vec::new());
        }
    }

    /// The client has had enough, and may say why.
    pub(crate) fn close(&mut self, close: Option<(u16, String)>) {
        self.is_closed = true;
        if let Some(intake) = &mut self.intake {
            intake.end(Some(close));
        }
        self.stream.borrow().wake();
    }

    /// The session is forgotten.
    fn leave(&mut self) {
        if let Some(intake) = &mut self.intake {
            intake.end(None);
        }
    }

    /// Answers the poll when it is time. Ready when the session is to be forgotten: whether that is because its client
    /// did not come back, although nobody had said that it is over.
    fn keep(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<bool> {
        self.stream.borrow_mut().register(cx);
        loop {
            let now = Instant::now();
            if self.is_closed {
                self.end_poll(now);
                return Poll::Ready(false);
            }
            let until = match &mut self.poll {
                Some(poll) => {
                    let is_over = poll.asker.is_gone(cx) || now >= poll.until;
                    let until = poll.until;
                    if is_over || self.tell() {
                        self.end_poll(now);
                        continue;
                    }
                    until
                }
                None => self.idle_since + self.patience,
            };
            if now >= until {
                return Poll::Ready(!self.has_told_end);
            }
            if timer.deadline() != until {
                timer.as_mut().reset(until);
            }
            ready!(timer.as_mut().poll(cx));
        }
    }

    /// Tells the poll all there is, if it goes on. Returns whether it has had its answer.
    fn tell(&mut self) -> bool {
        let Some(poll) = &mut self.poll else {
            return true;
        };
        let Asker::Parts(parts) = &mut poll.asker else {
            return self.stream.borrow().has_news_from(poll.number);
        };
        while !parts.has_begun || self.stream.borrow().has_news_from(parts.next) || self.is_closed {
            let answer = answer(
                &self.stream,
                self.is_closed,
                parts.next,
                parts.bytes,
                parts.messages,
            );
            let told = usize::try_from(answer.next - parts.next).unwrap_or(usize::MAX);
            parts.has_begun = true;
            parts.next = answer.next;
            parts.bytes = parts.bytes.saturating_sub(answer.messages.len());
            parts.messages = parts.messages.saturating_sub(told);
            let is_end = answer.end.is_some();
            let is_full = parts.bytes == 0 || parts.messages == 0;
            let is_sent = parts.sender.send(Ok(answer)).is_ok();
            self.has_told_end |= is_end && is_sent;
            if is_end || is_full || !is_sent {
                return true;
            }
        }
        // The hub goes on when all is acknowledged, which the next poll does.
        self.stream.borrow().waits_for_acknowledgement(parts.next)
    }

    fn end_poll(&mut self, now: Instant) {
        if !self.has_told_end {
            // From then on asking again makes nothing longer.
            self.idle_since = now;
        }
        if let Some(Waiting {
            asker: Asker::Parts(parts),
            ..
        }) = &self.poll
        {
            // What came in this very moment, and the first part where there was none.
            if parts.bytes > 0 && parts.messages > 0 && !self.has_told_end {
                self.tell();
            }
            self.poll = None;
            return;
        }
        let Some(Waiting {
            asker: Asker::Once(asker),
            number,
            ..
        }) = self.poll.take()
        else {
            return;
        };
        if !asker.is_closed() {
            let answer = answer(
                &self.stream,
                self.is_closed,
                number,
                MAX_BYTES,
                MAX_MESSAGES,
            );
            self.has_told_end |= answer.end.is_some();
            let _ = asker.send(Ok(answer));
        }
    }
}

/// What there is from `number` on.
fn answer(
    stream: &RefCell<Stream>,
    is_closed: bool,
    number: u64,
    max_bytes: usize,
    max_messages: usize,
) -> Answer {
    let mut stream = stream.borrow_mut();
    let mut messages = Vec::new();
    let (next, is_all) = stream.tell(number, max_bytes, max_messages, &mut messages);
    let end = if is_closed {
        Some(Disconnect::CONNECTION_CLOSED)
    } else {
        stream.ended_by().filter(|_| is_all)
    };
    Answer {
        messages,
        next,
        end,
    }
}
