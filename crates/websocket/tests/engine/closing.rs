//! The closing handshake (§5.5.1, §7), from both ends.

use tautline_websocket::proto::{CloseCode, Limits, Misuse, PeerFault};

use crate::support::{Got, SIDES, assert_fails, echo, run, sent, text};

/// §5.5.1: a Close is answered with its code, or without one when it had none: 1005 is never on
/// the wire.
//= rfc6455 5.5.1-7, 5.5.1-8
#[test]
fn a_close_is_answered_with_its_code() {
    for side in SIDES {
        let (got, sent) = run(side, &side.frame(0x88, b"\x0F\xA1goodbye"));
        assert_eq!(got, [Got::Close(Some((4001, "goodbye".into())))]);
        assert_eq!(sent, [(0x88, vec![0x0F, 0xA1])]);
        let (got, sent) = run(side, &side.frame(0x88, b""));
        assert_eq!(got, [Got::Close(None)]);
        assert_eq!(sent, [(0x88, vec![])]);
    }
}

/// §5.5.1: nothing counts after a Close, and answers come before it.
//= rfc6455 5.5.2-2
#[test]
fn input_after_a_close_is_ignored() {
    for side in SIDES {
        let input = [
            side.frame(0x81, b"last"),
            side.frame(0x88, &[3, 0xE8]),
            side.frame(0x81, b"beyond"),
            side.frame(0x89, b"beyond"),
            vec![0xFF; 20],
        ];
        let (got, sent) = run(side, &input.concat());
        assert_eq!(got, [text("last"), Got::Close(Some((1000, String::new())))]);
        assert_eq!(sent, [(0x81, b"last".to_vec()), (0x88, vec![3, 0xE8])]);
    }
}

/// §5.5.1, §7.4: payloads that a Close can't have.
//= rfc6455 5.5.1-2, 5.5.1-3, 7.4.1-2, 7.4.1-3, 7.4.1-4
#[test]
fn bad_close_payloads_fail() {
    for side in SIDES {
        let fails = |payload: &[u8], fault: PeerFault, code| {
            assert_fails(side, &side.frame(0x88, payload), &[], fault, code);
        };
        fails(&[3], PeerFault::CloseTooShort, 1002);
        for code in [
            0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ] {
            fails(
                &u16::to_be_bytes(code),
                PeerFault::InvalidCloseCode(code),
                1002,
            );
        }
        fails(b"\x03\xE8\xFF", PeerFault::InvalidCloseReason, 1007);
    }
}

/// §5.5.1: no data after a Close, and no second one.
//= rfc6455 5.5.1-6, 6.1-1, 7.1.2-1
#[test]
fn nothing_is_sent_after_a_close() {
    for side in SIDES {
        let (mut engine, mut out) = (side.engine(Limits::default()), Vec::new());
        assert!(engine.is_open());
        engine
            .close(CloseCode::GOING_AWAY, "later", &mut out)
            .unwrap();
        assert_eq!(sent(&out), [(0x88, b"\x03\xE9later".to_vec())]);
        let before = out.len();
        assert_eq!(engine.send_text("x", &mut out), Err(Misuse::Closing));
        assert_eq!(engine.send_binary(b"x", &mut out), Err(Misuse::Closing));
        assert_eq!(engine.ping(b"x", &mut out), Err(Misuse::Closing));
        assert_eq!(engine.pong(b"x", &mut out), Err(Misuse::Closing));
        assert_eq!(
            engine.close(CloseCode::NORMAL, "", &mut out),
            Err(Misuse::Closing)
        );
        // A ping may still come; its pong would be data after the Close.
        let got = echo(&mut engine, [&side.frame(0x89, b"hi")[..]], &mut out);
        assert_eq!(got, [Got::Ping(b"hi".into())]);
        assert_eq!(out.len(), before);
    }
}

/// A pong that waited for the peer to read is not sent behind a Close.
#[test]
fn a_waiting_pong_does_not_follow_a_close() {
    for side in SIDES {
        let limits = Limits {
            pong_backlog: 1,
            ..Limits::default()
        };
        for closes in [false, true] {
            let (mut engine, mut out) = (side.engine(limits), Vec::new());
            let input = [side.frame(0x81, b"echo"), side.frame(0x89, b"waits")].concat();
            echo(&mut engine, [&input[..]], &mut out);
            assert_eq!(sent(&out), [(0x81, b"echo".to_vec())]);
            if closes {
                engine.close(CloseCode::NORMAL, "", &mut out).unwrap();
            }
            assert_eq!(engine.flush_pong(&mut Vec::new()), !closes);
        }
    }
}

