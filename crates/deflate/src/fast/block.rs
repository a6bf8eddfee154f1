//! A block in the better of two codes: the one that is fixed, or one made for the block, which has to
//! be sent with it.

use super::bits::{BitWriter, Code, LENGTH_SYMBOLS, distance_symbol};
use super::huffman::{self, Builder, ByLength, MAX_SYMBOLS};

/// Symbol 256 ends a block.
const END: usize = 256;
/// Codes have at most 15 bits, those of the lengths of codes 7 (RFC 1951, section 3.2.7).
const LONGEST: usize = 15;
const LONGEST_OF_LENGTHS: usize = 7;

/// In which order the lengths of the code lengths' codes come.
const ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// A literal, or a length and a distance in one number.
#[derive(Clone, Copy)]
struct Token(u32);

const COPY: u32 = 1 << 31;

/// The symbols of a block, gathered until it is known which code is the better one for them.
pub(super) struct Block {
    tokens: Vec<Token>,
    literals: Alphabet<MAX_SYMBOLS>,
    distances: Alphabet<30>,
    lengths: Alphabet<19>,
    /// How many of the tokens are copies.
    copies: usize,
    farthest: usize,
    /// How many lengths of distances' codes are sent.
    distances_sent: usize,
    /// What says how long the codes are: symbols, with the bits behind them.
    header: Vec<(u8, u8)>,
    builder: Builder,
    near: Ready<30>,
    far: Ready<30>,
}

impl Block {
    pub(super) fn new() -> Self {
        Self {
            tokens: Vec::new(),
            literals: Alphabet::new(),
            distances: Alphabet::new(),
            lengths: Alphabet::new(),
            copies: 0,
            farthest: 0,
            distances_sent: 1,
            header: Vec::new(),
            builder: Builder::new(),
            near: Ready::new(&NEAR),
            far: Ready::new(&FAR),
        }
    }

    pub(super) fn begin(&mut self) {
        self.tokens.clear();
        self.literals.frequencies.fill(0);
        self.distances.frequencies.fill(0);
        self.literals.frequencies[END] = 1;
        self.copies = 0;
        self.farthest = 0;
    }

    #[inline]
    pub(super) fn literal(&mut self, byte: u8) {
        self.literals.frequencies[usize::from(byte)] += 1;
        self.tokens.push(Token(u32::from(byte)));
    }

    #[inline]
    pub(super) fn copy(&mut self, length: usize, distance: usize) {
        let (symbol, _) = LENGTH_SYMBOLS[length - 3];
        self.literals.frequencies[usize::from(symbol)] += 1;
        let (symbol, _) = distance_symbol(distance as u32);
        self.distances.frequencies[symbol as usize] += 1;
        self.copies += 1;
        self.farthest = self.farthest.max(distance);
        self.tokens.push(Token(
            COPY | (length as u32 - 3) << 16 | (distance as u32 - 1),
        ));
    }

    /// Writes the block, not as the last one.
    pub(super) fn write(&mut self, bits: &mut BitWriter<'_>) {
        self.literals.find_used();
        let fixed = self.fixed_size();
        // Making codes takes longer than all else, so they should save a tenth or more.
        let size = fixed + self.copies * EXTRA_BITS;
        if self.guess() + size / 10 < fixed {
            let own = self.make_codes();
            if own < fixed {
                self.write_header(bits);
                self.write_symbols(bits);
                return;
            }
        }
        bits.begin_block();
        for &Token(token) in &self.tokens {
            if token & COPY == 0 {
                bits.literal(token as u8);
            } else {
                bits.copy(
                    (token >> 16 & 0xff) as usize + 3,
                    (token & 0x7fff) as usize + 1,
                );
            }
        }
        bits.end_block();
    }

    /// Bits in the fixed code, extra bits not counted.
    fn fixed_size(&self) -> usize {
        let bits = |&symbol: &u16| {
            let frequency = self.literals.frequencies[usize::from(symbol)];
            usize::from(frequency) * fixed_bits(symbol)
        };
        self.literals.used().iter().map(bits).sum::<usize>() + 5 * self.copies
    }

