//! An inflater (RFC 1951) for messages that are there as a whole.
//!
//! A streaming inflater can stop at every bit and go on later, and keeps a window of its own for
//! that. Here the message lies in one slice, the history in another, and what comes out in a
//! third, so there is no state between messages, nothing to reset, and no window to copy: a
//! reference reaches into the output, or beyond its start into the history.
//!
//! What it takes is what zlib takes, byte for byte, with two differences. It refuses a message that
//! ends inside a block, where zlib would wait for more and hand out what it has. And it holds the
//! sender to the agreed window within a message, too.

mod bits;
mod table;

pub(crate) use bits::TAIL;

use crate::limits::{InflateError, InflateLimits};
use bits::{Bits, End};
use table::{
    Alphabet, Coded, DISTANCE_ROOT, DISTANCE_TABLE, Entry, FIXED_DISTANCE_ROOT, FIXED_DISTANCES,
    FIXED_LITERAL_ROOT, FIXED_LITERALS, LENGTH_CODE_ROOT, LENGTH_CODE_TABLE, LITERAL_ROOT,
    LITERAL_TABLE,
};

/// Inflates messages. Holds nothing but room for the tables of the block at hand, 10 KiB.
pub(crate) struct Inflater {
    literals: Box<[Entry; LITERAL_TABLE]>,
    distances: Box<[Entry; DISTANCE_TABLE]>,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        Self {
            literals: Box::new([Entry::INVALID; LITERAL_TABLE]),
            distances: Box::new([Entry::INVALID; DISTANCE_TABLE]),
        }
    }

    /// Inflates one message, of which the sender has left out the tail, and appends it to `out`. It
    /// may refer to the bytes of `history`, at most `window` bytes back.
    ///
    /// `out` grows with what is inflated, by doubling, and ends no more than [`MARGIN`] bytes beyond what the
    /// limits allow. After an error it is as it was.
    pub(crate) fn inflate(
        &mut self,
        history: &[u8],
        window: usize,
        message: &[u8],
        limits: InflateLimits,
        out: &mut Vec<u8>,
    ) -> Result<(), InflateError> {
        let end = End::of(message);
        let mut bits = Bits::new(message, &end);
        let start = out.len();
        let mut output = Output {
            at: start,
            start,
            bytes: out,
            history,
            window,
            first_room: message.len().saturating_mul(4).max(256),
            most: limits.most(message.len()),
        };
        let result = self.blocks(&mut bits, &mut output);
        let (size, most) = (output.at - start, output.most);
        let result = match result {
            _ if size > most => Err(limits.error(size)),
            // Zeros were read that nobody sent, and what they said was wrong.
            _ if bits.is_beyond_end() => Err(InflateError::CutOff),
            Err(_) => Err(InflateError::Corrupt),
            Ok(()) => Ok(()),
        };
        out.truncate(if result.is_ok() { start + size } else { start });
        result
    }

    /// All blocks of a message.
    ///
    /// A final block ends a deflate stream, and another may follow from the next byte on, in the same
    /// window (RFC 7692, section 7.2.3.5).
    fn blocks(&mut self, bits: &mut Bits<'_>, out: &mut Output<'_>) -> Result<(), Stop> {
        while !bits.is_at_end() {
            bits.refill();
            let is_final = bits.take(1) == 1;
            match bits.take(2) {
                0 => stored(bits, out)?,
                1 => symbols(
                    bits,
                    out,
                    &Tables {
                        literals: &FIXED_LITERALS,
                        literal_root: FIXED_LITERAL_ROOT,
                        distances: &FIXED_DISTANCES,
                        distance_root: FIXED_DISTANCE_ROOT,
                    },
                )?,
                2 => {
                    let (literal_root, distance_root) = self.read_tables(bits)?;
                    let tables = Tables {
                        literals: &self.literals,
                        literal_root,
                        distances: &self.distances,
                        distance_root,
                    };
                    symbols(bits, out, &tables)?;
                }
                _ => return Err(Stop::Corrupt),
            }
            if bits.is_beyond_end() {
                return Err(Stop::Corrupt);
            }
            if is_final {
                bits.align();
                if bits.is_past_message() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Reads the codes of a block that brings its own (RFC 1951, section 3.2.7), and returns how many
    /// bits the first steps of the two tables look at.
    fn read_tables(&mut self, bits: &mut Bits<'_>) -> Result<(u32, u32), Stop> {
        let literals = bits.take(5) as usize + 257;
        let distances = bits.take(5) as usize + 1;
        let length_codes = bits.take(4) as usize + 4;
        if literals > 286 || distances > 30 {
            return Err(Stop::Corrupt);
        }
        let mut code_lengths = [0; 19];
        for (at, &symbol) in LENGTH_CODE_ORDER[..length_codes].iter().enumerate() {
            if at % 16 == 0 {
                bits.refill();
            }
            code_lengths[symbol] = bits.take(3) as u8;
        }
        let mut coded = [Coded::default(); 19];
        let mut count = 0;
        for (symbol, &length) in (0..).zip(&code_lengths) {
            coded[count] = Coded { symbol, length };
            count += usize::from(length != 0);
        }
        let mut table = [Entry::INVALID; LENGTH_CODE_TABLE];
        let alphabet = Alphabet::CodeLengths;
        let root = table::build(alphabet, &coded[..count], LENGTH_CODE_ROOT, &mut table)
            .ok_or(Stop::Corrupt)?;
        self.read_lengths(bits, root, &table, literals, distances)
    }

    /// Reads the lengths of the codes of so many literals and distances, and builds their tables.
    fn read_lengths(
        &mut self,
        bits: &mut Bits<'_>,
        root: u32,
        table: &[Entry; LENGTH_CODE_TABLE],
        literals: usize,
        distances: usize,
    ) -> Result<(u32, u32), Stop> {
        let all = literals + distances;
        // Only symbols that have a code are looked at again: most have none.
        let mut coded = [Coded::default(); 286 + 30];
        let (mut count, mut coded_literals) = (0, 0);
        let (mut at, mut previous, mut ends) = (0, None, false);
        let mut from = *bits;
        while at < all {
            from.refill();
            if from.may_be_beyond_end() && from.is_beyond_end() {
                *bits = from;
                return Err(Stop::Corrupt);
            }
            let entry = table[(from.peek() & ((1 << root) - 1)) as usize & (LENGTH_CODE_TABLE - 1)];
            from.consume(entry.bits());
            let (length, repeat) = match entry.symbol() {
                length @ 0..=15 => (length as u8, 1),
                16 => (previous.ok_or(Stop::Corrupt)?, 3 + from.take(2) as usize),
                17 => (0, 3 + from.take(3) as usize),
                _ => (0, 11 + from.take(7) as usize),
            };
            previous = Some(length);
            let next = at + repeat;
            if next > all {
                return Err(Stop::Corrupt);
            }
            if length != 0 {
                for symbol in at..next {
                    // The distances count from 0 again.
                    let symbol = if symbol < literals {
                        coded_literals = count + 1;
                        ends |= symbol == END_OF_BLOCK;
                        symbol
                    } else {
                        symbol - literals
                    };
                    coded[count] = Coded {
                        symbol: symbol as u16,
                        length,
                    };
                    count += 1;
                }
            }
            at = next;
        }
        *bits = from;
        if !ends {
            return Err(Stop::Corrupt);
        }
        let (literals, distances) = coded[..count].split_at(coded_literals);
        let literal_root = table::build(
            Alphabet::Literals,
            literals,
            LITERAL_ROOT,
            &mut self.literals,
        );
        let distance_root = table::build(
            Alphabet::Distances,
            distances,
            DISTANCE_ROOT,
            &mut self.distances,
        );
        literal_root.zip(distance_root).ok_or(Stop::Corrupt)
    }
}

/// Why inflating ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Corrupt,
    /// There is more than the limits allow.
    Full,
}

/// The codes of a block.
struct Tables<'t> {
    literals: &'t [Entry; LITERAL_TABLE],
    literal_root: u32,
    distances: &'t [Entry; DISTANCE_TABLE],
    distance_root: u32,
}

