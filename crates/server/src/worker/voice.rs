//! How what the hub says is put to a client: in whose words, and how messages are set apart.
//!
//! SDK clients get the protocol's messages as they are. Others have a [`Voice`], which makes of them
//! what such a client wants to hear.

use std::cell::OnceCell;

use bytes::Bytes;
use tautline_hub::SessionAddress;
use tautline_protocol::Disconnect;
use tautline_websocket::proto::frame;

use super::spoken::Said;

/// How messages are set apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// In text frames of a WebSocket.
    Text,
    /// A line each.
    Lines,
    /// As they are: they have their length before them.
    Lengths,
    /// Server-sent events (the HTML standard, section 9.2).
    Events,
    /// Not at all: each is kept by itself.
    Apart,
}

/// Puts what the hub says, in JSON, into a client's own words.
pub(crate) trait Voice: Send {
    /// Says what the client is to know of a message. Returns why the session is to be ended, if it
    /// is.
    fn message(&mut self, message: &[u8], speech: &mut Speech<'_>) -> Option<Disconnect>;

    /// The same for messages that come together, a line each.
    fn messages(&mut self, messages: &[u8], speech: &mut Speech<'_>) -> Option<Disconnect> {
        let mut messages = messages.split(|byte| *byte == b'\n');
        messages.find_map(|message| self.message(message, speech))
    }

    /// Takes the name by which the session can be found, where such a client is told one.
    fn take_address(&mut self, _make: &mut dyn FnMut() -> SessionAddress) {}

    /// The name that it took.
    fn address(&self) -> Option<&SessionAddress> {
        None
    }

    /// Says that the session is over.
    fn end(&mut self, disconnect: &Disconnect, speech: &mut Speech<'_>);
}

/// What is being said.
pub(crate) struct Speech<'a> {
    framing: Framing,
    out: &'a mut Vec<u8>,
}

impl<'a> Speech<'a> {
    /// Appends to `out`.
    pub(crate) fn new(framing: Framing, out: &'a mut Vec<u8>) -> Self {
        Self { framing, out }
    }

    /// Whether messages have a kind and a position beside what is in them.
    pub(crate) fn is_events(&self) -> bool {
        self.framing == Framing::Events
    }

    /// One message, or several: a line each, where it is JSON.
    pub(crate) fn say(&mut self, message: &[u8]) {
        match self.framing {
            Framing::Text => frame::write_unmasked(frame::OpCode::Text, message, &mut *self.out),
            Framing::Lines => self.put(&[message, b"\n"]),
            Framing::Lengths | Framing::Apart => self.put(&[message]),
            Framing::Events => {
                for line in message.split(|byte| *byte == b'\n') {
                    self.put(&[b"data: ", line, b"\n\n"]);
                }
            }
        }
    }

    /// Nothing, but enough of it that nobody on the way takes the connection for dead.
    pub(crate) fn keep_alive(&mut self) {
        match self.framing {
            Framing::Lines => self.put(&[b"\n"]),
            Framing::Events => self.put(&[b":\n\n"]),
            // WebSockets have pings of their own.
            Framing::Text | Framing::Lengths | Framing::Apart => {}
        }
    }

    /// A field of the event to come, whose value has no line break in it. Nothing where messages are no
    /// events.
    pub(crate) fn field(&mut self, name: &str, value: &[u8]) {
        if self.is_events() {
            self.put(&[name.as_bytes(), b": ", value, b"\n"]);
        }
    }

    /// Ends an event that has fields only: one that sets the client's position, say.
    pub(crate) fn end_fields(&mut self) {
        if self.is_events() {
            self.put(&[b"\n"]);
        }
    }

    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }
}

/// A message that is made ready for many receivers: framed once for each kind of them.
pub(crate) struct Prepared {
    /// For WebSockets.
    frame: Bytes,
    /// Where the message begins in it.
    start: usize,
    said: Said,
    line: OnceCell<Bytes>,
    event: OnceCell<Bytes>,
}

impl Prepared {
    /// Takes a WebSocket frame whose last `len` bytes are the message.
    pub(crate) fn new(frame: &[u8], len: usize, said: Said) -> Self {
        Self {
            frame: Bytes::copy_from_slice(frame),
            start: frame.len() - len,
            said,
            line: OnceCell::new(),
            event: OnceCell::new(),
        }
    }

    /// What it counts as.
    #[inline]
    pub(crate) fn said(&self) -> Said {
        self.said
    }

    /// The message in a WebSocket frame.
    pub(crate) fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The message itself.
    pub(crate) fn message(&self) -> &[u8] {
        &self.frame[self.start..]
    }

    /// The message, framed.
    pub(crate) fn framed(&self, framing: Framing) -> Bytes {
        let made = || {
            let mut out = Vec::with_capacity(self.frame.len() + EVENT_OVERHEAD);
            Speech::new(framing, &mut out).say(self.message());
            Bytes::from(out)
        };
        match framing {
            Framing::Text => self.frame.clone(),
            Framing::Lengths | Framing::Apart => self.frame.slice(self.start..),
            Framing::Lines => self.line.get_or_init(made).clone(),
            Framing::Events => self.event.get_or_init(made).clone(),
        }
    }
}

/// What an event has more than its message: `data: ` and two line breaks. Those of several messages grow
/// the buffer.
const EVENT_OVERHEAD: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framings_set_messages_apart() {
        let prepared = Prepared::new(b"\x81\x02{}", 2, Said::NOTHING);
        for (framing, expected) in [
            (Framing::Text, &b"\x81\x02{}"[..]),
            (Framing::Lines, b"{}\n"),
            (Framing::Lengths, b"{}"),
            (Framing::Apart, b"{}"),
            (Framing::Events, b"data: {}\n\n"),
        ] {
            assert_eq!(&prepared.framed(framing)[..], expected, "{framing:?}");
            let mut said = Vec::new();
            Speech::new(framing, &mut said).say(b"{}");
            assert_eq!(said, expected, "{framing:?}");
        }
    }

    #[test]
    fn messages_that_come_together_are_set_apart_too() {
        let prepared = Prepared::new(b"\x81\x05{}\n{}", 5, Said::NOTHING);
        for (framing, expected) in [
            (Framing::Text, &b"\x81\x05{}\n{}"[..]),
            (Framing::Lines, b"{}\n{}\n"),
            (Framing::Events, b"data: {}\n\ndata: {}\n\n"),
        ] {
            assert_eq!(&prepared.framed(framing)[..], expected, "{framing:?}");
        }
    }

    #[test]
    fn only_events_have_fields() {
        for (framing, expected) in [
            (
                Framing::Events,
                &b"event: gap\nid: 7\ndata: {}\n\nid: 8\n\n"[..],
            ),
            (Framing::Lines, b"{}\n"),
        ] {
            let mut said = Vec::new();
            let mut speech = Speech::new(framing, &mut said);
            speech.field("event", b"gap");
            speech.field("id", b"7");
            speech.say(b"{}");
            speech.field("id", b"8");
            speech.end_fields();
            assert_eq!(said, expected, "{framing:?}");
        }
    }
}
