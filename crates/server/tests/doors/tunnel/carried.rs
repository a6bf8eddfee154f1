//! What is carried: messages as they are, the end, and no more of either than there is room for.

use serde_json::json;
use tautline_websocket::conn::http2::{Http2Client, Http2Options};
use tautline_websocket::conn::{ConnectOptions, WebSocket};
use tautline_websocket::proto::{CloseCode, Message};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::{Poll, block_on, dial, frame};
use super::upstream::{FLOOD, Upstream, flood_message};
use crate::process::{Server, wait_until};

fn serve(name: &str, upstream: &Upstream) -> Server {
    Server::serve(name, &upstream.tunnel("to", ""))
}

fn samples() -> Vec<Message> {
    vec![
        Message::from("häh? 🦀"),
        Message::from(vec![0, 255, 10]),
        Message::from(""),
        Message::from(vec![]),
        Message::from("x".repeat(200_000)),
        Message::from("\n\n{\"open\":1}\n"),
    ]
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(websocket: &mut WebSocket<S>) {
    for message in samples() {
        websocket.queue_owned(message).expect("it is open");
    }
    for message in samples() {
        let echoed = websocket.recv().await.expect("an echo");
        assert_eq!(echoed, Some(message));
    }
    let _ = websocket.close(CloseCode::from(4001), "enough").await;
}

#[test]
fn a_websocket_carries_messages_as_they_are_and_the_close() {
    let upstream = Upstream::start();
    let server = serve("tunnel-ws", &upstream);
    block_on(async {
        let options = ConnectOptions {
            subprotocols: vec!["other".into(), "mqtt".into()],
            ..ConnectOptions::default()
        };
        let connected = dial(&server, "/tunnel/to/echo", &options).await;
        let mut connected = connected.expect("it opens");
        assert_eq!(connected.subprotocol.as_deref(), Some("mqtt"));
        echo(&mut connected.websocket).await;
    });
    assert_eq!(upstream.end(), Some((4001, "enough".into())));
    assert_eq!(upstream.received(), samples());
}

#[test]
fn so_does_one_of_many_in_a_connection_of_http2() {
    let upstream = Upstream::start();
    let server = serve("tunnel-h2", &upstream);
    let url = format!("ws://{}/tunnel/to/echo", server.address);
    block_on(async {
        let client =
            Http2Client::connect(&url, &ConnectOptions::default(), &Http2Options::default()).await;
        let client = client.expect("HTTP/2");
        for _ in 0..2 {
            let opened = client.open(&url, &ConnectOptions::default()).await;
            echo(&mut opened.expect("it opens").websocket).await;
        }
        let gone = format!("ws://{}/tunnel/to/refuse", server.address);
        let refused = client.open(&gone, &ConnectOptions::default()).await;
        assert!(refused.is_err());
    });
    assert_eq!(upstream.opened(), 2);
}

#[test]
fn and_so_do_polls_in_pieces_that_end_anywhere() {
    let upstream = Upstream::start();
    let server = serve("tunnel-poll", &upstream);
    let head = json!({"open": 1, "protocols": ["other", "mqtt"]});
    let mut client = Poll::open_with(&server, "/tunnel/to/echo", &head);
    assert_eq!(client.opened["protocol"], "mqtt");
    let whole: Vec<u8> = samples().iter().flat_map(frame).collect();
    for piece in whole.chunks(60_000) {
        assert_eq!(client.send(piece), 204);
    }
    let mut echoed = Vec::new();
    while echoed.len() < samples().len() {
        echoed.extend(client.poll().0);
    }
    assert_eq!(echoed, samples());
    assert_eq!(client.close(4001, "enough"), 204);
    assert_eq!(upstream.end(), Some((4001, "enough".into())));
    assert_eq!(client.send(b"\x01\x00"), 404);
}

#[test]
fn the_close_of_the_server_behind_comes_behind_what_it_has_said() {
    let upstream = Upstream::start();
    let server = serve("tunnel-close", &upstream);
    let mut client = Poll::open(&server, "/tunnel/to/close");
    assert_eq!(client.send(&frame(&Message::from("go"))), 204);
    let (mut messages, mut end) = (Vec::new(), None);
    while end.is_none() {
        let (more, ended) = client.poll();
        messages.extend(more);
        end = ended;
    }
    assert_eq!(messages, [Message::from("first"), Message::from("last")]);
    assert_eq!(end, Some((4007, "enough".into())));
    block_on(async {
        let connected = dial(&server, "/tunnel/to/close", &ConnectOptions::default()).await;
        let mut websocket = connected.expect("it opens").websocket;
        websocket.send("go").await.expect("it is open");
        for expected in ["first", "last"] {
            let message = websocket.recv().await.expect("a message");
            assert_eq!(message, Some(Message::from(expected)));
        }
        assert_eq!(websocket.recv().await.expect("a Close"), None);
        let closed = websocket.closed().expect("a code");
        assert_eq!((closed.code.get(), &*closed.reason), (4007, "enough"));
    });
}

#[test]
fn one_that_goes_without_a_word_is_told_as_a_gateway_does() {
    let upstream = Upstream::start();
    let server = serve("tunnel-drop", &upstream);
    let mut client = Poll::open(&server, "/tunnel/to/drop");
    assert_eq!(client.send(&frame(&Message::from("go"))), 204);
    let end = loop {
        if let (_, Some(end)) = client.poll() {
            break end;
        }
    };
    assert_eq!(end.0, 1014);
    block_on(async {
        let connected = dial(&server, "/tunnel/to/drop", &ConnectOptions::default()).await;
        let mut websocket = connected.expect("it opens").websocket;
        websocket.send("go").await.expect("it is open");
        assert_eq!(websocket.recv().await.expect("a Close"), None);
        let closed = websocket.closed().expect("a code");
        assert_eq!(closed.code, CloseCode::BAD_GATEWAY);
    });
}

#[test]
fn what_is_no_message_ends_the_session_with_the_code_for_it() {
    let upstream = Upstream::start();
    let server = Server::serve(
        "tunnel-broken",
        &upstream.tunnel("to", "message_size_limit = 2000"),
    );
    for (piece, code) in [
        (&b"{}"[..], 1002),
        (b"\x02\xff\xff\x7f", 1009),
        (b"\x01\x01\xff", 1007),
    ] {
        let mut client = Poll::open(&server, "/tunnel/to/echo");
        assert_eq!(client.send(piece), 204);
        let end = client.poll().1.expect("an end");
        assert_eq!(end.0, code, "{}", end.1);
    }
    block_on(async {
        let connected = dial(&server, "/tunnel/to/echo", &ConnectOptions::default()).await;
        let mut websocket = connected.expect("it opens").websocket;
        websocket
            .send(&*"x".repeat(2001))
            .await
            .expect("it is open");
        let _ = websocket.recv().await;
        let closed = websocket.closed().expect("a code");
        assert_eq!(closed.code, CloseCode::MESSAGE_TOO_BIG);
    });
}

#[test]
fn a_client_that_collects_nothing_has_the_server_behind_wait_and_loses_nothing() {
    let upstream = Upstream::start();
    let server = serve("tunnel-flood", &upstream);
    let mut client = Poll::open(&server, "/tunnel/to/flood");
    let mut number = 0;
    while number < FLOOD {
        for message in client.poll().0 {
            assert_eq!(message, Message::from(flood_message(number)));
            number += 1;
        }
        // What is on its way is what sockets and queues hold, and no more.
        let ahead = upstream.written().saturating_sub(number);
        assert!(
            ahead < FLOOD / 2,
            "{ahead} of {FLOOD} went where nobody takes them"
        );
    }
}

#[test]
fn a_server_behind_that_reads_nothing_has_the_client_wait_and_gets_all_of_it() {
    let upstream = Upstream::start();
    let server = serve("tunnel-gate", &upstream);
    let mut client = Poll::open(&server, "/tunnel/to/gate");
    let piece = |number: u32| {
        let mut payload = vec![0; 50_000];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        frame(&Message::from(payload))
    };
    let mut number = 0;
    loop {
        match client.send(&piece(number)) {
            204 => number += 1,
            202 => break,
            other => panic!("status {other}"),
        }
        assert!(number < 2000, "100 MB went where nobody reads");
    }
    upstream.open_gate();
    // The same again, whether or not it was taken meanwhile.
    assert_eq!(client.send(&piece(number)), 204);
    let expected = number as usize + 1;
    wait_until("all have come", || {
        (upstream.received().len() == expected).then_some(())
    });
    for (number, message) in upstream.received().into_iter().enumerate() {
        let bytes = message.into_bytes();
        assert_eq!(
            bytes[..4],
            u32::try_from(number).expect("few").to_be_bytes()
        );
    }
}

#[test]
fn what_the_server_behind_is_told_of_the_client() {
    let upstream = Upstream::start();
    let more = "http_headers = [\"Cookie\", \"x-a\"]\nstatic_headers = {\"X-Key\" = \"k\"}\n";
    let config = format!(
        "[client]\nallowed_origins = [\"https://own.test\", \"*\"]\n{}",
        upstream.tunnel("to", more)
    );
    let server = Server::serve("tunnel-headers", &config);
    let fields = |origin: &str| {
        vec![
            ("Cookie".to_owned(), "a=1".to_owned()),
            ("X-A".to_owned(), "2".to_owned()),
            ("X-B".to_owned(), "3".to_owned()),
            ("Origin".to_owned(), origin.to_owned()),
        ]
    };
    let check = |told: &str, has_cookie: bool| {
        assert!(told.starts_with("/request?x=1&y\n"), "{told}");
        for line in ["x-a: 2", "x-key: k", "x-forwarded-for: 127.0.0.1"] {
            assert!(told.lines().any(|told| told == line), "{line} in {told}");
        }
        assert_eq!(told.contains("cookie: a=1"), has_cookie, "{told}");
        assert!(!told.contains("x-b") && !told.contains("origin"), "{told}");
    };
    for (origin, has_cookie) in [("https://own.test", true), ("https://other.test", false)] {
        block_on(async {
            let options = ConnectOptions {
                headers: fields(origin),
                ..ConnectOptions::default()
            };
            let connected = dial(&server, "/tunnel/to/request?x=1&y", &options).await;
            let mut websocket = connected.expect("it opens").websocket;
            match websocket.recv().await.expect("a message") {
                Some(Message::Text(told)) => check(&told, has_cookie),
                other => panic!("{other:?}"),
            }
        });
        let fields: String = fields(origin)
            .iter()
            .map(|(name, value)| format!("\r\n{name}: {value}"))
            .collect();
        let path = "/tunnel/to/request?x=1&y";
        let head = format!("POST {path} HTTP/1.1{fields}");
        let opened = crate::http::send(&server, &head, b"{\"open\":1}\n");
        let (opened, _) = super::client::read(opened);
        let mut client = Poll {
            server: &server,
            path: path.to_owned(),
            next: 0,
            sent: 0,
            opened,
        };
        match &client.poll().0[..] {
            [Message::Text(told)] => check(told, has_cookie),
            other => panic!("{other:?}"),
        }
    }
}

/// Sends a poll whose answer is read later.
fn post_later(server: &Server, path: &str, head: &serde_json::Value) -> std::net::TcpStream {
    use std::io::Write as _;
    let (mut stream, body, address) = (server.connect(), head.to_string(), server.address);
    let len = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .expect("a request");
    stream
}

#[test]
fn a_node_that_ends_tells_both_ends() {
    let upstream = Upstream::start();
    let mut server = serve("tunnel-drain", &upstream);
    let waits = {
        let client = Poll::open(&server, "/tunnel/to/echo");
        let head = client.poll_head(55, false);
        post_later(&server, &client.path, &head)
    };
    block_on(async {
        let connected = dial(&server, "/tunnel/to/echo", &ConnectOptions::default()).await;
        let mut websocket = connected.expect("it opens").websocket;
        websocket.send("hello").await.expect("it is open");
        assert!(websocket.recv().await.expect("an echo").is_some());
        server.signal("-TERM");
        assert_eq!(websocket.recv().await.expect("a Close"), None);
        assert_eq!(
            websocket.closed().map(|closed| closed.code),
            Some(CloseCode::GOING_AWAY)
        );
    });
    // Also who polls.
    let (head, _) = super::client::read(crate::http::Response::read(waits));
    assert_eq!(head["end"]["code"], 1001);
    let end = upstream.end().expect("a code");
    assert_eq!(end.0, 1001);
    assert!(server.wait().success());
}

#[test]
fn a_tunnel_can_be_spoken_to_by_hand() {
    let upstream = Upstream::start();
    let to = format!("upstream = \"ws://{}/echo\"\n", upstream.address);
    let server = Server::serve(
        "tunnel-docs",
        &format!("[[tunnels]]\nname = \"echo\"\n{to}"),
    );
    let blocks = crate::docs::blocks("tunnel.md");
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    crate::docs::run_with(server, &blocks[0], &["{\"next\":1}", "hello"]);
}
