//! The inflater beside zlib's, on what ordinary compressors write, on what is wrong with it after a
//! few changes, and on what the fuzzer has found worth keeping.

#[path = "fuzzed/inflate.rs"]
mod inflate;
#[path = "../../../fuzz/replay.rs"]
mod replay;

use flate2::{Compress, Compression, FlushCompress};
use inflate::check_message;
use proptest::prelude::*;
use replay::replay;

#[test]
fn the_corpus() {
    replay("inflate", inflate::check);
}

/// Text, noise, repetition, and bytes of few kinds: what makes stored, fixed and dynamic blocks, and
/// codes short and long.
fn plain() -> impl Strategy<Value = Vec<u8>> {
    let words = proptest::collection::vec(
        prop_oneof![
            "[a-z]{1,9} ",
            "[0-9]{1,6},",
            Just(r#"{"id":"#.to_owned()),
            Just("\"name\":\"".to_owned())
        ],
        0..400,
    )
    .prop_map(|words| words.concat().into_bytes());
    let noise = proptest::collection::vec(any::<u8>(), 0..3000);
    let few = proptest::collection::vec(0u8..4, 0..5000);
    let skewed = (any::<u64>(), 0..20_000usize).prop_map(|(seed, len)| {
        let mut seed = seed | 1;
        (0..len)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Each byte half as likely as the one before it.
                (seed >> 32).leading_zeros() as u8 - 32 + ((seed >> 8) as u8 & 3)
            })
            .collect()
    });
    let run = (any::<u8>(), 0..70_000usize).prop_map(|(byte, len)| vec![byte; len]);
    prop_oneof![6 => words, 2 => noise, 2 => few, 2 => skewed, 1 => run]
}

/// Messages as a peer sends them that compresses in one stream, at any level; after each the bytes
/// that it may refer to.
fn packed(parts: &[Vec<u8>], level: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut stream = Compress::new(Compression::new(level), false);
    let mut before = Vec::new();
    let pack = |part: &Vec<u8>| {
        let mut out = Vec::with_capacity(part.len() * 2 + 1024);
        stream
            .compress_vec(part, &mut out, FlushCompress::Sync)
            .expect("flate2 compresses");
        out.truncate(out.len().saturating_sub(4));
        let remembered = before.clone();
        before.extend_from_slice(part);
        (remembered, out)
    };
    parts.iter().map(pack).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_compressed(parts in proptest::collection::vec(plain(), 1..4), level in 0u32..=9, bits in 8u8..=15) {
        for (remembered, message) in packed(&parts, level) {
            check_message(15, &remembered, &message);
            check_message(bits, &remembered, &message);
        }
    }

    #[test]
    fn what_is_compressed_and_changed(
        parts in proptest::collection::vec(plain(), 1..3),
        level in 0u32..=9,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        bits in 8u8..=15,
    ) {
        for (remembered, mut message) in packed(&parts, level) {
            for (at, byte) in &changes {
                if !message.is_empty() {
                    // Mostly at the front, where the tables are.
                    let len = message.len().min(60 << (byte % 8));
                    message[at.index(len)] ^= byte;
                }
            }
            check_message(15, &remembered, &message);
            check_message(bits, &remembered, &message[..cut.index(message.len() + 1)]);
        }
    }

    /// Blocks of all kinds in one message, most of them small.
    #[test]
    fn many_blocks(
        parts in proptest::collection::vec((prop_oneof![4 => proptest::collection::vec(any::<u8>(), 0..30), 1 => plain()], 0u32..=9), 0..60),
        remembered in proptest::collection::vec(any::<u8>(), 0..2000),
        bits in 8u8..=15,
    ) {
        let mut message = Vec::new();
        for (part, level) in &parts {
            // Level 0 stores. The tail of each is the end of an empty stored block.
            for (_, block) in packed(std::slice::from_ref(part), *level) {
                message.extend_from_slice(&block);
                message.extend_from_slice(&[0, 0, 0xff, 0xff]);
            }
        }
        check_message(15, &remembered, &message);
        check_message(bits, &remembered, &message);
    }

    #[test]
    fn noise(message in proptest::collection::vec(any::<u8>(), 0..200), bits in 8u8..=15) {
        check_message(bits, b"some history to refer to", &message);
        // As a dynamic block, which noise seldom begins.
        let mut message = message;
        if let Some(first) = message.first_mut() {
            *first = *first & !0b110 | 0b100;
        }
        check_message(bits, b"some history to refer to", &message);
    }
}
