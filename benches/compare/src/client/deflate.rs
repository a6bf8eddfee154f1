//! permessage-deflate (RFC 7692 section 7.2) as a client does it, by plain zlib streams.

use anyhow::{Result, bail};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a sender leaves out at the end of each message, and a receiver puts back.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Browsers compress at zlib's default.
const LEVEL: u32 = 6;
/// No message of a load is longer.
const ROOM: usize = 64 * 1024;

/// Compresses one connection's messages.
#[derive(Debug)]
pub(crate) struct Packer {
    stream: Compress,
    takeover: bool,
}

impl Packer {
    /// With this window, 9 to 15 bits.
    pub(crate) fn new(takeover: bool, window_bits: u8) -> Self {
        let level = Compression::new(LEVEL);
        Self {
            stream: Compress::new_with_window_bits(level, false, window_bits.max(9)),
            takeover,
        }
    }

    /// The next message, compressed.
    pub(crate) fn pack(&mut self, message: &[u8]) -> Result<Vec<u8>> {
        if !self.takeover {
            self.stream.reset();
        }
        let mut packed = Vec::with_capacity(message.len() + ROOM);
        self.stream
            .compress_vec(message, &mut packed, FlushCompress::Sync)?;
        match packed.strip_suffix(&TAIL) {
            Some(message) => Ok(message.to_vec()),
            None => bail!("a message did not end with an empty block"),
        }
    }
}

/// Inflates one connection's messages.
#[derive(Debug)]
pub(crate) struct Unpacker {
    stream: Decompress,
    takeover: bool,
    message: Vec<u8>,
}

impl Unpacker {
    /// With the largest window, which suits all.
    pub(crate) fn new(takeover: bool) -> Self {
        Self {
            stream: Decompress::new(false),
            takeover,
            message: Vec::with_capacity(ROOM),
        }
    }

    /// The next message, inflated.
    ///
    /// # Errors
    /// What is not deflate, or longer than any message of a load.
    pub(crate) fn unpack(&mut self, packed: &[u8]) -> Result<&[u8]> {
        if !self.takeover {
            self.stream.reset(false);
        }
        self.message.clear();
        for part in [packed, &TAIL] {
            let before = self.stream.total_in();
            let status =
                self.stream
                    .decompress_vec(part, &mut self.message, FlushDecompress::Sync)?;
            if self.stream.total_in() - before < part.len() as u64 && status != Status::StreamEnd {
                bail!("a message inflates to more than {ROOM} bytes");
            }
        }
        Ok(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_with_and_without_takeover() {
        for takeover in [false, true] {
            let (mut packer, mut unpacker) = (Packer::new(takeover, 10), Unpacker::new(takeover));
            let mut sizes = Vec::new();
            for _ in 0..3 {
                let packed = packer.pack(b"a message of which much is known").unwrap();
                let message = unpacker.unpack(&packed).unwrap();
                assert_eq!(message, b"a message of which much is known");
                sizes.push(packed.len());
            }
            assert_eq!(sizes[1] < sizes[0], takeover, "{sizes:?}");
        }
    }

    #[test]
    fn what_is_not_deflate_is_refused() {
        assert!(Unpacker::new(false).unpack(&[0xff, 0xff, 0xff]).is_err());
    }
}
