//! The rows of the table of probes that are about behaviour.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tautline_websocket::conn::WebSocket;
use tautline_websocket::proto::{Limits, Message, OpCode, PeerFault};

use crate::conn_support::Scripted;
use crate::peer::Peer;
use crate::support::{DEFLATING, Got, SIDES, Side, assert_fails, echo, run, text};

/// A server fails on an unmasked frame, a client on a masked one.
//= rfc6455 5.1-2, 5.1-3, 5.1-5, 5.1-6, 6.2-6
#[test]
fn unmasked_client_frame() {
    for (side, fault) in [
        (Side::Server, PeerFault::NotMasked),
        (Side::Client, PeerFault::Masked),
        (Side::DeflatingServer, PeerFault::NotMasked),
        (Side::DeflatingClient, PeerFault::Masked),
    ] {
        for first in [0x81, 0x82, 0x01, 0x88, 0x89, 0x8A] {
            let input = side.frame_masked_wrongly(first, b"");
            assert_fails(side, &input, &[], fault, 1002);
        }
        // And what is masked as it should be, is read as it was before.
        let input = side.frame(0x81, b"masked or not");
        assert_eq!(run(side, &input).0, [text("masked or not")]);
    }
}

//= rfc6455 5.6-1, 8.1-1
#[test]
fn fragmented_text_ending_inside_a_code_point() {
    for side in SIDES {
        let input = [side.frame(0x01, b"caf"), side.frame(0x80, b"\xC3")].concat();
        assert_fails(side, &input, &[], PeerFault::InvalidUtf8, 1007);
        let input = side.frame(0x81, b"caf\xC3");
        assert_fails(side, &input, &[], PeerFault::InvalidUtf8, 1007);
    }
    for side in DEFLATING {
        let compressed = Peer::new().compress(b"caf\xC3");
        let (head, tail) = compressed.split_at(3);
        let input = [side.frame(0x41, head), side.frame(0x80, tail)].concat();
        assert_fails(side, &input, &[], PeerFault::InvalidUtf8, 1007);
    }
}

/// At once, not when the message is whole. (A compressed message is looked at when it is.)
//= rfc6455 8.1-1
#[test]
fn invalid_utf8_in_a_non_final_fragment() {
    for side in SIDES {
        let input = side.frame(0x01, b"ok \xFF");
        assert_fails(side, &input, &[], PeerFault::InvalidUtf8, 1007);
        let input = [side.frame(0x01, b"ok"), side.frame(0x00, b"\xC0")].concat();
        assert_fails(side, &input, &[], PeerFault::InvalidUtf8, 1007);
    }
}

/// Not even when the frame is whole, and at the very byte.
//= rfc6455 8.1-1
#[test]
fn invalid_utf8_inside_a_half_received_frame() {
    for side in SIDES {
        // U+D800, a surrogate: the second byte is the one that can't be.
        let payload = b"0123456789\xED\xA0\x80 and more";
        let frame = side.frame(0x81, payload);
        let header = frame.len() - payload.len();
        let (mut engine, mut out) = (side.engine(Limits::default()), Vec::new());
        let got = echo(&mut engine, [&frame[..header + 11]], &mut out);
        assert_eq!((got, out.len()), (vec![], 0), "{side:?}");
        let got = echo(&mut engine, [&frame[header + 11..header + 12]], &mut out);
        assert_eq!(got, [Got::Failed(PeerFault::InvalidUtf8)], "{side:?}");
    }
}

//= rfc6455 5.5-1
#[test]
fn pong_or_close_of_126_bytes() {
    for side in SIDES {
        for (first, opcode) in [
            (0x88, OpCode::Close),
            (0x89, OpCode::Ping),
            (0x8A, OpCode::Pong),
        ] {
            let payload = [&[3, 0xE8][..], &[b'x'; 124]].concat();
            let input = side.frame(first, &payload);
            assert_fails(side, &input, &[], PeerFault::ControlTooLong(opcode), 1002);
            // One byte less is legal, and is repeated or answered as such.
            let (got, sent) = run(side, &side.frame(first, &payload[..125]));
            assert_eq!(got.len(), 1, "{side:?}");
            assert_eq!(sent.len(), usize::from(first != 0x8A), "{side:?}");
        }
    }
}

