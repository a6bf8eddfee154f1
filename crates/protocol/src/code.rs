//! Stable numbers of the protocol: why a command failed, why a connection or a subscription ended,
//! and what a client does about it.
//!
//! - errors 100 to 399 are the protocol's, 400 to 1999 the application's;
//! - disconnects: clients come back, except for 3500 to 3999 and 4500 to 4999; 4000 to 4999 are the
//!   application's;
//! - unsubscribes: below 2500 the end, from 2500 the client subscribes again.

use std::borrow::Cow;

use crate::message;
pub use crate::message::Disconnect;

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// Anything unexpected on the server's side.
    Internal,
    /// Nobody vouches for the client.
    Unauthorized,
    /// The channel's namespace is not configured.
    UnknownChannel,
    /// The client may not do this.
    PermissionDenied,
    /// No such RPC method.
    MethodNotFound,
    /// The connection is subscribed to the channel already, or is about to be.
    AlreadySubscribed,
    /// A limit of the connection is reached, such as its number of channels.
    LimitExceeded,
    /// Malformed, but not so badly that the connection has to end.
    BadRequest,
    /// The feature is off for this channel, or not built in.
    NotAvailable,
    /// The client must fetch a new token.
    TokenExpired,
    /// The expiry computed for the connection or subscription lies in the past.
    Expired,
    /// A rate limit was hit.
    TooManyRequests,
    /// The requested position is not served any more.
    UnrecoverablePosition,
    /// Pages of one listing were asked for at the same time.
    ConcurrentPagination,
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::Internal => 100,
            Self::Unauthorized => 101,
            Self::UnknownChannel => 102,
            Self::PermissionDenied => 103,
            Self::MethodNotFound => 104,
            Self::AlreadySubscribed => 105,
            Self::LimitExceeded => 106,
            Self::BadRequest => 107,
            Self::NotAvailable => 108,
            Self::TokenExpired => 109,
            Self::Expired => 110,
            Self::TooManyRequests => 111,
            Self::UnrecoverablePosition => 112,
            Self::ConcurrentPagination => 113,
        }
    }

    /// The text that goes with the number.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Internal => "internal server error",
            Self::Unauthorized => "unauthorized",
            Self::UnknownChannel => "unknown channel",
            Self::PermissionDenied => "permission denied",
            Self::MethodNotFound => "method not found",
            Self::AlreadySubscribed => "already subscribed",
            Self::LimitExceeded => "limit exceeded",
            Self::BadRequest => "bad request",
            Self::NotAvailable => "not available",
            Self::TokenExpired => "token expired",
            Self::Expired => "expired",
            Self::TooManyRequests => "too many requests",
            Self::UnrecoverablePosition => "unrecoverable position",
            Self::ConcurrentPagination => "concurrent pagination",
        }
    }

    /// Whether the same command may succeed later without a change.
    pub const fn is_temporary(self) -> bool {
        matches!(
            self,
            Self::Internal | Self::TooManyRequests | Self::ConcurrentPagination
        )
    }
}

impl From<ErrorCode> for message::Error {
    fn from(code: ErrorCode) -> Self {
        Self {
            code: code.number(),
            message: Cow::Borrowed(code.message()),
            temporary: code.is_temporary(),
        }
    }
}

