//! Which of an operator's keys may have signed what.
//!
//! Keys are looked up by algorithm, never the other way round: what the token's header says only
//! chooses among the algorithms which an operator configured a key for. That is what keeps a
//! public key from being used as an HMAC secret.

use std::time::Duration;

use aws_lc_rs::hmac;

use crate::algorithm::{Algorithm, Method};
use crate::error::{InvalidToken, KeyError};
use crate::public_key::PublicKey;
use crate::secret::Secret;

/// The keys that were given to a verifier, as opposed to those that are fetched.
pub(crate) struct KeySet {
    /// The current secret first, then the previous one.
    hmac: Vec<HmacKey>,
    public: Vec<PublicKey>,
}

struct HmacKey {
    secret: Secret,
    /// Unix time from which on the key is not tried any more.
    valid_until: Option<Duration>,
}

impl KeySet {
    pub(crate) fn new(
        current: Option<&Secret>,
        previous: Option<&Secret>,
        previous_valid_until: Option<Duration>,
        public: Vec<PublicKey>,
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
                let secret = secret?.clone();
                Some(HmacKey {
                    secret,
                    valid_until,
                })
            })
            .collect();
        Ok(Self { hmac, public })
    }

    /// Whether one of the keys for `algorithm` that are valid at `now` made `signature` over
    /// `message`. Constant in time with regard to the signature.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
        now: Duration,
    ) -> Result<(), InvalidToken> {
        let (any, signed) = match algorithm.method() {
            Method::Hmac(method) => {
                let mut keys = self
                    .hmac
                    .iter()
                    .filter(|key| key.valid_until.is_none_or(|end| now <= end));
                let signed = keys.any(|HmacKey { secret, .. }| {
                    let key = hmac::Key::new(method, secret.expose());
                    hmac::verify(&key, message, signature).is_ok()
                });
                (!self.hmac.is_empty(), signed)
            }
            Method::Public(_) => {
                let mut keys = self.public.iter();
                (
                    self.public.iter().any(|key| key.is_for(algorithm)),
                    keys.any(|key| key.verifies(algorithm, message, signature)),
                )
            }
        };
        match (any, signed) {
            (_, true) => Ok(()),
            (true, false) => Err(InvalidToken::Signature),
            (false, false) => Err(InvalidToken::NoKey(algorithm.name())),
        }
    }
}