/// Where inflated bytes go, and what may be referred to.
struct Output<'a> {
    /// Beyond `at`, room that has no meaning yet.
    bytes: &'a mut Vec<u8>,
    start: usize,
    at: usize,
    history: &'a [u8],
    window: usize,
    /// How much room to make first.
    first_room: usize,
    /// Bytes that the message may have.
    most: usize,
}

impl Output<'_> {
    /// Makes room for [`MARGIN`] bytes or more, unless there are too many already.
    #[inline(never)]
    fn make_room(&mut self) -> Result<(), Stop> {
        let size = self.at - self.start;
        if size > self.most {
            return Err(Stop::Full);
        }
        let room = size.max(self.first_room).min(self.most - size) + MARGIN;
        self.bytes.resize(self.at + room, 0);
        Ok(())
    }

    /// Adds bytes as they are, in the room that there is and beyond it.
    ///
    /// What is left of the room stays. A message may have a block for every three of its bytes, and what is given
    /// up in one block has to be made again for the next: as much as there is of the message so far.
    fn put(&mut self, piece: &[u8]) {
        let room = &mut self.bytes[self.at..];
        let (within, beyond) = piece.split_at(piece.len().min(room.len()));
        room[..within.len()].copy_from_slice(within);
        self.bytes.extend_from_slice(beyond);
        self.at += piece.len();
    }
}

