//! Making a patch.
//!
//! What two publications have in common usually stands at their beginnings and ends: that is found
//! by comparing them from both sides, as fast as memory can be read. Only what is left in the middle
//! is searched for pieces of the base, by a table of its blocks of eight bytes.

use std::ops::Range;

use super::{DIGITS, checksum};

/// Makes patches. Keeps its tables, so that a patch costs no allocation once they have grown.
#[derive(Debug, Default)]
pub struct Encoder {
    patch: Vec<u8>,
    /// By the hash of a block: the number of the last block that has it, plus one.
    heads: Vec<u32>,
    /// By the number of a block: the number of the one before it with the same hash, plus one.
    chain: Vec<u32>,
}

impl Encoder {
    /// Makes a patch that turns `base` into `target`. `None` where it would not be shorter than the
    /// target itself, which should then be sent instead.
    ///
    /// Takes time in proportion to both lengths, whatever they hold, and at most a MiB of memory
    /// beside the patch.
    pub fn encode(&mut self, base: &[u8], target: &[u8]) -> Option<&[u8]> {
        if target.len() <= SHORTEST || target.len() > MAX_LENGTH || base.len() > MAX_LENGTH {
            return None;
        }
        let Self {
            patch,
            heads,
            chain,
        } = self;
        patch.clear();
        write_number(target.len(), patch);
        patch.push(b'\n');
        let mut writer = Writer {
            patch,
            target,
            written: 0,
        };
        let start = common_prefix(base, target);
        let end = common_suffix(&base[start..], &target[start..]);
        writer.copy(0, 0, start)?;
        let middle = target.len() - end;
        if middle - start >= BLOCK && base.len() >= BLOCK {
            search(base, &mut writer, start..middle, heads, chain)?;
        }
        writer.copy(base.len() - end, middle, end)?;
        writer.literal(target.len())?;
        write_number(checksum(target) as usize, patch);
        patch.push(b';');
        (patch.len() < target.len()).then_some(patch)
    }
}

/// Looks for pieces of the base in a part of the target.
///
/// Where fields change and keep their length, or nearly so, everything else stays about as far behind
/// the last piece as it was: that is tried first. The table is made once that has failed for a while.
fn search(
    base: &[u8],
    writer: &mut Writer<'_>,
    part: Range<usize>,
    heads: &mut Vec<u32>,
    chain: &mut Vec<u32>,
) -> Option<()> {
    let target = &writer.target[..part.end];
    let mut tables = Some((heads, chain));
    let mut index = None;
    // Where the last piece ended, there and in the base.
    let (mut ended, mut base_ended) = (part.start, part.start);
    let mut at = part.start;
    let mut misses = 0;
    while at + BLOCK <= target.len() {
        let base_at = base_ended + (at - ended);
        let mut aligned = aligned(base, base_at, target, at);
        if aligned.is_none() && at - ended < LOST {
            aligned = drifted(base, base_at, target, at);
        }
        let found = match (aligned, &index) {
            (Some(found), _) if found.length >= LONG => Some(found),
            (aligned, Some(index)) => [aligned, Index::nearby(index, target, at, writer.written)]
                .into_iter()
                .flatten()
                .max_by_key(|found| found.length),
            (Some(found), None) => Some(found),
            (None, None) if at - ended < LOST => None,
            (None, None) => {
                index = tables
                    .take()
                    .map(|(heads, chain)| Index::new(base, heads, chain));
                at = ended;
                continue;
            }
        };
        let Some(found) = found else {
            // What has nothing in common is passed over faster and faster.
            misses += 1;
            at += 1 + misses / PATIENCE;
            continue;
        };
        writer.copy(found.base, found.target, found.length)?;
        misses = 0;
        ended = found.target + found.length;
        base_ended = found.base + found.length;
        at = ended;
    }
    Some(())
}

/// The piece that is at both places, if there is one.
fn aligned(base: &[u8], base_at: usize, target: &[u8], at: usize) -> Option<Found> {
    let base_rest = base.get(base_at..)?;
    let length = common_prefix(base_rest, &target[at..]);
    (length >= BLOCK).then_some(Found {
        base: base_at,
        target: at,
        length,
    })
}

