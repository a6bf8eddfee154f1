//! Randomness as an argument.

/// A source of random bytes: the operating system's in a server, a seeded one in a test.
///
/// What comes of it is public (connection ids, epochs, jitter), but connection ids and epochs must
/// not repeat, so a server's source has to be of cryptographic quality.
pub trait Entropy {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// A connection id: the text of a random UUID (RFC 9562 §5.4).
pub(crate) fn connection_id(entropy: &mut dyn Entropy) -> std::sync::Arc<str> {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut places = (0..text.len()).filter(|place| !matches!(place, 8 | 13 | 18 | 23));
    for nibble in bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]) {
        if let Some(place) = places.next() {
            text[place] = b"0123456789abcdef"[usize::from(nibble)];
        }
    }
    // They are ASCII, all of them.
    str::from_utf8(&text).unwrap_or_default().into()
}

/// An epoch: eight ASCII letters. (Never `_`, which a client uses for a position known to be bad.)
pub(crate) fn epoch(entropy: &mut dyn Entropy) -> std::sync::Arc<str> {
    const LETTERS: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    // Some letters are a little likelier than others, which harms nothing: an epoch has to differ
    // from the one before it, not to be secret.
    bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
        .collect::<String>()
        .into()
}

/// A number in `0..=max`.
pub(crate) fn up_to(entropy: &mut dyn Entropy, max: u64) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    let number = u64::from_ne_bytes(bytes);
    max.checked_add(1).map_or(number, |bound| number % bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(u8);

    impl Entropy for Bytes {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    #[test]
    fn connection_ids_are_uuids_of_version_four() {
        assert_eq!(
            &*connection_id(&mut Bytes(0)),
            "00000000-0000-4000-8000-000000000000"
        );
        assert_eq!(
            &*connection_id(&mut Bytes(0xff)),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
        assert_eq!(
            &*connection_id(&mut Bytes(0x1a)),
            "1a1a1a1a-1a1a-4a1a-9a1a-1a1a1a1a1a1a"
        );
    }

    #[test]
    fn epochs_are_eight_letters() {
        for byte in 0..=255 {
            let epoch = epoch(&mut Bytes(byte));
            assert!(epoch.len() == 8 && epoch.bytes().all(|byte| byte.is_ascii_alphabetic()));
        }
    }

    #[test]
    fn numbers_stay_within_their_bound() {
        for byte in 0..=255 {
            assert!(up_to(&mut Bytes(byte), 10) <= 10);
            assert_eq!(up_to(&mut Bytes(byte), 0), 0);
        }
        assert_eq!(up_to(&mut Bytes(0xff), u64::MAX), u64::MAX);
    }
}
