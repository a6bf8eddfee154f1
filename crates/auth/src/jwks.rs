//! Key sets as identity providers publish them (RFC 7517).

use std::collections::BTreeMap;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::RsaPublicKeyComponents;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::algorithm::Algorithm;
use crate::public_key::PublicKey;

/// Longest key set that is read, in bytes.
pub const MAX_JWK_SET_LEN: usize = 256 * 1024;

/// How many keys of a set are used.
pub const MAX_JWK_SET_KEYS: usize = 100;

/// The keys of a JWK Set that can verify tokens, by their ids (`kid`).
///
/// Whatever else is in a set is skipped, as RFC 7517, section 5, wants it: keys for encryption, of
/// kinds and curves that are not known, without an id, with numbers that are out of range. Shared
/// secrets (`"kty":"oct"`) are never taken from a set: what is published is no secret.
#[derive(Clone, Debug, Default)]
pub struct JwkSet {
    keys: BTreeMap<String, PublicKey>,
    skipped: usize,
}

impl JwkSet {
    /// Reads a set.
    ///
    /// # Errors
    ///
    /// When it is too long, or no JWK Set at all. A set of which no key can be used is not an error.
    pub fn parse(json: &[u8]) -> Result<Self, JwkSetError> {
        if json.len() > MAX_JWK_SET_LEN {
            return Err(JwkSetError::TooLong {
                len: json.len(),
                max: MAX_JWK_SET_LEN,
            });
        }
        let raw: RawSet =
            serde_json::from_slice(json).map_err(|error| JwkSetError::Syntax(error.to_string()))?;
        let mut set = Self::default();
        for value in raw.keys {
            // One key that is not understood says nothing about the others.
            let key = serde_json::from_value::<RawKey>(value).ok();
            match key.and_then(RawKey::into_key) {
                Some((id, key)) if set.keys.len() < MAX_JWK_SET_KEYS => {
                    // Of two with one id, the first counts.
                    set.keys.entry(id).or_insert(key);
                }
                _ => set.skipped += 1,
            }
        }
        Ok(set)
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key can be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys of the set can't be used.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    pub(crate) fn get(&self, id: &str) -> Option<&PublicKey> {
        self.keys.get(id)
    }
}

/// Why a key set can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwkSetError {
    /// The set is longer than [`MAX_JWK_SET_LEN`].
    #[error("the key set is {len} bytes long, at most {max} are accepted")]
    TooLong {
        /// Length of the set in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Not JSON, or not an object with a list of `keys`.
    #[error("not a JWK Set, which is a JSON object with a list of `keys`: {0}")]
    Syntax(String),
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl RawKey {
    fn into_key(self) -> Option<(String, PublicKey)> {
        use Algorithm::{EdDsa, Es256, Es384, Es512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let is_for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && (self.key_ops.as_ref()).is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let id = self.kid.filter(|id| !id.is_empty() && is_for_signatures)?;
        let (bytes, family) = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (decode(self.n?)?, decode(self.e?)?);
                let components = RsaPublicKeyComponents { n, e };
                let der = components.as_der().ok()?.as_ref().to_vec();
                (der, &[Rs256, Rs384, Rs512, Ps256, Ps384, Ps512][..])
            }
            ("EC", Some("P-256")) => (point(self.x?, self.y?, 32)?, &[Es256][..]),
            ("EC", Some("P-384")) => (point(self.x?, self.y?, 48)?, &[Es384][..]),
            ("EC", Some("P-521")) => (point(self.x?, self.y?, 66)?, &[Es512][..]),
            ("OKP", Some("Ed25519")) => (decode(self.x?)?, &[EdDsa][..]),
            _ => return None,
        };
        // A key that states its algorithm is for no other.
        let stated = match self.alg {
            Some(name) => {
                let stated = Algorithm::from_name(&name).ok();
                Some(stated.filter(|stated| family.contains(stated))?)
            }
            None => None,
        };
        let algorithms = stated.as_ref().map_or(family, std::slice::from_ref);
        Some((id, PublicKey::from_bytes(&bytes, algorithms)?))
    }
}

/// An uncompressed point: coordinates of exactly so many bytes (RFC 7518, section 6.2.1.2).
fn point(x: String, y: String, len: usize) -> Option<Vec<u8>> {
    let (x, y) = (decode(x)?, decode(y)?);
    (x.len() == len && y.len() == len).then(|| [&[4], &x[..], &y].concat())
}

fn decode(text: String) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
