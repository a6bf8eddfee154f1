//! `Sec-WebSocket-Key` and the proof that it was read (RFC 6455 §4.2.1, §4.2.2).

use std::fmt;

/// The value of `Sec-WebSocket-Accept`: it shows that the server understood the client's key as
/// a WebSocket key, and didn't just answer some request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptKey([u8; 28]);

impl AcceptKey {
    /// The answer to a key, taken as it stands in `Sec-WebSocket-Key`.
    ///
    /// ```
    /// use tautline_websocket::proto::handshake::AcceptKey;
    ///
    /// let accept = AcceptKey::answer("dGhlIHNhbXBsZSBub25jZQ==");
    /// assert_eq!(accept.as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    /// ```
    //= rfc6455 4.2.2-14
    pub fn answer(key: &str) -> Self {
        let mut sha1 = sha1_smol::Sha1::from(key);
        sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let digest = sha1.digest().bytes();
        let mut text = [b'='; 28];
        encode_base64(&digest, &mut text);
        Self(text)
    }

    /// The value as text: 28 characters of base64.
    pub fn as_str(&self) -> &str {
        // Base64 is ASCII, so the empty string is never given.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for AcceptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A client's nonce as it stands in `Sec-WebSocket-Key`.
//= rfc6455 4.1-20
pub(super) fn encode_key(nonce: [u8; 16]) -> [u8; 24] {
    let mut text = [b'='; 24];
    encode_base64(&nonce, &mut text);
    text
}

/// Writes base64 (RFC 4648 §4) over `text`, which is full of `=` and as long as what comes of it.
pub(crate) fn encode_base64(bytes: &[u8], text: &mut [u8]) {
    for (group, text) in bytes.chunks(3).zip(text.chunks_mut(4)) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for (at, character) in text.iter_mut().enumerate().take(group.len() + 1) {
            *character = BASE64[(bits >> (18 - 6 * at)) as usize & 0x3F];
        }
    }
}

/// Whether this is 16 bytes in base64, as §4.1 says that a key must be. The bits that pad the last
/// character are not looked at; some clients fill them.
pub(super) fn is_key(value: &str) -> bool {
    value.strip_suffix("==").is_some_and(|digits| {
        digits.len() == 22 && digits.bytes().all(|digit| BASE64.contains(&digit))
    })
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    /// §1.3.
    //= rfc6455 4.1-20
    #[test]
    fn the_nonce_of_the_specification_is_its_key() {
        assert_eq!(
            &encode_key(*b"the sample nonce"),
            b"dGhlIHNhbXBsZSBub25jZQ=="
        );
    }

    //= rfc6455 4.2.1-6
    #[test]
    fn keys_are_sixteen_bytes() {
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(is_key("AQIDBAUGBwgJCgsMDQ4PEC=="));
        for wrong in [
            "",
            "==",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25jZWU=",
            "dGhlIHNhbXBsZSBub25!ZQ==",
            "dGhlIHNhbXBsZSBub25j ZQ==",
        ] {
            assert!(!is_key(wrong), "{wrong}");
        }
    }
}
