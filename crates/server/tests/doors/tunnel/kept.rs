//! A WebSocket that is opened behind other requests of its connection (RFC 9110, section 7.8), as proxies do that keep
//! theirs.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::json;
use tautline_websocket::proto::Message;

use super::client::{Poll, frame, read};
use super::upstream::Upstream;
use crate::http::Response;
use crate::process::{Server, Wait};

const UPGRADE: &str = "GET /tunnel/to/echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A text as a client says it, with a mask of zeros.
fn masked(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).expect("short");
    [&[0x81, 0x80 | len, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// Reads the opening's answer and an echo, and nothing else.
fn expect_echo(stream: &mut TcpStream, text: &str) {
    let wait = Wait::new(format!("the echo of {text}"));
    let len = u8::try_from(text.len()).expect("short");
    let echo = [&[0x81, len], text.as_bytes()].concat();
    let mut came = Vec::new();
    let head = loop {
        if let Some(end) = came.windows(4).position(|part| part == b"\r\n\r\n") {
            break end + 4;
        }
        assert!(wait.read(stream, &mut came), "no answer: {came:?}");
    };
    let text = String::from_utf8_lossy(&came[..head]).into_owned();
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    while came.len() < head + echo.len() {
        assert!(wait.read(stream, &mut came), "cut off: {came:?}");
    }
    assert_eq!(came[head..], echo);
}

#[test]
fn a_websocket_is_opened_behind_another_request() {
    let upstream = Upstream::start();
    let server = Server::serve("tunnel-kept", &upstream.tunnel("to", ""));
    let mut stream = server.connect();
    for _ in 0..2 {
        let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).expect("a request");
        let answer = Response::read(stream.try_clone().expect("a clone"));
        assert_eq!((answer.status, &*answer.rest()), (200, "{}"));
    }
    stream.write_all(UPGRADE.as_bytes()).expect("a request");
    stream.write_all(&masked("hello")).expect("a message");
    expect_echo(&mut stream, "hello");
    drop(stream);
    assert_eq!(upstream.end(), None, "it sees that the client is gone");
    assert_eq!(upstream.received(), [Message::from("hello")]);
}

/// What comes with the opening in one piece has been read by then.
#[test]
fn so_it_is_with_all_in_one_piece() {
    let upstream = Upstream::start();
    let server = Server::serve("tunnel-kept-piece", &upstream.tunnel("to", ""));
    let mut stream = server.connect();
    // With a body, behind which the next request begins.
    let first = b"POST /tunnel/to/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    let all = [
        first,
        UPGRADE.as_bytes(),
        &masked("hello"),
        &masked("again"),
    ]
    .concat();
    stream.write_all(&all).expect("requests");
    let refused = Response::read(stream.try_clone().expect("a clone"));
    assert_eq!(refused.status, 400);
    let opened = refused.into_next(stream.try_clone().expect("a clone"));
    assert_eq!(opened.status, 101, "{}", opened.head);
    assert_eq!(opened.raw(10), b"\x81\x05hello\x81\x05again"[..10]);
}

/// Such an answer is written outside of the HTTP library, to which the connection comes back behind it.
#[test]
fn and_so_it_is_behind_an_answer_that_was_waited_for() {
    let upstream = Upstream::start();
    let server = Server::serve("tunnel-kept-long", &upstream.tunnel("to", ""));
    for goes_on in [false, true] {
        let mut client = Poll::open(&server, "/tunnel/to/echo");
        let (mut stream, body) = (server.connect(), client.poll_head(25, goes_on).to_string());
        write!(
            stream,
            "POST /tunnel/to/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("a request");
        // Sent while the answer is waited for: it is read when that is over.
        stream.write_all(UPGRADE.as_bytes()).expect("a request");
        stream.write_all(&masked("behind")).expect("a message");
        assert_eq!(client.send(&frame(&Message::from("there"))), 204);
        if goes_on {
            let mut parts = Response::read(stream.try_clone().expect("a clone"));
            while parts.until(b"\x01\x05there").is_none() {}
            // Another poll ends it.
            let head = json!({"session": client.session(), "poll": 0, "hold": 0});
            let _ = read(super::client::ask(&server, &client.path, &head, b""));
            let rest = parts.into_behind();
            assert_eq!(rest.status, 101, "{}", rest.head);
            assert_eq!(rest.raw(8), b"\x81\x06behind");
        } else {
            let polled = Response::read(stream.try_clone().expect("a clone"));
            assert_eq!(polled.status, 200);
            let opened = polled.into_next(stream.try_clone().expect("a clone"));
            assert_eq!(opened.status, 101, "{}", opened.head);
            assert_eq!(opened.raw(8), b"\x81\x06behind");
        }
    }
}
