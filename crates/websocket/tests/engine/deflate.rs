//! permessage-deflate on connections. Section numbers are RFC 7692's.

use proptest::prelude::*;
use tautline_websocket::proto::deflate::{Agreement, InflateError, MessageCodec};
use tautline_websocket::proto::frame::{self, OpCode};
use tautline_websocket::proto::{CloseCode, Connection, Limits, PeerFault};

use crate::peer::Peer;
use crate::support::{
    AGREEMENT, DEFLATING, Got, Side, assert_fails, echo, echo_with, run, sent, text,
};

/// "Hello", compressed (§7.2.3.1).
const HELLO: &[u8] = &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];

const ALONE: Agreement = Agreement {
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    ..AGREEMENT
};

/// Compresses whatever gets smaller by it.
fn eager() -> MessageCodec {
    MessageCodec::default().with_threshold(0)
}

fn tick(n: usize) -> String {
    format!(
        r#"{{"push":{{"channel":"ticks:{}","pub":{{"data":{{"price":{}}},"offset":{n}}}}}}}"#,
        n % 3,
        1000 + n * 7919 % 1000
    )
}

/// Text that can't be compressed, at least not at level 1.
fn noise(seed: &mut u64, len: usize) -> String {
    let next = |_| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(33 + (*seed >> 33) as u8 % 94)
    };
    (0..len).map(next).collect()
}

/// §7.2.3: all of the section's examples, by both roles, with a codec lent and without.
//= rfc7692 6.2-1, 7.2.2-1
#[test]
fn the_examples_of_the_rfc() {
    for side in DEFLATING {
        let examples = [
            // §7.2.3.1, in one frame and in two.
            vec![side.frame(0xC1, HELLO)],
            vec![side.frame(0x41, &HELLO[..3]), side.frame(0x80, &HELLO[3..])],
            // §7.2.3.2: the second message refers to the first.
            vec![
                side.frame(0xC1, HELLO),
                side.frame(0xC1, &[0xF2, 0x00, 0x11, 0x00, 0x00]),
            ],
            // §7.2.3.3: a block with no compression.
            vec![side.frame(
                0xC1,
                &[
                    0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00,
                ],
            )],
            // §7.2.3.4: a final block.
            vec![side.frame(0xC1, &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00])],
            // §7.2.3.5: two blocks.
            vec![side.frame(
                0xC1,
                &[
                    0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00,
                ],
            )],
        ];
        for (at, example) in examples.iter().enumerate() {
            let messages = if at == 2 { 2 } else { 1 };
            let expected = vec![text("Hello"); messages];
            let input = example.concat();
            let limits = Limits::default();
            let got = echo(&mut side.engine(limits), [&input[..]], &mut Vec::new());
            assert_eq!(got, expected, "{side:?}, example {at}");
            assert_eq!(without_codec(side, &input), expected, "example {at}");
        }
        // §7.2.3.6: an empty message.
        let empty = [side.frame(0xC1, &[0]), side.frame(0xC2, &[0])].concat();
        let expected = [text(""), Got::Binary(vec![])];
        assert_eq!(run(side, &empty).0, expected);
        assert_eq!(without_codec(side, &empty), expected);
    }
}

/// What comes of `input` when no codec is lent.
fn without_codec(side: Side, input: &[u8]) -> Vec<Got> {
    let mut engine = side.engine(Limits::default());
    let (mut got, mut out, mut input) = (Vec::new(), Vec::new(), input.to_vec());
    let mut events = engine.receive(&mut input);
    while let Some(event) = events.next(&mut out) {
        got.push(event.into());
    }
    got
}

