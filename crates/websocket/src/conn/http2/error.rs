//! How an HTTP/2 connection, or a stream of it, can go wrong.

use std::io;
use std::time::Duration;

use super::meter::Flood;

/// Why an HTTP/2 connection, or one of its streams, ended other than in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Http2Error {
    /// The client sends more than makes sense of what costs work and carries nothing.
    #[error("the client sends too many {0}")]
    Flooded(Flood),
    /// The whole connection was given up, with a `GOAWAY`.
    #[error("{who} gave the HTTP/2 connection up: {reason}", who = who(*.by_peer))]
    GoAway {
        /// The error code of RFC 9113 §7.
        code: u32,
        /// The same for people.
        reason: String,
        /// Whether the peer has done so.
        by_peer: bool,
    },
    /// The connection below HTTP/2 failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// A ping was not answered within
    /// [`Http2Options::keep_alive_timeout`](super::Http2Options::keep_alive_timeout).
    #[error("a ping was not answered within {} s", .0.as_secs_f64())]
    NoPong(Duration),
    /// What came is not what HTTP/2 has at this place.
    #[error("the HTTP/2 connection failed: {0}")]
    Protocol(String),
    /// A stream was given up, with a `RST_STREAM`.
    #[error("{who} reset the stream: {reason}", who = who(*.by_peer))]
    Reset {
        /// The error code of RFC 9113 §7.
        code: u32,
        /// The same for people.
        reason: String,
        /// Whether the peer has done so.
        by_peer: bool,
    },
    /// The peer did not begin within
    /// [`Http2Options::handshake_timeout`](super::Http2Options::handshake_timeout).
    #[error("the HTTP/2 connection did not begin within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
}

fn who(by_peer: bool) -> &'static str {
    if by_peer { "the peer" } else { "this side" }
}

impl Http2Error {
    pub(super) fn reset_by_peer(code: h2::Reason) -> Self {
        Self::Reset {
            code: code.into(),
            reason: code.description().to_owned(),
            by_peer: true,
        }
    }
}

impl From<h2::Error> for Http2Error {
    fn from(error: h2::Error) -> Self {
        let by_peer = error.is_remote();
        match error.reason() {
            Some(code) if error.is_go_away() => Self::GoAway {
                code: code.into(),
                reason: code.description().to_owned(),
                by_peer,
            },
            Some(code) => Self::Reset {
                code: code.into(),
                reason: code.description().to_owned(),
                by_peer,
            },
            None if error.is_io() => match error.into_io() {
                Some(error) => Self::Io(error),
                None => Self::Io(io::ErrorKind::Other.into()),
            },
            None => Self::Protocol(error.to_string()),
        }
    }
}

/// As a stream has it.
//= rfc8441 5-10
impl From<Http2Error> for io::Error {
    fn from(error: Http2Error) -> Self {
        let kind = match error {
            Http2Error::Io(error) => return error,
            Http2Error::Reset { .. } => io::ErrorKind::ConnectionReset,
            Http2Error::Flooded(_) | Http2Error::GoAway { .. } => io::ErrorKind::ConnectionAborted,
            Http2Error::NoPong(_) | Http2Error::TimedOut(_) => io::ErrorKind::TimedOut,
            Http2Error::Protocol(_) => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
