//! Compressors for small messages, one for each of two levels.
//!
//! zlib's fastest level spends most of a small message's time on clearing its hash table (128 KiB)
//! before it begins. These never clear: positions are absolute over the life of the
//! compressor, so entries of an earlier message are recognised by being too old.
//!
//! At level 1 a message becomes a single block in the fixed code (RFC 1951, section 3.2.6), written
//! in one pass. It is what zlib's level 1 writes, give or take a byte. At level 2 symbols are
//! gathered first, and the block gets a code of its own where that makes it smaller. Both find
//! matches greedily, with one probe, and close the message by the sync flush that RFC 7692
//! asks for.

mod bits;
mod block;
mod huffman;

use bits::BitWriter;
use block::Block;

const HASH_BITS: u32 = 12;
const MIN_MATCH: usize = 4;
const MAX_MATCH: usize = 258;
/// The farthest that deflate can refer back.
const MAX_DISTANCE: usize = 32 * 1024;
/// What becomes one block.
const MAX_PART: usize = 32 * 1024;
/// Beyond this the window drops what nobody can refer to any more.
const MAX_WINDOW: usize = 4 * MAX_DISTANCE;
/// From here positions start over, long before they would overflow.
const MAX_BASE: u32 = 1 << 31;

pub(crate) struct FastDeflate {
    /// For each hash of four bytes, where they were last seen: `base` plus an index into `window`.
    table: Box<[u32; 1 << HASH_BITS]>,
    /// What may be referred to, then the message.
    window: Vec<u8>,
    /// Position of `window[0]`. Table entries below it are of earlier streams.
    base: u32,
    /// At level 2, the block at hand.
    block: Option<Box<Block>>,
}

impl FastDeflate {
    /// A compressor of level 1 or 2.
    pub(crate) fn new(level: i32) -> Self {
        Self {
            table: Box::new([0; 1 << HASH_BITS]),
            window: Vec::new(),
            base: 1,
            block: (level > 1).then(|| Box::new(Block::new())),
        }
    }

    /// Begins a new stream whose window holds `window`.
    pub(crate) fn restart(&mut self, window: &[u8]) {
        self.advance(self.window.len());
        // More than the window can hold of is never referred to.
        let from = window.len().saturating_sub(MAX_DISTANCE);
        self.window.extend_from_slice(&window[from..]);
        for at in 0..self.window.len().saturating_sub(MIN_MATCH - 1) {
            self.table[hash(read32(&self.window, at))] = self.base + at as u32;
        }
    }

    /// Compresses `message` up to a byte boundary, without the sync flush's tail. Refers back at most
    /// `max_distance` bytes. With `in_context`, later messages may refer to this one.
    pub(crate) fn compress(
        &mut self,
        message: &[u8],
        max_distance: usize,
        in_context: bool,
        out: &mut Vec<u8>,
    ) {
        let max_distance = max_distance.min(MAX_DISTANCE);
        let mut bits = BitWriter::new(out, message.len());
        for part in message.chunks(MAX_PART) {
            if self.window.len() + part.len() > MAX_WINDOW {
                self.advance(self.window.len().saturating_sub(MAX_DISTANCE));
            }
            let start = self.window.len();
            self.window.extend_from_slice(part);
            match self.block.take() {
                None => {
                    bits.begin_block();
                    self.find_symbols(start, max_distance, in_context, &mut bits);
                    bits.end_block();
                }
                Some(mut block) => {
                    block.begin();
                    self.find_symbols(start, max_distance, in_context, &mut *block);
                    block.write(&mut bits);
                    self.block = Some(block);
                }
            }
        }
        bits.finish();
    }

    /// Drops the oldest `count` bytes of the window.
    fn advance(&mut self, count: usize) {
        self.window.drain(..count);
        self.base += count as u32;
        if self.base > MAX_BASE {
            self.table.fill(0);
            self.base = 1;
        }
    }

    /// Everything from `window[start]` on, as literals and matches.
    fn find_symbols(
        &mut self,
        start: usize,
        max_distance: usize,
        in_context: bool,
        to: &mut impl Symbols,
    ) {
        let (data, base) = (self.window.as_slice(), self.base);
        let mut at = start;
        while at + MIN_MATCH <= data.len() {
            let sequence = read32(data, at);
            let entry = &mut self.table[hash(sequence)];
            let candidate = std::mem::replace(entry, base + at as u32);
            if candidate >= base {
                let from = (candidate - base) as usize;
                let distance = at - from;
                if distance <= max_distance && read32(data, from) == sequence {
                    let length = match_length(data, from, at);
                    to.copy(length, distance);
                    // The end of a match is where the next one is likely to begin; one in a later
                    // message may begin anywhere.
                    let end = at + length;
                    let from_here = if in_context { at + 1 } else { end - 2 };
                    for near in from_here..end {
                        if near + MIN_MATCH <= data.len() {
                            self.table[hash(read32(data, near))] = base + near as u32;
                        }
                    }
                    at = end;
                    continue;
                }
            }
            to.literal(data[at]);
            at += 1;
        }
        for &byte in &data[at..] {
            to.literal(byte);
        }
    }
}

/// Where the symbols of a block go.
trait Symbols {
    fn literal(&mut self, byte: u8);
    /// A length, 3 to 258, and a distance.
    fn copy(&mut self, length: usize, distance: usize);
}

impl Symbols for BitWriter<'_> {
    #[inline(always)]
    fn literal(&mut self, byte: u8) {
        self.literal(byte);
    }

    #[inline(always)]
    fn copy(&mut self, length: usize, distance: usize) {
        self.copy(length, distance);
    }
}

impl Symbols for Block {
    #[inline(always)]
    fn literal(&mut self, byte: u8) {
        self.literal(byte);
    }

    #[inline(always)]
    fn copy(&mut self, length: usize, distance: usize) {
        self.copy(length, distance);
    }
}

fn hash(sequence: u32) -> usize {
    (sequence.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize
}

fn read32(data: &[u8], at: usize) -> u32 {
    match data[at..].first_chunk() {
        Some(chunk) => u32::from_le_bytes(*chunk),
        None => 0,
    }
}

/// How far the bytes from `from` and from `at` agree, knowing that the first four do.
fn match_length(data: &[u8], from: usize, at: usize) -> usize {
    let most = (data.len() - at).min(MAX_MATCH);
    let (earlier, later) = (&data[from..from + most], &data[at..at + most]);
    let mut length = MIN_MATCH;
    while let (Some(a), Some(b)) = (
        earlier[length..].first_chunk::<8>(),
        later[length..].first_chunk::<8>(),
    ) {
        let difference = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if difference != 0 {
            return length + (difference.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    while length < most && earlier[length] == later[length] {
        length += 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_start_over_before_they_overflow() {
        let mut deflate = FastDeflate::new(1);
        deflate.base = MAX_BASE - 10;
        for _ in 0..3 {
            deflate.restart(b"some text that is known");
            let mut out = Vec::new();
            deflate.compress(b"some text that is known", MAX_DISTANCE, true, &mut out);
            assert!(out.len() < 8, "{}", out.len());
        }
        assert!(deflate.base < 1000);
    }
}