/// §6: control frames between the fragments of a compressed message, which aren't compressed.
//= rfc7692 6.2-1, 6.2-2
#[test]
fn control_frames_between_compressed_fragments() {
    for side in DEFLATING {
        let input = [
            side.frame(0x41, &HELLO[..2]),
            side.frame(0x89, b"a"),
            side.frame(0x00, b""),
            side.frame(0x8A, b"b"),
            side.frame(0x00, &HELLO[2..5]),
            side.frame(0x80, &HELLO[5..]),
            side.frame(0x81, b"plain"),
        ]
        .concat();
        let expected = [
            Got::Ping(b"a".into()),
            Got::Pong(b"b".into()),
            text("Hello"),
            text("plain"),
        ];
        assert_eq!(run(side, &input).0, expected);
        assert_eq!(without_codec(side, &input), expected);
    }
}

/// §6: RSV1 belongs to the first frame of a message, and to nothing else.
//= rfc7692 6-2
#[test]
fn a_misplaced_compressed_bit_fails() {
    for side in DEFLATING {
        for (first, opcode) in [
            (0xC8, OpCode::Close),
            (0xC9, OpCode::Ping),
            (0xCA, OpCode::Pong),
        ] {
            let fault = PeerFault::MisplacedCompressedBit(opcode);
            assert_fails(side, &side.frame(first, b""), &[], fault, 1002);
        }
        let fault = PeerFault::MisplacedCompressedBit(OpCode::Continuation);
        for (first, next) in [(0x42, 0xC0), (0x42, 0x40), (0x02, 0xC0)] {
            let input = [side.frame(first, &HELLO[..2]), side.frame(next, b"")].concat();
            assert_fails(side, &input, &[], fault, 1002);
        }
    }
}

/// §8.1 of RFC 6455, on the inflated text: in one frame, in fragments, and with no codec lent.
//= rfc7692 6-3
#[test]
fn compressed_text_that_is_not_utf8_fails() {
    for side in DEFLATING {
        for invalid in [&b"caf\xC3"[..], b"\xED\xA0\x80", &[0xFF; 400]] {
            let compressed = Peer::new().compress(invalid);
            let whole = side.frame(0xC1, &compressed);
            let cut = [
                side.frame(0x41, &compressed[..2]),
                side.frame(0x80, &compressed[2..]),
            ]
            .concat();
            for input in [whole, cut] {
                assert_fails(side, &input, &[], PeerFault::InvalidUtf8, 1007);
                let got = without_codec(side, &input);
                assert_eq!(got, [Got::Failed(PeerFault::InvalidUtf8)]);
            }
            // As binary it is a message like any other.
            let binary = side.frame(0xC2, &compressed);
            assert_eq!(run(side, &binary).0, [Got::Binary(invalid.to_vec())]);
        }
    }
}

#[test]
fn data_that_is_not_deflate_fails() {
    let corrupt = PeerFault::Inflate(InflateError::Corrupt);
    for side in DEFLATING {
        // A block type that doesn't exist, a stored block whose lengths differ, a reference to
        // what never was.
        for payload in [&[0x07][..], &[0, 1, 0, 0, 0], &[0xF2, 0x00, 0x11, 0x00, 0]] {
            let good = side.frame(0x81, b"good");
            let input = [good, side.frame(0xC2, payload), side.frame(0x81, b"late")].concat();
            assert_fails(side, &input, &[text("good")], corrupt, 1007);
            let got = without_codec(side, &input);
            assert_eq!(got, [text("good"), Got::Failed(corrupt)]);
        }
    }
}

