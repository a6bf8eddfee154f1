//! Decoding tables: from the next bits to a symbol, in one step for short codes and in two for long
//! ones.

/// Bits that the first step looks at, at most.
pub(super) const LITERAL_ROOT: u32 = 10;
pub(super) const DISTANCE_ROOT: u32 = 8;
pub(super) const LENGTH_CODE_ROOT: u32 = 7;

/// Entries. Of 286 symbols with codes of up to 15 bits no more than 1,332 are needed, of 30 no more
/// than 402 (zlib's `enough.c` proves it); powers of two, so that a mask keeps an index inside.
pub(super) const LITERAL_TABLE: usize = 2048;
pub(super) const DISTANCE_TABLE: usize = 512;
pub(super) const LENGTH_CODE_TABLE: usize = 128;

/// The longest code (RFC 1951, section 3.2.7).
const MAX_LENGTH: usize = 15;

/// What a decoding table says of some bits.
///
/// From the lowest bit: 8 bits, how many bits to consume, extra bits included; 4 bits, the length
/// of the code without them; then what kind it is; and in the upper half a value: the literal, the
/// base of a length or a distance, or where the second step's table begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(u32);

const LITERAL: u32 = 1 << 31;
/// Neither a literal nor a length or distance.
const SPECIAL: u32 = 1 << 15;
const SECOND_STEP: u32 = 1 << 14;
const END: u32 = 1 << 13;

impl Entry {
    /// No code begins like this.
    pub(super) const INVALID: Self = Self(SPECIAL | 1);

    const fn of_symbol(base: u32, extra: u32) -> Self {
        Self(base << 16 | extra)
    }

    /// A symbol's entry where its code has `len` bits (in this step).
    #[inline]
    const fn with_code(self, len: u32) -> Self {
        Self(self.0 + (len << 8 | len))
    }

    const fn second_step(start: usize, bits: u32, root: u32) -> Self {
        Self((start as u32) << 16 | SPECIAL | SECOND_STEP | bits << 8 | root)
    }

    #[inline(always)]
    pub(super) fn is_literal(self) -> bool {
        self.0 & LITERAL != 0
    }

    #[inline(always)]
    pub(super) fn literal(self) -> u8 {
        (self.0 >> 16) as u8
    }

    #[inline(always)]
    pub(super) fn is_special(self) -> bool {
        self.0 & SPECIAL != 0
    }

    #[inline(always)]
    pub(super) fn is_end(self) -> bool {
        self.0 & END != 0
    }

    /// Whether this names the table of the second step.
    #[inline(always)]
    pub(super) fn has_second_step(self) -> bool {
        self.0 & SECOND_STEP != 0
    }

    /// Where in the table the second step looks, by the bits behind those of the first.
    #[inline(always)]
    pub(super) fn second_index(self, bits: u64) -> usize {
        let width = self.0 >> 8 & 15;
        (self.0 >> 16) as usize + (bits & ((1 << width) - 1)) as usize
    }

    /// Bits to consume.
    #[inline(always)]
    pub(super) fn bits(self) -> u32 {
        self.0 & 0xff
    }

    /// The length or the distance, given the bits from the code's first one on.
    #[inline(always)]
    pub(super) fn value(self, bits: u64) -> usize {
        let extra = (bits & ((1 << self.bits()) - 1)) >> (self.0 >> 8 & 15);
        (self.0 >> 16) as usize + extra as usize
    }

    /// The symbol itself, of the code of code lengths.
    #[inline(always)]
    pub(super) fn symbol(self) -> u32 {
        self.0 >> 16
    }
}

/// What is decoded: which symbols there are, and whether one code alone is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    Literals,
    Distances,
    CodeLengths,
}

impl Alphabet {
    #[inline]
    const fn entry(self, symbol: usize) -> Entry {
        match self {
            Self::Literals => LITERAL_ENTRIES[symbol],
            Self::Distances => DISTANCE_ENTRIES[symbol],
            Self::CodeLengths => Entry::of_symbol(symbol as u32, 0),
        }
    }
}

/// A symbol that has a code, and the code's length, 1 to 15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Coded {
    pub(super) symbol: u16,
    pub(super) length: u8,
}

