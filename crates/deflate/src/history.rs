//! What a connection remembers in one direction: the plaintext of its last compressed messages.

/// The last bytes that went through the compressor (or came out of the decompressor) of one
/// direction of one connection.
///
/// Holds no memory until something was added, and never more than `2^window_bits` bytes (or the
/// smaller number that [`History::with_capacity`] was given).
#[derive(Clone, Debug)]
pub struct History {
    bytes: Vec<u8>,
    capacity: usize,
    /// Changes with every message that was compressed; tells a [`Codec`](crate::Codec) whether its
    /// compressor is still where this history is.
    pub(crate) stamp: u64,
}

impl History {
    /// A history of a window of `2^window_bits` bytes; for the receiving direction, where all of
    /// the window has to be kept.
    ///
    /// # Panics
    ///
    /// When `window_bits` is not 8 to 15.
    pub fn new(window_bits: u8) -> Self {
        assert!(
            (8..=15).contains(&window_bits),
            "window bits are 8 to 15, not {window_bits}"
        );
        Self::with_capacity(1 << window_bits)
    }

    /// A history of at most `capacity` bytes; for the sending direction, where less than the agreed
    /// window may be kept.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: Vec::new(),
            capacity,
            stamp: 0,
        }
    }

    /// What is remembered, oldest first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets everything. Always allowed to a sender; a receiver may only when the peer agreed to
    /// take no context over.
    pub fn clear(&mut self) {
        self.bytes = Vec::new();
        self.stamp = 0;
    }

    /// Adds a message, forgetting as much of the oldest as has to go.
    pub(crate) fn push(&mut self, message: &[u8]) {
        if message.len() >= self.capacity {
            self.bytes.clear();
            self.bytes.reserve_exact(self.capacity);
            self.bytes
                .extend_from_slice(&message[message.len() - self.capacity..]);
            return;
        }
        let excess = (self.bytes.len() + message.len()).saturating_sub(self.capacity);
        self.bytes.drain(..excess);
        self.bytes.reserve_exact(message.len());
        self.bytes.extend_from_slice(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_bytes_only() {
        let mut history = History::with_capacity(4);
        assert!(history.as_bytes().is_empty());
        for (message, kept) in [
            ("ab", "ab"),
            ("c", "abc"),
            ("de", "bcde"),
            ("fghijk", "hijk"),
            ("", "hijk"),
            ("lmno", "lmno"),
        ] {
            history.push(message.as_bytes());
            assert_eq!(history.as_bytes(), kept.as_bytes(), "after {message:?}");
        }
        history.clear();
        assert_eq!(history.bytes.capacity(), 0);
    }
}