/// A bomb is noticed when it has grown to the limit, by size or by ratio.
#[test]
fn bombs_fail() {
    let bomb = Peer::new().compress(&vec![b'x'; 16 << 20]);
    assert!(bomb.len() < 20_000);
    for side in DEFLATING {
        let by_size = PeerFault::Inflate(InflateError::TooLarge { max: 1 << 20 });
        let by_ratio = PeerFault::Inflate(InflateError::RatioTooHigh { max: 200 });
        let lax = Limits {
            max_inflate_ratio: 2000,
            ..Limits::default()
        };
        let roomy = Limits::for_messages(64 << 20);
        for (limits, fault) in [(lax, by_size), (roomy, by_ratio)] {
            let whole = side.frame(0xC2, &bomb);
            let cut = [side.frame(0x42, &bomb[..9]), side.frame(0x80, &bomb[9..])].concat();
            for input in [whole, cut] {
                let (mut engine, mut out) = (side.engine(limits), Vec::new());
                let got = echo(&mut engine, [&input[..]], &mut out);
                assert_eq!(got, [Got::Failed(fault)], "{side:?}");
                assert_eq!(sent(&out)[0].1[..2], 1009u16.to_be_bytes());
            }
        }
        // Both limits allow it: it is a message.
        let limits = Limits {
            max_inflate_ratio: 2000,
            ..Limits::for_messages(16 << 20)
        };
        let input = side.frame(0xC2, &bomb);
        let got = echo(&mut side.engine(limits), [&input[..]], &mut Vec::new());
        assert!(matches!(&got[..], [Got::Binary(bytes)] if bytes.len() == 16 << 20));
    }
}

/// What is on the wire is counted before it is inflated.
#[test]
fn compressed_bytes_count_too() {
    let limits = Limits::for_messages(10);
    for side in DEFLATING {
        let input = [side.frame(0x42, &[0; 8]), side.frame(0x80, &[0; 3])].concat();
        let fault = PeerFault::MessageTooLarge {
            announced: 11,
            limit: 10,
        };
        let got = echo(&mut side.engine(limits), [&input[..]], &mut Vec::new());
        assert_eq!(got, [Got::Failed(fault)]);
    }
}

/// §7.2.2: the context goes from compressed message to compressed message, whatever comes between.
//= rfc7692 7.2.2-3, 7.2.2-5
#[test]
fn the_peer_takes_its_context_over() {
    for side in DEFLATING {
        let (mut engine, mut peer, mut codec) = (
            side.engine(Limits::default()),
            Peer::new(),
            MessageCodec::default(),
        );
        // Another connection that uses the same codec in between.
        let mut other = (side.engine(Limits::default()), Peer::new());
        let mut bytes = 0;
        for n in 0..300 {
            let message = tick(n);
            let compressed = peer.compress(message.as_bytes());
            bytes += compressed.len();
            let mut input = side.frame(0xC1, &compressed);
            let mut expected = vec![Got::Text(message.clone())];
            if n % 3 == 0 {
                input.extend(side.frame(0x81, message.as_bytes()));
                expected.push(Got::Text(message.clone()));
            }
            let out = &mut Vec::new();
            let got = echo_with(&mut codec, &mut engine, [&input[..]], out);
            assert_eq!(got, expected, "message {n}");
            if n % 2 == 0 {
                let input = side.frame(0xC1, &other.1.compress(message.as_bytes()));
                let got = echo_with(&mut codec, &mut other.0, [&input[..]], out);
                assert_eq!(got, [Got::Text(message)]);
            }
        }
        assert!(bytes < 300 * 40, "the peer did refer back: {bytes}");
    }
}

/// §7.1.1: what was agreed to stand for itself is inflated so, and may not refer back.
//= rfc7692 7.2.2-2
#[test]
fn without_takeover_nothing_may_refer_back() {
    for side in DEFLATING {
        let mut engine = side.engine_with(ALONE, Limits::default());
        let refers = side.frame(0xC1, &[0xF2, 0x00, 0x11, 0x00, 0x00]);
        let input = [side.frame(0xC1, HELLO), refers].concat();
        let got = echo(&mut engine, [&input[..]], &mut Vec::new());
        let corrupt = PeerFault::Inflate(InflateError::Corrupt);
        assert_eq!(got, [text("Hello"), Got::Failed(corrupt)]);
    }
}

