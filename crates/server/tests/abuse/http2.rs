//! Floods of HTTP/2, many connections at a time. What each is by itself, `tests/http2/floods.rs` has.

use std::thread;

use crate::raw::{
    CONTINUATION, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, RST_STREAM, Raw, SETTINGS, block,
    frame, get,
};
use crate::stand::Stand;

/// Has several connections at a time send the same without end, each until it is given up for it.
fn endures(
    name: &str,
    what: &str,
    kind: &str,
    first: &[u8],
    more: &(dyn Fn(u32) -> Vec<u8> + Sync),
) {
    let stand = Stand::new(name, "connect = \"off\"", "");
    let count = stand.endures(what, 8 * 1024 * 1024, |users| {
        let flood = || {
            let mut count = 0;
            while count < 4 || users.want_more() {
                let mut raw = Raw::open(&stand.server);
                raw.send(first);
                for round in 0..10_000 {
                    if !raw.send(&more(round)) {
                        break;
                    }
                }
                // It may be cut off before it is told why.
                assert!(matches!(raw.given_up(), Some(ENHANCE_YOUR_CALM) | None));
                count += 1;
            }
            count
        };
        thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(flood)).collect();
            all.into_iter()
                .map(|flood| flood.join().unwrap())
                .sum::<usize>()
        })
    });
    stand.counts(&format!("http2_floods_total{{kind=\"{kind}\"}}"), count);
}

#[test]
fn rapid_resets() {
    endures(
        "rapid",
        "rapid resets of HTTP/2 (CVE-2023-44487): ENHANCE_YOUR_CALM",
        "streams",
        b"",
        &|round| {
            let mut bytes = Vec::new();
            for stream in (0..100).map(|n| 200 * round + 2 * n + 1) {
                bytes.extend(get(stream, "/history?channel=honest"));
                bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            }
            bytes
        },
    );
}

#[test]
fn pings() {
    endures(
        "h2-pings",
        "pings of HTTP/2: ENHANCE_YOUR_CALM",
        "control",
        b"",
        &|_| frame(PING, 0, 0, &[7; 8]).repeat(100),
    );
}

#[test]
fn settings() {
    endures(
        "h2-settings",
        "settings of HTTP/2: ENHANCE_YOUR_CALM",
        "control",
        b"",
        &|_| frame(SETTINGS, 0, 0, b"").repeat(100),
    );
}

#[test]
fn header_blocks_without_an_end() {
    let head = block(&[(":method", "GET"), (":scheme", "http")]);
    let more = block(&[("x-filling", &"x".repeat(100))]).repeat(100);
    endures(
        "h2-continuation",
        "header blocks of HTTP/2 without an end (CONTINUATION): ENHANCE_YOUR_CALM",
        "streams",
        &frame(HEADERS, END_STREAM, 1, &head),
        &|_| frame(CONTINUATION, 0, 1, &more),
    );
}

/// A few bytes that name the same long field again and again (HPACK): the list is long only when it is read.
#[test]
fn header_lists_that_grow_when_they_are_read() {
    let stand = Stand::new("h2-hpack", "connect = \"off\"", "");
    let mut first = block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/health"),
    ]);
    // Literal with incremental indexing (RFC 7541, section 6.2.1): 3,000 bytes for the table.
    first.extend([0x40, 1, b'x', 0x7f]);
    let len = 3_000_usize - 127;
    first.extend([(len % 128) as u8 | 0x80, (len / 128) as u8]);
    first.extend(vec![b'x'; 3_000]);
    // And that field some times more, a byte each: a little too long a list, and one of 12 MB.
    let mut long = first.clone();
    long.extend([0x80 | 62; 6]);
    first.extend([0x80 | 62; 4_000]);
    stand.endures(
        "a header list of HTTP/2 that is 7 KB on the wire and 12 MB when read: ENHANCE_YOUR_CALM, and 431 for one of 21 KB",
        0,
        |users| {
            let mut count = 0;
            while count < 10 || users.want_more() {
                let mut raw = Raw::open(&stand.server);
                raw.send(&frame(HEADERS, END_STREAM | 4, 1, &first));
                let answer = raw.find(|frame| frame.stream == 1 || frame.kind == 7);
                let answer = answer.expect("an answer");
                assert_eq!(answer.code(), Some(ENHANCE_YOUR_CALM), "{answer:?}");
                let mut raw = Raw::open(&stand.server);
                raw.send(&frame(HEADERS, END_STREAM | 4, 1, &long));
                let answer = raw.find(|frame| frame.stream == 1 || frame.kind == 7);
                let answer = answer.expect("an answer");
                assert_eq!(answer.kind, HEADERS, "{answer:?}");
                assert_eq!(status(&answer.payload), "431", "{answer:?}");
                count += 1;
            }
        },
    );
    stand.counts(r#"http2_floods_total{kind="streams"}"#, 10);
    let again = stand.http().ask("GET /health HTTP/1.1", b"");
    assert_eq!(again.status, 200);
}

/// The status at the beginning of an answer's header block (RFC 7541): by its index in the static table, or as a literal
/// that has the name's, with or without Huffman's code.
fn status(block: &[u8]) -> String {
    let [first, rest @ ..] = block else {
        panic!("an empty block");
    };
    if first & 0x80 != 0 {
        let known = ["200", "204", "206", "304", "400", "404", "500"];
        return known[usize::from(first & 0x7f) - 8].to_owned();
    }
    // A literal, whose name is `:status` (8 to 14).
    let name = first & if first & 0x40 != 0 { 0x3f } else { 0x0f };
    assert!((8..=14).contains(&name), "{block:?}");
    let (len, rest) = rest.split_first().expect("a value");
    let value = &rest[..usize::from(len & 0x7f)];
    if len & 0x80 == 0 {
        return String::from_utf8_lossy(value).into_owned();
    }
    // Digits have five bits (0 to 2) or six (RFC 7541, appendix B).
    let mut bits = value
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut digits = String::new();
    while digits.len() < 3 {
        let mut take =
            |count: u32| (0..count).fold(0, |code, _| code << 1 | bits.next().expect("a bit"));
        let code = take(5);
        let digit = if code < 3 {
            code
        } else {
            // 3 to 9 are 0x19 to 0x1f.
            (code << 1 | take(1)) - 0x19 + 3
        };
        digits.push(char::from(b'0' + digit));
    }
    digits
}

#[test]
fn the_status_of_an_answer_is_read() {
    for (block, expected) in [
        (&[0x88][..], "200"),
        (&[0x8d, 0x76], "404"),
        (&[0x48, 3, b'4', b'3', b'1'], "431"),
        // RFC 7541, appendix C.6.1: 302.
        (&[0x48, 0x82, 0x64, 0x02], "302"),
    ] {
        assert_eq!(status(block), expected);
    }
}
