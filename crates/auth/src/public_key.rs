//! Public keys, each with the algorithms that it may be used with.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::algorithm::{Algorithm, Method};
use crate::error::KeyError;

/// A public key: RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519.
///
/// It is taken apart once, for each of the algorithms that it can be used with. A token's header
/// chooses among these and nothing else, so an RSA key is never an HMAC secret.
#[derive(Clone)]
pub struct PublicKey {
    uses: Vec<(Algorithm, ParsedPublicKey)>,
}

impl PublicKey {
    /// Reads a key in PEM: `BEGIN PUBLIC KEY` (RFC 7468, section 13), or `BEGIN RSA PUBLIC KEY`.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when it isn't one.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let (_, rest) = text.split_once("-----BEGIN ").ok_or(KeyError::NotPem)?;
        let (label, rest) = rest.split_once("-----").ok_or(KeyError::NotPem)?;
        match label {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
            private if private.ends_with("PRIVATE KEY") => return Err(KeyError::PrivateKey),
            _ => return Err(KeyError::NotPem),
        }
        let (body, _) = rest
            .split_once(&format!("-----END {label}-----"))
            .ok_or(KeyError::NotPem)?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| KeyError::NotPem)?;
        Self::from_bytes(&der, &Algorithm::PUBLIC).ok_or(KeyError::UnusableKey)
    }

    /// A key in whichever form its algorithms have; `None` if it can't be used with any of
    /// `algorithms`.
    pub(crate) fn from_bytes(bytes: &[u8], algorithms: &[Algorithm]) -> Option<Self> {
        let uses: Vec<_> = algorithms
            .iter()
            .filter_map(|algorithm| match algorithm.method() {
                Method::Hmac(_) => None,
                Method::Public(method) => {
                    let key = ParsedPublicKey::new(method, bytes).ok()?;
                    has_good_size(*algorithm, &key).then_some((*algorithm, key))
                }
            })
            .collect();
        (!uses.is_empty()).then_some(Self { uses })
    }

    /// The algorithms that it may be used with, as a header's `alg` names them.
    pub fn algorithms(&self) -> impl Iterator<Item = &'static str> {
        self.uses.iter().map(|(algorithm, _)| algorithm.name())
    }

    pub(crate) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.uses.iter().any(|(known, _)| *known == algorithm)
    }

    /// Whether the key made `signature` over `message`, with this algorithm.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.uses
            .iter()
            .filter(|(known, _)| *known == algorithm)
            .any(|(_, key)| key.verify_sig(message, signature).is_ok())
    }
}

/// RSA keys of another size than 2048 to 8192 bits are refused when a signature is verified. An
/// operator should learn of it when the key is configured; there, the size of the key's DER tells.
fn has_good_size(algorithm: Algorithm, key: &ParsedPublicKey) -> bool {
    if !algorithm.is_rsa() {
        return true;
    }
    let der: Result<PublicKeyX509Der<'_>, _> = key.as_der();
    der.is_ok_and(|der| (290..=1070).contains(&der.as_ref().len()))
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.algorithms()).finish()
    }
}
