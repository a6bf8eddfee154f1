//! Why a token was refused, and why a key can't be used.

use thiserror::Error;

/// A token that doesn't let its bearer in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// The token is genuine, but its time is over (or has not come yet). The client may fetch
    /// another one from the application and try again.
    #[error("the token has expired, or is not valid yet")]
    Expired,
    /// The token is malformed, forged, or meant for something else.
    #[error("invalid token: {0}")]
    Invalid(#[from] InvalidToken),
}

/// What is wrong with a token. The texts are for an operator's log; clients only learn that the
/// token is invalid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// `aud` is missing or names somebody else.
    #[error("the audience (claim `aud`) is not the one that client.token.audience asks for")]
    Audience,
    /// A claim has the wrong type, a claim is there twice, or the payload is no JSON object.
    #[error("the claims can't be read: {0}")]
    Claims(String),
    /// The header asks for an extension of JWS that must be understood (`crit`, RFC 7515 §4.1.11).
    #[error("the header's `crit` asks for an extension that is not supported")]
    CriticalHeader,
    /// A part is not base64url without padding, or the header is no JSON object with an `alg`.
    #[error("the token is not a JWT: {0}")]
    Encoding(&'static str),
    /// `iss` is missing or names somebody else.
    #[error("the issuer (claim `iss`) is not the one that client.token.issuer asks for")]
    Issuer,
    /// A subscription token without `channel`.
    #[error("a subscription token needs the claim `channel`; is this a connection token?")]
    MissingChannel,
    /// No key is configured for the algorithm of the token.
    #[error("no key is configured for the algorithm {0}; see client.token.hmac_secret_key")]
    NoKey(&'static str),
    /// No configured key made the signature.
    #[error("the signature does not match; was the token signed with another secret?")]
    Signature,
    /// The token is longer than [`MAX_TOKEN_LEN`](crate::MAX_TOKEN_LEN).
    #[error("the token is {len} bytes long, at most {max} are accepted")]
    TooLong {
        /// Length of the token in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A connection token with `channel`.
    #[error("a connection token must not have the claim `channel`; is this a subscription token?")]
    UnexpectedChannel,
    /// `alg` is `none`, or not one of the algorithms that can be verified.
    #[error("the algorithm (`alg`) is not supported: use HS256, HS384 or HS512")]
    UnsupportedAlgorithm,
}

/// A key that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret is the empty string: anybody could sign with it.
    #[error(
        "the secret is empty, so anybody could sign tokens with it; use at least 32 random bytes"
    )]
    EmptySecret,
    /// A previous secret is there, but no current one that it could be previous to.
    #[error("there is a previous secret but no current one; set client.token.hmac_secret_key too")]
    PreviousWithoutCurrent,
}

/// A token that can't be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the token can't be signed: {0}")]
pub struct SignError(pub(crate) String);
