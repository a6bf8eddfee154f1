//! Behaviour in which WebSocket libraries are known to differ, and beyond what conformance suites
//! look at: what other implementations accept, lose or sit out.

use tautline_websocket::proto::{Limits, OpCode, PeerFault};

use crate::support::{Got, SIDES, Side, assert_fails, echo, run, sent, text};

/// §5.1: a server fails on an unmasked frame, a client on a masked one.
#[test]
fn the_wrong_masking_fails() {
    for (side, fault) in [
        (Side::Server, PeerFault::NotMasked),
        (Side::Client, PeerFault::Masked),
        (Side::DeflatingServer, PeerFault::NotMasked),
        (Side::DeflatingClient, PeerFault::Masked),
    ] {
        let input = side.frame_masked_wrongly(0x81, b"hi");
        assert_fails(side, &input, &[], fault, 1002);
    }
}

/// §8.1: text that ends inside a character, in one frame or in fragments.
#[test]
fn a_text_that_ends_inside_a_character_fails() {
    for side in SIDES {
        let input = side.frame(0x81, b"caf\xC3");
        assert_fails(side, &input, &[], PeerFault::InvalidUtf8, 1007);
        let input = [side.frame(0x01, b"caf"), side.frame(0x80, b"\xC3")].concat();
        assert_fails(side, &input, &[], PeerFault::InvalidUtf8, 1007);
    }
}

/// §8.1, and a character may be cut by a fragment's end.
#[test]
fn a_character_may_span_fragments() {
    for side in SIDES {
        let input = [
            side.frame(0x01, b"\xF0\x9F"),
            side.frame(0x00, b"\x98"),
            side.frame(0x00, b""),
            side.frame(0x80, b"\x80!"),
        ];
        assert_eq!(run(side, &input.concat()).0, [text("😀!")]);
    }
}

/// §8.1: invalid text fails when it comes, not when the message is complete.
#[test]
fn invalid_text_in_a_fragment_fails_at_once() {
    for side in SIDES {
        let input = side.frame(0x01, b"ok \xFF");
        assert_fails(side, &input, &[], PeerFault::InvalidUtf8, 1007);
    }
}

/// §8.1: not even when the frame is complete, and at the very byte.
#[test]
fn invalid_text_in_half_a_frame_fails_at_once() {
    for side in SIDES {
        // U+D800, a surrogate: the second byte is the one that can't be.
        let frame = side.frame(0x81, b"0123456789\xED\xA0\x80 and more");
        let header = frame.len() - b"0123456789\xED\xA0\x80 and more".len();
        let (mut engine, mut out) = (side.engine(Limits::default()), Vec::new());
        let got = echo(&mut engine, [&frame[..header + 11]], &mut out);
        assert_eq!((got, out.len()), (vec![], 0), "{side:?}");
        let got = echo(&mut engine, [&frame[header + 11..header + 12]], &mut out);
        assert_eq!(got, [Got::Failed(PeerFault::InvalidUtf8)], "{side:?}");
    }
}

/// A peer that sends pings and reads nothing gets no more memory than the limit, and in the end
/// the answer to its newest ping.
#[test]
fn pings_of_a_peer_that_does_not_read_are_bounded() {
    for side in SIDES {
        let limits = Limits::default();
        let (mut engine, mut out) = (side.engine(limits), Vec::new());
        for n in 0..100_000u32 {
            let ping = side.frame(0x89, &[n.to_be_bytes().as_slice(), &[0; 100]].concat());
            echo(&mut engine, [&ping[..]], &mut out);
        }
        assert!(
            out.len() < limits.pong_backlog + 150,
            "{} bytes queued",
            out.len()
        );
        let answered = sent(&out).len();
        assert!(answered > 100);
        assert!(!engine.flush_pong(&mut out), "no room yet");
        out.clear();
        assert!(engine.flush_pong(&mut out));
        let newest = [99_999u32.to_be_bytes().as_slice(), &[0; 100]].concat();
        assert_eq!(sent(&out), [(0x8A, newest)]);
        assert!(!engine.flush_pong(&mut out), "answered once");
    }
}

/// §5.5.2: as long as there is room, each ping is answered, in order.
#[test]
fn every_ping_is_answered_in_order() {
    for side in SIDES {
        let pings: Vec<u8> = (0..10).flat_map(|n| side.frame(0x89, &[n])).collect();
        let pongs: Vec<_> = (0..10).map(|n| (0x8A, vec![n])).collect();
        assert_eq!(run(side, &pings).1, pongs);
    }
}

/// §5.5: control frames of more than 125 bytes.
#[test]
fn long_control_frames_fail() {
    for side in SIDES {
        for (first, opcode) in [
            (0x88, OpCode::Close),
            (0x89, OpCode::Ping),
            (0x8A, OpCode::Pong),
        ] {
            let payload = [&[3, 0xE8][..], &[b'x'; 124]].concat();
            let input = side.frame(first, &payload);
            assert_fails(side, &input, &[], PeerFault::ControlTooLong(opcode), 1002);
        }
    }
}

