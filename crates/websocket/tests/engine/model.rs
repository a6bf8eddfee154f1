//! The engine against a naive decoder that has all the bytes and no haste, on random
//! conversations.

use proptest::prelude::*;
use tautline_websocket::proto::{Limits, PeerFault};

use crate::peer::Peer;
use crate::support::{Got, Side, echo};

const LIMITS: Limits = Limits {
    max_frame: 300,
    max_fragments: 5,
    ..Limits::for_messages(400)
};

/// What a server should make of `bytes`: events, and the code of the Close when it fails.
fn naive(side: Side, mut bytes: &[u8]) -> (Vec<Got>, Option<u16>) {
    let (mut got, mut open, mut fragments) = (Vec::new(), None::<(bool, bool, Vec<u8>)>, 0);
    let mut peer = Peer::new();
    let unknown = if side.deflates() { 0x30 } else { 0x70 };
    let failed = |got, code| (got, Some(code));
    while let [first, rest @ ..] = bytes {
        let (fin, opcode) = (first & 0x80 != 0, first & 0xF);
        // These show in the first two bytes, whatever follows.
        if !matches!(opcode, 0..=2 | 8..=10) || opcode >= 8 && !fin {
            return failed(got, 1002);
        }
        let [second, rest @ ..] = rest else { break };
        if opcode >= 8 && second & 0x7F > 125 {
            return failed(got, 1002);
        }
        let size = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < size {
            break;
        }
        let (length, rest) = rest.split_at(size);
        let wide = length
            .iter()
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let len = if size == 0 {
            u64::from(second & 0x7F)
        } else {
            wide
        };
        if size == 2 && len < 126 || size == 8 && !(0x1_0000..1 << 63).contains(&len) {
            return failed(got, 1002);
        }
        if second & 0x80 == 0 || rest.len() >= 4 && first & unknown != 0 {
            return failed(got, 1002);
        }
        let Some((key, rest)) = rest.split_at_checked(4) else {
            break;
        };
        if first & 0x40 != 0 && !matches!(opcode, 1 | 2) {
            return failed(got, 1002);
        }
        if opcode < 8 {
            if (opcode == 0) != open.is_some() {
                return failed(got, 1002);
            }
            let so_far = open
                .as_ref()
                .map_or(0, |(.., payload)| payload.len() as u64);
            if len > LIMITS.max_frame as u64 || so_far + len > LIMITS.max_message as u64 {
                return failed(got, 1009);
            }
            fragments = if opcode == 0 { fragments + 1 } else { 1 };
            if fragments > LIMITS.max_fragments {
                return failed(got, 1008);
            }
        }
        let here = rest.len().min(len as usize);
        let payload = rest[..here]
            .iter()
            .zip(key.iter().cycle())
            .map(|(a, b)| a ^ b);
        let payload: Vec<u8> = payload.collect();
        let whole = here as u64 == len;
        bytes = &rest[here..];
        if opcode < 8 {
            let (text, compressed, all) =
                open.get_or_insert((opcode == 1, first & 0x40 != 0, Vec::new()));
            all.extend(payload);
            let checked = std::str::from_utf8(all);
            let hopeless = checked.is_err_and(|error| error.error_len().is_some());
            if *text && !*compressed && (hopeless || whole && fin && checked.is_err()) {
                return failed(got, 1007);
            }
            if whole && fin {
                let Some((text, compressed, mut all)) = open.take() else {
                    break;
                };
                if compressed {
                    let Some(inflated) = peer.inflate(&all) else {
                        return failed(got, 1007);
                    };
                    if inflated.len() > LIMITS.max_message {
                        return failed(got, 1009);
                    }
                    all = inflated;
                }
                got.push(if text {
                    let Ok(text) = String::from_utf8(all) else {
                        return failed(got, 1007);
                    };
                    Got::Text(text)
                } else {
                    Got::Binary(all)
                });
            }
        } else if whole && opcode == 8 {
            match payload[..] {
                [] => got.push(Got::Close(None)),
                [_] => return failed(got, 1002),
                [high, low, ref reason @ ..] => {
                    let code = u16::from_be_bytes([high, low]);
                    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                        return failed(got, 1002);
                    }
                    let Ok(reason) = String::from_utf8(reason.to_vec()) else {
                        return failed(got, 1007);
                    };
                    got.push(Got::Close(Some((code, reason))));
                }
            }
            return (got, None);
        } else if whole {
            got.push(if opcode == 9 {
                Got::Ping(payload)
            } else {
                Got::Pong(payload)
            });
        }
        if !whole {
            break;
        }
    }
    (got, None)
}

