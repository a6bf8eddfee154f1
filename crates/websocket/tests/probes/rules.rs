//! The rest of the framing rules.

use tautline_websocket::proto::{OpCode, PeerFault};

use crate::support::{Got, SIDES, assert_fails, run, text};

/// §8.1, and a character may be cut by a fragment's end.
//= rfc6455 5.4-3, 5.6-1
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

/// §5.5.2: as long as there is room, each ping is answered, in order.
//= rfc6455 5.5.2-2, 5.5.3-1, 6.2-2
#[test]
fn every_ping_is_answered_in_order() {
    for side in SIDES {
        let pings: Vec<u8> = (0..10).flat_map(|n| side.frame(0x89, &[n])).collect();
        let pongs: Vec<_> = (0..10).map(|n| (0x8A, vec![n])).collect();
        assert_eq!(run(side, &pings).1, pongs);
    }
}

/// §5.4: no new message inside a message, and no fragment outside of one.
//= rfc6455 5.4-4, 5.4-11
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
//= rfc6455 5.4-1, 5.4-5, 6.2-2
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
//= rfc6455 7.1.7-5
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

/// §5.2: reserved op codes.
//= rfc6455 5.2-3
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
//= rfc6455 5.4-2, 5.5-2
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
//= rfc6455 5.4-7, 5.1-4, 6.1-4, 6.1-5, 6.2-3, 6.2-4
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
