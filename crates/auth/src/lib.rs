//! Tokens: who a client is, and what it may subscribe to.
//!
//! An application's backend signs a JWT (RFC 7519) for each of its users, the client sends it when
//! it connects, and [`Verifier`] decides whether to believe it. There are two kinds: a *connection
//! token* says who the user is ([`Verifier::verify_connect`]), a *subscription token* lets that
//! user into one channel ([`Verifier::verify_subscribe`]). [`Signer`] makes both, for the command
//! line and for development; in production the application's own JWT library does.
//!
//! The crate is pure: keys and time are arguments, nothing is read from files, clocks or the
//! network. Nothing that holds a key prints it, and no error contains a key or a token.
//!
//! ```
//! use std::time::Duration;
//! use tautline_auth::{Signer, TokenClaims, TokenError, Verifier, VerifierConfig};
//!
//! let verifier = Verifier::new(VerifierConfig {
//!     hmac_secret: Some("a long random secret".into()),
//!     ..VerifierConfig::default()
//! })?;
//! let token = Signer::hs256(&"a long random secret".into())?.sign(&TokenClaims {
//!     user: "7",
//!     expires_at: Some(2_000_000_000),
//!     ..TokenClaims::default()
//! })?;
//!
//! let claims = verifier.verify_connect(&token, Duration::from_secs(1_999_999_999))?;
//! assert_eq!(claims.user, "7");
//! assert_eq!(claims.expire_at, Some(2_000_000_000));
//!
//! let late = verifier.verify_connect(&token, Duration::from_secs(2_000_000_000));
//! assert_eq!(late, Err(TokenError::Expired));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is checked, in this order
//!
//! 1. the length ([`MAX_TOKEN_LEN`]), the three parts, the header, the algorithm;
//! 2. the signature, with each key that is configured for that algorithm;
//! 3. the claims' types, issuer and audience (where configured), and the kind of token;
//! 4. last of all the time: a forged token is [`Invalid`](TokenError::Invalid) even when it is
//!    also expired, so that an attacker is never asked to come back with a fresher one.
//!
//! A token is good from `nbf` on and until just before `exp`; for clocks that disagree there is
//! [`VerifierConfig::leeway`], which is zero unless it is set.
//!
//! # Revocation
//!
//! A genuine token may be worth nothing before its time is over: the caller asks [`Revocations`], with the [`TokenMark`]
//! that comes with the claims.
//!
//! # Keys
//!
//! HS256, HS384 and HS512 need the secret that both sides share. RS, PS, ES and EdDSA need a public
//! key: given as [`PublicKey`], or from a key set that an identity provider publishes ([`JwkSet`]),
//! where the token's `kid` says which. The sets are fetched by somebody else ([`RemoteKeys`]). A provider with
//! many tenants may have one set for each; which, issuer or audience say ([`RemoteKeyFamily`]).

mod algorithm;
mod capabilities;
mod claims;
mod digest;
mod error;
mod family;
mod jwks;
mod key;
mod pattern;
mod public_key;
mod remote;
mod revocation;
mod secret;
mod signer;
mod url_template;
mod verifier;

pub use capabilities::{Allowed, Capabilities};
pub use claims::{ConnectClaims, Overrides, SubscribeClaims, SubscriptionOptions};
pub use digest::{DigestError, KeyDigest};
pub use error::{InvalidToken, KeyError, SignError, TokenError};
pub use family::{MAX_AWAITED_KEY_SETS, MAX_KEY_SETS, RemoteKeyFamily};
pub use jwks::{JwkSet, JwkSetError, MAX_JWK_SET_KEYS, MAX_JWK_SET_LEN};
pub use pattern::{MAX_PATTERN_LEN, Pattern, PatternError};
pub use public_key::PublicKey;
pub use remote::RemoteKeys;
pub use revocation::{Revocation, Revocations, TokenId, TokenMark, TooManyRevocations};
pub use secret::Secret;
pub use signer::{Signer, TokenClaims};
pub use url_template::{UrlTemplate, UrlTemplateError};
pub use verifier::{MAX_TOKEN_LEN, Verifier, VerifierConfig};
