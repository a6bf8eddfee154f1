//! What conformance suites let pass as "non-strict", and is one behaviour here: what was good is
//! answered before a failure, and text that can't be valid fails at the very byte.

use tautline_websocket::proto::{Limits, PeerFault};

use crate::support::{Got, SIDES, Side, assert_fails, echo, run, text};

/// A good text, something bad, a ping: in one read, in one read a frame, and byte by byte. The echo
/// of the text goes out first, then the Close, and the ping is not answered.
fn answered_before_the_failure(side: Side, bad: &[u8], fault: PeerFault) {
    let frames = [
        side.frame(0x81, b"Hello, world!"),
        bad.to_vec(),
        side.frame(0x89, b"late"),
    ];
    let whole = frames.concat();
    assert_fails(side, &whole, &[text("Hello, world!")], fault, 1002);
    let bytes = whole.chunks(1).collect::<Vec<_>>();
    let by_frame = frames.iter().map(Vec::as_slice).collect::<Vec<_>>();
    for chunks in [vec![&whole[..]], by_frame, bytes] {
        let (mut engine, mut out) = (side.engine(Limits::default()), Vec::new());
        let got = echo(&mut engine, chunks, &mut out);
        assert_eq!(got, [text("Hello, world!"), Got::Failed(fault)], "{side:?}");
        let sent = crate::support::sent(&out);
        assert_eq!(sent[0], (0x81, b"Hello, world!".to_vec()), "{side:?}");
        assert_eq!((sent.len(), sent[1].0), (2, 0x88), "{side:?}");
    }
}

/// Autobahn's 3.2 to 3.4.
//= rfc6455 5.2-2, 7.1.7-5, 7.1.7-7
#[test]
fn a_reserved_bit_behind_a_good_message() {
    for side in SIDES {
        let bad = side.frame(0xA1, b"bad");
        answered_before_the_failure(side, &bad, PeerFault::ReservedBits(0b010));
    }
}

/// Autobahn's 4.1.3 to 4.1.5 and 4.2.3 to 4.2.5.
//= rfc6455 5.2-3
#[test]
fn a_reserved_opcode_behind_a_good_message() {
    for side in SIDES {
        for opcode in (3..8).chain(11..16) {
            let bad = side.frame(0x80 | opcode, b"bad");
            answered_before_the_failure(side, &bad, PeerFault::ReservedOpCode(opcode));
        }
    }
}

/// Autobahn's 5.15.
//= rfc6455 5.4-4
#[test]
fn a_fragment_of_nothing_behind_a_good_message() {
    for side in SIDES {
        let bad = side.frame(0x00, b"bad");
        answered_before_the_failure(side, &bad, PeerFault::UnexpectedContinuation);
    }
}

/// Autobahn's 6.4.1 to 6.4.4: in fragments and in one frame that never becomes whole, each way to
/// cut it: nothing before the byte that can't be, and the failure with it.
//= rfc6455 8.1-1, 5.6-1
#[test]
fn invalid_text_fails_at_the_byte_that_makes_it_so() {
    let good = "κόσμε".as_bytes();
    for (bad, at) in [
        (&b"\xED\xA0\x80"[..], 1),
        (b"\xF4\x90\x80\x80", 1),
        (b"\xC1\x80", 0),
        (b"\xE0\x9F\xBF", 1),
        (b"\xF0\x8F\x80\x80", 1),
        (b"\xCE ", 1),
        (b"\xF0\x9F\x98 ", 3),
        (b"\xFF", 0),
    ] {
        let payload = [good, bad, b"edited"].concat();
        let wrong = good.len() + at;
        for side in SIDES {
            let frame = side.frame(0x81, &payload);
            let header = frame.len() - payload.len();
            for cut in 0..=wrong {
                let (mut engine, mut out) = (side.engine(Limits::default()), Vec::new());
                let before = [&frame[..header + cut], &frame[header + cut..header + wrong]];
                let got = echo(&mut engine, before, &mut out);
                assert_eq!(got, [], "{side:?}, {bad:x?}, cut at {cut}");
                let byte = [&frame[header + wrong..=header + wrong]];
                let got = echo(&mut engine, byte, &mut out);
                assert_eq!(
                    got,
                    [Got::Failed(PeerFault::InvalidUtf8)],
                    "{side:?}, {bad:x?}"
                );
            }
            // The same over two fragments, the second of which never ends.
            for cut in 0..=wrong {
                let input = [
                    side.frame(0x01, &payload[..cut]),
                    side.frame(0x00, &payload[cut..]),
                ];
                let (got, _) = run(side, &input.concat());
                assert_eq!(
                    got,
                    [Got::Failed(PeerFault::InvalidUtf8)],
                    "{side:?}, {bad:x?}"
                );
            }
        }
    }
}
