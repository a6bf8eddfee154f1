//! The events of what was received, one after the other.

use std::fmt;
use std::mem;

use super::super::super::assemble::Held;
use super::super::super::deflate::{Loan, MessageCodec};
use super::super::super::event::Event;
use super::super::super::output::Output;
use super::super::Connection;
use super::super::send::Sender;

/// The events of the bytes that were given to [`Connection::receive`], one after the other.
///
/// Events are borrowed, so this is not an [`Iterator`]; ask with
/// `while let Some(event) = events.next(&mut out)`.
///
/// Dropping it early loses nothing: bytes that were not parsed are copied into the connection, and
/// come first at the next [`Connection::receive`].
#[must_use = "input is parsed while events are asked for"]
pub struct Events<'a> {
    connection: &'a mut Connection,
    input: &'a mut [u8],
    parsed: usize,
    /// What earlier events left, with `input` behind it. Empty on the common path.
    held: Held,
    codec: Option<&'a mut MessageCodec>,
}

impl<'a> Events<'a> {
    #[inline]
    pub(in super::super) fn new(
        connection: &'a mut Connection,
        input: &'a mut [u8],
        codec: Option<&'a mut MessageCodec>,
    ) -> Self {
        let mut events = Self {
            connection,
            input,
            parsed: 0,
            held: Held::default(),
            codec,
        };
        if events.connection.has_held_input() {
            events.take_held();
        }
        events
    }

    /// The next event, or `None` when the input has been used up.
    ///
    /// What the engine has to say to it (the pong for a ping, the answer to a Close, the Close for
    /// a fault) is put into `out` before this returns. So what the caller puts for one event before
    /// asking for the next stays in order with it, and a failure comes behind the answers to all
    /// good messages.
    #[inline]
    pub fn next(&mut self, out: &mut impl Output) -> Option<Event<'_>> {
        self.next_with_sender(out).map(|(event, _)| event)
    }

    /// The next event, like [`next`](Self::next), and with it the sending side: to answer the event
    /// while it is borrowed.
    #[inline]
    pub fn next_with_sender(&mut self, out: &mut impl Output) -> Option<(Event<'_>, Sender<'_>)> {
        let Connection { sending, receiving } = &mut *self.connection;
        let (inflated, mut packer) = self.codec.as_deref_mut().map(MessageCodec::split).unzip();
        let loan = Loan {
            inflated,
            packer: packer.as_deref_mut(),
        };
        // Called in one place, so that the short way becomes a part of the caller's loop.
        let is_held = !self.held.is_empty();
        let input = if is_held {
            &mut self.held.bytes[self.held.parsed..]
        } else {
            &mut self.input[self.parsed..]
        };
        let (parsed, event) = receiving.advance(sending, input, loan, out);
        if is_held {
            self.held.parsed += parsed;
        } else {
            self.parsed += parsed;
        }
        event.map(|event| (event, Sender::new(sending, packer)))
    }

    /// Goes on with what an earlier `Events` left, the new input behind it.
    #[cold]
    fn take_held(&mut self) {
        if let Some(unfinished) = &mut self.connection.receiving.unfinished {
            self.held = mem::take(&mut unfinished.held);
        }
        self.held.append(self.input);
        self.parsed = self.input.len();
    }

    /// Keeps what was not parsed for the next `Events`.
    #[cold]
    fn hold(&mut self) {
        if self.held.is_empty() {
            self.held = Held {
                bytes: self.input[self.parsed..].to_vec(),
                parsed: 0,
            };
        }
        self.connection.receiving.unfinished().held = mem::take(&mut self.held);
    }
}

impl Drop for Events<'_> {
    #[inline]
    fn drop(&mut self) {
        self.connection.receiving.release_delivered();
        if let Some(codec) = &mut self.codec {
            codec.release();
        }
        let all_parsed = self.parsed == self.input.len() && self.held.is_empty();
        if !all_parsed && self.connection.wants_input() {
            self.hold();
        }
    }
}

impl fmt::Debug for Events<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.held.bytes.len() - self.held.parsed;
        f.debug_struct("Events")
            .field("unparsed", &(self.input.len() - self.parsed + held))
            .finish_non_exhaustive()
    }
}
