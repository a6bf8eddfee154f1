//! Messages that did not come in one piece: fragments, and frames that several reads had to bring.
//!
//! Memory grows with the bytes that came, never with a length that the peer announced, and all of
//! it is given back when the message was delivered.

use super::error::PeerFault;
use super::event::Event;
use super::frame::OpCode;
use super::utf8::Utf8Stream;

/// A message of which some is here and some is to come.
#[derive(Debug)]
pub(super) struct OpenMessage {
    payload: Payload,
    /// Frames so far, the current one included.
    pub(super) frames: u32,
    /// Bytes of payload by the headers of these frames.
    pub(super) announced: u64,
    /// What it will be once it was inflated, when it is compressed.
    compressed: Option<OpCode>,
}

#[derive(Debug)]
enum Payload {
    Text(String, Utf8Stream),
    Binary(Vec<u8>),
}

impl OpenMessage {
    /// The message that a frame with this op code and so much payload begins, compressed or not. It
    /// holds no memory yet.
    pub(super) fn begin(opcode: OpCode, compressed: bool, announced: u64) -> Self {
        let payload = if opcode == OpCode::Text && !compressed {
            Payload::Text(String::new(), Utf8Stream::default())
        } else {
            Payload::Binary(Vec::new())
        };
        Self {
            payload,
            frames: 1,
            announced,
            compressed: compressed.then_some(opcode),
        }
    }

    /// A message that is whole.
    pub(super) fn whole(opcode: OpCode, bytes: Vec<u8>) -> Result<Self, PeerFault> {
        let mut message = Self::begin(opcode, false, bytes.len() as u64);
        message.payload = if opcode == OpCode::Text {
            let text = String::from_utf8(bytes).map_err(|_| PeerFault::InvalidUtf8)?;
            Payload::Text(text, Utf8Stream::default())
        } else {
            Payload::Binary(bytes)
        };
        Ok(message)
    }

    /// Takes what is to be inflated, and what it will be then, when the message is compressed.
    pub(super) fn take_compressed(&mut self) -> Option<(OpCode, Vec<u8>)> {
        match (self.compressed, &mut self.payload) {
            (Some(opcode), Payload::Binary(bytes)) => Some((opcode, std::mem::take(bytes))),
            _ => None,
        }
    }

    /// Appends unmasked payload.
    ///
    /// # Errors
    ///
    /// [`PeerFault::InvalidUtf8`] at the first byte of a text that makes it so (§8.1).
    //= rfc6455 5.4-3, 8.1-1
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), PeerFault> {
        match &mut self.payload {
            // The text is valid at all times, so nothing has to be checked again at its end.
            Payload::Text(text, utf8) => utf8.push(bytes, text).map_err(|_| PeerFault::InvalidUtf8),
            Payload::Binary(payload) => {
                payload.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Checks that the message may end here: not in the middle of a character.
    pub(super) fn check_end(&self) -> Result<(), PeerFault> {
        match &self.payload {
            Payload::Text(_, utf8) if !utf8.is_complete() => Err(PeerFault::InvalidUtf8),
            Payload::Text(..) | Payload::Binary(_) => Ok(()),
        }
    }

    /// The message, as an event.
    pub(super) fn event(&self) -> Event<'_> {
        match &self.payload {
            Payload::Text(text, _) => Event::Text(text),
            Payload::Binary(bytes) => Event::Binary(bytes),
        }
    }
}

/// What a connection keeps only while it is in the middle of something. It is boxed when the first
/// of these is needed and dropped when the last is gone, so that an idle connection stays small.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    /// The open message.
    pub(super) message: Option<OpenMessage>,
    /// The payload so far of a control frame that came in parts; such a payload is never empty.
    pub(super) control: Vec<u8>,
    /// What the last event lends out, and what is therefore done with before the next.
    pub(super) delivered: Delivered,
    /// Input that was handed in and not yet parsed, because the caller stopped early.
    pub(super) held: Held,
}

impl Unfinished {
    /// Frees what was delivered.
    pub(super) fn release_delivered(&mut self) {
        match std::mem::take(&mut self.delivered) {
            Delivered::Nothing => {}
            Delivered::Message => self.message = None,
            Delivered::Control => self.control = Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.message.is_none() && self.control.is_empty() && self.held.is_empty()
    }
}

/// What of an [`Unfinished`] the last event was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Delivered {
    #[default]
    Nothing,
    Message,
    Control,
}

/// Input kept for later, with the place up to which it has been parsed.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    pub(super) parsed: usize,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.parsed == self.bytes.len()
    }

    /// Adds input behind what is there. What has been parsed makes room for it.
    pub(super) fn append(&mut self, more: &[u8]) {
        if !more.is_empty() {
            self.bytes.drain(..self.parsed);
            self.parsed = 0;
            self.bytes.extend_from_slice(more);
        }
    }
}
