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

use tautline_hub::SessionId;
use tautline_protocol::{Disconnect, Encoding};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep};

use super::super::entry::Seat;
use crate::worker::stream::Stream;

/// What an answer carries at most, unless a single message is longer.
const MAX_BYTES: usize = 64 * 1024;
const MAX_MESSAGES: usize = 1000;

/// What a poll is answered with.
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
pub(crate) struct Pads(HashMap<SessionId, Pad>);

impl Pads {
    pub(super) fn get(&self, id: SessionId) -> Option<Pad> {
        self.0.get(&id).cloned()
    }

    /// Answers all polls that wait, with what there is: their keepers may have no more time for it.
    pub(crate) fn answer_all(&self) {
        let now = Instant::now();
        for pad in self.0.values() {
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
}

/// A poll that waits.
struct Waiting {
    answer: oneshot::Sender<Result<Answer, Unanswered>>,
    until: Instant,
}

/// Looks after a session from now on.
pub(super) fn begin(seat: Seat, patience: Duration) {
    let pad = Rc::new(RefCell::new(State::new(Rc::clone(&seat.stream), patience)));
    let (id, its) = (seat.id, Rc::clone(&pad));
    seat.worker.turn(|_, state| state.pads.0.insert(id, its));
    let kept = Kept(seat);
    spawn_local(async move {
        let mut timer = pin!(tokio::time::sleep(patience));
        poll_fn(|cx| pad.borrow_mut().keep(cx, timer.as_mut())).await;
        drop(kept);
    });
}

/// A session that has a pad.
struct Kept(Seat);

impl Drop for Kept {
    fn drop(&mut self) {
        let id = self.0.id;
        self.0.worker.turn(|_, state| state.pads.0.remove(&id));
    }
}

impl State {
    fn new(stream: Rc<RefCell<Stream>>, patience: Duration) -> Self {
        Self {
            stream,
            poll: None,
            frames: 0,
            patience,
            idle_since: Instant::now(),
            has_told_end: false,
            is_closed: false,
        }
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.stream.borrow().encoding()
    }

    /// A poll has come: acknowledges what is before `number`. Returns whether the hub is to be told
    /// that nothing waits any more.
    pub(super) fn poll(
        &mut self,
        number: u64,
        hold: Duration,
        answer: oneshot::Sender<Result<Answer, Unanswered>>,
    ) -> bool {
        let mut stream = self.stream.borrow_mut();
        if let Err(expected) = stream.acknowledge(number) {
            let _ = answer.send(Err(Unanswered::UnknownNumber { expected }));
            return false;
        }
        let until = Instant::now() + hold;
        if let Some(older) = self.poll.replace(Waiting { answer, until }) {
            let _ = older.answer.send(Err(Unanswered::Overtaken));
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

    /// The client has had enough.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.stream.borrow().wake();
    }

    /// Answers the poll when it is time. Ready when the session is to be forgotten.
    fn keep(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        self.stream.borrow_mut().register(cx);
        loop {
            let now = Instant::now();
            if self.is_closed {
                if let Some(poll) = self.poll.take() {
                    let _ = poll.answer.send(Ok(self.answer()));
                }
                return Poll::Ready(());
            }
            let until = match &mut self.poll {
                Some(poll) => {
                    let is_gone = poll.answer.poll_closed(cx).is_ready();
                    if is_gone || now >= poll.until || self.stream.borrow().has_news() {
                        self.end_poll(now);
                        continue;
                    }
                    poll.until
                }
                None => self.idle_since + self.patience,
            };
            if now >= until {
                return Poll::Ready(());
            }
            if timer.deadline() != until {
                timer.as_mut().reset(until);
            }
            ready!(timer.as_mut().poll(cx));
        }
    }

    fn end_poll(&mut self, now: Instant) {
        if !self.has_told_end {
            // From then on asking again makes nothing longer.
            self.idle_since = now;
        }
        let Some(poll) = self.poll.take() else {
            return;
        };
        if !poll.answer.is_closed() {
            let answer = self.answer();
            self.has_told_end |= answer.end.is_some();
            let _ = poll.answer.send(Ok(answer));
        }
    }

    fn answer(&self) -> Answer {
        let mut stream = self.stream.borrow_mut();
        let mut messages = Vec::new();
        let (next, is_all) = stream.tell(MAX_BYTES, MAX_MESSAGES, &mut messages);
        let end = if self.is_closed {
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
}