/// Sends `messages` and has an ordinary peer read them; returns how many came compressed, and the
/// bytes of payload that it took. With `alone`, a new peer for each message: nothing refers back.
fn send_all(
    engine: &mut Connection,
    codec: &mut MessageCodec,
    peer: &mut Peer,
    messages: &[String],
    alone: bool,
) -> (usize, usize) {
    let (mut compressed, mut bytes) = (0, 0);
    for message in messages {
        let mut out = Vec::new();
        engine
            .sender_with(codec)
            .send_text(message, &mut out)
            .expect("open");
        let [(first, payload)] = &sent(&out)[..] else {
            panic!("one frame for one message");
        };
        bytes += payload.len();
        if *first == 0xC1 {
            compressed += 1;
            let read = if alone {
                Peer::new().inflate(payload)
            } else {
                peer.inflate(payload)
            };
            assert_eq!(read.as_deref(), Some(message.as_bytes()));
        } else {
            assert_eq!((*first, &payload[..]), (0x81, message.as_bytes()));
        }
    }
    (compressed, bytes)
}

/// Both roles compress, refer back only where that was agreed, and then save more.
//= rfc7692 6.1-1, 7.2.1-1, 7.2.1-6, 7.2.1-7, 7.2.1-8
#[test]
fn messages_are_compressed_as_agreed() {
    let messages: Vec<String> = (0..200).map(tick).collect();
    for side in DEFLATING {
        let mut codec = eager();
        let mut engine = side.engine(Limits::default());
        let takeover = send_all(&mut engine, &mut codec, &mut Peer::new(), &messages, false);
        let mut engine = side.engine_with(ALONE, Limits::default());
        let alone = send_all(&mut engine, &mut codec, &mut Peer::new(), &messages, true);
        assert_eq!((takeover.0, alone.0), (200, 200));
        assert!(takeover.1 * 2 < alone.1, "{takeover:?}, {alone:?}");
        // Nothing is kept when the codec says so.
        let mut engine = side.engine(Limits::default());
        let mut codec = eager().with_memory(0);
        let none = send_all(&mut engine, &mut codec, &mut Peer::new(), &messages, true);
        assert_eq!(none, alone);
    }
}

/// §7.1.2: what is compressed keeps to the window that was agreed, at every level.
//= rfc7692 7.2.1-4, 7.2.1-5
#[test]
fn the_window_of_the_direction_is_kept() {
    // What repeats is farther back than the window reaches, so it can't be referred to.
    let noise = noise(&mut 1, 5000);
    let message = format!("{noise}{noise}");
    for side in DEFLATING {
        for level in [1, 6] {
            let size = |bits: u8| {
                let agreement = Agreement {
                    server_max_window_bits: if side.is_server() { bits } else { 15 },
                    client_max_window_bits: if side.is_server() { 15 } else { bits },
                    ..AGREEMENT
                };
                let mut engine = side.engine_with(agreement, Limits::default());
                let mut codec = MessageCodec::new(level);
                let message = std::slice::from_ref(&message);
                send_all(&mut engine, &mut codec, &mut Peer::new(), message, false).1
            };
            assert!(size(12) > size(13) + 2000, "{} {}", size(12), size(13));
        }
    }
}

/// §7.2.1, from the other end: a peer is held to the window of its own direction, within a message and
/// from one to the next.
//= rfc7692 5-6
#[test]
fn a_peer_that_reaches_beyond_its_window_fails() {
    let noise = noise(&mut 1, 700);
    let twice = format!("{noise}{noise}");
    for side in DEFLATING {
        for (bits, reaches) in [(9, false), (10, true), (15, true)] {
            let agreement = Agreement {
                server_max_window_bits: if side.is_server() { 15 } else { bits },
                client_max_window_bits: if side.is_server() { bits } else { 15 },
                ..AGREEMENT
            };
            for messages in [&[&twice][..], &[&noise, &noise]] {
                let mut engine = side.engine_with(agreement, Limits::default());
                // One that knows of no smaller window than 2^15.
                let mut peer = Peer::new();
                for (at, message) in messages.iter().enumerate() {
                    let input = side.frame(0xC1, &peer.compress(message.as_bytes()));
                    let got = echo(&mut engine, [&input[..]], &mut Vec::new());
                    let refers_back = messages.len() == 1 || at == 1;
                    let expected = if reaches || !refers_back {
                        text(message)
                    } else {
                        Got::Failed(PeerFault::Inflate(InflateError::Corrupt))
                    };
                    assert_eq!(got, [expected], "{side:?}, 2^{bits}, message {at}");
                }
            }
        }
    }
}