//= rfc6455 5.2-5
#[test]
fn non_minimal_length_encoding() {
    for side in SIDES {
        let input = side.frame_with_length(0x82, &[126, 0, 5], b"hello");
        assert_fails(side, &input, &[], PeerFault::NonMinimalLength(5), 1002);
        let input = side.frame_with_length(0x82, &[127, 0, 0, 0, 0, 0, 0, 0, 200], &[0; 200]);
        assert_fails(side, &input, &[], PeerFault::NonMinimalLength(200), 1002);
    }
}

/// Final or not, it neither replaces the open message nor joins it.
//= rfc6455 5.4-4, 5.4-11
#[test]
fn new_text_frame_while_a_message_is_open() {
    for side in SIDES {
        for (first, opcode) in [
            (0x81, OpCode::Text),
            (0x01, OpCode::Text),
            (0x82, OpCode::Binary),
            (0x02, OpCode::Binary),
        ] {
            let input = [side.frame(0x01, b"open"), side.frame(first, b"new")].concat();
            let fault = PeerFault::InterruptedMessage(opcode);
            assert_fails(side, &input, &[], fault, 1002);
        }
    }
    for side in DEFLATING {
        let compressed = Peer::new().compress(b"open");
        let input = [side.frame(0x41, &compressed), side.frame(0xC1, &compressed)].concat();
        let fault = PeerFault::InterruptedMessage(OpCode::Text);
        assert_fails(side, &input, &[], fault, 1002);
    }
}

/// The message is delivered and its answer sent, then the connection fails.
//= rfc6455 7.1.7-5, 7.1.7-7, 10.7-3
#[test]
fn valid_message_then_violation_in_the_same_read() {
    for side in SIDES {
        let good = side.frame(0x81, b"good");
        let bad = side.frame(0x83, b"bad");
        let input = [good, bad, side.frame(0x81, b"too late")].concat();
        let fault = PeerFault::ReservedOpCode(3);
        assert_fails(side, &input, &[text("good")], fault, 1002);
        assert_eq!(run(side, &input).1[0], (0x81, b"good".to_vec()));
    }
    for side in DEFLATING {
        let mut peer = Peer::new();
        let good = side.frame(0xC1, &peer.compress(b"good"));
        // A stored block whose two lengths differ.
        let input = [good, side.frame(0xC1, &[0, 1, 0, 0, 0])].concat();
        let (got, sent) = run(side, &input);
        assert_eq!(got[0], text("good"), "{side:?}");
        assert!(matches!(got[1], Got::Failed(PeerFault::Inflate(_))));
        assert_eq!(sent[0], (0x81, b"good".to_vec()));
        assert_eq!(
            (sent[1].0, &sent[1].1[..2]),
            (0x88, &1007_u16.to_be_bytes()[..])
        );
    }
}

//= rfc6455 5.2-2, 7.1.7-5
#[test]
fn close_frame_on_rsv_violation() {
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
    for side in DEFLATING {
        for (first, opcode) in [(0xC9, OpCode::Ping), (0xC8, OpCode::Close)] {
            let fault = PeerFault::MisplacedCompressedBit(opcode);
            assert_fails(side, &side.frame(first, b""), &[], fault, 1002);
        }
    }
}

/// The stream is pending before each byte, and each future is dropped after one poll: in a header,
/// a payload, between fragments, in a control frame.
#[tokio::test]
async fn future_dropped_mid_header_then_read_again() {
    for side in SIDES {
        let mut peer = Peer::new();
        let long = "long enough for the length to have two bytes of its own ".repeat(5);
        let mut message = |text: &str| match side.deflates() {
            true => side.frame(0xC1, &peer.compress(text.as_bytes())),
            false => side.frame(0x81, text.as_bytes()),
        };
        let input = [
            message("one"),
            message(&long),
            side.frame(0x01, b"tw"),
            side.frame(0x89, b"ping"),
            side.frame(0x80, b"o"),
            message(&long),
            side.frame(0x88, b"\x03\xE8"),
        ]
        .concat();
        let engine = side.engine(Limits::default());
        let mut ws = WebSocket::new(Scripted::one_by_one(&input), engine);
        let (mut got, mut drops) = (Vec::new(), 0);
        loop {
            match poll_once(ws.recv()) {
                Poll::Pending => drops += 1,
                Poll::Ready(Ok(Some(message))) => got.push(message),
                Poll::Ready(Ok(None)) => break,
                Poll::Ready(Err(error)) => panic!("{side:?}: {error}"),
            }
            assert!(drops < 10_000, "no progress");
        }
        let expected = ["one", &long, "two", &long].map(Message::from);
        assert_eq!(got, expected, "{side:?}");
        assert!(drops > input.len(), "dropped {drops} times");
    }
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}
