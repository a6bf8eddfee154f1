//! The rows of the table of probes that are about memory and work, with an allocator that counts.

use allocation_counter::measure;
use tautline_websocket::proto::deflate::MessageCodec;
use tautline_websocket::proto::{Connection, Event, Limits, PeerFault};

use crate::peer::Peer;
use crate::support::{DEFLATING, SIDES, Side, sent};

/// Feeds the engine without keeping what comes of it; how it failed, if it did.
fn feed(engine: &mut Connection, input: &mut [u8], out: &mut Vec<u8>) -> Option<PeerFault> {
    let mut codec = MessageCodec::default();
    let mut events = engine.receive_with(input, &mut codec);
    let mut failed = None;
    while let Some(event) = events.next(out) {
        if let Event::Failed(fault) = event {
            failed = Some(fault);
        }
    }
    failed
}

/// Nothing is reserved but the few bytes that say where in a message we are; and then no more than
/// twice what has come.
#[test]
fn header_announcing_15_mib() {
    for side in SIDES {
        for first in [0x81, 0x82, 0xC1] {
            if first & 0x40 != 0 && !side.deflates() {
                continue;
            }
            let mut engine = side.engine(Limits::for_messages(16 << 20));
            let length = [127, 0, 0, 0, 0, 0, 0xF0, 0, 0];
            let mut header = side.frame_with_length(first, &length, b"");
            let mut out = Vec::new();
            let info = measure(|| assert_eq!(feed(&mut engine, &mut header, &mut out), None));
            assert!(info.bytes_max < 512, "{side:?}: {} bytes", info.bytes_max);
            let mut piece = [0x55; 1000];
            // Masked or not, it stays ASCII.
            let key = [0x11, 0xA2, 0x00, 0xFE];
            for (at, byte) in piece.iter_mut().enumerate() {
                *byte = if side.is_server() {
                    b'a' ^ key[at % 4]
                } else {
                    b'a'
                };
            }
            let info = measure(|| {
                for _ in 0..100 {
                    assert_eq!(feed(&mut engine, &mut piece.clone(), &mut out), None);
                }
            });
            assert!(
                info.bytes_max < 2 * 100_000,
                "{side:?}: {} bytes",
                info.bytes_max
            );
        }
    }
}

/// They get no more memory than the limit, and in the end the answer to the newest.
//= rfc6455 5.5.2-2, 5.5.3-1, 5.5.3-2
#[test]
fn a_hundred_thousand_pings_and_a_peer_that_never_reads() {
    for side in SIDES {
        let limits = Limits::default();
        let mut engine = side.engine(limits);
        let mut out = Vec::with_capacity(limits.pong_backlog as usize + 150);
        let info = measure(|| {
            for n in 0..100_000_u32 {
                let payload = [n.to_be_bytes().as_slice(), &[0; 100]].concat();
                let mut ping = side.frame(0x89, &payload);
                assert_eq!(feed(&mut engine, &mut ping, &mut out), None);
            }
        });
        // Beside what waits to be written, the test's own ping and one pong that has to wait.
        assert!(info.bytes_max < 2000, "{side:?}: {} bytes", info.bytes_max);
        assert!(
            out.len() < limits.pong_backlog as usize + 150,
            "{} bytes",
            out.len()
        );
        assert!(sent(&out).len() > 100);
        assert!(!engine.flush_pong(&mut out), "no room yet");
        out.clear();
        assert!(engine.flush_pong(&mut out));
        let newest = [99_999_u32.to_be_bytes().as_slice(), &[0; 100]].concat();
        assert_eq!(sent(&out), [(0x8A, newest)]);
        assert!(!engine.flush_pong(&mut out), "answered once");
    }
}

/// 300 MiB in fragments of 64 KiB, and a limit of 1 MiB: what is kept ends at the limit, and
/// nothing of it stays.
//= rfc6455 10.4-1, 10.4-2
#[test]
fn fragments_beyond_the_message_limit() {
    for side in SIDES {
        let limits = Limits::default();
        let mut engine = side.engine(limits);
        let mut out = Vec::with_capacity(1024);
        let first = side.frame(0x02, &[7; 64 << 10]);
        let next = side.frame(0x00, &[7; 64 << 10]);
        let mut input = vec![0; next.len()];
        let (mut failed, mut frames) = (None, 0);
        let info = measure(|| {
            while failed.is_none() && frames < 300 * 16 {
                input.copy_from_slice(if frames == 0 { &first } else { &next });
                failed = feed(&mut engine, &mut input, &mut out);
                frames += 1;
            }
        });
        let fault = PeerFault::MessageTooLarge {
            announced: (1 << 20) + (64 << 10),
            limit: 1 << 20,
        };
        assert_eq!((failed, frames), (Some(fault), 17), "{side:?}");
        assert!(
            info.bytes_max < 3 << 20,
            "{side:?}: {} bytes",
            info.bytes_max
        );
        assert!(
            info.bytes_current < 1024,
            "{side:?}: {} stay",
            info.bytes_current
        );
    }
}

/// The same for what inflates beyond the limit, however few bytes it came in.
//= rfc6455 10.4-1
#[test]
fn a_message_that_inflates_beyond_the_limit() {
    let bomb = Peer::new().compress(&vec![b'x'; 16 << 20]);
    for side in DEFLATING {
        let limits = Limits {
            max_inflate_ratio: 2000,
            ..Limits::default()
        };
        let mut engine = side.engine(limits);
        let mut input = side.frame(0xC2, &bomb);
        let mut failed = None;
        let mut out = Vec::with_capacity(1024);
        let info = measure(|| failed = feed(&mut engine, &mut input, &mut out));
        assert!(matches!(failed, Some(PeerFault::Inflate(_))), "{failed:?}");
        assert!(
            info.bytes_max < 4 << 20,
            "{side:?}: {} bytes",
            info.bytes_max
        );
    }
}

/// Twice the message takes twice the memory, and hardly more allocations: nothing is kept a fragment,
/// nothing is copied again and again.
#[test]
fn text_of_200_kb_in_one_byte_fragments() {
    for side in SIDES {
        let limits = Limits {
            max_fragments: u32::MAX,
            ..Limits::default()
        };
        let work = |len: usize| {
            let mut engine = side.engine(limits);
            let mut input = one_byte_fragments(side, len);
            let mut out = Vec::with_capacity(1024);
            let info = measure(|| assert_eq!(feed(&mut engine, &mut input, &mut out), None));
            (info.count_total, info.bytes_total, info.bytes_max)
        };
        let (half, whole) = (work(100_000), work(200_000));
        assert!(whole.0 <= half.0 + 2, "{side:?}: {half:?}, {whole:?}");
        assert!(
            whole.1 <= 2 * half.1 + 1000,
            "{side:?}: {half:?}, {whole:?}"
        );
        assert!(whole.2 < 2 * 262_144 + 1000, "{side:?}: {whole:?}");
    }
}

/// "ä" again and again, so that every second fragment ends inside a character.
fn one_byte_fragments(side: Side, len: usize) -> Vec<u8> {
    let byte = |at: usize| [b"\xC3", b"\xA4"][at % 2];
    let fragment = |at: usize| {
        let first = u8::from(at == 0) | u8::from(at == len - 1) << 7;
        side.frame(first, byte(at))
    };
    (0..len).flat_map(fragment).collect()
}
