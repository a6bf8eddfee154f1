//! Compressing and inflating single messages with state that is lent, not owned.

use std::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

use crate::fast::FastDeflate;
use crate::history::History;

/// What a sender leaves out, and a receiver puts back, at the end of each message: the end of the
/// empty stored block that a sync flush makes (RFC 7692, sections 7.2.1 and 7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// An empty message, compressed: an empty stored block without its tail (RFC 7692, section 7.2.3.6).
const EMPTY: u8 = 0x00;

/// How many final blocks one message may have. RFC 7692 (section 7.2.3.5) lets a sender set the
/// final bit; each one costs the receiver a reset, so a message made of nothing else is an attack.
const MAX_FINAL_BLOCKS: u32 = 64;

/// How far a message may be inflated beyond its ratio: small messages compress by factors that
/// would look absurd in large ones.
const RATIO_GRACE: usize = 64 * 1024;

/// How much a message may grow when it is inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflateLimits {
    /// Bytes of the inflated message.
    pub max_size: usize,
    /// Inflated bytes for each compressed byte, over the first 64 KiB. Deflate reaches 1,032.
    pub max_ratio: usize,
}

impl Default for InflateLimits {
    /// 64 MiB, and 200 to one.
    fn default() -> Self {
        Self {
            max_size: 64 << 20,
            max_ratio: 200,
        }
    }
}

/// Why a message could not be inflated. The connection has to fail: its context is lost.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InflateError {
    /// The bytes are not a deflate stream, or refer to more than the window holds.
    #[error("the message is not valid deflate data, or refers to bytes beyond the agreed window")]
    Corrupt,
    /// The message would be larger than [`InflateLimits::max_size`].
    #[error("the message inflates to more than the limit of {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// The message grows more than [`InflateLimits::max_ratio`] allows.
    #[error("the message inflates to more than {max} times its compressed size")]
    RatioTooHigh {
        /// The limit.
        max: usize,
    },
    /// The message has more final blocks than any sender has a reason to make.
    #[error("the message has more than {MAX_FINAL_BLOCKS} final deflate blocks")]
    TooManyFinalBlocks,
}

/// A compressor and a decompressor, to be lent to one message at a time. One a thread is enough.
///
/// Takes no memory until it is used; then 48 KiB for inflating, and for each window size it compresses with up to 144 KiB at
/// level 1, and 140 to 380 KiB above.
pub struct Codec {
    level: i32,
    id: u32,
    last_stamp: u64,
    /// By window bits, from 8.
    compressors: [Option<Compressor>; 8],
    decompressor: Option<Inflate>,
}

struct Compressor {
    engine: Engine,
    /// Stamp of the history that the compressor's window continues.
    stamp: u64,
}

/// Level 1 is our own, made for small messages; from level 2 on it is zlib's turn.
enum Engine {
    Fast(FastDeflate),
    Zlib(Deflate),
}