/// The longest piece that is nearly at both places.
fn drifted(base: &[u8], base_at: usize, target: &[u8], at: usize) -> Option<Found> {
    let block = block_at(target, at);
    let places = base_at.saturating_sub(MAX_DRIFT)..=base_at + MAX_DRIFT;
    places
        .filter(|place| place + BLOCK <= base.len() && block_at(base, *place) == block)
        .filter_map(|place| aligned(base, place, target, at))
        .max_by_key(|found| found.length)
}

/// A piece of the base that is in the target, too.
struct Found {
    /// Where it begins in the base.
    base: usize,
    /// Where it begins in the target.
    target: usize,
    length: usize,
}

/// Where the blocks of the base are.
struct Index<'a> {
    base: &'a [u8],
    stride: usize,
    heads: &'a mut [u32],
    chain: &'a mut [u32],
}

impl<'a> Index<'a> {
    fn new(base: &'a [u8], heads: &'a mut Vec<u32>, chain: &'a mut Vec<u32>) -> Self {
        // Of a very long base, not every block is known.
        let stride = BLOCK * base.len().div_ceil(BLOCK * MAX_BLOCKS);
        let blocks = (base.len() - BLOCK) / stride + 1;
        heads.clear();
        heads.resize((blocks * 2).next_power_of_two(), 0);
        chain.clear();
        for number in 0..blocks {
            let head = &mut heads[slot(block_at(base, number * stride), blocks)];
            chain.push(*head);
            *head = number as u32 + 1;
        }
        Self {
            base,
            stride,
            heads,
            chain,
        }
    }

    /// The longest piece of the base around `at` of the target, or around the places behind it that
    /// are within the same block: only there could another one of its block boundaries be.
    fn nearby(&self, target: &[u8], at: usize, start: usize) -> Option<Found> {
        let first = self.longest(target, at, start)?;
        if first.length >= VERY_LONG {
            return Some(first);
        }
        let last = (at + BLOCK - 1).min(target.len() - BLOCK);
        let others = (at + 1..=last).filter_map(|at| self.longest(target, at, start));
        others.chain([first]).max_by_key(|found| found.length)
    }

    /// The longest piece of the base around `at` of the target, not reaching before `start`.
    fn longest(&self, target: &[u8], at: usize, start: usize) -> Option<Found> {
        let block = block_at(target, at);
        let mut next = self.heads[slot(block, self.chain.len())];
        let mut longest: Option<Found> = None;
        for _ in 0..MAX_CANDIDATES {
            let Some(number) = next.checked_sub(1) else {
                break;
            };
            next = self.chain[number as usize];
            let from = number as usize * self.stride;
            if block_at(self.base, from) != block {
                continue;
            }
            let after = common_prefix(&self.base[from + BLOCK..], &target[at + BLOCK..]);
            let before = common_suffix(&self.base[..from], &target[start..at]);
            let length = before + BLOCK + after;
            if longest.as_ref().is_none_or(|known| length > known.length) {
                longest = Some(Found {
                    base: from - before,
                    target: at - before,
                    length,
                });
            }
        }
        longest
    }
}

/// Writes the segments of a patch, in the order of the target.
struct Writer<'a> {
    patch: &'a mut Vec<u8>,
    target: &'a [u8],
    /// Up to where the target is written.
    written: usize,
}

