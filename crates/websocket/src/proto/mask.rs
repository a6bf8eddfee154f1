//! Masking (RFC 6455 §5.3), resumable in the middle of a payload.

use std::fmt;

/// A masking key at a position in the payload: the key is rotated as payload goes by, so that it
/// always begins with the byte for the next byte of payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MaskKey(u32);

impl MaskKey {
    /// The key as it stands in the header, for the start of the payload.
    pub const fn new(key: [u8; 4]) -> Self {
        Self(u32::from_le_bytes(key))
    }

    /// The key for the position that was reached.
    pub const fn bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    /// Masks or unmasks the next part of the payload in place, and moves the key on by as much.
    ///
    /// ```
    /// use tautline_websocket::proto::MaskKey;
    ///
    /// let mut key = MaskKey::new([0x37, 0xfa, 0x21, 0x3d]);
    /// let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
    /// let (first, second) = payload.split_at_mut(3);
    /// key.apply(first);
    /// key.apply(second);
    /// assert_eq!(&payload, b"Hello");
    /// ```
    #[inline]
    pub fn apply(&mut self, payload: &mut [u8]) {
        let wide = u64::from(self.0) << 32 | u64::from(self.0);
        // Eight bytes a step, in a form which the compiler turns into vector code, and which is
        // quick for the few bytes of a small message too.
        let (words, tail) = payload.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_le_bytes(*word) ^ wide).to_le_bytes();
        }
        let (halves, tail) = tail.as_chunks_mut::<4>();
        for half in halves {
            *half = (u32::from_le_bytes(*half) ^ self.0).to_le_bytes();
        }
        for (byte, key) in tail.iter_mut().zip(self.bytes()) {
            *byte ^= key;
        }
        // In little-endian order the byte that comes next is the lowest.
        self.0 = self.0.rotate_right(8 * (tail.len() as u32));
    }
}

/// Keys don't show in logs: with the key and a packet capture, payloads could be read back.
impl fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaskKey(..)")
    }
}

/// Where a client takes its masking keys from: a new one for each frame.
///
/// §5.3 wants keys that nobody can predict, so that a hostile page can't choose the bytes on the
/// wire: a generator of cryptographic strength, seeded by the operating system. Tests plug in
/// fixed keys.
pub trait MaskKeys {
    /// The key for the next frame.
    fn next_key(&mut self) -> [u8; 4];
}

impl<F: FnMut() -> [u8; 4]> MaskKeys for F {
    fn next_key(&mut self) -> [u8; 4] {
        self()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(key: [u8; 4], payload: &[u8]) -> Vec<u8> {
        payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ key[at % 4])
            .collect()
    }

    /// §5.3: all lengths up to a few words, cut into two or three parts at all places.
    #[test]
    fn any_split_equals_the_definition() {
        let key = [0x12, 0x34, 0xAB, 0xF0];
        let payload: Vec<u8> = (0..45).map(|n: u8| n.wrapping_mul(37)).collect();
        for len in 0..payload.len() {
            let expected = naive(key, &payload[..len]);
            for first in 0..=len {
                for second in first..=len {
                    let mut masked = payload[..len].to_vec();
                    let mut state = MaskKey::new(key);
                    state.apply(&mut masked[..first]);
                    state.apply(&mut masked[first..second]);
                    state.apply(&mut masked[second..]);
                    assert_eq!(masked, expected, "{len} bytes cut at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn a_large_payload_equals_the_definition() {
        let payload: Vec<u8> = (0..100_003u32).map(|n| ((n * 7) >> 3) as u8).collect();
        let mut masked = payload.clone();
        MaskKey::new([9, 8, 7, 6]).apply(&mut masked);
        assert_eq!(masked, naive([9, 8, 7, 6], &payload));
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", MaskKey::new([1, 2, 3, 4])), "MaskKey(..)");
    }
}