    /// About how many bits the block has in codes of its own, extra bits not counted.
    fn guess(&self) -> usize {
        let distances = if self.farthest <= NEARBY {
            4 * self.copies
        } else {
            5 * self.copies + 20
        };
        self.literals.guess() + distances + BITS_OF_HEADER
    }

    /// Makes the block's own codes, and returns the bits that it has in them, header included and
    /// extra bits not.
    ///
    /// For few distances a code that is about right does as well as the best one, and takes no time to
    /// make.
    fn make_codes(&mut self) -> usize {
        self.literals.make_code(&mut self.builder, LONGEST);
        self.distances.find_used();
        let runs = if self.copies >= FEW_COPIES {
            self.distances.make_code(&mut self.builder, LONGEST);
            self.distances_sent = self.distances.sent(1);
            &[][..]
        } else if self.farthest <= NEARBY {
            self.distances.take_code(&self.near);
            self.distances_sent = 20;
            &NEAR[..]
        } else {
            self.distances.take_code(&self.far);
            self.distances_sent = 30;
            &FAR[..]
        };
        self.make_header(runs);
        self.lengths.find_used();
        self.lengths.lengths.fill(0);
        self.lengths
            .make_code(&mut self.builder, LONGEST_OF_LENGTHS);
        let header = self
            .header
            .iter()
            .map(|&(symbol, _)| usize::from(extra_of(symbol)));
        let header = header.sum::<usize>() + 5 + 5 + 4 + 3 * self.length_codes();
        header + self.lengths.size() + self.literals.size() + self.distances.size()
    }

    /// The lengths of all codes, with runs of the same length put together: those of the distances
    /// are given, or are what was made for them.
    fn make_header(&mut self, distances: &[(u8, u8)]) {
        self.header.clear();
        self.lengths.frequencies.fill(0);
        // One run may reach from the literals into the distances.
        let mut run = Run {
            header: &mut self.header,
            frequencies: &mut self.lengths.frequencies,
            length: 0,
            count: 0,
        };
        // Symbol 256 occurs, so there are 257 or more.
        run.extend_by(&self.literals, 0);
        for &(length, count) in distances {
            run.extend(length, usize::from(count));
        }
        if distances.is_empty() {
            run.extend_by(&self.distances, self.distances_sent);
        }
        run.end();
    }

    /// How many lengths of the code lengths' codes are sent.
    fn length_codes(&self) -> usize {
        let last = ORDER
            .iter()
            .rposition(|&symbol| self.lengths.lengths[symbol] > 0);
        last.map_or(4, |last| (last + 1).max(4))
    }

    /// Not the last block (0), with codes of its own (10), and these.
    fn write_header(&self, bits: &mut BitWriter<'_>) {
        bits.put(0b100, 3);
        bits.put(self.literals.sent(257) as u32 - 257, 5);
        bits.put(self.distances_sent as u32 - 1, 5);
        let count = self.length_codes();
        bits.put(count as u32 - 4, 4);
        for &symbol in &ORDER[..count] {
            bits.put(u32::from(self.lengths.lengths[symbol]), 3);
        }
        for &(symbol, repeated) in &self.header {
            let code = self.lengths.codes[usize::from(symbol)];
            bits.put(
                code.bits | u32::from(repeated) << code.count,
                code.count + u32::from(extra_of(symbol)),
            );
        }
    }

    fn write_symbols(&self, bits: &mut BitWriter<'_>) {
        let codes = &self.literals.codes;
        for &Token(token) in &self.tokens {
            if token & COPY == 0 {
                let Code { bits: code, count } = codes[token as usize & 0xff];
                bits.put(code, count);
                continue;
            }
            let length = (token >> 16 & 0xff) as usize;
            let (symbol, extra) = LENGTH_SYMBOLS[length];
            let code = codes[usize::from(symbol)];
            let rest = length as u32 & ((1 << extra) - 1);
            // 258 has a symbol of its own; the others of a group differ in the lowest bits of `length`, as
            // groups begin where those are 0.
            bits.put(
                code.bits | rest << code.count,
                code.count + u32::from(extra),
            );
            let over = token & 0x7fff;
            let (symbol, extra) = distance_symbol(over + 1);
            let code = self.distances.codes[symbol as usize];
            let rest = over & ((1 << extra) - 1);
            bits.put(code.bits | rest << code.count, code.count + extra);
        }
        let end = codes[END];
        bits.put(end.bits, end.count);
    }
}

