//! Masking keys that nobody can predict (RFC 6455 §5.3, §10.3).

use crate::proto::MaskKeys;

/// Keys from the thread's generator: ChaCha, seeded and reseeded by the operating system, buffered
/// by the block. It takes no memory in the connection.
///
/// # Panics
///
/// The first key of a thread panics when the operating system has no randomness to give: no key
/// made without it would be safe.
#[derive(Clone, Copy, Debug, Default)]
pub struct SecureKeys;

impl MaskKeys for SecureKeys {
    fn next_key(&mut self) -> [u8; 4] {
        //= rfc6455 5.3-3, 5.3-4, 10.3-1
        rand::random()
    }
}

/// The 16 bytes of `Sec-WebSocket-Key`, from the same source as the masking keys.
//= rfc6455 4.1-21
pub(super) fn nonce(keys: &mut (impl MaskKeys + ?Sized)) -> [u8; 16] {
    let mut nonce = [0; 16];
    for part in nonce.as_chunks_mut::<4>().0 {
        *part = keys.next_key();
    }
    nonce
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    //= rfc6455 5.3-3
    #[test]
    fn keys_differ() {
        let mut keys = SecureKeys;
        let seen: HashSet<_> = (0..1000).map(|_| keys.next_key()).collect();
        // Two of a thousand are the same once in 8600 runs, three never.
        assert!(seen.len() >= 998);
    }

    //= rfc6455 4.1-21
    #[test]
    fn a_nonce_is_four_keys() {
        let mut next = 0;
        let mut keys = || {
            next += 1;
            [next; 4]
        };
        assert_eq!(
            nonce(&mut keys),
            [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4]
        );
    }
}
