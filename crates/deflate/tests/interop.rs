//! Against an ordinary streaming implementation that knows nothing of histories: flate2 on
//! miniz_oxide, which shares no code with the one that the crate uses.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use proptest::prelude::*;
use tautline_deflate::{Codec, History, InflateError, InflateLimits};

const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// A peer with one compressor and one decompressor for the life of its connection.
struct Peer {
    compress: Compress,
    decompress: Decompress,
}

impl Peer {
    fn new() -> Self {
        Self {
            compress: Compress::new(Compression::default(), false),
            decompress: Decompress::new(false),
        }
    }

    fn compress(&mut self, message: &[u8]) -> Vec<u8> {
        if message.is_empty() {
            return vec![0];
        }
        let mut out = Vec::with_capacity(message.len() * 2 + 1024);
        let status = self
            .compress
            .compress_vec(message, &mut out, FlushCompress::Sync)
            .expect("the peer compresses");
        assert_eq!(status, Status::Ok);
        assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - 4);
        out
    }

    fn inflate(&mut self, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 << 20);
        for part in [message, &TAIL] {
            let before = self.decompress.total_in();
            self.decompress
                .decompress_vec(part, &mut out, FlushDecompress::Sync)
                .expect("the peer inflates");
            assert_eq!(self.decompress.total_in() - before, part.len() as u64);
        }
        out
    }
}

