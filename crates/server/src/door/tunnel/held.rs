//! An end of a tunnel that is a session of long-polling.

use std::borrow::Cow;
use std::task::{Context, Poll, ready};

use tautline_protocol::Disconnect;
use tautline_websocket::proto::{CloseCode, Message};

use super::framing::{Broken, Reader, framed};
use super::relay::{Bye, End, Next};
use super::socket::AWAY;
use crate::door::poll::intake::Taken;
use crate::door::poll::keeper::Pad;

/// A session as an end. What it takes is kept until the client has acknowledged it.
pub(super) struct Held {
    pad: Pad,
    reader: Reader,
}

impl Held {
    /// The session with this pad, for messages of so many bytes at the most.
    pub(super) fn new(pad: Pad, max: usize) -> Self {
        Self {
            pad,
            reader: Reader::new(max),
        }
    }

    fn end(&self, code: u32, reason: impl Into<Cow<'static, str>>) {
        let reason = reason.into();
        self.pad.borrow().end(Disconnect { code, reason });
    }

    fn break_off(&self, broken: Broken) -> Bye {
        self.end(broken.code.get().into(), broken.reason);
        Bye::Cut
    }
}

impl End for Held {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            match self.reader.next() {
                Ok(Some(message)) => return Poll::Ready(Next::Message(message)),
                Ok(None) => {}
                Err(broken) => return Poll::Ready(Next::Over(self.break_off(broken))),
            }
            let taken = self.pad.borrow_mut().take(cx);
            match ready!(taken) {
                Taken::Piece(piece) => self.reader.take(piece),
                Taken::Over(over) => return Poll::Ready(Next::Over(bye(over))),
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Bye>> {
        let over = ready!(self.pad.borrow_mut().poll_over(cx));
        Poll::Ready(Err(bye(over)))
    }

    fn has_room(&self) -> bool {
        self.pad.borrow().holds_less_than(ROOM, MOST_MESSAGES)
    }

    fn put(&mut self, message: Message) {
        self.pad.borrow().put(framed(&message));
    }

    fn held(&self) -> usize {
        self.pad.borrow().held() + self.reader.held()
    }

    fn abandon(self) {
        // Whoever asks for the session learns that it is unknown.
        self.pad.borrow_mut().close(None);
    }

    async fn finish(self, bye: Bye) {
        match bye {
            Bye::Closed(code, reason) => self.end(code.get().into(), reason),
            Bye::Nameless => self.end(NO_CODE, ""),
            Bye::Cut => self.end(CloseCode::BAD_GATEWAY.get().into(), AWAY),
        }
    }
}

fn bye(over: Option<Option<(u16, String)>>) -> Bye {
    match over {
        Some(Some((code, reason))) => Bye::Closed(code.into(), reason),
        Some(None) => Bye::Nameless,
        None => Bye::Cut,
    }
}

/// RFC 6455, section 7.4.1: there was a Close, with no code in it.
const NO_CODE: u32 = 1005;

/// Bytes that may wait to be acknowledged before nothing more is read for a client: that, and one message. Four times
/// what an answer carries, so that there is something to tell while an acknowledgement is on its way.
const ROOM: usize = 256 * 1024;

/// How many messages those may be, of which each costs more than its bytes.
const MOST_MESSAGES: usize = 4096;
