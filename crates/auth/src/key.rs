//! Which key may have signed what.
//!
//! Keys are looked up by algorithm, never the other way round: what the token's header says only
//! chooses among the algorithms which an operator configured a key for. That is what keeps a
//! public key from being used as an HMAC secret once there are public keys here.

use std::time::Duration;

use jsonwebtoken::DecodingKey;

use crate::error::{InvalidToken, KeyError};
use crate::secret::Secret;

/// The signature algorithms that can be verified (RFC 7518 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
}

impl Algorithm {
    /// Reads the header's `alg`. `none` is not an algorithm.
    pub(crate) fn from_name(name: &str) -> Result<Self, InvalidToken> {
        match name {
            "HS256" => Ok(Self::Hs256),
            "HS384" => Ok(Self::Hs384),
            "HS512" => Ok(Self::Hs512),
            _ => Err(InvalidToken::UnsupportedAlgorithm),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    fn provider(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Hs384 => jsonwebtoken::Algorithm::HS384,
            Self::Hs512 => jsonwebtoken::Algorithm::HS512,
        }
    }
}

/// All keys of a verifier.
#[derive(Default)]
pub(crate) struct KeySet {
    /// For the HS algorithms: the current secret first, then the previous one.
    hmac: Vec<HmacKey>,
}

struct HmacKey {
    key: DecodingKey,
    /// Unix time from which on the key is not tried any more.
    valid_until: Option<Duration>,
}

impl KeySet {
    pub(crate) fn new(
        current: Option<&Secret>,
        previous: Option<&Secret>,
        previous_valid_until: Option<Duration>,
    ) -> Result<Self, KeyError> {
        if current.into_iter().chain(previous).any(Secret::is_empty) {
            return Err(KeyError::EmptySecret);
        }
        if previous.is_some() && current.is_none() {
            return Err(KeyError::PreviousWithoutCurrent);
        }
        let hmac = [(current, None), (previous, previous_valid_until)]
            .into_iter()
            .filter_map(|(secret, valid_until)| {
                let key = DecodingKey::from_secret(secret?.expose());
                Some(HmacKey { key, valid_until })
            })
            .collect();
        Ok(Self { hmac })
    }

    /// Whether one of the keys for `algorithm` that are valid at `now` made `signature`
    /// (base64url) over `message`. Constant in time with regard to the signature.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &str,
        now: Duration,
    ) -> Result<(), InvalidToken> {
        let keys = match algorithm {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => &self.hmac,
        };
        if keys.is_empty() {
            return Err(InvalidToken::NoKey(algorithm.name()));
        }
        let signed = keys
            .iter()
            .filter(|key| key.valid_until.is_none_or(|end| now <= end))
            .any(|HmacKey { key, .. }| {
                jsonwebtoken::crypto::verify(signature, message, key, algorithm.provider())
                    .is_ok_and(|good| good)
            });
        if signed {
            Ok(())
        } else {
            Err(InvalidToken::Signature)
        }
    }
}