/// Messages like those of a chat or a ticker: alike, but not the same.
fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let tick = (0..5u8, 0..100_000u32).prop_map(|(symbol, price)| {
        format!(r#"{{"push":{{"channel":"ticks:{symbol}","pub":{{"data":{{"price":{price}}},"offset":{price}}}}}}}"#).into_bytes()
    });
    let noise = proptest::collection::vec(any::<u8>(), 0..2000);
    let long = (any::<u8>(), 1..50_000usize).prop_map(|(byte, length)| vec![byte; length]);
    proptest::collection::vec(prop_oneof![8 => tick, 2 => noise, 1 => long], 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    //= rfc7692 7.2.1-1, 7.2.1-2, 7.2.1-4, 7.2.1-5
    #[test]
    fn an_ordinary_peer_reads_what_is_sent(messages in messages(), capacity in 0usize..3000, level in 1u8..=9, bits in 8u8..=15) {
        let bits = if level <= 2 { bits } else { bits.max(9) };
        let (mut codec, mut history, mut peer) = (Codec::new(level), History::with_capacity(capacity.min(1 << bits)), Peer::new());
        for message in &messages {
            let mut compressed = Vec::new();
            codec.compress(bits, Some(&mut history), message, &mut compressed);
            prop_assert_eq!(&peer.inflate(&compressed), message);
        }
    }

    //= rfc7692 7.2.2-1, 7.2.2-3, 7.2.2-5
    #[test]
    fn what_an_ordinary_peer_sends_is_read(messages in messages()) {
        let (mut codec, mut history, mut peer) = (Codec::new(1), History::new(15), Peer::new());
        for message in &messages {
            let mut out = b"kept".to_vec();
            codec.inflate(15, Some(&mut history), &peer.compress(message), InflateLimits { max_ratio: 2000, ..InflateLimits::default() }, &mut out).unwrap();
            prop_assert_eq!(&out[..4], b"kept");
            prop_assert_eq!(&out[4..], &message[..]);
        }
    }

    /// One codec serves many connections, in any order, some with context and some without.
    #[test]
    fn connections_that_share_a_codec_do_not_mix(messages in messages(), order in proptest::collection::vec(0usize..4, 60)) {
        let mut codecs = [Codec::new(1), Codec::new(1)];
        let mut sending = [(); 3].map(|()| (History::with_capacity(1024), Peer::new()));
        let mut receiving = [(); 3].map(|()| (History::new(15), Peer::new()));
        for (step, &who) in order.iter().enumerate() {
            let message = &messages[step % messages.len()];
            // Connections move between threads now and then.
            let codec = &mut codecs[step / 7 % 2];
            let mut out = Vec::new();
            if who == 3 {
                codec.compress(15, None, message, &mut out);
                prop_assert_eq!(&Peer::new().inflate(&out), message);
                let mut back = Vec::new();
                codec.inflate(15, None, &Peer::new().compress(message), InflateLimits { max_ratio: 2000, ..InflateLimits::default() }, &mut back).unwrap();
                prop_assert_eq!(&back, message);
                continue;
            }
            let (history, peer) = &mut sending[who];
            codec.compress(12, Some(history), message, &mut out);
            prop_assert_eq!(&peer.inflate(&out), message);
            let (history, peer) = &mut receiving[who];
            let mut back = Vec::new();
            codec.inflate(15, Some(history), &peer.compress(message), InflateLimits { max_ratio: 2000, ..InflateLimits::default() }, &mut back).unwrap();
            prop_assert_eq!(&back, message);
        }
    }

    /// Whatever comes: no panic, no endless loop, never more than the limit.
    #[test]
    fn garbage_is_refused_or_read_within_the_limits(input in proptest::collection::vec(any::<u8>(), 0..3000), max_size in 0usize..5000) {
        let (mut codec, mut history) = (Codec::new(1), History::new(10));
        let mut out = Vec::new();
        let limits = InflateLimits { max_size, ..InflateLimits::default() };
        if codec.inflate(15, Some(&mut history), &input, limits, &mut out).is_ok() {
            prop_assert!(out.len() <= max_size);
        }
        prop_assert!(out.len() <= max_size + 1);
    }
}

//= rfc7692 7.2.2-1
#[test]
fn the_examples_of_rfc_7692_are_read() {
    // Section 7.2.3, all of them "Hello".
    let examples: [&[u8]; 4] = [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        &[
            0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
        ],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[
            0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
        ],
    ];
    for example in examples {
        let mut out = Vec::new();
        Codec::new(1)
            .inflate(15, None, example, InflateLimits::default(), &mut out)
            .unwrap();
        assert_eq!(out, b"Hello", "{example:02x?}");
    }
    // Section 7.2.3.2: the second message refers to the first.
    let (mut codec, mut history, mut out) = (Codec::new(1), History::new(9), Vec::new());
    codec
        .inflate(
            15,
            Some(&mut history),
            examples[0],
            InflateLimits::default(),
            &mut out,
        )
        .unwrap();
    codec
        .inflate(
            15,
            Some(&mut history),
            &[0xf2, 0x00, 0x11, 0x00, 0x00],
            InflateLimits::default(),
            &mut out,
        )
        .unwrap();
    assert_eq!(out, b"HelloHello");
}

#[test]
fn a_message_after_a_final_block_still_has_its_context() {
    let (mut codec, mut history, mut out) = (Codec::new(1), History::new(9), Vec::new());
    codec
        .inflate(
            15,
            Some(&mut history),
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            InflateLimits::default(),
            &mut out,
        )
        .unwrap();
    codec
        .inflate(
            15,
            Some(&mut history),
            &[0xf2, 0x00, 0x11, 0x00, 0x00],
            InflateLimits::default(),
            &mut out,
        )
        .unwrap();
    assert_eq!(out, b"HelloHello");
}

#[test]
fn bombs_are_noticed_while_they_grow() {
    let mut peer = Peer::new();
    let bomb = peer.compress(&vec![0; 32 << 20]);
    assert!(bomb.len() < 64 << 10);
    let (mut codec, mut out) = (Codec::new(1), Vec::new());
    let limits = InflateLimits {
        max_size: 1 << 20,
        max_ratio: usize::MAX,
    };
    assert_eq!(
        codec.inflate(15, None, &bomb, limits, &mut out),
        Err(InflateError::TooLarge { max: 1 << 20 })
    );
    assert!(
        out.capacity() <= 4 << 20,
        "{} bytes for a limit of 1 MiB",
        out.capacity()
    );
    let mut out = Vec::new();
    let limits = InflateLimits {
        max_size: 64 << 20,
        max_ratio: 100,
    };
    assert_eq!(
        codec.inflate(15, None, &bomb, limits, &mut out),
        Err(InflateError::RatioTooHigh { max: 100 })
    );
    // The codec is as good as new for the next connection.
    let mut out = Vec::new();
    codec
        .inflate(
            15,
            None,
            &Peer::new().compress(b"fine"),
            InflateLimits::default(),
            &mut out,
        )
        .unwrap();
    assert_eq!(out, b"fine");
}

/// Streams may follow one another in a message (RFC 7692, section 7.2.3.5), any number of them: they
/// share the window, and one costs no more than any other block.
#[test]
fn many_final_blocks_are_one_message() {
    let mut message = Vec::new();
    for n in 0..1000 {
        let mut stream = Compress::new(Compression::default(), false);
        let text = format!("stream number {n}, ");
        let mut block = Vec::with_capacity(100);
        stream
            .compress_vec(text.as_bytes(), &mut block, FlushCompress::Finish)
            .unwrap();
        message.extend_from_slice(&block);
        // An empty fixed block with the final bit set.
        message.extend_from_slice(&[0x03, 0x00]);
    }
    let mut out = Vec::new();
    Codec::new(1)
        .inflate(15, None, &message, InflateLimits::default(), &mut out)
        .unwrap();
    let expected: String = (0..1000).map(|n| format!("stream number {n}, ")).collect();
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

/// Blocks of the two kinds in turns, as small as can be: work, and next to nothing that comes of it.
#[test]
fn blocks_that_hold_next_to_nothing_are_one_message() {
    for (fixed, stored, held) in [
        // An empty fixed block, with the head of the stored one behind it in its second byte.
        (&b"\x02\x00"[..], &b"\x00\x00\xff\xff"[..], &b""[..]),
        (b"\x02\x00", b"\x01\x00\xfe\xffa", b"a"),
        // "Hello" (RFC 7692, section 7.2.3.1).
        (
            b"\xf2\x48\xcd\xc9\xc9\x07\x00",
            b"\x02\x00\xfd\xff, ",
            b"Hello, ",
        ),
    ] {
        let pairs = (256 << 10) / (fixed.len() + stored.len());
        let message = [fixed, stored].concat().repeat(pairs);
        let mut out = b"kept".to_vec();
        Codec::new(1)
            .inflate(15, None, &message, InflateLimits::default(), &mut out)
            .unwrap();
        assert_eq!(&out[..4], b"kept");
        assert!(out[4..] == held.repeat(pairs));
    }
}

#[test]
fn references_beyond_what_is_remembered_are_corrupt() {
    let mut peer = Peer::new();
    let first = peer.compress(b"only the first message has this text");
    let second = peer.compress(b"only the first message has this text");
    assert!(second.len() < first.len());
    let mut codec = Codec::new(1);
    codec
        .inflate(15, None, &first, InflateLimits::default(), &mut Vec::new())
        .unwrap();
    let error = codec.inflate(15, None, &second, InflateLimits::default(), &mut Vec::new());
    assert_eq!(error, Err(InflateError::Corrupt));
}

#[test]
fn context_pays() {
    let (mut codec, mut history) = (Codec::new(1), History::with_capacity(1024));
    let (mut alone, mut context) = (Vec::new(), Vec::new());
    for offset in 0..200 {
        let message = format!(
            r#"{{"push":{{"channel":"news","pub":{{"data":{{"text":"hello number {offset}"}},"offset":{offset}}}}}}}"#
        );
        codec.compress(15, None, message.as_bytes(), &mut alone);
        codec.compress(15, Some(&mut history), message.as_bytes(), &mut context);
    }
    assert!(
        context.len() * 2 < alone.len(),
        "{} with context, {} without",
        context.len(),
        alone.len()
    );
}

/// What isn't smaller compressed leaves no trace, so that the peer, who has never seen it, reads
/// what comes after it.
#[test]
fn what_does_not_pay_is_not_remembered() {
    for level in [1, 2, 6] {
        let (mut codec, mut history, mut peer) =
            (Codec::new(level), History::with_capacity(2048), Peer::new());
        let mut out = b"kept".to_vec();
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        };
        for n in 0..20 {
            let noise: Vec<u8> = (0..200).map(|_| random()).collect();
            let before = history.as_bytes().to_vec();
            assert!(!codec.compress_if_smaller(15, Some(&mut history), &noise, &mut out));
            assert!(!codec.compress_if_smaller(15, Some(&mut history), b"", &mut out));
            assert_eq!((&out[..], history.as_bytes()), (&b"kept"[..], &before[..]));
            let message = [format!("message {n}, ").repeat(3).as_bytes(), &noise[..20]].concat();
            let mut compressed = Vec::new();
            assert!(codec.compress_if_smaller(15, Some(&mut history), &message, &mut compressed));
            assert!(compressed.len() < message.len());
            assert_eq!(peer.inflate(&compressed), message);
        }
    }
}

/// What a message inflates to depends on the history alone, not on what the codec did last: here the
/// first message ends inside a block, in which a decompressor that just went on would still be.
#[test]
fn a_message_that_ends_inside_a_block_leaves_no_trace() {
    let broken = [
        0x4a, 0x4c, 0x4a, 0x4e, 0x49, 0x4d, 0x4b, 0xcf, 0x48, 0x1c, 0xa5, 0x29, 0x25, 0x0d, 0x00,
    ];
    let good = [
        0x4a, 0x4c, 0x4a, 0x4e, 0x49, 0x4d, 0x4b, 0xcf, 0x48, 0x44, 0xa3, 0x01, 0x00,
    ];
    let read = |codecs: &mut [Codec]| {
        let (mut history, mut out) = (History::new(9), Vec::new());
        for (n, message) in [&broken[..], &good].into_iter().enumerate() {
            out.clear();
            let (codec, limits) = (n % codecs.len(), InflateLimits::default());
            codecs[codec]
                .inflate(9, Some(&mut history), message, limits, &mut out)
                .unwrap();
        }
        out
    };
    let expected = b"abcdefgh".repeat(3);
    assert_eq!(read(&mut [Codec::new(1)]), expected);
    assert_eq!(read(&mut [Codec::new(1), Codec::new(1)]), expected);
}

/// A message that ends inside a block lacks something, however much it is.
#[test]
fn a_message_that_is_cut_off_is_refused() {
    let whole = Peer::new().compress(&b"The quick brown fox jumps over the lazy dog. ".repeat(9));
    let (mut codec, limits) = (Codec::new(1), InflateLimits::default());
    let mut out = b"kept".to_vec();
    // Twenty bytes were to come, in a stored block.
    let stored = [0x00, 0x14, 0x00, 0xeb, 0xff, 0x48, 0x65];
    let result = codec.inflate(9, None, &stored, limits, &mut out);
    assert_eq!(result, Err(InflateError::CutOff));
    for len in 1..whole.len() - 1 {
        let mut history = History::new(9);
        let result = codec.inflate(9, Some(&mut history), &whole[..len], limits, &mut out);
        // The tail that is put behind it may be no code at all.
        let refused = matches!(result, Err(InflateError::CutOff | InflateError::Corrupt));
        assert!(refused, "{len} of {} bytes: {result:?}", whole.len());
        assert_eq!((&out[..], history.as_bytes()), (&b"kept"[..], &b""[..]));
    }
}

/// What is not needed to read a message whole may be missing: the zero in front of the tail, or the
/// tail's own head. And the tail may be there.
#[test]
fn what_a_message_ends_with() {
    let fixed = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07];
    let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    let ended = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    for (block, rests) in [
        (
            &fixed[..],
            &[&[0x00][..], &[0x00, 0x00, 0x00, 0xff, 0xff]][..],
        ),
        (&stored, &[&[], &[0x00], &[0x00, 0x00, 0x00, 0xff, 0xff]]),
        (
            &ended,
            &[&[], &[0x00], &[0x00, 0x00, 0x00, 0xff, 0xff], &[0x03, 0x00]],
        ),
        (&[], &[&[], &[0x00], &[0x02, 0x00], &[0x03, 0x00]]),
    ] {
        for rest in rests {
            let (message, mut out) = ([block, rest].concat(), Vec::new());
            let result =
                Codec::new(1).inflate(15, None, &message, InflateLimits::default(), &mut out);
            assert_eq!(result, Ok(()), "{message:02x?}");
            let expected: &[u8] = if block.is_empty() { b"" } else { b"Hello" };
            assert_eq!(out, expected, "{message:02x?}");
        }
    }
    for garbage in [&[0x07][..], &[0x00, 0x01], &[0x05]] {
        let message = [&ended, garbage].concat();
        let result = Codec::new(1).inflate(
            15,
            None,
            &message,
            InflateLimits::default(),
            &mut Vec::new(),
        );
        assert!(result.is_err(), "{message:02x?}");
    }
}