impl Writer<'_> {
    /// Copies `length` bytes from `base` of the base to `at` of the target, if that is worth it; if
    /// not, they become part of the next literal. `None` when the patch gets too long.
    fn copy(&mut self, base: usize, at: usize, length: usize) -> Option<()> {
        let from = character_after(self.target, at);
        let to = character_before(self.target, at + length);
        let base = base + (from - at);
        let length = to.saturating_sub(from);
        // A literal in two parts has two lengths.
        let cost = digits(length) + digits(base) + 2 + 2;
        if length <= cost {
            return Some(());
        }
        self.literal(from)?;
        write_number(length, self.patch);
        self.patch.push(b'@');
        write_number(base, self.patch);
        self.patch.push(b',');
        self.written = to;
        Some(())
    }

    /// Writes what comes before `to` of the target as it stands.
    fn literal(&mut self, to: usize) -> Option<()> {
        let bytes = &self.target[self.written..to];
        if bytes.is_empty() {
            return Some(());
        }
        if self.patch.len() + bytes.len() >= self.target.len() {
            return None;
        }
        write_number(bytes.len(), self.patch);
        self.patch.push(b':');
        self.patch.extend_from_slice(bytes);
        self.written = to;
        Some(())
    }
}

/// The beginning of the character that stands at `at`, or of the next one. Where this isn't UTF-8,
/// any place will do.
fn character_after(text: &[u8], at: usize) -> usize {
    (at..at + 4).find(|at| is_boundary(text, *at)).unwrap_or(at)
}

/// The end of the last character that ends at or before `at`.
fn character_before(text: &[u8], at: usize) -> usize {
    (at.saturating_sub(3)..=at)
        .rev()
        .find(|at| is_boundary(text, *at))
        .unwrap_or(at)
}

fn is_boundary(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|byte| byte & 0xc0 != 0x80)
}

/// How many bytes are the same from the front.
fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    let words = left.chunks_exact(WORD).zip(right.chunks_exact(WORD));
    let same = words.take_while(|(left, right)| left == right).count() * WORD;
    let bytes = left[same..].iter().zip(&right[same..]);
    same + bytes.take_while(|(left, right)| left == right).count()
}

/// How many bytes are the same from the back.
fn common_suffix(left: &[u8], right: &[u8]) -> usize {
    let words = left.rchunks_exact(WORD).zip(right.rchunks_exact(WORD));
    let same = words.take_while(|(left, right)| left == right).count() * WORD;
    let rest = |bytes: &[u8]| bytes.len() - same;
    let bytes = left[..rest(left)].iter().rev();
    let bytes = bytes.zip(right[..rest(right)].iter().rev());
    same + bytes.take_while(|(left, right)| left == right).count()
}

/// The block at `at`, which is there.
fn block_at(bytes: &[u8], at: usize) -> u64 {
    let mut block = [0; BLOCK];
    block.copy_from_slice(&bytes[at..at + BLOCK]);
    u64::from_le_bytes(block)
}

/// The place of a block in a table for so many of them.
fn slot(block: u64, blocks: usize) -> usize {
    let bits = (blocks * 2).next_power_of_two().trailing_zeros();
    // The upper bits of a product depend on all bits of the factors.
    (block.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize
}

fn write_number(number: usize, out: &mut Vec<u8>) {
    for digit in (0..digits(number)).rev() {
        out.push(DIGITS[number >> (6 * digit) & 63]);
    }
}

/// How many digits a number has.
fn digits(number: usize) -> usize {
    ((usize::BITS - (number | 1).leading_zeros()) as usize).div_ceil(6)
}

/// Bytes of a block, as many as a word of 64 bits.
const BLOCK: usize = 8;

/// Bytes that are compared at a time.
const WORD: usize = 16;

/// A piece so long that nothing better is looked for.
const LONG: usize = 32;

/// A piece so long that looking for a better one costs more than it saves.
const VERY_LONG: usize = 128;

/// After how many bytes without a piece in step with the last one the step is lost.
const LOST: usize = 16;

/// By how many bytes a field that has changed may have got longer or shorter.
const MAX_DRIFT: usize = 4;

/// How many blocks of a base are known at most.
const MAX_BLOCKS: usize = 1 << 16;

/// How many blocks with the same hash are looked at.
const MAX_CANDIDATES: usize = 16;

/// How many places without a piece of the base are looked at before some are passed over.
const PATIENCE: usize = 64;

/// A target of so many bytes is never longer than its patch: two numbers, two marks, a copy.
const SHORTEST: usize = 8;

/// Decoders count in 32 bits, some of them signed.
const MAX_LENGTH: usize = 1 << 30;
