//! Signatures: how a backend knows that it is asked by its own server, just now, and about this.
//!
//! What is signed is the time in Unix seconds, the kind of the question and the body, with a dot between
//! each: `1700000000.connect.{"client":…}`. The field says the time, and the HMAC-SHA256 in hexadecimal
//! digits, once for each key: `t=1700000000,v1=…,v1=…`.

use std::fmt::Write as _;

use aws_lc_rs::hmac;

/// The header field with the signature.
pub(crate) const SIGNATURE: &str = "tautline-signature";

/// The header field that says what is asked.
pub(crate) const EVENT: &str = "tautline-event";

/// The signature of a question at a time, in Unix seconds.
pub(crate) fn sign(keys: &[hmac::Key], time: u64, event: &str, body: &[u8]) -> String {
    let mut text = format!("t={time}");
    for key in keys {
        let mut context = hmac::Context::with_key(key);
        context.update(format!("{time}.{event}.").as_bytes());
        context.update(body);
        text.push_str(",v1=");
        for byte in context.sign().as_ref() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &[u8]) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, secret)
    }

    /// The chapter has this example for those who write the other side. Made with Python's `hmac`.
    #[test]
    fn a_signature_is_what_the_chapter_says() {
        let body = br#"{"client":"8a3f"}"#;
        let signature = sign(&[key(b"secret")], 1_700_000_000, "connect", body);
        let expected =
            "t=1700000000,v1=c4aec8c8901e52ec9cee9871076af2accd331b3f0acfdbc0a772dbf98328f591";
        assert_eq!(signature, expected);
        let chapter = include_str!("../../../../docs/proxy.md");
        assert!(
            chapter.contains(expected),
            "docs/proxy.md has another example"
        );
    }

    #[test]
    fn it_depends_on_all_that_it_says() {
        let keys = [key(b"a")];
        let one = sign(&keys, 1, "rpc", b"x");
        let mac = |text: &str| text.split_once(',').expect("a code").1.to_owned();
        for other in [
            sign(&keys, 2, "rpc", b"x"),
            sign(&keys, 1, "publish", b"x"),
            sign(&keys, 1, "rpc", b"y"),
            sign(&[key(b"b")], 1, "rpc", b"x"),
        ] {
            assert_ne!(mac(&one), mac(&other));
        }
        let both = sign(&[key(b"a"), key(b"b")], 1, "rpc", b"x");
        assert!(both.starts_with(&one) && both.matches("v1=").count() == 2);
    }
}
