//! What the engine reports.

use super::close::CloseFrame;
use super::error::PeerFault;

/// Something that the peer sent. Borrowed from the input, or from the connection when the message
/// came in parts; valid until the next event is asked for.
///
/// Complete: control frames and messages are all there is in RFC 6455, so match without `_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping and its payload, at most 125 bytes. The pong is in the output already.
    Ping(&'a [u8]),
    /// A pong and its payload, at most 125 bytes. It need not answer any ping (§5.5.3).
    Pong(&'a [u8]),
    /// The peer closes, with a code and a reason or without either. The answer is in the output
    /// already, and nothing more will be received.
    Close(Option<CloseFrame<'a>>),
    /// The peer broke the protocol or a limit, and the connection has failed. All that was good
    /// before it has been reported; the Close frame is in the output behind the answers to it, and
    /// nothing more will be received.
    Failed(PeerFault),
}