/// A window of 2^8 is one that the levels above 2 can't write for: they leave it be.
#[test]
fn a_window_of_256_bytes() {
    let messages: Vec<String> = (0..20).map(tick).collect();
    let agreement = Agreement {
        client_max_window_bits: 8,
        ..AGREEMENT
    };
    for (level, expected) in [(1, 20), (2, 20), (3, 0), (9, 0)] {
        let mut engine = Side::DeflatingClient.engine_with(agreement, Limits::default());
        let mut codec = MessageCodec::new(level).with_threshold(0);
        let peer = &mut Peer::new();
        let (compressed, _) = send_all(&mut engine, &mut codec, peer, &messages, false);
        assert_eq!(compressed, expected, "level {level}");
    }
}

/// §6: each message may be compressed or not. One that gains nothing is sent as it is, and nothing
/// later refers to it, for the peer's window hasn't seen it.
//= rfc7692 6.1-2, 6.1-3
#[test]
fn what_does_not_pay_is_sent_as_it_is() {
    let mut seed = 1;
    let mut messages = Vec::new();
    for n in 0..50 {
        messages.extend([tick(n), noise(&mut seed, 20 + n)]);
        // The same noise again: tempting.
        messages.push(messages[messages.len() - 1].clone());
    }
    for side in DEFLATING {
        let mut engine = side.engine(Limits::default());
        let (compressed, _) = send_all(
            &mut engine,
            &mut eager(),
            &mut Peer::new(),
            &messages,
            false,
        );
        assert_eq!(compressed, 50);
    }
}

/// Short messages aren't worth it, by the codec's threshold; the default is 128 bytes.
#[test]
fn short_messages_are_sent_as_they_are() {
    for side in DEFLATING {
        for (len, first) in [(127, 0x81), (128, 0xC1)] {
            let (mut engine, mut out) = (side.engine(Limits::default()), Vec::new());
            let codec = &mut MessageCodec::default();
            let mut sender = engine.sender_with(codec);
            sender.send_text(&"x".repeat(len), &mut out).expect("open");
            assert_eq!(sent(&out)[0].0, first, "{len} bytes");
        }
    }
}

/// Nothing is compressed that the peer has not agreed to, and control frames never are.
//= rfc6455 5.2-1, 9.1-5
//= rfc7692 6-1, 6.1-2
#[test]
fn nothing_is_compressed_without_an_agreement() {
    let long = "x".repeat(120);
    for side in [Side::Server, Side::Client] {
        let (mut engine, mut out, mut codec) =
            (side.engine(Limits::default()), Vec::new(), eager());
        engine
            .sender_with(&mut codec)
            .send_text(&long, &mut out)
            .expect("open");
        assert_eq!(sent(&out), [(0x81, long.clone().into_bytes())]);
    }
    for side in DEFLATING {
        let (mut engine, mut out, mut codec) =
            (side.engine(Limits::default()), Vec::new(), eager());
        let mut sender = engine.sender_with(&mut codec);
        sender.ping(long.as_bytes(), &mut out).expect("open");
        sender.pong(long.as_bytes(), &mut out).expect("open");
        sender
            .close(CloseCode::NORMAL, &long, &mut out)
            .expect("open");
        let firsts: Vec<u8> = sent(&out).iter().map(|(first, _)| *first).collect();
        assert_eq!(firsts, [0x89, 0x8A, 0x88]);
    }
}

