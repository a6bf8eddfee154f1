//! What a client sends in a session that isn't the hub's: numbered pieces of bytes, of which one at a time waits to be
//! taken. Whoever takes them decides when there is room for more, and the client hears of it by the answer to
//! its request.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::keeper::Outcome;

/// Where a session's pieces wait.
#[derive(Default)]
pub(crate) struct Intake {
    waiting: Option<Piece>,
    over: Option<Over>,
    /// Wakes who takes.
    waker: Option<Waker>,
}

struct Piece {
    data: Bytes,
    /// Hears that it was taken.
    answer: oneshot::Sender<Outcome>,
}

/// How a session ended: with code and reason if the client said any; `None` when it is gone without a word.
pub(crate) type Over = Option<Option<(u16, String)>>;

/// What there is to take.
pub(crate) enum Taken {
    Piece(Bytes),
    Over(Over),
}

impl Intake {
    /// Lets the next piece wait. One that waits already is the same, sent again: who has sent it first hears that
    /// another asks now.
    pub(super) fn offer(&mut self, data: Bytes, answer: oneshot::Sender<Outcome>) {
        match &mut self.waiting {
            Some(piece) => {
                let before = std::mem::replace(&mut piece.answer, answer);
                let _ = before.send(Outcome::Waits);
            }
            None => self.waiting = Some(Piece { data, answer }),
        }
        self.wake();
    }

    /// The session is over, what waits still to be taken. The first word counts.
    pub(super) fn end(&mut self, over: Over) {
        if self.over.is_none() {
            self.over = Some(over);
        }
        self.wake();
    }

    /// The next piece, or that there will be none. Whoever has sent it hears that it was taken.
    pub(super) fn take(&mut self, cx: &Context<'_>) -> Poll<Taken> {
        if let Some(Piece { data, answer }) = self.waiting.take() {
            // Nobody to tell any more is nothing to tell: it is asked for again.
            let _ = answer.send(Outcome::Execute);
            return Poll::Ready(Taken::Piece(data));
        }
        self.poll_over(cx).map(Taken::Over)
    }

    /// Ready when the session is over.
    pub(super) fn poll_over(&mut self, cx: &Context<'_>) -> Poll<Over> {
        if let Some(over) = &self.over {
            return Poll::Ready(over.clone());
        }
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Wakes who takes: there may be room for the client, too.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}
