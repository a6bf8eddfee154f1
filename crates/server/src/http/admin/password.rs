//! The admin's password: what is kept of it, and whether one that was typed is it.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use tautline_auth::KeyDigest;

/// What the server knows of the password. Not the password.
#[derive(Clone)]
pub struct Password(Kept);

#[derive(Clone)]
enum Kept {
    /// Where the configuration has the password itself, there is nothing to be won by a slow hash.
    Digest(KeyDigest),
    Slow {
        iterations: NonZeroU32,
        salt: Vec<u8>,
        hash: Vec<u8>,
    },
}

/// A text that is no hash of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a line that `tautline password` prints, such as pbkdf2-sha256:600000:SALT:HASH")]
pub struct PasswordHashError;

impl Password {
    /// By the password itself.
    pub fn of(password: &[u8]) -> Self {
        Self(Kept::Digest(KeyDigest::of(password)))
    }

    /// By what [`hash`](Self::hash) has made of it.
    ///
    /// # Errors
    ///
    /// [`PasswordHashError`], also for a hash that costs too little, or so much that a login would take minutes.
    pub fn from_hash(text: &str) -> Result<Self, PasswordHashError> {
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or(PasswordHashError);
        let (scheme, iterations, salt, hash) = (next()?, next()?, next()?, next()?);
        let iterations = iterations.parse().ok().and_then(NonZeroU32::new);
        let iterations = iterations.filter(|count| ITERATIONS.contains(&count.get()));
        let (salt, hash) = (unhex(salt)?, unhex(hash)?);
        if scheme != SCHEME || parts.next().is_some() || salt.len() < SALT || hash.len() != HASH {
            return Err(PasswordHashError);
        }
        Ok(Self(Kept::Slow {
            iterations: iterations.ok_or(PasswordHashError)?,
            salt,
            hash,
        }))
    }

    /// What a configuration can have in the place of a password (PBKDF2 with HMAC-SHA-256, RFC 8018). Takes a good
    /// part of a second. The salt is to be random.
    pub fn hash(password: &[u8], salt: [u8; SALT]) -> String {
        let mut hash = [0; HASH];
        pbkdf2::derive(ALGORITHM, USUAL, &salt, password, &mut hash);
        format!("{SCHEME}:{USUAL}:{}:{}", hex(&salt), hex(&hash))
    }

    /// Whether comparing takes so long that it belongs on a thread of its own.
    pub(super) fn is_slow(&self) -> bool {
        matches!(self.0, Kept::Slow { .. })
    }

    /// Whether this is it. The time that takes says nothing about it.
    pub(super) fn matches(&self, given: &[u8]) -> bool {
        match &self.0 {
            Kept::Digest(digest) => digest.matches(given),
            Kept::Slow {
                iterations,
                salt,
                hash,
            } => pbkdf2::verify(ALGORITHM, *iterations, salt, given, hash).is_ok(),
        }
    }

    /// The same for all that were made of the same option.
    pub(super) fn fingerprint(&self) -> String {
        match &self.0 {
            Kept::Digest(digest) => digest.to_hex(),
            Kept::Slow { salt, hash, .. } => format!("{}:{}", hex(salt), hex(hash)),
        }
    }
}

/// Without any of it.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Result<Vec<u8>, PasswordHashError> {
    let is_hex = text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || !text.len().is_multiple_of(2) {
        return Err(PasswordHashError);
    }
    let bytes = (0..text.len()).step_by(2);
    bytes
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| PasswordHashError))
        .collect()
}

const SCHEME: &str = "pbkdf2-sha256";
const ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
/// What OWASP's Password Storage Cheat Sheet asks of it.
const USUAL: NonZeroU32 = NonZeroU32::new(600_000).unwrap();
const ITERATIONS: std::ops::RangeInclusive<u32> = 100_000..=5_000_000;
/// Bytes of the salt.
const SALT: usize = 16;
/// Bytes of the hash.
const HASH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash() {
        let hash = Password::hash(b"correct horse battery", [7; SALT]);
        let known = Password::from_hash(&hash).expect("it is a hash");
        assert!(known.is_slow() && known.matches(b"correct horse battery"));
        assert!(!known.matches(b"correct horse batterz") && !known.matches(b""));
        assert!(!format!("{known:?}").contains("correct"));
        // RFC 7914 section 11 has PBKDF2-HMAC-SHA256 for these, of which this is the beginning.
        let vector = "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56";
        let mut hash = [0; HASH];
        let iterations = NonZeroU32::new(80_000).expect("some");
        pbkdf2::derive(ALGORITHM, iterations, b"NaCl", b"Password", &mut hash);
        assert_eq!(hex(&hash), vector);
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let (salt, hash) = ("0f".repeat(16), "a0".repeat(32));
        let good = format!("pbkdf2-sha256:600000:{salt}:{hash}");
        assert!(Password::from_hash(&good).is_ok());
        for bad in [
            String::new(),
            "secret".to_owned(),
            format!("pbkdf2-sha1:600000:{salt}:{hash}"),
            format!("pbkdf2-sha256:1000:{salt}:{hash}"),
            format!("pbkdf2-sha256:99999999:{salt}:{hash}"),
            format!("pbkdf2-sha256:600000:{salt}"),
            format!("pbkdf2-sha256:600000:0f:{hash}"),
            format!("pbkdf2-sha256:600000:{salt}:{}", "a0".repeat(31)),
            format!("pbkdf2-sha256:600000:{salt}:{}", "zz".repeat(32)),
            format!("{good}:more"),
        ] {
            assert!(Password::from_hash(&bad).is_err(), "{bad}");
        }
    }
}