/// A frame that was compressed once is read by clients whatever they were sent before, and what
/// they are sent after it is read too.
#[test]
fn a_shared_frame_suits_every_connection() {
    let mut codec = eager();
    let shared = tick(1000).repeat(3);
    let plain = frame::encode_shared_deflated(OpCode::Text, b"#", 15, &mut codec);
    assert_eq!(plain, None, "not smaller");
    for bits in [9, 15] {
        let frame =
            frame::encode_shared_deflated(OpCode::Text, shared.as_bytes(), bits, &mut codec)
                .expect("smaller");
        let [(0xC1, payload)] = &sent(&frame)[..] else {
            panic!("one compressed frame");
        };
        for before in 0..4 {
            let mut engine = Side::DeflatingServer.engine(Limits::default());
            let mut peer = Peer::new();
            let messages: Vec<String> = (0..before).map(tick).collect();
            send_all(&mut engine, &mut codec, &mut peer, &messages, false);
            assert_eq!(peer.inflate(payload).as_deref(), Some(shared.as_bytes()));
            engine.sender().forget_sent();
            let messages: Vec<String> = (before..9).map(tick).collect();
            let (compressed, _) = send_all(&mut engine, &mut codec, &mut peer, &messages, false);
            assert_eq!(compressed, messages.len());
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// From the server or the client; some sides have a codec lent only now and then.
    Send {
        server: bool,
        codec: usize,
        text: String,
    },
    Shared(String),
}

fn step() -> impl Strategy<Value = Step> {
    let message = prop_oneof![
        5 => (0..200usize).prop_map(tick),
        1 => "[ -~]{0,300}",
        1 => ("[a-z€]{1,3}", 1..3000usize).prop_map(|(text, count)| text.repeat(count)),
    ];
    (any::<bool>(), 0..4usize, 0..12u8, message).prop_map(|(server, codec, kind, text)| {
        if kind == 0 {
            Step::Shared(text)
        } else {
            Step::Send {
                server,
                codec,
                text,
            }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two engines understand each other whatever they agreed on, whichever codecs they are lent,
    /// at whatever level, and with shared frames between.
    //= rfc6455 5.2-1
    #[test]
    fn two_engines_understand_each_other(
        steps in prop::collection::vec(step(), 1..40),
        takeover in any::<(bool, bool)>(),
        bits in (9u8..=15, 8u8..=15),
        level in 1u8..=9,
        memory in 0usize..5000,
    ) {
        let agreement = Agreement {
            server_no_context_takeover: takeover.0,
            client_no_context_takeover: takeover.1,
            server_max_window_bits: bits.0,
            client_max_window_bits: bits.1,
        };
        let limits = Limits { max_inflate_ratio: 2000, ..Limits::default() };
        let mut server = Side::DeflatingServer.engine_with(agreement, limits);
        let mut client = Side::DeflatingClient.engine_with(agreement, limits);
        let mut codecs = [(); 3].map(|()| MessageCodec::new(level).with_threshold(10).with_memory(memory));
        for step in steps {
            let mut wire = Vec::new();
            let (to, codec, message) = match step {
                Step::Send { server: from_server, codec, text } => {
                    let (from, to) = if from_server { (&mut server, &mut client) } else { (&mut client, &mut server) };
                    match codecs.get_mut(codec) {
                        Some(codec) => from.sender_with(codec).send_text(&text, &mut wire).unwrap(),
                        None => from.send_text(&text, &mut wire).unwrap(),
                    }
                    (to, codec, text)
                }
                Step::Shared(text) => {
                    let frame = frame::encode_shared_deflated(OpCode::Text, text.as_bytes(), 9, &mut codecs[0]);
                    server.sender().forget_sent();
                    wire = frame.unwrap_or_else(|| frame::encode_shared(OpCode::Text, text.as_bytes()));
                    (&mut client, 0, text)
                }
            };
            // The other one's codec is another, or none.
            let other = (codec + 1) % 4;
            let mut got = Vec::new();
            let mut events = match codecs.get_mut(other) {
                Some(codec) => to.receive_with(&mut wire, codec),
                None => to.receive(&mut wire),
            };
            while let Some(event) = events.next(&mut Vec::new()) {
                got.push(Got::from(event));
            }
            prop_assert_eq!(got, [Got::Text(message)]);
        }
    }
}
