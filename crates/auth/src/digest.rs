//! The digest of a key, to be kept in place of the key.

use std::fmt;

use aws_lc_rs::constant_time;
use aws_lc_rs::digest::{SHA256, digest};

/// SHA-256 of a key. Who reads it can't use it, provided that the key is long and random: then there
/// is nothing to guess, and a slow hash would only slow down each call.
///
/// ```
/// use tautline_auth::KeyDigest;
///
/// let digest = KeyDigest::of(b"a long random key");
/// assert_eq!(KeyDigest::from_hex(&digest.to_hex()), Ok(digest.clone()));
/// assert!(digest.matches(b"a long random key") && !digest.matches(b"another"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct KeyDigest([u8; LEN]);

impl KeyDigest {
    /// The digest of a key.
    pub fn of(key: &[u8]) -> Self {
        let mut bytes = [0; LEN];
        bytes.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(bytes)
    }

    /// Reads what [`to_hex`](Self::to_hex) (and `sha256sum`) writes.
    ///
    /// # Errors
    ///
    /// [`DigestError`] for anything but 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        let digits = text.as_bytes();
        if digits.len() != 2 * LEN {
            return Err(DigestError);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(DigestError);
        let mut bytes = [0; LEN];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            // Two digits make a byte.
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }

    /// 64 lower case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether it is the digest of `key`, in a time that tells nothing about where they differ.
    pub fn matches(&self, key: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &Self::of(key).0).is_ok()
    }
}

/// Nothing of it: who logs a configuration shouldn't log what keys are compared with.
impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(hidden)")
    }
}

/// What isn't a digest in hexadecimal digits. Its text doesn't quote what came: that may be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a SHA-256 digest: expected 64 hexadecimal digits, as `sha256sum` prints them")]
pub struct DigestError;

const LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_others() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyDigest::of(b"abc").to_hex(), abc);
        let read = KeyDigest::from_hex(&abc.to_uppercase()).expect("either case");
        assert!(read.matches(b"abc"));
        assert!(!read.matches(b"abd") && !read.matches(b"") && !read.matches(b"abcd"));
        assert_eq!(format!("{read:?}"), "KeyDigest(hidden)");
    }

    #[test]
    fn what_is_no_digest_is_told_so() {
        let hex = KeyDigest::of(b"abc").to_hex();
        for text in [
            "",
            "abc",
            &hex[1..],
            &format!("{hex}0"),
            &hex.replace('b', "x"),
        ] {
            assert_eq!(KeyDigest::from_hex(text), Err(DigestError), "{text}");
        }
        // Not a character of one byte each.
        assert_eq!(KeyDigest::from_hex(&"é".repeat(32)), Err(DigestError));
    }
}
