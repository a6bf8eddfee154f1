//! Compressing and inflating single messages with state that is lent, not owned.

use std::sync::atomic::{AtomicU32, Ordering};

use zlib_rs::{Deflate, DeflateFlush};

use crate::fast::FastDeflate;
use crate::history::History;
use crate::inflate::{Inflater, TAIL};
use crate::limits::{InflateError, InflateLimits};

/// An empty message, compressed: an empty stored block without its tail (RFC 7692, section 7.2.3.6).
const EMPTY: u8 = 0x00;

/// A compressor and a decompressor, to be lent to one message at a time. One a thread is enough.
///
/// Takes no memory until it is used; then 10 KiB for inflating, and for each window size that it
/// compresses with 20 to 300 KiB at levels 1 and 2, and 140 to 380 KiB above.
pub struct Codec {
    level: i32,
    id: u32,
    last_stamp: u64,
    /// By window bits, from 8.
    compressors: [Option<Compressor>; 8],
    inflater: Option<Inflater>,
}

struct Compressor {
    engine: Engine,
    /// Stamp of the history that the compressor's window continues.
    stamp: u64,
}

/// Levels 1 and 2 are our own, made for small messages; from level 3 on it is zlib's turn.
enum Engine {
    Fast(FastDeflate),
    Zlib(Deflate),
}

impl Engine {
    fn new(level: i32, window_bits: u8) -> Self {
        if level <= 2 {
            return Self::Fast(FastDeflate::new(level));
        }
        Self::Zlib(Deflate::new(level, false, window_bits))
    }

    /// Begins a new stream whose window holds `window`.
    fn restart(&mut self, window: &[u8]) {
        match self {
            Self::Fast(deflate) => deflate.restart(window),
            Self::Zlib(deflate) => {
                deflate.reset();
                if !window.is_empty() {
                    // Fails only in the middle of a stream, and this is the start of one.
                    let _ = deflate.set_dictionary(window);
                }
            }
        }
    }

    fn compress(&mut self, window_bits: u8, in_context: bool, message: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Fast(deflate) => deflate.compress(message, 1 << window_bits, in_context, out),
            Self::Zlib(deflate) => deflate_all(deflate, message, out),
        }
    }
}

/// Tells codecs apart, so that a history which moved from one thread's codec to another's is never
/// taken for the one that the other codec has loaded. Nothing but identity hangs on it.
static NEXT_ID: AtomicU32 = AtomicU32::new(1);

impl Codec {
    /// A codec that compresses with `level`, 1 (fast) to 9 (small).
    pub fn new(level: u8) -> Self {
        Self {
            level: i32::from(level.clamp(1, 9)),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            last_stamp: 0,
            compressors: Default::default(),
            inflater: None,
        }
    }

    /// Compresses one message and appends it to `out`, in the form in which it goes into frames.
    ///
    /// With a `history` the message may refer to earlier ones, and is remembered; without, it stands for
    /// itself. `window_bits` is the agreed window of this direction.
    ///
    /// # Panics
    ///
    /// When this codec [can't compress](Self::can_compress) with such a window.
    pub fn compress(
        &mut self,
        window_bits: u8,
        history: Option<&mut History>,
        message: &[u8],
        out: &mut Vec<u8>,
    ) {
        self.compress_up_to(usize::MAX, window_bits, history, message, out);
    }

    /// The same if it pays: returns whether the compressed message has less bytes than the message.
    /// If not, `out` and `history` are as they were, and the message is to be sent as it is.
    ///
    /// # Panics
    ///
    /// When this codec [can't compress](Self::can_compress) with such a window.
    pub fn compress_if_smaller(
        &mut self,
        window_bits: u8,
        history: Option<&mut History>,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        !message.is_empty()
            && self.compress_up_to(message.len() - 1, window_bits, history, message, out)
    }