/// Messages that were under way when this side closed still come; then the peer's Close ends it.
//= rfc6455 5.5.1-10, 5.5.1-11, 5.5.1-12, 7.1.1-3, 7.1.1-5, 7.1.1-6, 7.1.2-2, 5.1-7
#[test]
fn the_handshake_when_this_side_begins() {
    for side in SIDES {
        let (mut engine, mut out) = (side.engine(Limits::default()), Vec::new());
        engine.close(CloseCode::NORMAL, "", &mut out).unwrap();
        assert!(!engine.is_open() && !engine.can_send() && engine.wants_input());
        assert!(engine.close_expected() && !engine.should_end_stream());
        out.clear();
        let input = [side.frame(0x81, b"under way"), side.frame(0x88, &[3, 0xE8])].concat();
        let got = echo(&mut engine, [&input[..]], &mut out);
        assert_eq!(
            got,
            [text("under way"), Got::Close(Some((1000, String::new())))]
        );
        assert!(out.is_empty(), "answered by the Close that was sent before");
        assert!(!engine.wants_input() && engine.is_closed_cleanly());
        // §7.1.1: the server ends the stream first.
        assert_eq!(engine.should_end_stream(), side.is_server());
    }
}

//= rfc6455 5.5.1-11, 5.5.1-12
#[test]
fn the_handshake_when_the_peer_begins() {
    for side in SIDES {
        let (mut engine, mut out) = (side.engine(Limits::default()), Vec::new());
        echo(&mut engine, [&side.frame(0x88, b"")[..]], &mut out);
        assert!(!engine.can_send() && !engine.wants_input() && engine.close_expected());
        assert!(engine.is_closed_cleanly());
        assert_eq!(engine.should_end_stream(), side.is_server());
    }
}

/// §7.1.7: both ends end the stream by themselves when the peer was failed.
//= rfc6455 7.1.7-1, 7.1.7-3, 7.1.7-5
#[test]
fn after_a_fault_the_stream_ends() {
    for side in SIDES {
        let (mut engine, mut out) = (side.engine(Limits::default()), Vec::new());
        echo(&mut engine, [&[0x83, 0x80][..]], &mut out);
        assert!(!engine.can_send() && !engine.wants_input());
        assert!(engine.close_expected() && engine.should_end_stream());
        assert!(!engine.is_closed_cleanly());
    }
}

/// A fault after this side's Close doesn't bring a second one.
#[test]
fn a_fault_after_close_sends_nothing() {
    for side in SIDES {
        let (mut engine, mut out) = (side.engine(Limits::default()), Vec::new());
        engine.close(CloseCode::NORMAL, "", &mut out).unwrap();
        out.clear();
        let got = echo(&mut engine, [&[0x83, 0x80][..]], &mut out);
        assert_eq!(got, [Got::Failed(PeerFault::ReservedOpCode(3))]);
        assert!(out.is_empty());
    }
}

/// What can't be sent is refused before anything happens.
//= rfc6455 7.4.1-2, 7.4.1-3, 7.4.1-4, 5.5-1
#[test]
fn misuse_changes_nothing() {
    for side in SIDES {
        let (mut engine, mut out) = (side.engine(Limits::default()), Vec::new());
        for code in [0, 1004, 1005, 1006, 1010, 1015, 2999, 5000] {
            let code = CloseCode::from(code);
            let refused = engine.close(code, "", &mut out);
            assert_eq!(refused, Err(Misuse::UnsendableCloseCode(code)));
        }
        let refused = engine.close(CloseCode::NORMAL, &"x".repeat(124), &mut out);
        assert_eq!(refused, Err(Misuse::CloseReasonTooLong(124)));
        assert_eq!(
            engine.ping(&[0; 126], &mut out),
            Err(Misuse::ControlTooLong(126))
        );
        assert!(out.is_empty() && engine.is_open());
        engine.ping(&[0; 125], &mut out).unwrap();
        engine
            .close(CloseCode::NORMAL, &"x".repeat(123), &mut out)
            .unwrap();
        assert_eq!(sent(&out).len(), 2);
    }
}