/// A block that isn't compressed (RFC 1951, section 3.2.4).
fn stored(bits: &mut Bits<'_>, out: &mut Output<'_>) -> Result<(), Stop> {
    bits.align();
    bits.refill();
    let len = bits.take(16);
    if bits.take(16) != len ^ 0xffff {
        return Err(Stop::Corrupt);
    }
    let len = len as usize;
    if out.at - out.start + len > out.most {
        out.at += len;
        return Err(Stop::Full);
    }
    if !bits.copy(len, |piece| out.put(piece)) {
        return Err(Stop::Corrupt);
    }
    Ok(())
}

/// Literals and references up to the end of the block (RFC 1951, section 3.2.3).
fn symbols(bits: &mut Bits<'_>, out: &mut Output<'_>, tables: &Tables<'_>) -> Result<(), Stop> {
    let literal_mask = (1u64 << tables.literal_root) - 1;
    let distance_mask = (1u64 << tables.distance_root) - 1;
    let literal_entry =
        |bits: u64| tables.literals[(bits & literal_mask) as usize & (LITERAL_TABLE - 1)];
    let (start, history, window) = (out.start, out.history, out.window);
    // Copies, so that they are kept in registers.
    let (mut from, mut at) = (*bits, out.at);
    let result = loop {
        if out.bytes.len() < at + MARGIN {
            out.at = at;
            if let Err(stop) = out.make_room() {
                break Err(stop);
            }
        }
        let bytes = out.bytes.as_mut_slice();
        let full = bytes.len() - MARGIN;
        let result = loop {
            // Enough for three literals, or for a length and a distance: at most 48 bits.
            from.refill();
            if from.may_be_beyond_end() && from.is_beyond_end() {
                break Some(Err(Stop::Corrupt));
            }
            let mut entry = literal_entry(from.peek());
            if entry.is_literal() {
                bytes[at] = entry.literal();
                at += 1;
                from.consume(entry.bits());
                entry = literal_entry(from.peek());
                if entry.is_literal() {
                    bytes[at] = entry.literal();
                    at += 1;
                    from.consume(entry.bits());
                    entry = literal_entry(from.peek());
                    if entry.is_literal() {
                        bytes[at] = entry.literal();
                        at += 1;
                        from.consume(entry.bits());
                        if at > full {
                            break None;
                        }
                        continue;
                    }
                }
                from.refill();
            }
            if entry.is_special() {
                if entry.has_second_step() {
                    from.consume(entry.bits());
                    let index = entry.second_index(from.peek());
                    entry = tables.literals[index & (LITERAL_TABLE - 1)];
                    if entry.is_literal() {
                        bytes[at] = entry.literal();
                        at += 1;
                        from.consume(entry.bits());
                        if at > full {
                            break None;
                        }
                        continue;
                    }
                }
                if entry.is_special() {
                    from.consume(entry.bits());
                    let end = entry.is_end();
                    break Some(if end { Ok(()) } else { Err(Stop::Corrupt) });
                }
            }
            let length = entry.value(from.peek());
            from.consume(entry.bits());
            let index = (from.peek() & distance_mask) as usize;
            let mut entry = tables.distances[index & (DISTANCE_TABLE - 1)];
            if entry.is_special() {
                if entry.has_second_step() {
                    from.consume(entry.bits());
                    let index = entry.second_index(from.peek());
                    entry = tables.distances[index & (DISTANCE_TABLE - 1)];
                }
                if entry.is_special() {
                    from.consume(entry.bits());
                    break Some(Err(Stop::Corrupt));
                }
            }
            let distance = entry.value(from.peek());
            from.consume(entry.bits());
            let inflated = at - start;
            if distance <= inflated.min(window) {
                copy_within(bytes, at, distance, length);
            } else if distance <= (inflated + history.len()).min(window) {
                let reach = &history[history.len() - (distance - inflated)..];
                copy_from(reach, bytes, at, distance, length);
            } else {
                break Some(Err(Stop::Corrupt));
            }
            at += length;
            if at > full {
                break None;
            }
        };
        if let Some(result) = result {
            break result;
        }
    };
    (*bits, out.at) = (from, at);
    result
}

