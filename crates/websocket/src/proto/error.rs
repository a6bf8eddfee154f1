//! Who did what wrong: [`PeerFault`] is the peer's, [`Misuse`] is the caller's.

use super::close::{CloseCode, MAX_REASON};
#[cfg(feature = "deflate")]
use super::deflate::InflateError;
use super::frame::{MAX_CONTROL_PAYLOAD, OpCode};

/// How a peer broke the protocol or a limit. The connection has failed (RFC 6455 §7.1.7): a
/// Close frame with [`close_code`](Self::close_code) is in the output, and input is ignored from
/// then on.
///
/// In the order in which the RFC speaks of them, limits last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// §5.1: a client's frame without a mask.
    #[error("expected a masked frame, as clients must send; the mask bit was not set")]
    NotMasked,
    /// §5.1: a server's frame with a mask.
    #[error("expected an unmasked frame, as servers must send; the mask bit was set")]
    Masked,
    /// §5.2: reserved bits (RSV1 to RSV3 as 0b100, 0b010, 0b001) that no extension uses.
    #[error("reserved bits {0:#05b} are set, but no extension that uses them was negotiated")]
    ReservedBits(u8),
    /// RFC 7692 §6: RSV1, which says that a message is compressed, on a frame that doesn't begin a
    /// message.
    #[error("RSV1 is set on a {} frame; only the first frame of a message may have it", .0.name())]
    MisplacedCompressedBit(OpCode),
    /// §5.2: an op code without a meaning, 3 to 7 or 11 to 15.
    #[error("op code {0:#x} is reserved; expected 0, 1, 2, 8, 9 or 0xa")]
    ReservedOpCode(u8),
    /// §5.2: a length in a longer form than it needs.
    #[error("the payload length {0} is not encoded in its shortest form")]
    NonMinimalLength(u64),
    /// §5.2: a 64-bit length with its top bit set.
    #[error("the payload length {0} is out of range; the top bit must be 0")]
    LengthOutOfRange(u64),
    /// §5.4: a continuation frame with nothing to continue.
    #[error("a continuation frame came, but no message is open")]
    UnexpectedContinuation,
    /// §5.4: a new message before the last fragment of the open one.
    #[error("a {} frame came before the last fragment of the open message", .0.name())]
    InterruptedMessage(OpCode),
    /// §5.5: a control frame without the FIN bit.
    #[error("a {} frame must not be fragmented", .0.name())]
    FragmentedControl(OpCode),
    /// §5.5: a control frame with more than 125 bytes of payload.
    #[error("a {} frame may carry {MAX_CONTROL_PAYLOAD} bytes at most", .0.name())]
    ControlTooLong(OpCode),
    /// §5.5.1: a Close frame with a payload of one byte, half a code.
    #[error("a close frame's payload must be empty or begin with a two-byte code; it has one byte")]
    CloseTooShort,
    /// §7.4: a code that must not appear in a frame, or that nobody has defined.
    #[error("close code {0} must not be sent in a frame")]
    InvalidCloseCode(u16),
    /// §5.5.1: a reason that isn't UTF-8.
    #[error("the close reason is not valid UTF-8")]
    InvalidCloseReason,
    /// §8.1: text that isn't UTF-8.
    #[error("the text is not valid UTF-8")]
    InvalidUtf8,
    /// RFC 7692: a message that can't be inflated, or not within the limits.
    #[cfg(feature = "deflate")]
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// More than [`Limits::max_frame`](super::Limits::max_frame).
    #[error("a frame of {announced} bytes was announced; the limit is {limit}")]
    FrameTooLarge {
        /// Bytes of payload, by the frame's header.
        announced: u64,
        /// The limit.
        limit: usize,
    },
    /// More than [`Limits::max_message`](super::Limits::max_message).
    #[error("a message of at least {announced} bytes was announced; the limit is {limit}")]
    MessageTooLarge {
        /// Bytes of payload of the fragments so far, by their headers.
        announced: u64,
        /// The limit.
        limit: usize,
    },
    /// More than [`Limits::max_fragments`](super::Limits::max_fragments).
    #[error("a message in more than {limit} fragments; that is the limit")]
    TooManyFragments {
        /// The limit.
        limit: u32,
    },
    /// More than [`Limits::max_control_rate`](super::Limits::max_control_rate).
    #[error("more than {limit} control frames came in one second; that is the limit")]
    TooManyControlFrames {
        /// The limit.
        limit: u32,
    },
}

impl PeerFault {
    /// The code of the Close frame that answers the fault (§7.4.1).
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::InvalidUtf8 | Self::InvalidCloseReason => CloseCode::INVALID_PAYLOAD,
            Self::FrameTooLarge { .. } | Self::MessageTooLarge { .. } => CloseCode::MESSAGE_TOO_BIG,
            Self::TooManyFragments { .. } | Self::TooManyControlFrames { .. } => {
                CloseCode::POLICY_VIOLATION
            }
            #[cfg(feature = "deflate")]
            Self::Inflate(error) => match error {
                InflateError::TooLarge { .. } | InflateError::RatioTooHigh { .. } => {
                    CloseCode::MESSAGE_TOO_BIG
                }
                _ => CloseCode::INVALID_PAYLOAD,
            },
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// What a caller asked for that can't be done. Nothing was put into the output, and the connection
/// is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// A Close frame was sent, by this side's wish or in answer to the peer's: nothing may follow
    /// it (§5.5.1).
    #[error("the connection is closing; nothing can be sent any more")]
    Closing,
    /// More waits to be written than a connection of `conn` may keep
    /// (`conn::WebSocket::with_max_backlog`): the peer reads slower than it is written to. Wait until
    /// some of it is written, as `conn::WebSocket::flush` does, or give the connection up.
    #[error("{waiting} bytes wait to be written already; the limit is {limit}")]
    BacklogFull {
        /// Bytes that wait.
        waiting: usize,
        /// The limit.
        limit: usize,
    },
    /// A close reason of more than [`MAX_REASON`] bytes.
    #[error("a close reason may have {MAX_REASON} bytes at most; this one has {0}")]
    CloseReasonTooLong(usize),
    /// A ping or pong payload of more than [`MAX_CONTROL_PAYLOAD`] bytes.
    #[error("pings and pongs may carry {MAX_CONTROL_PAYLOAD} bytes at most; this one has {0}")]
    ControlTooLong(usize),
    /// A close code that must not be sent; see [`CloseCode::may_be_sent`].
    #[error(
        "close code {0} can't be sent; use 1000 to 1003, 1007 to 1014 without 1010, or 3000 to 4999"
    )]
    UnsendableCloseCode(CloseCode),
}
