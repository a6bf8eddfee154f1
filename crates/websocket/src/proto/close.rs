//! Close codes and the payload of Close frames (RFC 6455 §5.5.1, §7.4).

use std::fmt;

use super::error::{Misuse, PeerFault};
use super::frame::MAX_CONTROL_PAYLOAD;

/// A code that says why a connection was closed.
///
/// Any number can be held; which may be received and which may be sent are questions of their
/// own.
///
/// ```
/// use tautline_websocket::proto::CloseCode;
///
/// assert!(CloseCode::NORMAL.may_be_sent());
/// assert!(CloseCode::from(4001).may_be_received());
/// assert!(!CloseCode::from(1005).may_be_received());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server shuts down, or the browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a kind of data that this endpoint doesn't take.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1007: the content doesn't fit its type; text that isn't UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// 1008: a rule of this endpoint was broken, and no other code says it better.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message too big to process.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// 1010: the client misses an extension. Servers fail the handshake instead.
    pub const MISSING_EXTENSION: Self = Self(1010);
    /// 1011: the server can't go on because of something unexpected.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service restarts; come back in a while.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: the service is overloaded; come back later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway got an invalid answer from upstream.
    pub const BAD_GATEWAY: Self = Self(1014);

    /// The number, as on the wire.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether a Close frame with this code is legal: what the RFC and the IANA registry define
    /// for frames (1000 to 1003, 1007 to 1014), libraries (3000 to 3999) and applications (4000 to
    /// 4999). 1005, 1006 and 1015 only ever exist inside an endpoint (§7.4.1).
    pub const fn may_be_received(self) -> bool {
        //= rfc6455 7.4.1-1, 7.4.1-2, 7.4.1-3, 7.4.1-4
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// Whether an application may close with this code. Those that may be received, without 1010,
    /// which is a client's to send, and then by its handshake and not by its application.
    pub const fn may_be_sent(self) -> bool {
        self.may_be_received() && self.0 != Self::MISSING_EXTENSION.0
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a Close frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// Why.
    pub code: CloseCode,
    /// The same for people, at most [`MAX_REASON`] bytes; often empty.
    pub reason: &'a str,
}

impl<'a> CloseFrame<'a> {
    /// Reads the payload of a Close frame; `None` for an empty one, which carries no code.
    ///
    /// # Errors
    ///
    /// [`PeerFault::CloseTooShort`], [`PeerFault::InvalidCloseCode`] and
    /// [`PeerFault::InvalidCloseReason`].
    pub fn parse(payload: &'a [u8]) -> Result<Option<Self>, PeerFault> {
        let (code, reason) = match payload {
            [] => return Ok(None),
            //= rfc6455 5.5.1-2
            [_] => return Err(PeerFault::CloseTooShort),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        if !CloseCode(code).may_be_received() {
            return Err(PeerFault::InvalidCloseCode(code));
        }
        //= rfc6455 5.5.1-3, 8.1-1
        let reason = std::str::from_utf8(reason).map_err(|_| PeerFault::InvalidCloseReason)?;
        Ok(Some(Self {
            code: CloseCode(code),
            reason,
        }))
    }

    /// Checks that an application may close with this.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnsendableCloseCode`] and [`Misuse::CloseReasonTooLong`].
    pub(crate) fn check_sendable(&self) -> Result<(), Misuse> {
        if !self.code.may_be_sent() {
            return Err(Misuse::UnsendableCloseCode(self.code));
        }
        if self.reason.len() > MAX_REASON {
            return Err(Misuse::CloseReasonTooLong(self.reason.len()));
        }
        Ok(())
    }

    /// The payload, written into `buffer`. The reason must fit.
    pub(super) fn write<'b>(&self, buffer: &'b mut [u8; MAX_CONTROL_PAYLOAD]) -> &'b [u8] {
        let len = 2 + self.reason.len();
        //= rfc6455 5.5.1-2
        buffer[..2].copy_from_slice(&self.code.get().to_be_bytes());
        buffer[2..len].copy_from_slice(self.reason.as_bytes());
        &buffer[..len]
    }
}

/// The longest reason of a Close frame, in bytes: what the code leaves of a control frame.
pub const MAX_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// §7.4.1, §7.4.2, for all 65,536 codes.
    //= rfc6455 7.4.1-1, 7.4.1-2, 7.4.1-3, 7.4.1-4
    #[test]
    fn the_ranges_of_codes() {
        for code in 0..=u16::MAX {
            let legal = (1000..=1003).contains(&code)
                || (1007..=1014).contains(&code)
                || (3000..=4999).contains(&code);
            assert_eq!(CloseCode::from(code).may_be_received(), legal, "{code}");
            assert_eq!(
                CloseCode::from(code).may_be_sent(),
                legal && code != 1010,
                "{code}"
            );
        }
    }

    /// §5.5.1: an empty body, or a code and a reason in UTF-8.
    //= rfc6455 5.5.1-2, 5.5.1-3
    #[test]
    fn payloads() {
        assert_eq!(CloseFrame::parse(b""), Ok(None));
        assert_eq!(CloseFrame::parse(b"\x03"), Err(PeerFault::CloseTooShort));
        assert_eq!(
            CloseFrame::parse(&[3, 237]),
            Err(PeerFault::InvalidCloseCode(1005))
        );
        assert_eq!(
            CloseFrame::parse(b"\x03\xe8\xff"),
            Err(PeerFault::InvalidCloseReason)
        );
        let frame = CloseFrame::parse("\u{3}\u{0}".as_bytes());
        assert_eq!(frame, Err(PeerFault::InvalidCloseCode(0x0300)));
        let frame = CloseFrame {
            code: CloseCode::NORMAL,
            reason: "bye",
        };
        let mut buffer = [0; MAX_CONTROL_PAYLOAD];
        assert_eq!(frame.write(&mut buffer), b"\x03\xe8bye");
        assert_eq!(CloseFrame::parse(b"\x03\xe8bye"), Ok(Some(frame)));
    }
}
