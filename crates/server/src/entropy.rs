//! Randomness from the operating system, for ids, epochs and jitter.

use tautline_hub::Entropy;

/// Bytes fetched from the system in one go: sixteen connection ids for one system call.
const BUFFER_LEN: usize = 256;

/// The system's generator behind a buffer. Each byte is handed out once, and wiped as it is.
pub struct OsEntropy {
    buffer: [u8; BUFFER_LEN],
    /// Where the bytes start that were not handed out yet.
    next: usize,
}

impl OsEntropy {
    /// A source with its first bytes fetched.
    ///
    /// # Errors
    ///
    /// If the system has no randomness to give, which is a matter of the system's set-up: it
    /// shows here, at the start, or never.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut buffer = [0; BUFFER_LEN];
        getrandom::fill(&mut buffer)?;
        Ok(Self { buffer, next: 0 })
    }
}

impl Entropy for OsEntropy {
    /// # Panics
    ///
    /// If the system stops giving randomness after it once did. Ids that repeat would mix up
    /// people's connections; not going on is the smaller harm.
    fn fill(&mut self, bytes: &mut [u8]) {
        if bytes.len() > BUFFER_LEN - self.next {
            fetch(&mut self.buffer);
            self.next = 0;
        }
        if bytes.len() > BUFFER_LEN {
            return fetch(bytes);
        }
        let end = self.next + bytes.len();
        let taken = &mut self.buffer[self.next..end];
        bytes.copy_from_slice(taken);
        taken.fill(0);
        self.next = end;
    }
}

fn fetch(bytes: &mut [u8]) {
    if let Err(error) = getrandom::fill(bytes) {
        panic!("the operating system has no randomness to give any more: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nothing_is_handed_out_twice() {
        let mut entropy = OsEntropy::new().unwrap();
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let mut id = [0; 16];
            entropy.fill(&mut id);
            assert!(seen.insert(id));
        }
    }

    #[test]
    fn any_length_is_filled_to_its_end() {
        let mut entropy = OsEntropy::new().unwrap();
        for len in [0, 1, 7, 255, 256, 257, 1000] {
            // A byte that is zero in 32 rounds was not filled.
            let mut seen = vec![0u8; len];
            for _ in 0..32 {
                let mut bytes = vec![0; len];
                entropy.fill(&mut bytes);
                seen.iter_mut()
                    .zip(bytes)
                    .for_each(|(seen, byte)| *seen |= byte);
            }
            assert!(seen.iter().all(|&byte| byte != 0), "{len}");
        }
    }
}