impl Engine {
    fn new(level: i32, window_bits: u8) -> Self {
        if level == 1 {
            return Self::Fast(FastDeflate::new());
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

    fn compress(&mut self, window_bits: u8, message: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Fast(deflate) => deflate.compress(message, 1 << window_bits, out),
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
            decompressor: None,
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

    /// Whether this codec can write for a window of `2^window_bits` bytes: 8 to 15 at level 1, 9 to 15
    /// above it, as zlib can't write for a window of 256 bytes.
    pub fn can_compress(&self, window_bits: u8) -> bool {
        let least = if self.level == 1 { 8 } else { 9 };
        (least..=15).contains(&window_bits)
    }

    /// Compresses the message into at most `most` bytes, or leaves everything as it was.
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
        compressor.engine.compress(window_bits, message, out);
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
    /// the peer agreed to take no context over.
    ///
    /// Nothing but the history goes from message to message, even where the last one inflated is of
    /// the same connection: a message that ends inside a block would leave the decompressor in it,
    /// and what came of the next message would depend on who else uses this codec.
    ///
    /// # Errors
    ///
    /// [`InflateError`]; what was appended to `out` until then is meaningless.
    pub fn inflate(
        &mut self,
        history: Option<&mut History>,
        message: &[u8],
        limits: InflateLimits,
        out: &mut Vec<u8>,
    ) -> Result<(), InflateError> {
        let inflate = self
            .decompressor
            .get_or_insert_with(|| Inflate::new(false, 15));
        let remembered = history
            .as_ref()
            .map_or(&[][..], |history| history.as_bytes());
        restart(inflate, remembered)?;
        let start = out.len();
        let mut sink = Sink {
            out,
            start,
            compressed: message.len(),
            limits,
        };
        let mut input = message;
        let mut final_blocks = 0;
        loop {
            if !feed(inflate, &mut input, &mut sink)? {
                // All of the message is in; now what its sender left out.
                feed(inflate, &mut &TAIL[..], &mut sink)?;
                break;
            }
            final_blocks += 1;
            if final_blocks > MAX_FINAL_BLOCKS {
                return Err(InflateError::TooManyFinalBlocks);
            }
            if input.is_empty() {
                break;
            }
            // Deflate streams may follow one another in a message, and share the window.
            let mut window = Vec::new();
            window.extend_from_slice(remembered);
            window.extend_from_slice(&sink.out[start..]);
            let from = window.len().saturating_sub(1 << 15);
            restart(inflate, &window[from..])?;
        }
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

/// Where inflated bytes go, and how many may.
struct Sink<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    compressed: usize,
    limits: InflateLimits,
}

impl Sink<'_> {
    /// Checks what has been inflated, and returns how many bytes more to make room for.
    fn room(&self) -> Result<usize, InflateError> {
        let size = self.out.len() - self.start;
        if size > self.limits.max_size {
            return Err(InflateError::TooLarge {
                max: self.limits.max_size,
            });
        }
        let by_ratio = self
            .compressed
            .saturating_mul(self.limits.max_ratio)
            .saturating_add(RATIO_GRACE);
        if size > by_ratio {
            return Err(InflateError::RatioTooHigh {
                max: self.limits.max_ratio,
            });
        }
        // One byte over the limit is room enough to notice.
        let most = self.limits.max_size.min(by_ratio) - size + 1;
        Ok(most.min((self.compressed * 4).max(size).max(256)))
    }
}

/// Inflates `input` until it is used up (`false`), or a final block ends (`true`).
fn feed(
    inflate: &mut Inflate,
    input: &mut &[u8],
    sink: &mut Sink<'_>,
) -> Result<bool, InflateError> {
    loop {
        let room = sink.room()?;
        let filled = sink.out.len();
        sink.out.resize(filled + room, 0);
        let (read, written) = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(input, &mut sink.out[filled..], InflateFlush::SyncFlush);
        // Both are bounded by the slices' lengths.
        let read = (inflate.total_in() - read) as usize;
        let written = (inflate.total_out() - written) as usize;
        sink.out.truncate(filled + written);
        *input = &input[read..];
        match status {
            Ok(Status::StreamEnd) => {
                sink.room()?;
                return Ok(true);
            }
            Ok(Status::Ok | Status::BufError) => {}
            Err(_) => return Err(InflateError::Corrupt),
        }
        if written < room {
            if input.is_empty() {
                sink.room()?;
                return Ok(false);
            }
            if read == 0 && written == 0 {
                // Neither more input nor more room would change anything.
                return Err(InflateError::Corrupt);
            }
        }
    }
}

/// Begins a new deflate stream whose window holds `window`.
fn restart(inflate: &mut Inflate, window: &[u8]) -> Result<(), InflateError> {
    inflate.reset(false);
    if !window.is_empty() {
        inflate
            .set_dictionary(window)
            .map_err(|_| InflateError::Corrupt)?;
    }
    Ok(())
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
    out.truncate(out.len() - TAIL.len());
}
