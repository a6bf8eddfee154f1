//! Limits: each is hit, and just not hit.

use tautline_websocket::proto::{Limits, PeerFault};

use crate::support::{Got, SIDES, Side, echo};

fn last(side: Side, limits: Limits, input: &[u8]) -> Option<Got> {
    echo(&mut side.engine(limits), [input], &mut Vec::new()).pop()
}

/// §10.4. The header is enough: not a byte of payload is waited for.
//= rfc6455 10.4-1, 10.4-2
#[test]
fn a_message_too_large_fails_by_its_header() {
    let limits = Limits::for_messages(300);
    for side in SIDES {
        let fits = side.frame(0x82, &[1; 300]);
        assert_eq!(last(side, limits, &fits), Some(Got::Binary(vec![1; 300])));
        let header = &side.frame(0x82, &[1; 301])[..if side.is_server() { 8 } else { 4 }];
        let fault = PeerFault::FrameTooLarge {
            announced: 301,
            limit: 300,
        };
        assert_eq!(last(side, limits, header), Some(Got::Failed(fault)));
        assert_eq!(fault.close_code().get(), 1009);
    }
}

//= rfc6455 10.4-1, 10.4-2
#[test]
fn fragments_count_together() {
    let limits = Limits::for_messages(300);
    for side in SIDES {
        let first = [side.frame(0x02, &[1; 200]), side.frame(0x00, &[2; 99])].concat();
        let fits = [&first[..], &side.frame(0x80, &[3])].concat();
        assert!(
            matches!(last(side, limits, &fits), Some(Got::Binary(bytes)) if bytes.len() == 300)
        );
        let beyond = [&first[..], &side.frame(0x80, &[3; 2])].concat();
        let fault = PeerFault::MessageTooLarge {
            announced: 301,
            limit: 300,
        };
        assert_eq!(last(side, limits, &beyond), Some(Got::Failed(fault)));
        assert_eq!(fault.close_code().get(), 1009);
    }
}

#[test]
fn frames_have_a_limit_of_their_own() {
    let limits = Limits {
        max_frame: 10,
        ..Limits::for_messages(300)
    };
    for side in SIDES {
        let fits = [side.frame(0x02, &[1; 10]), side.frame(0x80, &[1; 10])].concat();
        assert_eq!(last(side, limits, &fits), Some(Got::Binary(vec![1; 20])));
        let fault = PeerFault::FrameTooLarge {
            announced: 11,
            limit: 10,
        };
        assert_eq!(
            last(side, limits, &side.frame(0x02, &[1; 11])),
            Some(Got::Failed(fault))
        );
    }
}

/// Empty fragments cost no bytes, so they are counted.
//= rfc6455 10.4-1
#[test]
fn fragments_are_counted_empty_or_not() {
    let limits = Limits {
        max_fragments: 3,
        ..Limits::default()
    };
    for side in SIDES {
        let two = [side.frame(0x02, b"a"), side.frame(0x00, b"")].concat();
        let fits = [&two[..], &side.frame(0x80, b"b")].concat();
        assert_eq!(last(side, limits, &fits), Some(Got::Binary(b"ab".into())));
        let beyond = [&two[..], &side.frame(0x00, b""), &side.frame(0x80, b"")].concat();
        let fault = PeerFault::TooManyFragments { limit: 3 };
        assert_eq!(last(side, limits, &beyond), Some(Got::Failed(fault)));
        assert_eq!(fault.close_code().get(), 1008);
    }
}

/// Each message has the whole limit for itself.
#[test]
fn counting_starts_anew_with_each_message() {
    let limits = Limits {
        max_fragments: 2,
        ..Limits::for_messages(10)
    };
    for side in SIDES {
        let message = [side.frame(0x02, &[1; 5]), side.frame(0x80, &[2; 5])].concat();
        let got = echo(
            &mut side.engine(limits),
            [&message.repeat(5)[..]],
            &mut Vec::new(),
        );
        assert_eq!(got.len(), 5);
        assert!(
            got.iter().all(|event| matches!(event, Got::Binary(_))),
            "{got:?}"
        );
    }
}

/// Control frames are not messages, and pass a limit of nothing.
#[test]
fn control_frames_pass_message_limits() {
    let limits = Limits::for_messages(0);
    for side in SIDES {
        assert_eq!(
            last(side, limits, &side.frame(0x89, b"hi")),
            Some(Got::Ping(b"hi".into()))
        );
        assert_eq!(
            last(side, limits, &side.frame(0x81, b"")),
            Some(Got::Text(String::new()))
        );
        assert!(matches!(
            last(side, limits, &side.frame(0x81, b"a")),
            Some(Got::Failed(_))
        ));
    }
}
