//! However the input is cut, the events and the output are the same; and so they are when the
//! caller stops asking for events at any place.

use tautline_websocket::proto::deflate::MessageCodec;
use tautline_websocket::proto::{Connection, Event, Limits};

use crate::peer::Peer;

use crate::support::{Got, SIDES, Side, echo, echo_with, sent};

/// Scripts that together go through every state: what the peer sends in one connection.
fn scripts(side: Side) -> Vec<Vec<u8>> {
    let mut scripts = plain_scripts(side);
    if side.deflates() {
        scripts.extend(compressed_scripts(side));
    }
    scripts
}

/// The same for compressed messages, most of which refer to those before.
fn compressed_scripts(side: Side) -> Vec<Vec<u8>> {
    let mut peer = Peer::new();
    let mut compress = |text: &str| peer.compress(text.as_bytes());
    let [first, second, third, fourth] = [
        compress("the first, the very first"),
        compress("the first €, the sécond"),
        compress(&"the third".repeat(20)),
        compress("the third 😀, then the end"),
    ];
    let corrupt = Peer::new().compress(b"x\xFFx");
    vec![
        // Whole, in fragments with control frames between, and with messages that aren't compressed.
        [
            side.frame(0xC1, &first),
            side.frame(0x41, &second[..3]),
            side.frame(0x89, b"ping"),
            side.frame(0x00, b""),
            side.frame(0x80, &second[3..]),
            side.frame(0x81, b"plain"),
            side.frame(0x88, b""),
        ]
        .concat(),
        [
            side.frame(0xC1, &first),
            side.frame(0xC2, &second),
            side.frame(0xC1, &third),
            side.frame(0x42, &fourth[..1]),
            side.frame(0x80, &fourth[1..]),
        ]
        .concat(),
        // Faults: one message is missing, the text is invalid, the bit is misplaced, and a bomb.
        [side.frame(0xC1, &first), side.frame(0xC1, &third)].concat(),
        [side.frame(0xC1, &first), side.frame(0xC1, &corrupt)].concat(),
        [side.frame(0x41, &first[..2]), side.frame(0xC0, &first[2..])].concat(),
        [
            side.frame(0xC1, &first),
            side.frame(0xC1, &Peer::new().compress(&[b'x'; 201])),
        ]
        .concat(),
    ]
}

fn plain_scripts(side: Side) -> Vec<Vec<u8>> {
    let close = side.frame(0x88, b"\x03\xE8bye");
    vec![
        // Messages in one frame, in all three forms of the length (the longest with little in it).
        [
            side.frame(0x81, "héllo wörld €😀".as_bytes()),
            side.frame(0x82, b"\x00\xFF"),
            close.clone(),
        ]
        .concat(),
        [
            side.frame(0x82, &[7; 126]),
            side.frame(0x81, b""),
            close.clone(),
        ]
        .concat(),
        // Fragments, cut inside characters, with control frames between.
        [
            side.frame(0x01, b"a\xF0\x9F"),
            side.frame(0x89, b"ping 1"),
            side.frame(0x00, b"\x98\x80b"),
            side.frame(0x00, b""),
            side.frame(0x8A, b""),
            side.frame(0x80, "é".as_bytes()),
            side.frame(0x89, b""),
            side.frame(0x88, b""),
        ]
        .concat(),
        // Faults behind good messages, each of another kind.
        [side.frame(0x81, b"good"), side.frame(0x93, b"x"), close].concat(),
        [
            side.frame(0x02, b"good"),
            side.frame(0x89, b"p"),
            side.frame(0x81, b"y"),
        ]
        .concat(),
        [
            side.frame(0x81, b"ok"),
            side.frame(0x01, b"caf\xC3"),
            side.frame(0x80, b"("),
        ]
        .concat(),
        [side.frame(0x81, b"ok"), side.frame(0x81, b"caf\xC3")].concat(),
        [
            side.frame(0x82, b"ok"),
            side.frame_with_length(0x82, &[126, 0, 9], b"x"),
        ]
        .concat(),
        [
            side.frame(0x8A, b"ok"),
            side.frame_masked_wrongly(0x82, b"x"),
        ]
        .concat(),
        [side.frame(0x82, b"ok"), side.frame(0x88, b"\x03")].concat(),
        [side.frame(0x82, b"ok"), side.frame(0x88, b"\x03\xED")].concat(),
        [side.frame(0x82, b"ok"), side.frame(0x88, b"\x03\xE8\xC3(")].concat(),
        [side.frame(0x82, b"ok"), side.frame(0x82, &[1; 201])].concat(),
        // A peer that goes away in the middle.
        [
            side.frame(0x81, b"ok"),
            side.frame(0x01, b"never ends"),
            vec![0x80],
        ]
        .concat(),
    ]
}

