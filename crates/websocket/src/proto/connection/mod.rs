//! The state of one WebSocket connection after its handshake, and its public face. Receiving,
//! sending and closing each have a file of their own.

mod closing;
mod receive;
mod send;

use std::fmt;
use std::time::Instant;

#[cfg(feature = "deflate")]
use super::deflate::MessageCodec;
use super::extensions::Extensions;
use super::limits::Limits;
use super::mask::MaskKeys;
use receive::Receiving;
use send::Sending;

pub use receive::Events;
pub use send::Sender;

/// One end of a WebSocket connection, from behind the opening handshake to the end.
///
/// It does no I/O. Bytes from the peer go into [`receive`](Self::receive), which gives events;
/// bytes for the peer come out through the [`Output`](super::Output) that each method is lent. It
/// has no clock and never blocks. An idle connection takes `size_of::<Connection>()` bytes, at
/// most 128, and nothing on the heap.
///
/// ```
/// use tautline_websocket::proto::{Connection, Event, Limits, Role};
///
/// let mut connection = Connection::new(Role::Server, Limits::default());
/// let mut input = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"; // "Hello", masked
/// let mut out = Vec::new();
/// let mut events = connection.receive(&mut input);
/// while let Some((event, mut sender)) = events.next_with_sender(&mut out) {
///     match event {
///         Event::Text(text) => sender.send_text(text, &mut out)?,
///         Event::Binary(bytes) => sender.send_binary(bytes, &mut out)?,
///         Event::Ping(_) | Event::Pong(_) | Event::Close(_) => {}
///         Event::Failed(fault) => eprintln!("the peer misbehaved: {fault}"),
///     }
/// }
/// assert_eq!(out, b"\x81\x05Hello");
/// # Ok::<(), tautline_websocket::proto::Misuse>(())
/// ```
///
/// # Driving it
///
/// After each call, write what is in the output. Then:
///
/// 1. when [`should_end_stream`](Self::should_end_stream), shut down writing as soon as all output
///    is written;
/// 2. while [`close_expected`](Self::close_expected), let a deadline run, and drop the connection
///    when it passes;
/// 3. as long as the output is not too long for your taste, read: while
///    [`wants_input`](Self::wants_input) to hand the bytes in, after that to see the peer's end of
///    stream. (To drop a socket with unread input in it can take the last written bytes from the
///    peer: TCP sends a reset.)
pub struct Connection {
    sending: Sending,
    receiving: Receiving,
}

impl Connection {
    /// A connection whose handshake is done, with no extensions.
    pub fn new(role: Role, limits: Limits) -> Self {
        Self {
            sending: Sending::new(role),
            receiving: Receiving::new(limits, Extensions::NONE),
        }
    }

    /// The same connection with the extensions that the handshake agreed on. To be called before
    /// anything is received.
    //= rfc6455 5.8-1
    #[must_use]
    pub fn with_extensions(mut self, extensions: Extensions) -> Self {
        self.receiving = Receiving::new(*self.receiving.limits(), extensions);
        self.sending.set_extensions(extensions);
        self
    }

    /// Takes bytes from the peer: any number, cut anywhere.
    ///
    /// `input` is parsed and unmasked in place while the events are asked for, and messages that
    /// lie in it whole are lent from it without a copy; what it holds afterwards has no
    /// meaning. Nothing happens until [`Events::next`] is called, and all of it has happened when
    /// that has returned `None`.
    ///
    /// A peer that misbehaves is not an error but an event,
    /// [`Event::Failed`](super::Event::Failed).
    #[inline]
    pub fn receive<'a>(&'a mut self, input: &'a mut [u8]) -> Events<'a> {
        Events::new(self, input, None)
    }

    /// [`receive`](Self::receive) with what it takes to inflate messages that the peer has
    /// compressed, and to compress the answers that are sent with
    /// [`Events::next_with_sender`]. For connections on which permessage-deflate was agreed; on
    /// others the codec is not touched.
    ///
    /// Without a codec compressed messages are received too, but each takes a decompressor of its
    /// own, and answers are not compressed.
    #[cfg(feature = "deflate")]
    #[inline]
    pub fn receive_with<'a>(
        &'a mut self,
        input: &'a mut [u8],
        codec: &'a mut MessageCodec,
    ) -> Events<'a> {
        Events::new(self, input, Some(codec))
    }

    /// Whether there is input which was handed to [`receive`](Self::receive) and not yet parsed,
    /// because its [`Events`] were dropped early. `receive(&mut [])` goes on with it.
    pub fn has_held_input(&self) -> bool {
        self.receiving.has_held_input()
    }

    /// Whether [`set_time`](Self::set_time) should be called: control frames have come. For
    /// connections without any, no clock has to be read.
    #[inline]
    pub const fn wants_time(&self) -> bool {
        self.sending.counts_control()
    }

    /// Tells the time, which
    /// [`Limits::max_control_rate`] needs. To be called as long as [`wants_time`](Self::wants_time), once before
    /// [`receive`](Self::receive) and once when its events have been taken. Without it, control frames
    /// are not limited.
    pub fn set_time(&mut self, now: Instant) {
        self.sending.set_time(now);
    }

    /// The sending side.
    #[inline]
    pub fn sender(&mut self) -> Sender<'_> {
        Sender::new(&mut self.sending, None)
    }

    /// The sending side, with what it takes to compress messages. They are where permessage-deflate
    /// was agreed, and where it makes them smaller.
    #[cfg(feature = "deflate")]
    #[inline]
    pub fn sender_with<'a>(&'a mut self, codec: &'a mut MessageCodec) -> Sender<'a> {
        Sender::new(&mut self.sending, Some(codec.split().1))
    }

    /// Which end of the connection this is.
    pub const fn role(&self) -> &Role {
        self.sending.role()
    }

    /// The limits that it was made with.
    pub const fn limits(&self) -> &Limits {
        self.receiving.limits()
    }

    /// The extensions in use.
    #[inline]
    pub const fn extensions(&self) -> Extensions {
        self.receiving.extensions()
    }
}

/// Which end of the connection this is.
pub enum Role {
    /// The server: frames from the peer must be masked, its own are not (§5.1).
    Server,
    /// The client: its own frames are masked with keys from this source.
    Client(Box<dyn MaskKeys + Send>),
}

impl Role {
    /// Whether this is [`Role::Server`].
    #[inline]
    pub const fn is_server(&self) -> bool {
        matches!(self, Self::Server)
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_server() { "Server" } else { "Client" })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("role", self.role())
            .field("can_send", &self.can_send())
            .field("wants_input", &self.wants_input())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle connection costs. With 64-bit pointers; smaller elsewhere.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(
            size_of::<Connection>() <= 128,
            "{} bytes",
            size_of::<Connection>()
        );
    }

    /// Connections may move between threads.
    #[test]
    fn connections_are_send() {
        fn assert_send<T: Send>() {}
        assert_send::<Connection>();
    }
}