/// Symbols, how often they occur in the block, and their codes.
struct Alphabet<const N: usize> {
    frequencies: [u16; N],
    /// The symbols that occur, ascending, `count` of them.
    used: [u16; N],
    count: usize,
    /// Of the symbols that occur; others' have no meaning.
    lengths: [u8; N],
    codes: [Code; N],
}

impl<const N: usize> Alphabet<N> {
    fn new() -> Self {
        Self {
            frequencies: [0; N],
            used: [0; N],
            count: 0,
            lengths: [0; N],
            codes: [Code { bits: 0, count: 0 }; N],
        }
    }

    fn used(&self) -> &[u16] {
        &self.used[..self.count]
    }

    fn find_used(&mut self) {
        let mut count = 0;
        // Most symbols don't occur, and those that do are close together.
        for (first, frequencies) in (0..).step_by(16).zip(self.frequencies.chunks(16)) {
            if frequencies
                .iter()
                .fold(0, |any, &frequency| any | frequency)
                == 0
            {
                continue;
            }
            for (symbol, &frequency) in (first..).zip(frequencies) {
                self.used[count] = symbol;
                count += usize::from(frequency > 0);
            }
        }
        self.count = count;
    }

    /// About how many bits the symbols will have in a code of their own, and that code's lengths.
    fn guess(&self) -> usize {
        let mut total = 0u32;
        let mut bits = 0u32;
        for &symbol in self.used() {
            let frequency = u32::from(self.frequencies[usize::from(symbol)]);
            total += frequency;
            bits += frequency * log2(frequency);
        }
        // In sixteenths of a bit.
        let symbols = (total * log2(total.max(1))).saturating_sub(bits) / 16;
        symbols as usize + self.count * BITS_A_LENGTH
    }

    fn make_code(&mut self, builder: &mut Builder, longest: usize) {
        let used = &self.used[..self.count];
        let by_length = builder.lengths(used, &self.frequencies, longest, &mut self.lengths);
        huffman::codes(used, &self.lengths, &by_length, &mut self.codes);
    }

    fn take_code(&mut self, code: &Ready<N>) {
        self.lengths = code.lengths;
        self.codes = code.codes;
    }

    /// Bits of all symbols.
    fn size(&self) -> usize {
        let size = |&symbol: &u16| {
            let symbol = usize::from(symbol);
            usize::from(self.frequencies[symbol]) * usize::from(self.lengths[symbol])
        };
        self.used().iter().map(size).sum()
    }

    /// How many lengths are sent: up to the last symbol that occurs.
    fn sent(&self, least: usize) -> usize {
        let last = self.used().last().map_or(0, |&last| usize::from(last) + 1);
        last.max(least)
    }
}

/// A code that was made before.
struct Ready<const N: usize> {
    lengths: [u8; N],
    codes: [Code; N],
}

impl<const N: usize> Ready<N> {
    /// The code of these lengths, given in runs.
    fn new(runs: &[(u8, u8)]) -> Self {
        let mut alphabet = Alphabet::<N>::new();
        let mut by_length = ByLength::default();
        for &(length, count) in runs {
            for _ in 0..count {
                alphabet.used[alphabet.count] = alphabet.count as u16;
                alphabet.lengths[alphabet.count] = length;
                alphabet.count += 1;
            }
            by_length[usize::from(length)] += u16::from(count);
        }
        let used = &alphabet.used[..alphabet.count];
        huffman::codes(used, &alphabet.lengths, &by_length, &mut alphabet.codes);
        Self {
            lengths: alphabet.lengths,
            codes: alphabet.codes,
        }
    }
}