/// Fills `table` for the code that these lengths make (RFC 1951, section 3.2.2), given the symbols
/// that have a code in ascending order, and returns how many
/// bits its first step looks at. `None` when they make none: more codes than there is room for, or
/// fewer, but for the one or no code that a block with one or no distance has (section 3.2.7).
///
/// The table grows with the length of the codes: each bit more doubles it by a copy, and only the
/// codes of that length are written one by one.
pub(super) fn build<const N: usize>(
    alphabet: Alphabet,
    coded: &[Coded],
    root: u32,
    table: &mut [Entry; N],
) -> Option<u32> {
    let mut counts = [0u16; MAX_LENGTH + 1];
    for &Coded { length, .. } in coded {
        counts[usize::from(length & 15)] += 1;
    }
    let mut longest = MAX_LENGTH;
    while longest > 0 && counts[longest] == 0 {
        longest -= 1;
    }
    // Where each length's symbols begin when sorted by length, and how much of the code space,
    // in codes of 15 bits, they take.
    let mut offsets = [0u16; MAX_LENGTH + 2];
    let mut space = 0;
    for length in 1..=longest {
        offsets[length + 1] = offsets[length] + counts[length];
        space += usize::from(counts[length]) << (MAX_LENGTH - length);
    }
    if space > 1 << MAX_LENGTH {
        return None;
    }
    let mut sorted = [0u16; 288];
    for &Coded { symbol, length } in coded {
        let offset = &mut offsets[usize::from(length & 15)];
        sorted[usize::from(*offset)] = symbol;
        *offset += 1;
    }
    if space < 1 << MAX_LENGTH {
        if longest > 1 || alphabet == Alphabet::CodeLengths {
            return None;
        }
        table[0] = match longest {
            0 => Entry::INVALID,
            _ => alphabet.entry(usize::from(sorted[0])).with_code(1),
        };
        table[1] = Entry::INVALID;
        return Some(1);
    }
    let root = root.min(longest as u32);
    let mut codes = sorted.iter();
    let mut entry_of = |len: usize| {
        let symbol = codes.next().copied().unwrap_or_default();
        alphabet.entry(usize::from(symbol)).with_code(len as u32)
    };
    // Codes count upwards, and are read from their first bit on: `code` is reversed.
    let mut code = 0;
    let mut size = 1;
    for (length, &count) in (1..).zip(&counts[1..=root as usize]) {
        table.copy_within(..size, size);
        size *= 2;
        for _ in 0..count {
            table[code] = entry_of(length);
            code = next_code(code, length);
        }
    }
    let (first_mask, mut prefix, mut start) = ((1 << root) - 1, usize::MAX, 0);
    for length in root as usize + 1..=longest {
        let mut left = usize::from(counts[length]);
        while left > 0 {
            if code & first_mask != prefix {
                prefix = code & first_mask;
                start = size;
                let mut width = length - root as usize;
                let mut used = left;
                while used < 1 << width {
                    width += 1;
                    used = used * 2 + usize::from(counts[root as usize + width]);
                }
                size += 1 << width;
                table[prefix] = Entry::second_step(start, width as u32, root);
            }
            let entry = entry_of(length - root as usize);
            for place in (start + (code >> root)..size).step_by(1 << (length - root as usize)) {
                table[place] = entry;
            }
            code = next_code(code, length);
            left -= 1;
        }
    }
    Some(root)
}

/// The code after `code`, both reversed. After the last it is the last again.
#[inline(always)]
const fn next_code(code: usize, length: usize) -> usize {
    let all = (1 << length) - 1;
    if code == all {
        // Of a shorter length the last is all ones only when the code space is used up.
        return code;
    }
    let bit = 1 << (code ^ all).ilog2();
    code & (bit - 1) | bit
}

/// RFC 1951, section 3.2.5. Symbols 286 and 287 have codes in the fixed code, and no meaning.
const LITERAL_ENTRIES: [Entry; 288] = {
    let mut entries = [Entry(SPECIAL); 288];
    let mut symbol = 0;
    while symbol < 256 {
        entries[symbol] = Entry(LITERAL | (symbol as u32) << 16);
        symbol += 1;
    }
    entries[256] = Entry(SPECIAL | END);
    let mut base = 3;
    while symbol < 285 {
        symbol += 1;
        if symbol == 285 {
            break;
        }
        let extra = if symbol < 265 {
            0
        } else {
            (symbol as u32 - 261) / 4
        };
        entries[symbol] = Entry::of_symbol(base, extra);
        base += 1 << extra;
    }
    entries[285] = Entry::of_symbol(258, 0);
    entries
};

/// RFC 1951, section 3.2.5. Symbols 30 and 31 have codes in the fixed code, and no meaning.
const DISTANCE_ENTRIES: [Entry; 32] = {
    let mut entries = [Entry(SPECIAL); 32];
    let (mut symbol, mut base) = (0, 1);
    while symbol < 30 {
        let extra = if symbol < 4 { 0 } else { symbol as u32 / 2 - 1 };
        entries[symbol] = Entry::of_symbol(base, extra);
        base += 1 << extra;
        symbol += 1;
    }
    entries
};

/// The tables of the fixed code (RFC 1951, section 3.2.6), whose first steps look at 9 and 5 bits.
pub(super) static FIXED_LITERALS: [Entry; LITERAL_TABLE] = {
    let mut table = [Entry::INVALID; LITERAL_TABLE];
    let mut symbol = 0;
    while symbol < 288 {
        let (code, len) = match symbol as u32 {
            0..=143 => (0b0011_0000 + symbol as u32, 8),
            144..=255 => (0b1_1001_0000 + (symbol as u32 - 144), 9),
            256..=279 => (symbol as u32 - 256, 7),
            _ => (0b1100_0000 + (symbol as u32 - 280), 8),
        };
        let mut place = (code.reverse_bits() >> (32 - len)) as usize;
        while place < 1 << FIXED_LITERAL_ROOT {
            table[place] = LITERAL_ENTRIES[symbol].with_code(len);
            place += 1 << len;
        }
        symbol += 1;
    }
    table
};

