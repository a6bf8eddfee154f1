//! permessage-deflate (RFC 7692) on a connection: what was agreed, what is kept for it, and the
//! [`MessageCodec`] that all connections of a thread share.
//!
//! ```
//! use tautline_websocket::proto::deflate::{MessageCodec, ServerConfig};
//! use tautline_websocket::proto::{Connection, Event, Extensions, Limits, Role};
//!
//! // What a browser offers, and what comes of it.
//! let offers = ["permessage-deflate; client_max_window_bits"];
//! let agreement = ServerConfig::default().accept(offers).expect("acceptable");
//! let mut connection = Connection::new(Role::Server, Limits::default())
//!     .with_extensions(Extensions::deflate(agreement));
//!
//! // One for all connections of this thread.
//! let mut codec = MessageCodec::default();
//! let mut input = *b"\xc1\x87\0\0\0\0\xf2\x48\xcd\xc9\xc9\x07\x00"; // "Hello", RFC 7692, 7.2.3.1
//! let mut out = Vec::new();
//! let mut events = connection.receive_with(&mut input, &mut codec);
//! assert_eq!(events.next(&mut out), Some(Event::Text("Hello")));
//! drop(events);
//! connection.sender_with(&mut codec).send_text(&"Hello ".repeat(100), &mut out)?;
//! assert!(out.len() < 100);
//! # Ok::<(), tautline_websocket::proto::Misuse>(())
//! ```
//!
//! # What a connection keeps
//!
//! No compressor: the plaintext of the last messages, as far as they may be referred to. In the
//! direction from the peer that is up to `2^window_bits` bytes, as agreed; in the other one what
//! [`MessageCodec::with_memory`] says. Without context takeover it is nothing.

use std::fmt;

use tautline_deflate::{Codec, History, InflateLimits};
pub use tautline_deflate::{
    InflateError,
    offer::{Agreement, AnswerError, ClientConfig, ServerConfig},
};

use super::error::PeerFault;
use super::limits::Limits;

/// Compresses and inflates messages, of any number of connections, one at a time.
///
/// It is lent to [`Connection::receive_with`](super::Connection::receive_with) and
/// [`Connection::sender_with`](super::Connection::sender_with). One a thread is enough, and which
/// one a connection is lent may change with every call; only speed depends on it. It takes
/// no memory until it is used, then 100 to 400 KiB.
pub struct MessageCodec {
    packer: Packer,
    /// The message that the last event lends out.
    inflated: Vec<u8>,
}

/// A [`MessageCodec`] but for the message that an event has borrowed from it.
pub(super) struct Packer {
    codec: Codec,
    compressed: Vec<u8>,
    threshold: usize,
    memory: usize,
}

impl MessageCodec {
    /// A codec that compresses with `level`, 1 (fast) to 9 (small).
    ///
    /// Level 1 takes a fraction of the time of a write to a socket. Level 2 gives messages of some
    /// hundred bytes the size that zlib's level 6 gives them, give or take a few, in a third of its time. The levels
    /// above are zlib's, which can't write for a window of 2^8 bytes; on a connection where that was agreed
    /// they don't compress.
    pub fn new(level: u8) -> Self {
        Self {
            packer: Packer {
                codec: Codec::new(level),
                compressed: Vec::new(),
                threshold: 128,
                //= rfc7692 7.3-1
                memory: 1024,
            },
            inflated: Vec::new(),
        }
    }

    /// The same with another length in bytes from which messages are compressed. The default is
    /// 128: what is shorter fits into one packet with room to spare, compressed or not, and has little that
    /// repeats.
    #[must_use]
    pub fn with_threshold(mut self, bytes: usize) -> Self {
        self.packer.threshold = bytes;
        self
    }

    /// The same with another number of bytes that a connection keeps of what it has sent, to refer
    /// to in later messages; never more than the agreed window. The default is 1 KiB: most of what
    /// repeats in small messages repeats the last few, and priming the compressor takes
    /// time for each byte (0.4 ns here). 2 KiB make messages 2 to 7 % smaller. With 0, each message
    /// stands for itself.
    #[must_use]
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.packer.memory = bytes;
        self
    }

    #[inline]
    pub(super) fn split(&mut self) -> (&mut Vec<u8>, &mut Packer) {
        (&mut self.inflated, &mut self.packer)
    }

    /// Gives back what a large message has taken.
    #[inline]
    pub(super) fn release(&mut self) {
        if self.inflated.capacity() > KEPT_BUFFER {
            self.inflated = Vec::new();
        }
    }
}