/// First bytes, mostly of good frames.
fn first_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        30 => prop::sample::select(vec![0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A]),
        1 => Just(0x88),
        1 => any::<u8>(),
    ]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-zé€😀]{0,40}".prop_map(String::into_bytes),
        // Text cut inside a character, to go on in the next fragment.
        2 => "[é€😀]{1,9}".prop_map(|text| text.as_bytes()[..text.len() - 1].to_vec()),
        1 => prop::collection::vec(0x80..0xC0u8, 1..4),
        1 => prop::collection::vec(any::<u8>(), 0..5),
        1 => prop::collection::vec(any::<u8>(), 120..310),
        1 => prop::sample::select(vec![1000u16, 1005, 4999]).prop_map(|code| code.to_be_bytes().to_vec()),
    ]
}

fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let frame =
        (first_byte(), payload()).prop_map(|(first, payload)| Side::Server.frame(first, &payload));
    (
        prop::collection::vec(frame, 0..12),
        prop::collection::vec(any::<u8>(), 0..4),
    )
        .prop_map(|(frames, noise)| [frames.concat(), noise].concat())
}

/// One thing that a peer does which compresses.
#[derive(Clone, Debug)]
enum Step {
    /// Text or binary, cut into fragments where the numbers say.
    Compressed(bool, Vec<u8>, Vec<prop::sample::Index>),
    /// The bit is set, and the data is not deflate's.
    Corrupt(Vec<u8>),
    Plain(u8, Vec<u8>),
}

/// A conversation of a peer that compresses. What claims to be compressed is so, or is corrupt from
/// its first byte: implementations don't agree on the rest, some read zeros before the window.
fn compressed_conversation() -> impl Strategy<Value = Vec<u8>> {
    let message = prop_oneof![
        6 => payload(),
        2 => ("[a-z€]{1,9}", 1..30usize).prop_map(|(text, times)| text.repeat(times).into_bytes()),
    ];
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    let step = prop_oneof![
        20 => (any::<bool>(), message, cuts).prop_map(|(text, message, cuts)| Step::Compressed(text, message, cuts)),
        1 => payload().prop_map(Step::Corrupt),
        8 => (prop::sample::select(vec![0x81, 0x82, 0x89, 0x8A]), payload())
            .prop_map(|(first, payload)| Step::Plain(first, payload)),
        1 => (prop::sample::select(vec![0xC9, 0xC0, 0x40, 0x80, 0xA1, 0x01]), payload())
            .prop_map(|(first, payload)| Step::Plain(first, payload)),
    ];
    prop::collection::vec(step, 0..15).prop_map(|steps| {
        let mut peer = Peer::new();
        let mut bytes = Vec::new();
        for step in steps {
            match step {
                Step::Compressed(text, message, cuts) => {
                    let compressed = peer.compress(&message);
                    let mut cuts: Vec<usize> = cuts
                        .iter()
                        .map(|cut| cut.index(compressed.len() + 1))
                        .collect();
                    cuts.extend([0, compressed.len()]);
                    cuts.sort_unstable();
                    for (at, cut) in cuts.windows(2).enumerate() {
                        let kind = if text { 0x41 } else { 0x42 };
                        let first = if at == 0 { kind } else { 0 };
                        let fin = if at == cuts.len() - 2 { 0x80 } else { 0 };
                        let frame = Side::Server.frame(first | fin, &compressed[cut[0]..cut[1]]);
                        bytes.extend(frame);
                    }
                }
                Step::Corrupt(payload) => {
                    // A block of type 3, which doesn't exist (RFC 1951 §3.2.3).
                    let payload = [&[0x07], &payload[..]].concat();
                    bytes.extend(Side::Server.frame(0xC2, &payload));
                }
                Step::Plain(first, payload) => bytes.extend(Side::Server.frame(first, &payload)),
            }
        }
        bytes
    })
}

/// Runs the engine over `bytes` with these cuts, and compares.
fn compare(side: Side, bytes: &[u8], cuts: &[prop::sample::Index]) -> Result<(), TestCaseError> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let chunks = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
    let mut got = echo(&mut side.engine(LIMITS), chunks, &mut Vec::new());
    let code = match got.last() {
        Some(Got::Failed(fault)) => Some(PeerFault::close_code(fault).get()),
        _ => None,
    };
    if code.is_some() {
        got.pop();
    }
    prop_assert_eq!((got, code), naive(side, bytes));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    //= rfc6455 6.2-1, 10.7-1
    #[test]
    fn the_engine_agrees_with_the_naive_decoder(
        bytes in conversation(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        compare(Side::Server, &bytes, &cuts)?;
    }

    #[test]
    fn the_engine_agrees_on_compressed_messages(
        bytes in compressed_conversation(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        compare(Side::DeflatingServer, &bytes, &cuts)?;
    }
}
