//! Huffman codes: from how often symbols occur to their codes.

use super::bits::Code;

/// Symbols of the largest alphabet.
pub(super) const MAX_SYMBOLS: usize = 286;

/// The longest code that deflate allows (RFC 1951, section 3.2.7).
const MAX_LENGTH: usize = 15;

/// Without a limit no code gets longer than this, whatever the frequencies: they are of 16 bits.
const MAX_DEPTH: usize = 32;

/// Frequencies below this are sorted by counting.
const COUNTED: usize = 32;

/// How many codes there are of each length.
pub(super) type ByLength = [u16; MAX_DEPTH];

/// Makes codes. Holds the room that takes, so that none is allocated.
pub(super) struct Builder {
    /// The symbols that occur, the rarest first.
    sorted: [u16; MAX_SYMBOLS],
    /// How often they do.
    leaves: [u32; MAX_SYMBOLS],
    /// Of the tree's inner nodes the weight, then which is its parent, then its depth.
    inner: [u32; MAX_SYMBOLS],
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            sorted: [0; MAX_SYMBOLS],
            leaves: [0; MAX_SYMBOLS],
            inner: [0; MAX_SYMBOLS],
        }
    }

    /// Sets the lengths of the codes of the symbols that occur, which are `used`, in ascending order.
    /// None gets longer than `longest`. Where one symbol alone occurs, its code has one bit. Returns
    /// how many codes there are of each length.
    pub(super) fn lengths(
        &mut self,
        used: &[u16],
        frequencies: &[u16],
        longest: usize,
        lengths: &mut [u8],
    ) -> ByLength {
        if let [only] = *used {
            lengths[usize::from(only)] = 1;
        }
        if used.len() < 2 {
            let mut by_length = [0; MAX_DEPTH];
            by_length[1] = used.len() as u16;
            return by_length;
        }
        self.sort(used, frequencies);
        let mut by_length = self.tree(used.len());
        limit(&mut by_length, longest);
        let mut rarest = self.sorted[..used.len()].iter();
        for length in (1..=longest).rev() {
            for &symbol in rarest.by_ref().take(usize::from(by_length[length])) {
                lengths[usize::from(symbol)] = length as u8;
            }
        }
        by_length
    }

    fn sort(&mut self, used: &[u16], frequencies: &[u16]) {
        let mut starts = [0u16; COUNTED + 1];
        for &symbol in used {
            let frequency = usize::from(frequencies[usize::from(symbol)]);
            starts[frequency.min(COUNTED)] += 1;
        }
        let mut next = 0;
        for start in &mut starts {
            next += std::mem::replace(start, next);
        }
        let often = usize::from(starts[COUNTED]);
        for &symbol in used {
            let frequency = usize::from(frequencies[usize::from(symbol)]);
            let place = &mut starts[frequency.min(COUNTED)];
            self.sorted[usize::from(*place)] = symbol;
            *place += 1;
        }
        let sorted = &mut self.sorted[..used.len()];
        sorted[often..].sort_unstable_by_key(|&symbol| frequencies[usize::from(symbol)]);
        for (leaf, &symbol) in self.leaves.iter_mut().zip(sorted.iter()) {
            *leaf = u32::from(frequencies[usize::from(symbol)]);
        }
    }

    /// How many codes of each length the best code for so many sorted leaves has, two or more.
    ///
    /// Again and again the two lightest nodes get a parent. Parents come about in the order of their
    /// weights, so the lightest is the next leaf or the next parent that has none itself.
    fn tree(&mut self, leaves: usize) -> ByLength {
        let root = leaves - 2;
        let (mut leaf, mut orphan) = (0, 0);
        for node in 0..=root {
            let mut weight = 0;
            for _ in 0..2 {
                if leaf < leaves && (orphan == node || self.leaves[leaf] <= self.inner[orphan]) {
                    weight += self.leaves[leaf];
                    leaf += 1;
                } else {
                    weight += std::mem::replace(&mut self.inner[orphan], node as u32);
                    orphan += 1;
                }
            }
            self.inner[node] = weight;
        }
        let mut inner_by_depth = [0u16; MAX_DEPTH];
        inner_by_depth[0] = 1;
        self.inner[root] = 0;
        for node in (0..root).rev() {
            let depth = self.inner[self.inner[node] as usize] + 1;
            self.inner[node] = depth;
            inner_by_depth[depth as usize % MAX_DEPTH] += 1;
        }
        // What has a parent and isn't a parent is a leaf.
        let mut by_length = [0; MAX_DEPTH];
        // The first parents are the deepest.
        for depth in 1..(self.inner[0] as usize + 2).min(MAX_DEPTH) {
            by_length[depth] = 2 * inner_by_depth[depth - 1] - inner_by_depth[depth];
        }
        by_length
    }
}

