//! Why a token was refused, and why a key can't be used.

use thiserror::Error;

/// A token that doesn't let its bearer in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The token is genuine, but its time is over. The client may fetch another one from the
    /// application and try again.
    #[error("the token has expired")]
    Expired,
    /// The token is genuine, but its time has not come (`nbf`): one of the clocks is wrong, or the
    /// application hands out tokens too early.
    #[error("the token is not valid yet")]
    NotYet,
    /// The key that the token names isn't known yet; it is being fetched. The client may come back
    /// with the same token.
    #[error("the key of the token is being fetched")]
    Unavailable,
    /// The token is genuine, and was revoked ([`Revocations`](crate::Revocations)). The client may fetch another one
    /// from the application, if that gives it one.
    #[error("the token was revoked")]
    Revoked,
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
    /// The key that the token names is for other algorithms than the token's.
    #[error("the key that the header's `kid` names is not for the algorithm {0}")]
    KeyAlgorithm(&'static str),
    /// What the token says of its issuer or audience can't be filled into the URL of the key sets.
    #[error(
        "what issuer or audience say can't be filled into client.token.jwks_public_endpoint: only letters, digits, \
         `-`, and behind the host `_`, `.` and `~` can"
    )]
    KeySet,
    /// A subscription token without `channel`.
    #[error("a subscription token needs the claim `channel`; is this a connection token?")]
    MissingChannel,
    /// No key is configured for the algorithm of the token.
    #[error(
        "no key is configured for the algorithm {0}; see client.token.hmac_secret_key and \
         client.token.rsa_public_key"
    )]
    NoKey(&'static str),
    /// A token for the keys of a key set that doesn't say which.
    #[error("the header has no `kid`, which says which key of the key set signed the token")]
    NoKeyId,
    /// No configured key made the signature.
    #[error("the signature does not match; was the token signed with another secret?")]
    Signature,
    /// The key set has no key with the id that the token names.
    #[error("the key set has no key with the id that the header's `kid` names")]
    UnknownKey,
    /// `alg` is `none`: anybody could have made the token.
    #[error("the token is not signed (`alg` is `none`)")]
    Unsigned,
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
    /// `alg` is not one of the algorithms that can be verified.
    #[error(
        "the algorithm (`alg`) is not supported: use HS256, RS256, PS256, ES256, one of their \
         longer sisters, or EdDSA with Ed25519"
    )]
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
    /// What should be a public key in PEM isn't.
    #[error("not a public key in PEM: expected lines between BEGIN PUBLIC KEY and END PUBLIC KEY")]
    NotPem,
    /// A private key where a public one belongs.
    #[error(
        "this is a private key, which only the signer should have: give its public key \
         (openssl pkey -pubout)"
    )]
    PrivateKey,
    /// A public key of a kind that can't be used.
    #[error(
        "the public key can't be used: expected RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 \
         or P-521, or Ed25519"
    )]
    UnusableKey,
    /// A previous secret is there, but no current one that it could be previous to.
    #[error("there is a previous secret but no current one; set client.token.hmac_secret_key too")]
    PreviousWithoutCurrent,
}

/// A token that can't be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the token can't be signed: {0}")]
pub struct SignError(pub(crate) String);