/// Below this many copies distances have a code that was made before: one for distances of up to
/// 1,024, or one for all. Runs of lengths, with how many there are of each.
const FEW_COPIES: usize = 100;
const NEARBY: usize = 1024;
const NEAR: [(u8, u8); 2] = [(5, 8), (4, 12)];
const FAR: [(u8, u8); 3] = [(5, 12), (4, 2), (5, 16)];

/// How long a symbol's fixed code is (RFC 1951, section 3.2.6).
const fn fixed_bits(symbol: u16) -> usize {
    match symbol {
        144..256 => 9,
        256..280 => 7,
        _ => 8,
    }
}

/// About how many extra bits a copy has.
const EXTRA_BITS: usize = 6;

/// About what is sent in front of the literals' codes, and for the distances.
const BITS_OF_HEADER: usize = 100;

/// About what it costs to say how long a symbol's code is.
const BITS_A_LENGTH: usize = 4;

/// The logarithm in sixteenths.
#[inline]
fn log2(value: u32) -> u32 {
    let whole = value.ilog2();
    // The next five bits say what is behind the point.
    let rest = if whole >= 4 {
        value >> (whole - 4)
    } else {
        value << (4 - whole)
    } & 15;
    whole * 16 + u32::from(BEHIND_THE_POINT[rest as usize])
}

/// 16 * log2(1 + n / 16).
const BEHIND_THE_POINT: [u8; 16] = [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 15];

/// Code lengths that are the same one after the other.
struct Run<'a> {
    header: &'a mut Vec<(u8, u8)>,
    frequencies: &'a mut [u16; 19],
    length: u8,
    count: usize,
}

impl Run<'_> {
    /// Adds the lengths of all symbols up to the last one that occurs, or `least`.
    fn extend_by<const N: usize>(&mut self, alphabet: &Alphabet<N>, least: usize) {
        let mut at = 0;
        for &symbol in alphabet.used() {
            let symbol = usize::from(symbol);
            self.extend(0, symbol - at);
            self.extend(alphabet.lengths[symbol], 1);
            at = symbol + 1;
        }
        self.extend(0, least.saturating_sub(at));
    }

    #[inline]
    fn extend(&mut self, length: u8, count: usize) {
        if length != self.length && count > 0 {
            self.end();
            self.length = length;
        }
        self.count += count;
    }

    fn put(&mut self, symbol: u8, repeated: usize) {
        self.frequencies[usize::from(symbol)] += 1;
        self.header.push((symbol, repeated as u8));
    }

    fn end(&mut self) {
        let mut left = std::mem::take(&mut self.count);
        if self.length == 0 {
            while left >= 11 {
                let now = left.min(138);
                self.put(18, now - 11);
                left -= now;
            }
            if left >= 3 {
                self.put(17, left - 3);
                left = 0;
            }
        } else if left >= 4 {
            self.put(self.length, 0);
            left -= 1;
            while left >= 3 {
                let now = left.min(6);
                self.put(16, now - 3);
                left -= now;
            }
        }
        for _ in 0..left {
            self.put(self.length, 0);
        }
    }
}

/// Bits behind a symbol of the code lengths' alphabet.
const fn extra_of(symbol: u8) -> u8 {
    match symbol {
        16 => 2,
        17 => 3,
        18 => 7,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codes that are made before: complete, and for as many symbols as are sent.
    #[test]
    fn ready_codes_are_complete() {
        for (runs, symbols) in [(&NEAR[..], 20), (&FAR, 30)] {
            let space = |&(length, count): &(u8, u8)| u32::from(count) << (5 - length);
            assert_eq!(runs.iter().map(space).sum::<u32>(), 1 << 5);
            assert_eq!(
                runs.iter().map(|&(_, count)| u32::from(count)).sum::<u32>(),
                symbols
            );
        }
        assert_eq!(distance_symbol(NEARBY as u32).0, 19);
        assert_eq!(distance_symbol(1 << 15).0, 29);
    }
}