/// The sender is held to the window within a message as between messages, to the byte.
#[test]
fn references_beyond_the_window_are_corrupt() {
    let (mut codec, limits) = (Codec::new(1), InflateLimits::default());
    for bits in 8..=15u8 {
        let window = 1usize << bits;
        for (distance, allowed) in [(window - 1, true), (window, true), (window + 1, false)] {
            if distance > 1 << 15 {
                continue;
            }
            let text: Vec<u8> = (0..window + 1).map(|n| (n * 7 + n / 251) as u8).collect();
            let mut stored = vec![0];
            stored.extend_from_slice(&(text.len() as u16).to_le_bytes());
            stored.extend_from_slice(&(!(text.len() as u16)).to_le_bytes());
            stored.extend_from_slice(&text);
            let copied = &text[text.len() - distance..][..10];
            let mut message = [&stored[..], &copy_of_ten(distance)].concat();
            let mut out = Vec::new();
            let result = codec.inflate(bits, None, &message, limits, &mut out);
            assert_eq!(result.is_ok(), allowed, "{distance} in {bits} bits");
            if allowed {
                assert!(out == [&text[..], copied].concat());
            }
            // The same in two messages.
            let mut history = History::new(bits);
            codec
                .inflate(bits, Some(&mut history), &stored, limits, &mut out)
                .unwrap();
            message.drain(..stored.len());
            out.clear();
            let result = codec.inflate(bits, Some(&mut history), &message, limits, &mut out);
            assert_eq!(
                result.is_ok(),
                allowed,
                "{distance} in {bits} bits, two messages"
            );
            if allowed {
                assert_eq!(out, copied);
            }
        }
    }
}