/// Repeats the `length` bytes that begin `distance` before `at`, some of which may be those that are
/// written here. Writes up to 15 bytes more, which have no meaning.
#[inline(always)]
fn copy_within(bytes: &mut [u8], at: usize, distance: usize, length: usize) {
    let from = at - distance;
    if distance >= 16 {
        let mut done = 0;
        while done < length {
            bytes.copy_within(from + done..from + done + 16, at + done);
            done += 16;
        }
    } else if distance == 1 {
        let byte = bytes[from];
        bytes[at..at + length].fill(byte);
    } else {
        for done in 0..length {
            bytes[at + done] = bytes[from + done];
        }
    }
}

/// The same where the first of them are those of `reach`, the end of the history.
#[inline(always)]
fn copy_from(reach: &[u8], bytes: &mut [u8], at: usize, distance: usize, length: usize) {
    let first = reach.len().min(length);
    bytes[at..at + first].copy_from_slice(&reach[..first]);
    if first < length {
        copy_within(bytes, at + first, distance, length - first);
    }
}

/// Room that a round of [`symbols`] may need: two literals, the longest length, and what
/// [`copy_within`] writes beyond it.
const MARGIN: usize = 2 + 258 + 15 + 1;

/// The symbol that ends a block; it has to have a code.
const END_OF_BLOCK: usize = 256;

/// In which order the lengths of the code lengths' codes come (RFC 1951, section 3.2.7).
const LENGTH_CODE_ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a stored block of so many bytes where there is room: how many there are then, and how much room.
    fn read_stored(len: u16) -> (usize, usize) {
        let mut message = vec![0];
        message.extend(len.to_le_bytes());
        message.extend((!len).to_le_bytes());
        message.extend((0..len).map(|at| at as u8));
        let (end, mut bytes) = (End::of(&message), b"kept".to_vec());
        let mut bits = Bits::new(&message, &end);
        let mut out = Output {
            at: 4,
            start: 4,
            bytes: &mut bytes,
            history: &[],
            window: 1 << 15,
            first_room: 1000,
            most: 10_000,
        };
        assert_eq!(out.make_room(), Ok(()));
        bits.refill();
        bits.consume(3);
        assert_eq!(stored(&mut bits, &mut out), Ok(()));
        let (at, room) = (out.at, out.bytes.len() - out.at);
        assert_eq!(bytes[..4], *b"kept");
        assert_eq!(bytes[4..at], message[5..]);
        (at - 4, room)
    }

    /// Time in proportion to a message hangs on this: blocks that take turns would else have room made, and
    /// filled with zeros, again and again.
    #[test]
    fn a_stored_block_keeps_the_room_that_there_is() {
        let made = 1000 + MARGIN;
        for len in [0, 1, 999, 1000, 1276] {
            assert_eq!(
                read_stored(len),
                (len.into(), made - usize::from(len)),
                "{len}"
            );
        }
        for len in [1277, 5000] {
            assert_eq!(read_stored(len), (len.into(), 0));
        }
    }
}