/// §5.2: lengths have one form.
#[test]
fn non_minimal_lengths_fail() {
    for side in SIDES {
        let input = side.frame_with_length(0x82, &[126, 0, 5], b"hello");
        assert_fails(side, &input, &[], PeerFault::NonMinimalLength(5), 1002);
        let input = side.frame_with_length(0x82, &[127, 0, 0, 0, 0, 0, 0, 0, 200], &[0; 200]);
        assert_fails(side, &input, &[], PeerFault::NonMinimalLength(200), 1002);
    }
}

/// §5.4: no new message inside a message, and no fragment outside of one.
#[test]
fn fragments_must_be_in_order() {
    for side in SIDES {
        for (first, opcode) in [
            (0x81, OpCode::Text),
            (0x01, OpCode::Text),
            (0x82, OpCode::Binary),
        ] {
            let input = [side.frame(0x01, b"open"), side.frame(first, b"new")].concat();
            assert_fails(
                side,
                &input,
                &[],
                PeerFault::InterruptedMessage(opcode),
                1002,
            );
        }
        for first in [0x00, 0x80] {
            let input = side.frame(first, b"of what?");
            assert_fails(side, &input, &[], PeerFault::UnexpectedContinuation, 1002);
        }
    }
}

/// §5.4, §5.5: control frames between fragments are handled at once.
#[test]
fn control_frames_between_fragments() {
    for side in SIDES {
        let input = [
            side.frame(0x01, b"one "),
            side.frame(0x89, b"a"),
            side.frame(0x00, b"mess"),
            side.frame(0x8A, b"b"),
            side.frame(0x80, b"age"),
        ];
        let (got, sent) = run(side, &input.concat());
        assert_eq!(
            got,
            [
                Got::Ping(b"a".into()),
                Got::Pong(b"b".into()),
                text("one message")
            ]
        );
        assert_eq!(
            sent,
            [(0x8A, b"a".to_vec()), (0x81, b"one message".to_vec())]
        );
    }
}

/// §7.1.7: what was good before a fault, in the same read, is delivered and answered first.
#[test]
fn good_messages_before_a_fault_are_answered_first() {
    for side in SIDES {
        let input = [
            side.frame(0x81, b"good"),
            side.frame(0x89, b"ping"),
            side.frame(0x83, b"bad"),
            side.frame(0x81, b"too late"),
        ]
        .concat();
        let before = [text("good"), Got::Ping(b"ping".into())];
        assert_fails(side, &input, &before, PeerFault::ReservedOpCode(3), 1002);
        let sent = run(side, &input).1;
        assert_eq!(
            sent[..2],
            [(0x81, b"good".to_vec()), (0x8A, b"ping".to_vec())]
        );
        assert_eq!(sent.len(), 3);
    }
}

/// §5.2: reserved bits without an extension; permessage-deflate uses the first of them.
#[test]
fn reserved_bits_fail() {
    for side in SIDES {
        for bits in 1..8 {
            let unknown = if side.deflates() { bits & 0b011 } else { bits };
            if unknown == 0 {
                continue;
            }
            for first in [0x81, 0x82, 0x88, 0x89] {
                let input = side.frame(first | bits << 4, b"");
                assert_fails(side, &input, &[], PeerFault::ReservedBits(unknown), 1002);
            }
        }
    }
}

/// §5.2: reserved op codes.
#[test]
fn reserved_op_codes_fail() {
    for side in SIDES {
        for opcode in (3..8).chain(11..16) {
            let input = side.frame(0x80 | opcode, b"");
            assert_fails(side, &input, &[], PeerFault::ReservedOpCode(opcode), 1002);
        }
    }
}

/// §5.5: fragmented control frames.
#[test]
fn fragmented_control_frames_fail() {
    for side in SIDES {
        for (first, opcode) in [
            (0x08, OpCode::Close),
            (0x09, OpCode::Ping),
            (0x0A, OpCode::Pong),
        ] {
            let input = side.frame(first, b"");
            assert_fails(
                side,
                &input,
                &[],
                PeerFault::FragmentedControl(opcode),
                1002,
            );
        }
    }
}

/// §5.6: empty messages are messages, in one frame or several.
#[test]
fn empty_messages_are_delivered() {
    for side in SIDES {
        let input = [
            side.frame(0x81, b""),
            side.frame(0x82, b""),
            side.frame(0x01, b""),
            side.frame(0x00, b""),
            side.frame(0x80, b""),
            side.frame(0x02, b""),
            side.frame(0x80, b""),
        ];
        let (got, sent) = run(side, &input.concat());
        assert_eq!(
            got,
            [text(""), Got::Binary(vec![]), text(""), Got::Binary(vec![])]
        );
        assert_eq!(sent.len(), 4);
    }
}