/// A message that copies ten bytes from that far back: a fixed block, put together by hand.
fn copy_of_ten(distance: usize) -> Vec<u8> {
    let over = distance as u32 - 1;
    let extra = if over < 4 { 0 } else { over.ilog2() - 1 };
    let symbol = if over < 4 {
        over
    } else {
        2 * extra + (over >> extra)
    };
    let mut bits = String::from("010");
    // Length 10 is symbol 264, whose code is 8; codes are sent from their highest bit on, extra bits from their lowest.
    bits += "0001000";
    bits += &format!("{symbol:05b}");
    bits.extend((0..extra).map(|n| if over >> n & 1 == 1 { '1' } else { '0' }));
    // The end of the block, and the head of the empty stored one.
    bits += "0000000000";
    let bits: Vec<u8> = bits.bytes().map(|bit| bit - b'0').collect();
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit);
    bits.chunks(8).map(byte).collect()
}

/// The limit holds for messages that end with a final block, too, to the byte.
#[test]
fn a_final_block_is_within_the_limit() {
    let mut message = Vec::with_capacity(1000);
    Compress::new(Compression::default(), false)
        .compress_vec(&[b'x'; 300], &mut message, FlushCompress::Finish)
        .unwrap();
    for (max_size, fits) in [(300, true), (299, false)] {
        let limits = InflateLimits {
            max_size,
            ..InflateLimits::default()
        };
        let result = Codec::new(1).inflate(15, None, &message, limits, &mut Vec::new());
        let expected = if fits {
            Ok(())
        } else {
            Err(InflateError::TooLarge { max: 299 })
        };
        assert_eq!(result, expected);
    }
}