impl Disconnect {
    /// The client went away itself; nothing is written.
    pub const CONNECTION_CLOSED: Self = Self::of(3000, "connection closed");
    /// The server is going down; another (or the same, later) will do.
    pub const SHUTDOWN: Self = Self::of(3001, "shutdown");
    /// Anything unexpected on the server's side.
    pub const INTERNAL: Self = Self::of(3004, "internal server error");
    /// The connection's time is over and nobody refreshed it.
    pub const EXPIRED: Self = Self::of(3005, "connection expired");
    /// A server-side subscription's time is over and nobody refreshed it.
    pub const SUBSCRIPTION_EXPIRED: Self = Self::of(3006, "subscription expired");
    /// The client doesn't read as fast as it is written to.
    pub const SLOW: Self = Self::of(3008, "slow");
    /// Writing to the connection failed.
    pub const WRITE_ERROR: Self = Self::of(3009, "write error");
    /// Something was missed on the way to this connection; it recovers by connecting again.
    pub const INSUFFICIENT_STATE: Self = Self::of(3010, "insufficient state");
    /// An operator asked for it.
    pub const FORCE_RECONNECT: Self = Self::of(3011, "force reconnect");
    /// A ping was not answered in time.
    pub const NO_PONG: Self = Self::of(3012, "no pong");
    /// A rate limit was hit.
    pub const TOO_MANY_REQUESTS: Self = Self::of(3013, "too many requests");
    /// What the client knows is worth nothing any more: it drops its token and its positions, and
    /// connects again.
    pub const STATE_INVALIDATED: Self = Self::of(3014, "state invalidated");
    /// The token is malformed, forged, or somebody else's.
    pub const INVALID_TOKEN: Self = Self::of(3500, "invalid token");
    /// The client broke the protocol.
    pub const BAD_REQUEST: Self = Self::of(3501, "bad request");
    /// The client did not connect in time.
    pub const STALE: Self = Self::of(3502, "stale");
    /// An operator asked for it.
    pub const FORCE_DISCONNECT: Self = Self::of(3503, "force disconnect");
    /// The user has too many connections.
    pub const CONNECTION_LIMIT: Self = Self::of(3504, "connection limit");
    /// The connection has too many channels.
    pub const CHANNEL_LIMIT: Self = Self::of(3505, "channel limit");
    /// A message can't be written in the connection's encoding.
    pub const INAPPROPRIATE_PROTOCOL: Self = Self::of(3506, "inappropriate protocol");
    /// The client may not connect.
    pub const PERMISSION_DENIED: Self = Self::of(3507, "permission denied");
    /// The client used something that this server doesn't have.
    pub const NOT_AVAILABLE: Self = Self::of(3508, "not available");
    /// The client made too many errors.
    pub const TOO_MANY_ERRORS: Self = Self::of(3509, "too many errors");

    /// The protocol's own disconnect with this code.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code == code)
    }

    const ALL: [Self; 22] = [
        Self::CONNECTION_CLOSED,
        Self::SHUTDOWN,
        Self::INTERNAL,
        Self::EXPIRED,
        Self::SUBSCRIPTION_EXPIRED,
        Self::SLOW,
        Self::WRITE_ERROR,
        Self::INSUFFICIENT_STATE,
        Self::FORCE_RECONNECT,
        Self::NO_PONG,
        Self::TOO_MANY_REQUESTS,
        Self::STATE_INVALIDATED,
        Self::INVALID_TOKEN,
        Self::BAD_REQUEST,
        Self::STALE,
        Self::FORCE_DISCONNECT,
        Self::CONNECTION_LIMIT,
        Self::CHANNEL_LIMIT,
        Self::INAPPROPRIATE_PROTOCOL,
        Self::PERMISSION_DENIED,
        Self::NOT_AVAILABLE,
        Self::TOO_MANY_ERRORS,
    ];

    const fn of(code: u32, reason: &'static str) -> Self {
        Self {
            code,
            reason: Cow::Borrowed(reason),
        }
    }

    /// Whether official SDKs connect again after this.
    pub const fn is_reconnectable(&self) -> bool {
        !matches!(self.code, 3500..=3999 | 4500..=4999)
    }
}

/// Why the server ended a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnsubscribeCode {
    /// Ended for good.
    Server,
    /// Something was missed on the way; the client subscribes again and recovers.
    InsufficientState,
    /// The subscription's time is over; the client subscribes again with a fresh token.
    Expired,
    /// What the client knows of the channel is worth nothing any more: it drops its token and its
    /// position, and subscribes again.
    StateInvalidated,
}

impl UnsubscribeCode {
    /// What the server says of a number that the protocol knows.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            2000 => Self::Server,
            2500 => Self::InsufficientState,
            2501 => Self::Expired,
            2502 => Self::StateInvalidated,
            _ => return None,
        })
    }
}