impl Default for MessageCodec {
    /// Level 1.
    fn default() -> Self {
        Self::new(1)
    }
}

impl fmt::Debug for MessageCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.packer.fmt(f)
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageCodec")
            .field("codec", &self.codec)
            .field("threshold", &self.threshold)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

impl Packer {
    /// The message compressed, or `None` when it is better sent as it is (which each message may
    /// be, RFC 7692 §6): then it isn't remembered either.
    pub(super) fn pack(
        &mut self,
        outgoing: Direction,
        context: &mut Context,
        message: &[u8],
    ) -> Option<&[u8]> {
        //= rfc7692 7.3-2
        if message.len() < self.threshold || !self.codec.can_compress(outgoing.window_bits) {
            return None;
        }
        //= rfc7692 7.2.1-6, 7.2.1-7, 7.2.1-8
        let history = (outgoing.takeover && self.memory > 0).then(|| {
            context.0.get_or_insert_with(|| {
                //= rfc7692 7.2.1-4, 7.2.1-5
                let window = 1 << outgoing.window_bits;
                Box::new(History::with_capacity(self.memory.min(window)))
            })
        });
        self.compressed.clear();
        self.compressed.shrink_to(KEPT_BUFFER);
        self.codec
            .compress_if_smaller(
                outgoing.window_bits,
                history.map(Box::as_mut),
                message,
                &mut self.compressed,
            )
            .then_some(&self.compressed)
    }

    /// The message compressed without a context, when that makes it smaller.
    pub(super) fn pack_for_all(&mut self, window_bits: u8, message: &[u8]) -> Option<&[u8]> {
        let alone = Direction {
            window_bits,
            takeover: false,
        };
        self.pack(alone, &mut Context::default(), message)
    }
}

/// What was agreed for the messages of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Direction {
    window_bits: u8,
    takeover: bool,
}

impl Direction {
    /// The messages of the server, or of the client.
    pub(super) fn of(agreement: Agreement, server: bool) -> Self {
        if server {
            Self {
                window_bits: agreement.server_max_window_bits,
                takeover: !agreement.server_no_context_takeover,
            }
        } else {
            Self {
                window_bits: agreement.client_max_window_bits,
                takeover: !agreement.client_no_context_takeover,
            }
        }
    }
}

/// What is remembered of one side's messages, `None` until there is something.
#[derive(Debug, Default)]
pub(super) struct Context(Option<Box<History>>);

impl Context {
    pub(super) const NONE: Self = Self(None);
}

/// A [`MessageCodec`], if one was lent, in its two parts.
pub(super) struct Loan<'i, 'p> {
    pub(super) inflated: Option<&'i mut Vec<u8>>,
    pub(super) packer: Option<&'p mut Packer>,
}

/// A message that was inflated.
pub(super) enum Inflated<'i> {
    /// Into the codec that was lent.
    Lent(&'i [u8]),
    /// None was lent.
    Own(Vec<u8>),
}

/// Inflates a message of the peer.
///
/// Should no codec have been lent, one is made for it: that is slow, but right.
pub(super) fn inflate<'i>(
    incoming: Direction,
    context: &mut Context,
    message: &[u8],
    limits: &Limits,
    loan: Loan<'i, '_>,
) -> Result<Inflated<'i>, PeerFault> {
    let limits = InflateLimits {
        max_size: limits.max_message,
        max_ratio: limits.max_inflate_ratio as usize,
    };
    //= rfc7692 7.2.2-2, 7.2.2-3
    let history = incoming.takeover.then(|| {
        context
            .0
            //= rfc7692 7.2.2-4, 7.2.2-5
            .get_or_insert_with(|| Box::new(History::new(incoming.window_bits)))
            .as_mut()
    });
    let (Some(inflated), Some(packer)) = (loan.inflated, loan.packer) else {
        let mut inflated = Vec::new();
        Codec::new(1).inflate(
            incoming.window_bits,
            history,
            message,
            limits,
            &mut inflated,
        )?;
        return Ok(Inflated::Own(inflated));
    };
    inflated.clear();
    packer
        .codec
        .inflate(incoming.window_bits, history, message, limits, inflated)?;
    Ok(Inflated::Lent(inflated))
}

/// Bytes that a buffer of a [`MessageCodec`] may keep between messages.
const KEPT_BUFFER: usize = 256 * 1024;