/// At level 2 a block has codes of its own, of which those for distances depend on how many there are
/// and how far they reach: few and near, few and far, many.
#[test]
fn blocks_with_codes_of_their_own_are_read() {
    let (mut codec, mut history, mut peer) =
        (Codec::new(2), History::with_capacity(1 << 15), Peer::new());
    let mut seed = 3u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize % below
    };
    let mut sent: Vec<u8> = Vec::new();
    for (round, copies) in [0, 1, 5, 30, 60, 90, 99, 100, 101, 300, 2000]
        .repeat(4)
        .into_iter()
        .enumerate()
    {
        let mut message = Vec::new();
        for _ in 0..=copies {
            message.extend((0..12).map(|_| b"etaoinshrdlu"[random(12)]));
            let all = [&sent[..], &message].concat();
            // As far as the window reaches, or from nearby.
            let back = if round % 2 == 0 { 900 } else { 32_000 };
            let from = all.len() - 1 - random(all.len().min(back));
            message.extend_from_slice(&all[from..(from + 4 + random(20)).min(all.len())]);
        }
        let mut out = Vec::new();
        codec.compress(15, Some(&mut history), &message, &mut out);
        assert!(peer.inflate(&out) == message, "round {round}");
        // In the fixed code it would be more.
        if copies >= 30 {
            assert!(
                out.len() * 4 < message.len() * 3,
                "{} of {}",
                out.len(),
                message.len()
            );
        }
        sent.extend_from_slice(&message);
    }
}
