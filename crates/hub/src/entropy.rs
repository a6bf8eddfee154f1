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
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text.into()
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
