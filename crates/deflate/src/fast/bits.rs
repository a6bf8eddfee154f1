//! Writing deflate's bits: the symbols of lengths and distances, and the code that is fixed.

use super::MAX_PART;

/// Writes bits from the lowest up, as deflate wants them.
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Where the next whole byte goes. `out` has room for eight bytes from here at all times.
    at: usize,
    bits: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, message: usize) -> Self {
        let at = out.len();
        // No symbol takes more than nine bits for each byte it stands for; and a block's head and
        // end for each part.
        out.resize(
            at + message + message / 8 + 2 * (message / MAX_PART + 1) + 16,
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
    pub(super) fn put(&mut self, bits: u32, count: u32) {
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
    pub(super) fn begin_block(&mut self) {
        self.put(0b010, 3);
    }

    pub(super) fn literal(&mut self, byte: u8) {
        let Code { bits, count } = LITERALS[usize::from(byte)];
        self.put(bits, count);
    }

    pub(super) fn copy(&mut self, length: usize, distance: usize) {
        let Code { bits, count } = LENGTHS[length - 3];
        self.put(bits, count);
        let Code { bits, count } = distance_code(distance as u32);
        self.put(bits, count);
    }

    /// Symbol 256: seven zeros.
    pub(super) fn end_block(&mut self) {
        self.put(0, 7);
    }

    /// The head of an empty stored block, padded with zeros; its body is the tail that isn't sent.
    pub(super) fn finish(mut self) {
        self.put(0, 3);
        self.count = self.count.next_multiple_of(8);
        self.flush();
        self.out.truncate(self.at);
    }
}

/// Bits, the first one lowest, and how many.
#[derive(Clone, Copy)]
pub(super) struct Code {
    pub(super) bits: u32,
    pub(super) count: u32,
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

/// By length minus 3: the length's symbol, and how many extra bits follow it (RFC 1951, section
/// 3.2.5).
pub(super) const LENGTH_SYMBOLS: [(u16, u8); 256] = {
    let mut symbols = [(0, 0); 256];
    let mut over: u32 = 0;
    while over < 256 {
        // Symbols come in groups of four, each group with one more extra bit; 258 has its own.
        symbols[over as usize] = if over == 255 {
            (285, 0)
        } else if over < 8 {
            (257 + over as u16, 0)
        } else {
            let extra = over.ilog2() - 2;
            ((257 + 4 * extra + (over >> extra)) as u16, extra as u8)
        };
        over += 1;
    }
    symbols
};

/// By length minus 3: the length's symbol in the fixed code, and its extra bits.
const LENGTHS: [Code; 256] = {
    let mut codes = [Code { bits: 0, count: 0 }; 256];
    let mut over = 0;
    while over < 256 {
        let (symbol, extra) = LENGTH_SYMBOLS[over];
        let Code { bits, count } = fixed_code(symbol as u32);
        let rest = over as u32 & ((1 << extra) - 1);
        codes[over] = Code {
            bits: bits | rest << count,
            count: count + extra as u32,
        };
        over += 1;
    }
    codes
};

/// A distance's symbol, and how many extra bits follow it (RFC 1951, section 3.2.5).
#[inline(always)]
pub(super) fn distance_symbol(distance: u32) -> (u32, u32) {
    let over = distance - 1;
    if over < 4 {
        (over, 0)
    } else {
        let extra = over.ilog2() - 1;
        (2 * extra + (over >> extra), extra)
    }
}

/// A distance's symbol in the fixed code, five bits, and its extra bits.
#[inline(always)]
fn distance_code(distance: u32) -> Code {
    let (symbol, extra) = distance_symbol(distance);
    let rest = (distance - 1) & ((1 << extra) - 1);
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
    use super::super::MAX_DISTANCE;
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
}
