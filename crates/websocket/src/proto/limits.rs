//! What a connection takes from its peer.

/// The limits of one connection. Each is checked before anything is stored, and going beyond one
/// fails the connection with the code that is named with it.
///
/// Where permessage-deflate is in use, `max_frame` and `max_fragments` are about what is on the
/// wire, and `max_message` holds for the compressed message and for the inflated one.
///
/// ```
/// use tautline_websocket::proto::Limits;
///
/// let limits = Limits { max_fragments: 16, ..Limits::for_messages(64 * 1024) };
/// assert_eq!(limits.max_frame, 65_536);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of payload in one frame; 1009 beyond it. Default 1 MiB.
    ///
    /// A message is received as it comes, so this protects nothing that
    /// [`max_message`](Self::max_message) doesn't; it exists for peers with an agreement on it.
    pub max_frame: usize,
    /// Bytes of payload in one message, all fragments together; 1009 beyond it. Default 1 MiB:
    /// generous for messages that people cause, and a thousand connections that try it at once
    /// still fit into a small machine.
    pub max_message: usize,
    /// Frames in one message, empty ones included; 1008 beyond it. Default 131,072. Fragments cost
    /// no memory here beyond their payload; the limit bounds the work that a message of
    /// nothing but empty fragments causes.
    pub max_fragments: u32,
    /// Inflated bytes for each byte of a compressed message, over the first 64 KiB; 1009 beyond it.
    /// Default 200: deflate reaches 1,032, but only where there is nothing but repetition. Without
    /// compression it has no meaning.
    pub max_inflate_ratio: u32,
    /// Bytes waiting in the output above which a ping is not answered at once: then only the newest
    /// ping is remembered, and answered when the peer has read (§5.5.3 allows that). Default
    /// 64 KiB.
    pub pong_backlog: u32,
    /// Control frames (pings, pongs) in one second; 1008 beyond it. Default 1,000. Holds only where
    /// the engine is told the time: see [`Connection::set_time`](super::Connection::set_time).
    pub max_control_rate: u32,
}

impl Limits {
    /// The defaults, with `max` bytes for a message and for a frame.
    pub const fn for_messages(max: usize) -> Self {
        Self {
            max_frame: max,
            max_message: max,
            max_fragments: 131_072,
            max_inflate_ratio: 200,
            pong_backlog: 64 * 1024,
            max_control_rate: 1000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::for_messages(1024 * 1024)
    }
}