    /// Whether this codec can write for a window of `2^window_bits` bytes: 8 to 15 at levels 1 and 2, 9 to
    /// 15 above, as zlib can't write for a window of 256 bytes.
    pub fn can_compress(&self, window_bits: u8) -> bool {
        let least = if self.level <= 2 { 8 } else { 9 };
        (least..=15).contains(&window_bits)
    }

    /// Compresses the message into at most `most` bytes, or leaves everything as it was.
    //= rfc7692 7.2.1-1
    fn compress_up_to(
        &mut self,
        most: usize,
        window_bits: u8,
        history: Option<&mut History>,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        assert!(
            self.can_compress(window_bits),
            "level {} can't compress for a window of {window_bits} bits",
            self.level
        );
        if message.is_empty() {
            out.push(EMPTY);
            return true;
        }
        let stamp = self.next_stamp();
        let level = self.level;
        let compressor =
            self.compressors[usize::from(window_bits - 8)].get_or_insert_with(|| Compressor {
                engine: Engine::new(level, window_bits),
                stamp: 0,
            });
        let remembered = history
            .as_ref()
            .map_or(&[][..], |history| history.as_bytes());
        let continues = history
            .as_ref()
            .is_some_and(|history| history.stamp != 0 && history.stamp == compressor.stamp);
        // Where the compressor went on from here last time, its window is this history, and more.
        if !continues {
            compressor.engine.restart(remembered);
        }
        compressor.stamp = 0;
        let start = out.len();
        compressor
            .engine
            .compress(window_bits, history.is_some(), message, out);
        if out.len() - start > most {
            // The peer will not see this message in its window, so nobody may refer to it.
            out.truncate(start);
            return false;
        }
        if let Some(history) = history {
            history.push(message);
            history.stamp = stamp;
            compressor.stamp = stamp;
        }
        true
    }

    /// Inflates one message and appends it to `out`.
    ///
    /// With a `history` the message may refer to earlier ones, and is remembered; pass `None` when
    /// the peer agreed to take no context over. `window_bits` is the agreed window of this direction, 8
    /// to 15: a message that refers farther back is [corrupt](InflateError::Corrupt).
    ///
    /// Nothing but the history goes from message to message, so it doesn't matter which codec it is.
    ///
    /// # Errors
    ///
    /// [`InflateError`]; then `out` is as it was.
    pub fn inflate(
        &mut self,
        window_bits: u8,
        history: Option<&mut History>,
        message: &[u8],
        limits: InflateLimits,
        out: &mut Vec<u8>,
    ) -> Result<(), InflateError> {
        let inflater = self.inflater.get_or_insert_with(Inflater::new);
        let remembered = history
            .as_ref()
            .map_or(&[][..], |history| history.as_bytes());
        let (start, window) = (out.len(), 1 << window_bits.min(15));
        inflater.inflate(remembered, window, message, limits, out)?;
        if let Some(history) = history {
            history.push(&out[start..]);
        }
        Ok(())
    }

    fn next_stamp(&mut self) -> u64 {
        self.last_stamp += 1;
        u64::from(self.id) << 40 | self.last_stamp & ((1 << 40) - 1)
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// Compresses all of `message` up to a byte boundary, without the tail.
fn deflate_all(deflate: &mut Deflate, message: &[u8], out: &mut Vec<u8>) {
    let mut input = message;
    let mut room = message.len() / 2 + 64;
    loop {
        let filled = out.len();
        out.resize(filled + room, 0);
        let (read, written) = (deflate.total_in(), deflate.total_out());
        // The only errors are of a stream in a state that this function never leaves it in.
        let _ = deflate.compress(input, &mut out[filled..], DeflateFlush::SyncFlush);
        let read = (deflate.total_in() - read) as usize;
        let written = (deflate.total_out() - written) as usize;
        out.truncate(filled + written);
        input = &input[read..];
        if written < room {
            break;
        }
        room = input.len() + 64;
    }
    debug_assert!(input.is_empty() && out.ends_with(&TAIL));
    //= rfc7692 7.2.1-2
    out.truncate(out.len() - TAIL.len());
}
