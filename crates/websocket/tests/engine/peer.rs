//! A peer that compresses as everybody does: with one stream for the life of its connection. It
//! shares no code with the library.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

pub(crate) struct Peer {
    compress: Compress,
    decompress: Decompress,
}

impl Peer {
    pub(crate) fn new() -> Self {
        Self {
            compress: Compress::new(Compression::default(), false),
            decompress: Decompress::new(false),
        }
    }

    /// RFC 7692 §7.2.1.
    pub(crate) fn compress(&mut self, message: &[u8]) -> Vec<u8> {
        if message.is_empty() {
            return vec![0];
        }
        let mut out = Vec::with_capacity(message.len() * 2 + 1024);
        self.compress
            .compress_vec(message, &mut out, FlushCompress::Sync)
            .expect("the peer compresses");
        assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - 4);
        out
    }

    /// RFC 7692 §7.2.2, for messages of up to 1 MiB. `None` for what isn't deflate data.
    pub(crate) fn inflate(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(1 << 20);
        for part in [message, &TAIL] {
            let before = self.decompress.total_in();
            self.decompress
                .decompress_vec(part, &mut out, FlushDecompress::Sync)
                .ok()?;
            let read = self.decompress.total_in() - before;
            if read != part.len() as u64 {
                return None;
            }
        }
        Some(out)
    }
}