pub(super) static FIXED_DISTANCES: [Entry; DISTANCE_TABLE] = {
    let mut table = [Entry::INVALID; DISTANCE_TABLE];
    let mut symbol = 0;
    while symbol < 32 {
        let place = (symbol as u32).reverse_bits() >> (32 - FIXED_DISTANCE_ROOT);
        table[place as usize] = DISTANCE_ENTRIES[symbol].with_code(FIXED_DISTANCE_ROOT);
        symbol += 1;
    }
    table
};

pub(super) const FIXED_LITERAL_ROOT: u32 = 9;
pub(super) const FIXED_DISTANCE_ROOT: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(lengths: &[u8]) -> Vec<Coded> {
        let coded = |(symbol, &length): (usize, &u8)| Coded {
            symbol: symbol as u16,
            length,
        };
        let all = lengths.iter().enumerate().map(coded);
        all.filter(|coded| coded.length > 0).collect()
    }

    #[test]
    fn the_fixed_tables_are_those_of_the_fixed_lengths() {
        let mut lengths = [8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        let mut table = [Entry::INVALID; LITERAL_TABLE];
        let root = build(
            Alphabet::Literals,
            &coded(&lengths),
            LITERAL_ROOT,
            &mut table,
        );
        assert_eq!(root, Some(FIXED_LITERAL_ROOT));
        assert_eq!(table[..512], FIXED_LITERALS[..512]);
        let mut table = [Entry::INVALID; DISTANCE_TABLE];
        let root = build(
            Alphabet::Distances,
            &coded(&[5; 32]),
            DISTANCE_ROOT,
            &mut table,
        );
        assert_eq!(root, Some(FIXED_DISTANCE_ROOT));
        assert_eq!(table[..32], FIXED_DISTANCES[..32]);
    }

    /// Against a decoder that goes bit by bit: random complete codes, of all lengths.
    #[test]
    fn every_code_leads_to_its_symbol() {
        let mut seed = 1u32;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize % below
        };
        for round in 0..300 {
            // Split codes at random until there are as many as wanted.
            let wanted = 2 + random(285);
            let mut codes = vec![0u8];
            while codes.len() < wanted {
                let place = if round % 3 == 0 {
                    codes.len() - 1
                } else {
                    random(codes.len())
                };
                if codes[place] == 15 {
                    if codes.iter().all(|&len| len == 15) || round % 3 == 0 {
                        break;
                    }
                    continue;
                }
                codes[place] += 1;
                codes.push(codes[place]);
            }
            let mut lengths = vec![0u8; 286];
            for len in codes {
                let mut symbol = random(286);
                while lengths[symbol] != 0 {
                    symbol = (symbol + 1) % 286;
                }
                lengths[symbol] = len;
            }
            let mut table = [Entry::INVALID; LITERAL_TABLE];
            let root = build(
                Alphabet::Literals,
                &coded(&lengths),
                LITERAL_ROOT,
                &mut table,
            )
            .expect("a complete code");
            let mut code = 0u32;
            for len in 1..=15u32 {
                code <<= 1;
                for (symbol, &length) in lengths.iter().enumerate() {
                    if u32::from(length) != len {
                        continue;
                    }
                    let bits = u64::from(code.reverse_bits() >> (32 - len)) | u64::MAX << len;
                    let mut entry = table[(bits & ((1 << root) - 1)) as usize];
                    let mut step = 0;
                    if entry.has_second_step() {
                        step = root;
                        entry = table[entry.second_index(bits >> root)];
                    }
                    let expected = Alphabet::Literals.entry(symbol).with_code(len - step);
                    assert_eq!(entry, expected, "symbol {symbol}");
                    code += 1;
                }
            }
            assert_eq!(code, 1 << 15);
        }
    }

    #[test]
    fn lengths_that_make_no_code_are_refused() {
        let mut table = [Entry::INVALID; DISTANCE_TABLE];
        for (lengths, root) in [
            (&[1, 1, 1][..], None),
            (&[1, 2], None),
            (&[2], None),
            (&[15, 15], None),
            (&[1, 2, 3, 3, 15], None),
            (&[0, 0, 0], Some(1)),
            (&[0, 1, 0], Some(1)),
            (&[1, 1], Some(1)),
            (&[1, 2, 3, 3], Some(3)),
        ] {
            assert_eq!(
                build(
                    Alphabet::Distances,
                    &coded(lengths),
                    DISTANCE_ROOT,
                    &mut table
                ),
                root
            );
            let complete = root.filter(|_| lengths.iter().filter(|&&len| len > 0).count() > 1);
            assert_eq!(
                build(
                    Alphabet::CodeLengths,
                    &coded(lengths),
                    DISTANCE_ROOT,
                    &mut table
                ),
                complete
            );
        }
    }
}