impl From<UnsubscribeCode> for message::Unsubscribe {
    fn from(code: UnsubscribeCode) -> Self {
        let (code, reason) = match code {
            UnsubscribeCode::Server => (2000, "server unsubscribe"),
            UnsubscribeCode::InsufficientState => (2500, "insufficient state"),
            UnsubscribeCode::Expired => (2501, "subscription expired"),
            UnsubscribeCode::StateInvalidated => (2502, "state invalidated"),
        };
        Self {
            code,
            reason: Cow::Borrowed(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is on the wire can't change: these are the protocol's tables.
    #[test]
    fn numbers_and_texts_are_the_protocols() {
        use ErrorCode::{
            AlreadySubscribed, BadRequest, ConcurrentPagination, Expired, Internal, LimitExceeded,
            MethodNotFound, NotAvailable, PermissionDenied, TokenExpired, TooManyRequests,
            Unauthorized, UnknownChannel, UnrecoverablePosition,
        };
        for (code, number, message, is_temporary) in [
            (Internal, 100, "internal server error", true),
            (Unauthorized, 101, "unauthorized", false),
            (UnknownChannel, 102, "unknown channel", false),
            (PermissionDenied, 103, "permission denied", false),
            (MethodNotFound, 104, "method not found", false),
            (AlreadySubscribed, 105, "already subscribed", false),
            (LimitExceeded, 106, "limit exceeded", false),
            (BadRequest, 107, "bad request", false),
            (NotAvailable, 108, "not available", false),
            (TokenExpired, 109, "token expired", false),
            (Expired, 110, "expired", false),
            (TooManyRequests, 111, "too many requests", true),
            (UnrecoverablePosition, 112, "unrecoverable position", false),
            (ConcurrentPagination, 113, "concurrent pagination", true),
        ] {
            let error = message::Error::from(code);
            assert_eq!((error.code, &*error.message), (number, message));
            assert_eq!(error.temporary, is_temporary, "{message}");
        }
        let disconnects = Disconnect::ALL.map(|known| (known.code, known.reason));
        assert_eq!(
            disconnects.map(|(code, reason)| format!("{code} {reason}")),
            [
                "3000 connection closed",
                "3001 shutdown",
                "3004 internal server error",
                "3005 connection expired",
                "3006 subscription expired",
                "3008 slow",
                "3009 write error",
                "3010 insufficient state",
                "3011 force reconnect",
                "3012 no pong",
                "3013 too many requests",
                "3014 state invalidated",
                "3500 invalid token",
                "3501 bad request",
                "3502 stale",
                "3503 force disconnect",
                "3504 connection limit",
                "3505 channel limit",
                "3506 inappropriate protocol",
                "3507 permission denied",
                "3508 not available",
                "3509 too many errors",
            ]
        );
        for (code, number, reason) in [
            (UnsubscribeCode::Server, 2000, "server unsubscribe"),
            (
                UnsubscribeCode::InsufficientState,
                2500,
                "insufficient state",
            ),
            (UnsubscribeCode::Expired, 2501, "subscription expired"),
            (UnsubscribeCode::StateInvalidated, 2502, "state invalidated"),
        ] {
            let unsubscribe = message::Unsubscribe::from(code);
            assert_eq!((unsubscribe.code, &*unsubscribe.reason), (number, reason));
            assert_eq!(UnsubscribeCode::from_number(number), Some(code));
        }
        assert_eq!(UnsubscribeCode::from_number(2001), None);
    }

    /// SDKs believe a final code only with a reason, and take one that is JSON for something else.
    #[test]
    fn reasons_are_text_that_is_no_json() {
        for disconnect in [
            Disconnect::CONNECTION_CLOSED,
            Disconnect::SHUTDOWN,
            Disconnect::INTERNAL,
            Disconnect::EXPIRED,
            Disconnect::SUBSCRIPTION_EXPIRED,
            Disconnect::SLOW,
            Disconnect::WRITE_ERROR,
            Disconnect::INSUFFICIENT_STATE,
            Disconnect::FORCE_RECONNECT,
            Disconnect::NO_PONG,
            Disconnect::TOO_MANY_REQUESTS,
            Disconnect::STATE_INVALIDATED,
            Disconnect::INVALID_TOKEN,
            Disconnect::BAD_REQUEST,
            Disconnect::STALE,
            Disconnect::FORCE_DISCONNECT,
            Disconnect::CONNECTION_LIMIT,
            Disconnect::CHANNEL_LIMIT,
            Disconnect::INAPPROPRIATE_PROTOCOL,
            Disconnect::PERMISSION_DENIED,
            Disconnect::NOT_AVAILABLE,
            Disconnect::TOO_MANY_ERRORS,
        ] {
            let reason = &*disconnect.reason;
            assert!(!reason.trim().is_empty() && reason.len() <= 123);
            assert!(serde_json::from_str::<serde::de::IgnoredAny>(reason).is_err());
            let is_final = matches!(disconnect.code, 3500..=3999);
            assert_eq!(disconnect.is_reconnectable(), !is_final, "{reason}");
        }
    }
}