fn engine(side: Side) -> Connection {
    side.engine(Limits {
        max_fragments: 8,
        ..Limits::for_messages(200)
    })
}

/// Compresses all that gets smaller by it.
fn codec() -> MessageCodec {
    MessageCodec::default().with_threshold(0)
}

fn in_one_piece(side: Side, script: &[u8]) -> (Vec<Got>, Vec<u8>) {
    let mut out = Vec::new();
    let got = echo_with(&mut codec(), &mut engine(side), [script], &mut out);
    (got, out)
}

#[test]
fn every_pair_of_cuts_gives_the_same_events_and_output() {
    for side in SIDES {
        let mut shared = codec();
        for script in scripts(side) {
            let (events, output) = in_one_piece(side, &script);
            assert!(!events.is_empty());
            for first in 0..=script.len() {
                for second in first..=script.len() {
                    let chunks = [&script[..first], &script[first..second], &script[second..]];
                    let mut out = Vec::new();
                    let got = echo_with(&mut shared, &mut engine(side), chunks, &mut out);
                    assert_eq!(got, events, "{side:?}, cut at {first} and {second}");
                    assert_eq!(out, output, "{side:?}, cut at {first} and {second}");
                }
            }
        }
    }
}

#[test]
fn bytes_one_by_one_give_the_same_events_and_output() {
    for side in SIDES {
        for script in scripts(side) {
            let mut out = Vec::new();
            let got = echo_with(&mut codec(), &mut engine(side), script.chunks(1), &mut out);
            assert_eq!((got, out), in_one_piece(side, &script), "{side:?}");
        }
    }
}

/// A long message that comes in many reads, at all three length forms.
#[test]
fn long_messages_survive_any_size_of_read() {
    for side in SIDES {
        for len in [125, 126, 65_535, 65_536, 200_000] {
            let text = "aé€😀".repeat(len / 10 + 1);
            let frame = side.frame(0x81, text.as_bytes());
            for size in [1, 1000, 4093, 65_536] {
                if size == 1 && len > 126 {
                    continue;
                }
                let mut engine = side.engine(Limits::default());
                let mut out = Vec::new();
                let got = echo(&mut engine, frame.chunks(size), &mut out);
                assert_eq!(
                    got,
                    [Got::Text(text.clone())],
                    "{len} bytes in reads of {size}"
                );
                assert_eq!(sent(&out), [(0x81, text.clone().into_bytes())]);
            }
        }
    }
}

/// Takes at most `per_call` events of each call, as a caller does who stops early; dropping the
/// rest loses nothing.
fn echo_stopping(
    codec: &mut MessageCodec,
    engine: &mut Connection,
    chunks: &[&[u8]],
    per_call: usize,
    out: &mut Vec<u8>,
) -> Vec<Got> {
    let mut got = Vec::new();
    for chunk in chunks.iter().chain([&&[][..]; 64]) {
        let mut chunk = chunk.to_vec();
        let mut events = engine.receive_with(&mut chunk, codec);
        for _ in 0..per_call {
            let Some((event, mut sender)) = events.next_with_sender(out) else {
                break;
            };
            match event {
                Event::Text(text) => _ = sender.send_text(text, out),
                Event::Binary(bytes) => _ = sender.send_binary(bytes, out),
                _ => {}
            }
            got.push(event.into());
        }
    }
    assert!(!engine.has_held_input());
    got
}

#[test]
fn events_dropped_early_lose_nothing() {
    for side in SIDES {
        for script in scripts(side) {
            let expected = in_one_piece(side, &script);
            for cut in 0..=script.len() {
                let chunks = [&script[..cut], &script[cut..]];
                for per_call in 1..3 {
                    let mut out = Vec::new();
                    let got =
                        echo_stopping(&mut codec(), &mut engine(side), &chunks, per_call, &mut out);
                    assert_eq!(
                        (got, out),
                        expected,
                        "{side:?}, cut at {cut}, {per_call} a call"
                    );
                }
            }
        }
    }
}

/// Input that is held is not looked at before it is asked for, and comes before what is newer.
#[test]
fn events_never_asked_for_are_held() {
    for side in SIDES {
        let mut engine = engine(side);
        let mut out = Vec::new();
        for text in [b"1", b"2", b"3"] {
            drop(engine.receive(&mut side.frame(0x81, text)));
        }
        assert!(engine.has_held_input() && out.is_empty());
        let got = echo(&mut engine, [&side.frame(0x81, b"4")[..]], &mut out);
        assert_eq!(
            got,
            ["1", "2", "3", "4"].map(|text| Got::Text(text.to_owned()))
        );
        assert!(!engine.has_held_input());
    }
}