/// Shortens the codes that are longer than `longest`, at the expense of those that are a little
/// shorter.
fn limit(by_length: &mut ByLength, longest: usize) {
    let too_long: u16 = by_length[longest + 1..].iter().sum();
    if too_long == 0 {
        return;
    }
    by_length[longest + 1..].fill(0);
    by_length[longest] += too_long;
    let space = |(length, &count): (usize, &u16)| usize::from(count) << (longest - length);
    let taken: usize = by_length[..=longest].iter().enumerate().map(space).sum();
    for _ in 1 << longest..taken {
        // One of the longest moves up beside one that moves down for it.
        let Some(length) = (1..longest).rev().find(|&length| by_length[length] > 0) else {
            return;
        };
        by_length[length] -= 1;
        by_length[length + 1] += 2;
        by_length[longest] -= 1;
    }
}

/// Sets the codes of the symbols that have a length (RFC 1951, section 3.2.2), first bit lowest.
pub(super) fn codes(used: &[u16], lengths: &[u8], by_length: &ByLength, codes: &mut [Code]) {
    let mut next = [0u16; MAX_LENGTH + 1];
    for length in 1..MAX_LENGTH {
        next[length + 1] = (next[length] + by_length[length]) << 1;
    }
    for &symbol in used {
        let length = lengths[usize::from(symbol)] & 15;
        let code = &mut next[usize::from(length)];
        let [low, high] = code.to_le_bytes().map(|byte| REVERSED[usize::from(byte)]);
        codes[usize::from(symbol)] = Code {
            bits: u32::from(u16::from_be_bytes([low, high]) >> (16 - length)),
            count: u32::from(length),
        };
        *code += 1;
    }
}

/// Bytes with their bits the other way round.
const REVERSED: [u8; 256] = {
    let mut reversed = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        reversed[byte] = (byte as u8).reverse_bits();
        byte += 1;
    }
    reversed
};

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(frequencies: &[u16], longest: usize) -> Vec<u8> {
        let used: Vec<u16> = (0..frequencies.len() as u16)
            .filter(|&symbol| frequencies[usize::from(symbol)] > 0)
            .collect();
        let mut lengths = vec![0; frequencies.len()];
        Builder::new().lengths(&used, frequencies, longest, &mut lengths);
        lengths
    }

    /// The cost of the best code without a limit, by joining the two lightest again and again.
    fn best(frequencies: &[u16]) -> u32 {
        let mut weights: Vec<u32> = frequencies.iter().map(|&f| u32::from(f)).collect();
        weights.retain(|&weight| weight > 0);
        let mut cost = 0;
        while weights.len() > 1 {
            weights.sort_unstable_by(|a, b| b.cmp(a));
            let joined = weights.pop().unwrap_or(0) + weights.pop().unwrap_or(0);
            cost += joined;
            weights.push(joined);
        }
        cost
    }

    #[test]
    fn codes_are_complete_and_the_best_there_are() {
        let mut seed = 5u32;
        for round in 0..500u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let count = 2 + seed as usize / 7 % 285;
            let frequencies: Vec<u16> = (0..count)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let frequency = seed >> 16;
                    (frequency >> (round % 12) >> (frequency % 5)) as u16
                })
                .collect();
            if frequencies.iter().filter(|&&f| f > 0).count() < 2 {
                continue;
            }
            for longest in [9, MAX_CODE] {
                let lengths = lengths(&frequencies, longest);
                let space: u32 = lengths
                    .iter()
                    .filter(|&&length| length > 0)
                    .map(|&length| 1 << (MAX_CODE - usize::from(length)))
                    .sum();
                assert_eq!(space, 1 << MAX_CODE, "a complete code");
                let pairs = || lengths.iter().zip(&frequencies);
                assert!(pairs().all(|(&length, &frequency)| (length > 0) == (frequency > 0)));
                assert!(lengths.iter().all(|&length| usize::from(length) <= longest));
                let cost: u32 = pairs()
                    .map(|(&length, &f)| u32::from(length) * u32::from(f))
                    .sum();
                let best = best(&frequencies);
                // Where a code as long as may be is needed, the best one may be longer.
                if usize::from(lengths.iter().copied().max().unwrap_or(0)) < longest {
                    assert_eq!(cost, best);
                } else {
                    assert!(cost >= best && cost < best + best / 4, "{cost} of {best}");
                }
            }
        }
    }

    /// Each twice as often as the one before: the longest codes there are.
    #[test]
    fn codes_are_limited() {
        let frequencies: Vec<u16> = (0..16).map(|n| 1 << n).collect();
        assert_eq!(lengths(&frequencies, 15).iter().max(), Some(&15));
        let limited = lengths(&frequencies, 7);
        assert_eq!(limited.iter().max(), Some(&7));
        let space: u32 = limited.iter().map(|&length| 1 << (7 - length)).sum();
        assert_eq!(space, 1 << 7);
    }

    #[test]
    fn few_symbols() {
        assert_eq!(lengths(&[0, 0], 15), [0, 0]);
        assert_eq!(lengths(&[0, 9], 15), [0, 1]);
        assert_eq!(lengths(&[3, 9], 15), [1, 1]);
    }

    const MAX_CODE: usize = 15;
}
