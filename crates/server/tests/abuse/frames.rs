//! Frames of WebSockets that are made to be expensive.

use std::io::Write as _;
use std::net::TcpStream;

use crate::socket::{Said, Socket};
use crate::stand::Stand;

/// A WebSocket, as the test's own reader has it and as a raw stream.
fn open(stand: &Stand) -> (Socket, TcpStream) {
    let mut socket =
        Socket::open(&stand.server, "/connection/websocket", "").expect("it is let in");
    let raw = socket.stream();
    socket.send(r#"{"id":1,"connect":{}}"#);
    assert!(socket.text().contains("\"connect\""));
    (socket, raw)
}

/// A frame with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len();
    let mut frame = vec![first];
    if let Ok(len) = u8::try_from(len)
        && len < 126
    {
        frame.push(0x80 | len);
    } else {
        frame.push(0x80 | 126);
        frame.extend(u16::try_from(len).unwrap().to_be_bytes());
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Sends until the server has enough, and says with what Close.
fn flood(stand: &Stand, first: &[u8], more: &[u8], most: usize) -> u16 {
    let (mut socket, mut raw) = open(stand);
    let piece = more.repeat(1_000);
    let mut writing = raw.try_clone().unwrap();
    // Beside it, as the server need not take all.
    let first = first.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = writing.write_all(&first);
        for _ in 0..most.div_ceil(1_000) {
            if writing.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let code = loop {
        match socket.next() {
            Said::Close(code, _) => break code,
            Said::Text(text) => assert!(!text.contains("disconnect"), "{text}"),
        }
    };
    raw.flush().unwrap();
    let _ = raw.shutdown(std::net::Shutdown::Both);
    writer.join().unwrap();
    code
}

/// One after the other for as long as the users of good will want to be watched.
fn endures(name: &str, what: &str, code: u16, (first, more, most): (&[u8], &[u8], usize)) {
    let stand = Stand::new(name, "connect = \"off\"", "");
    let count = stand.endures(what, 0, |users| {
        let mut count = 0;
        while count < 4 || users.want_more() {
            assert_eq!(flood(&stand, first, more, most), code);
            count += 1;
        }
        count
    });
    stand.counts(
        &format!("websocket_failures_total{{code=\"{code}\"}}"),
        count,
    );
}

#[test]
fn messages_in_fragments_of_a_byte() {
    endures(
        "fragments",
        "messages in fragments of a byte: Close 1009 at 64 KiB",
        1009,
        (&frame(0x01, b"x"), &frame(0x00, b"x"), 70_000),
    );
}

#[test]
fn messages_in_fragments_of_nothing() {
    endures(
        "empty-fragments",
        "messages in empty fragments: Close 1008 at 131,072",
        1008,
        (&frame(0x01, b""), &frame(0x00, b""), 140_000),
    );
}

#[test]
fn pings_without_end() {
    endures(
        "pings",
        "pings as fast as they go: Close 1008 beyond 1,000 a second",
        1008,
        (&[], &frame(0x89, &[b'x'; 125]), 1_000_000),
    );
}

#[test]
fn pongs_without_end() {
    endures(
        "pongs",
        "pongs as fast as they go: Close 1008",
        1008,
        (&[], &frame(0x8a, b""), 1_000_000),
    );
}

#[test]
fn frames_that_announce_what_never_comes() {
    const ALL: usize = 500;
    let stand = Stand::new("announced", "connect = \"off\"", "");
    stand.endures(
        "500 frames of 64 KiB are announced, and one of 2^62 bytes: memory comes with bytes, Close 1009",
        0,
        |users| {
            let held: Vec<_> = (0..ALL)
                .map(|_| {
                    let (socket, mut raw) = open(&stand);
                    let mut head = vec![0x81, 0x80 | 127];
                    head.extend(65_536_u64.to_be_bytes());
                    head.extend([0; 4]);
                    raw.write_all(&head).unwrap();
                    raw.write_all(b"{").unwrap();
                    socket
                })
                .collect();
            loop {
                let mut head = vec![0x81, 0x80 | 127];
                head.extend((1_u64 << 62).to_be_bytes());
                assert_eq!(flood(&stand, &head, &[0; 4], 1), 1009);
                if !users.want_more() {
                    break;
                }
            }
            drop(held);
        },
    );
    stand.counts(r#"websocket_failures_total{code="1009"}"#, 1);
}

/// Nothing is ever inflated: WebSockets aren't compressed, and bodies are taken as they are.
#[test]
fn what_is_compressed_stays_so() {
    let stand = Stand::new("bombs", "connect = \"off\"", "");
    // Deflate's way to say "and so on" (RFC 1951): 64 KiB that would be 64 MiB.
    let bomb = [0xff; 60_000];
    let count = stand.endures("bombs of deflate: Close 1002, 415 or 400", 0, |users| {
        let mut count = 0;
        while count == 0 || users.want_more() {
            let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
            let agreed = Socket::open(&stand.server, "/connection/websocket", offer);
            drop(agreed.expect("it is let in without"));
            assert_eq!(flood(&stand, &[], &frame(0xc1, &bomb), 1), 1002);
            count += 1;
            let mut http = stand.http();
            let head = "POST /publish?channel=bombs HTTP/1.1\r\nContent-Encoding: gzip";
            let answer = http.ask(head, &bomb);
            assert!(matches!(answer.status, 400 | 415), "{}", answer.head);
        }
        count
    });
    stand.counts(r#"websocket_failures_total{code="1002"}"#, count);
}
