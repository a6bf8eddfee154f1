//! How far closing has come (RFC 6455 §7): the questions that whoever owns the socket asks.

use super::Connection;
use super::receive::InputOver;

impl Connection {
    /// Whether neither side has begun to close and nothing has failed.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.can_send() && self.wants_input()
    }

    /// Whether messages can still be sent: no Close frame was sent yet, neither by the caller nor
    /// in answer to the peer.
    #[inline]
    pub fn can_send(&self) -> bool {
        !self.sending.close_sent()
    }

    /// Whether input is still looked at: the peer has neither sent Close nor been failed. What
    /// comes afterwards has no meaning (§5.5.1, §7.1.7); it is still read, and dropped, to see
    /// the peer's end of stream.
    #[inline]
    pub fn wants_input(&self) -> bool {
        self.receiving.over().is_none()
    }

    /// Whether the end of the connection should come soon: a Close frame was sent. From here
    /// on a deadline should run, or a peer that never answers holds the connection for ever.
    //= rfc6455 5.5.1-13, 7.1.1-4
    #[inline]
    pub fn close_expected(&self) -> bool {
        self.sending.close_sent()
    }

    /// Whether this side should shut down writing once its output is written: all has been said.
    ///
    /// For a server, when Close frames went both ways, or when the peer was failed: the server ends
    /// the TCP connection first (§7.1.1). A client leaves that to the server, and ends
    /// it by itself only when the peer was failed or the deadline has passed.
    //= rfc6455 5.5.1-10, 5.5.1-11, 5.5.1-12, 7.1.1-3, 7.1.1-5, 7.1.1-6, 7.1.2-2, 7.1.7-1, 7.1.7-3
    #[inline]
    pub fn should_end_stream(&self) -> bool {
        match self.receiving.over() {
            None => false,
            Some(InputOver::Closed) => self.role().is_server(),
            Some(InputOver::Failed) => true,
        }
    }

    /// Whether Close frames went both ways: the WebSocket connection was closed cleanly (§7.1.4).
    /// A connection which ends without that was cut off, whatever was said before.
    pub fn is_closed_cleanly(&self) -> bool {
        self.receiving.over() == Some(InputOver::Closed) && self.sending.close_sent()
    }
}
