//! A compressor for small messages: one pass, one probe, the fixed Huffman code.
//!
//! zlib's fastest level spends most of a small message's time on clearing its hash table (128 KiB)
//! before it begins. This one never clears: positions are absolute over the life of the
//! compressor, so entries of an earlier message are recognised by being too old. What it writes is
//! what zlib's level 1 writes, give or take a byte: a single block in the fixed code (RFC 1951,
//! section 3.2.6) with greedy matches, closed by the sync flush that RFC 7692 asks for.

const HASH_BITS: u32 = 12;
const MIN_MATCH: usize = 4;
const MAX_MATCH: usize = 258;
/// The farthest that deflate can refer back.
const MAX_DISTANCE: usize = 32 * 1024;
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
}

impl FastDeflate {
    pub(crate) fn new() -> Self {
        Self {
            table: Box::new([0; 1 << HASH_BITS]),
            window: Vec::new(),
            base: 1,
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
    /// `max_distance` bytes.
    pub(crate) fn compress(&mut self, message: &[u8], max_distance: usize, out: &mut Vec<u8>) {
        let mut bits = BitWriter::new(out, message.len());
        for part in message.chunks(MAX_WINDOW) {
            if self.window.len() + part.len() > MAX_WINDOW {
                self.advance(self.window.len().saturating_sub(MAX_DISTANCE));
            }
            let start = self.window.len();
            self.window.extend_from_slice(part);
            bits.begin_block();
            self.write_symbols(start, max_distance.min(MAX_DISTANCE), &mut bits);
            bits.end_block();
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
    fn write_symbols(&mut self, start: usize, max_distance: usize, bits: &mut BitWriter<'_>) {
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
                    bits.copy(length, distance);
                    // The end of a match is where the next one is likely to begin.
                    let end = at + length;
                    for near in [end - 2, end - 1] {
                        if near + MIN_MATCH <= data.len() {
                            self.table[hash(read32(data, near))] = base + near as u32;
                        }
                    }
                    at = end;
                    continue;
                }
            }
            bits.literal(data[at]);
            at += 1;
        }
        for &byte in &data[at..] {
            bits.literal(byte);
        }
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

/// Writes bits from the lowest up, as deflate wants them.
struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Where the next whole byte goes. `out` has room for eight bytes from here at all times.
    at: usize,
    bits: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    fn new(out: &'a mut Vec<u8>, message: usize) -> Self {
        let at = out.len();
        // No symbol takes more than nine bits for each byte it stands for; and a block's head and
        // end for each part.
        out.resize(
            at + message + message / 8 + 2 * (message / MAX_WINDOW + 1) + 16,
            0,
        );
        Self {
            out,
            at,
            bits: 0,
            count: 0,
        }
    }

    /// At most 31 bits at a time.
    fn put(&mut self, bits: u32, count: u32) {
        self.bits |= u64::from(bits) << self.count;
        self.count += count;
        if self.count >= 32 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.out[self.at..self.at + 8].copy_from_slice(&self.bits.to_le_bytes());
        let whole = self.count / 8;
        self.at += whole as usize;
        self.bits = self.bits.checked_shr(whole * 8).unwrap_or(0);
        self.count %= 8;
    }

    /// Not the last block (0), the fixed code (01).
    fn begin_block(&mut self) {
        self.put(0b010, 3);
    }

    fn literal(&mut self, byte: u8) {
        let Code { bits, count } = LITERALS[usize::from(byte)];
        self.put(bits, count);
    }

    fn copy(&mut self, length: usize, distance: usize) {
        let Code { bits, count } = LENGTHS[length - 3];
        self.put(bits, count);
        let Code { bits, count } = distance_code(distance as u32);
        self.put(bits, count);
    }

    /// Symbol 256: seven zeros.
    fn end_block(&mut self) {
        self.put(0, 7);
    }

    /// The head of an empty stored block, padded with zeros; its body is the tail that isn't sent.
    fn finish(mut self) {
        self.put(0, 3);
        self.count = self.count.next_multiple_of(8);
        self.flush();
        self.out.truncate(self.at);
    }
}

#[derive(Clone, Copy)]
struct Code {
    bits: u32,
    count: u32,
}

/// RFC 1951, section 3.2.6.
const LITERALS: [Code; 256] = {
    let mut codes = [Code { bits: 0, count: 0 }; 256];
    let mut symbol = 0;
    while symbol < 256 {
        codes[symbol] = fixed_code(symbol as u32);
        symbol += 1;
    }
    codes
};

/// By length minus 3: the length's symbol and its extra bits (RFC 1951, section 3.2.5).
const LENGTHS: [Code; 256] = {
    let mut codes = [Code { bits: 0, count: 0 }; 256];
    let mut length: u32 = 3;
    while length <= 258 {
        let over = length - 3;
        // Symbols come in groups of four, each group with one more extra bit; 258 has its own.
        let (symbol, extra) = if length == 258 {
            (285, 0)
        } else if over < 8 {
            (257 + over, 0)
        } else {
            let extra = over.ilog2() - 2;
            (257 + 4 * extra + (over >> extra), extra)
        };
        let Code { bits, count } = fixed_code(symbol);
        let rest = over & ((1 << extra) - 1);
        codes[over as usize] = Code {
            bits: if length == 258 {
                bits
            } else {
                bits | rest << count
            },
            count: count + extra,
        };
        length += 1;
    }
    codes
};

/// A distance's symbol, five bits, and its extra bits (RFC 1951, section 3.2.5).
fn distance_code(distance: u32) -> Code {
    let over = distance - 1;
    let (symbol, extra) = if over < 4 {
        (over, 0)
    } else {
        let extra = over.ilog2() - 1;
        (2 * extra + (over >> extra), extra)
    };
    let rest = over & ((1 << extra) - 1);
    Code {
        bits: symbol.reverse_bits() >> 27 | rest << 5,
        count: 5 + extra,
    }
}

/// The fixed code of a literal/length symbol, its first bit lowest.
const fn fixed_code(symbol: u32) -> Code {
    let (code, count) = match symbol {
        0..=143 => (0b0011_0000 + symbol, 8),
        144..=255 => (0b1_1001_0000 + (symbol - 144), 9),
        256..=279 => (symbol - 256, 7),
        _ => (0b1100_0000 + (symbol - 280), 8),
    };
    Code {
        bits: code.reverse_bits() >> (32 - count),
        count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length and every distance, read back by an independent implementation.
    #[test]
    fn every_length_and_distance_is_understood() {
        for distance in
            (1..=MAX_DISTANCE)
                .step_by(61)
                .chain([MAX_DISTANCE, MAX_DISTANCE - 1, 2, 3, 4, 5])
        {
            let length = distance % 256 + 3;
            let mut original: Vec<u8> = (0..distance).map(|i| (i * 7 + i / 251) as u8).collect();
            let mut out = Vec::new();
            let mut bits = BitWriter::new(&mut out, original.len() + length);
            bits.begin_block();
            for &byte in &original {
                bits.literal(byte);
            }
            bits.copy(length, distance);
            bits.end_block();
            bits.finish();
            for _ in 0..length {
                original.push(original[original.len() - distance]);
            }
            let mut back = Vec::with_capacity(original.len() + 64);
            let mut inflate = flate2::Decompress::new(false);
            inflate
                .decompress_vec(&out, &mut back, flate2::FlushDecompress::Sync)
                .unwrap();
            assert!(back == original, "length {length}, distance {distance}");
        }
    }

    #[test]
    fn positions_start_over_before_they_overflow() {
        let mut deflate = FastDeflate::new();
        deflate.base = MAX_BASE - 10;
        for _ in 0..3 {
            deflate.restart(b"some text that is known");
            let mut out = Vec::new();
            deflate.compress(b"some text that is known", MAX_DISTANCE, &mut out);
            assert!(out.len() < 8, "{}", out.len());
        }
        assert!(deflate.base < 1000);
    }
}
