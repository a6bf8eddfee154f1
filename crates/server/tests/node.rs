//! The whole server as a process, met by raw sockets: what no SDK would do, and what only shows
//! when workers, doors and signals come together.

#![cfg(unix)]

#[path = "support/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::TcpStream;

use process::{Server, wait_until};

/// A WebSocket client that does what it is told.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

#[derive(Debug, PartialEq)]
enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
}

impl Client {
    fn open(server: &Server) -> Self {
        Self::upgrade(server.connect(), "127.0.0.1", b"")
    }

    /// Upgrades a connection; `behind` follows the request in the same write.
    fn upgrade(mut stream: TcpStream, host: &str, behind: &[u8]) -> Self {
        let mut request = upgrade_request(host, "").into_bytes();
        request.extend_from_slice(behind);
        stream
            .write_all(&request)
            .expect("the server takes a request");
        let mut client = Self {
            stream,
            received: Vec::new(),
        };
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // RFC 6455, section 1.3: the answer to that key.
        assert!(
            head.to_ascii_lowercase()
                .contains("s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{head}"
        );
        client
    }

    fn connected(server: &Server) -> Self {
        let mut client = Self::open(server);
        client.send(r#"{"id":1,"connect":{}}"#);
        let reply = client.text();
        assert!(reply.contains(r#""connect":{"client":""#), "{reply}");
        client
    }

    fn subscribed(server: &Server, channel: &str) -> Self {
        let mut client = Self::connected(server);
        client.send(&format!(
            r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#
        ));
        let reply = client.text();
        assert!(reply.starts_with(r#"{"id":2,"subscribe":{"#), "{reply}");
        client
    }

    fn send(&mut self, text: &str) {
        self.stream
            .write_all(&masked(0x1, text.as_bytes()))
            .expect("the server takes a frame");
    }

    fn send_binary(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(&masked(0x2, bytes))
            .expect("the server takes a frame");
    }

    fn read_head(&mut self) -> String {
        loop {
            if let Some(end) = self
                .received
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                let head = self.received.drain(..end + 4).collect();
                return String::from_utf8(head).expect("a head is text");
            }
            self.read();
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        let count = self.stream.read(&mut buffer).expect("the server sends");
        assert!(
            count > 0,
            "the server closed the connection; before: {:?}",
            self.received
        );
        self.received.extend_from_slice(&buffer[..count]);
    }

    /// The next frame that is not a ping of the protocol.
    fn frame(&mut self) -> Frame {
        loop {
            let Some((opcode, payload)) = take_frame(&mut self.received) else {
                self.read();
                continue;
            };
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text is UTF-8");
            return match opcode {
                0x1 if payload == b"{}" => continue,
                0x1 => Frame::Text(text(&payload)),
                0x2 if payload == b"\0" => continue,
                0x2 => Frame::Binary(payload),
                0xA => Frame::Pong(payload),
                0x8 => Frame::Close(
                    u16::from_be_bytes([payload[0], payload[1]]),
                    text(&payload[2..]),
                ),
                other => panic!("a frame of type {other:#x}"),
            };
        }
    }

    fn text(&mut self) -> String {
        match self.frame() {
            Frame::Text(text) => text,
            other => panic!("expected a message, got {other:?}"),
        }
    }
}

fn upgrade_request(host: &str, more: &str) -> String {
    format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(length @ 0..126) => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
            if payload.len() <= 0xffff {
                frame.truncate(1);
                frame.push(0x80 | 126);
                frame.extend((payload.len() as u16).to_be_bytes());
            }
        }
    }
    frame.extend(mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// The first whole frame of what was received.
fn take_frame(received: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let &[first, second, ..] = &received[..] else {
        return None;
    };
    assert_eq!(
        (first & 0xf0, second & 0x80),
        (0x80, 0),
        "a whole frame without a mask"
    );
    let (head, length) = match second {
        126 => (
            4,
            usize::from(u16::from_be_bytes([*received.get(2)?, *received.get(3)?])),
        ),
        127 => (
            10,
            u64::from_be_bytes(received.get(2..10)?.try_into().ok()?) as usize,
        ),
        length => (2, usize::from(length)),
    };
    if received.len() < head + length {
        return None;
    }
    let frame: Vec<u8> = received.drain(..head + length).collect();
    Some((first & 0xf, frame[head..].to_vec()))
}

fn refusal(server: &Server, request: &str) -> String {
    let mut stream = server.connect();
    stream
        .write_all(request.as_bytes())
        .expect("the server takes a request");
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .expect("the server answers and closes");
    response
}

#[test]
fn an_upgrade_may_come_behind_other_requests() {
    let server = Server::dev();
    let mut stream = server.connect();
    write!(stream, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut buffer = [0; 1024];
    let count = stream.read(&mut buffer).unwrap();
    assert!(buffer[..count].starts_with(b"HTTP/1.1 200 "));
    let mut client = Client::upgrade(
        stream,
        "localhost",
        &masked(0x1, br#"{"id":1,"connect":{}}"#),
    );
    assert!(client.text().contains(r#""connect":{"#));
    client.send(r#"{"id":2,"rpc":{"method":"x"}}"#);
    assert!(client.text().contains(r#""code":108"#));
}

#[test]
fn frames_may_come_right_behind_the_upgrade() {
    let server = Server::dev();
    let mut behind = masked(0x1, br#"{"id":1,"connect":{}}"#);
    behind.extend(masked(0x9, b"are you there"));
    behind.extend(masked(0x1, br#"{"id":2,"subscribe":{"channel":"news"}}"#));
    let mut client = Client::upgrade(server.connect(), "127.0.0.1", &behind);
    assert!(client.text().starts_with(r#"{"id":1,"connect":"#));
    assert_eq!(client.frame(), Frame::Pong(b"are you there".to_vec()));
    assert!(client.text().starts_with(r#"{"id":2,"subscribe":"#));
}

/// RFC 6455, section 5.5.1: nothing may follow a Close. The publication comes back through the
/// mailbox when the Close in the same read has been answered.
#[test]
fn nothing_follows_a_close() {
    let server = Server::dev();
    let mut client = Client::subscribed(&server, "closing");
    let mut last_words = masked(0x1, br#"{"id":3,"publish":{"channel":"closing","data":1}}"#);
    last_words.extend(masked(0x8, &1000_u16.to_be_bytes()));
    client.stream.write_all(&last_words).unwrap();
    while client.frame() != Frame::Close(1000, String::new()) {}
    let mut rest = client.received;
    client.stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

/// Sixteen subscribers, which the kernel spreads over all workers; two publishers at once, each on
/// a worker of its own or not.
#[test]
fn every_worker_sees_a_channel_in_the_same_order() {
    let server = Server::dev();
    let mut subscribers: Vec<_> = (0..16)
        .map(|_| Client::subscribed(&server, "order"))
        .collect();
    // Until all have subscribed, the first ones also see who joins.
    std::thread::scope(|scope| {
        for publisher in 0..2 {
            let server = &server;
            scope.spawn(move || {
                for number in 0..200 {
                    server.api(
                        "publish",
                        &format!(r#"{{"channel":"order","data":[{publisher},{number}]}}"#),
                    );
                }
            });
        }
    });
    let mut orders = subscribers.iter_mut().map(|client| {
        let mut seen = Vec::new();
        while seen.len() < 400 {
            let push = client.text();
            if let Some((_, publication)) = push.split_once(r#""pub":"#) {
                assert!(
                    publication.contains(&format!(r#""offset":{}"#, seen.len() + 1)),
                    "{push}"
                );
                seen.push(push);
            }
        }
        seen
    });
    let first = orders.next().unwrap();
    assert!(orders.all(|order| order == first));
}

#[test]
fn info_counts_users_and_channels_once() {
    let server = Server::dev();
    let _clients: Vec<_> = (0..8)
        .map(|_| Client::subscribed(&server, "news"))
        .collect();
    let info = server.api("info", "{}");
    for count in [
        r#""num_clients":8"#,
        r#""num_users":1"#,
        r#""num_channels":1"#,
        r#""num_subs":8"#,
    ] {
        assert!(info.contains(count), "{count} in {info}");
    }
}

#[test]
fn a_reader_that_is_too_slow_hurts_itself_only() {
    let server = Server::serve(
        "slow",
        "[client]\nallow_anonymous_connect_without_token = true\nqueue_max_size = 65536\n\
         [http_api]\nkey = \"dev\"\n\
         [channel.without_namespace]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n",
    );
    let mut slow = Client::subscribed(&server, "flood");
    let mut fast = Client::subscribed(&server, "flood");
    let publish = format!(r#"{{"channel":"flood","data":"{}"}}"#, "x".repeat(64_000));
    // More than any socket buffer holds.
    for _ in 0..300 {
        server.api("publish", &publish);
        assert!(fast.text().len() > 64_000);
    }
    wait_until("the slow one is gone", || {
        server
            .api("info", "{}")
            .contains(r#""num_clients":1"#)
            .then_some(())
    });
    let mut rest = Vec::new();
    // Ends with the end of the stream or with a reset; either way it ends.
    let _ = slow.stream.read_to_end(&mut rest);
    assert!(rest.len() < 300 * 64_000);
    server.api("publish", &publish);
    assert!(fast.text().len() > 64_000);
}

#[test]
fn a_reader_that_is_too_slow_misses_nothing_where_there_is_history() {
    let server = Server::serve(
        "parked",
        "[client]\nallow_anonymous_connect_without_token = true\n\
         [http_api]\nkey = \"dev\"\n\
         [channel.without_namespace]\nallow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
         history_size = 1000\nhistory_ttl = \"1h\"\nforce_recovery = true\n",
    );
    let mut slow = Client::subscribed(&server, "flood");
    let mut fast = Client::subscribed(&server, "flood");
    let filling = "x".repeat(64_000);
    let numbered = |number: usize| format!(r#""{number} {filling}""#);
    // More than any socket buffer holds.
    for number in 0..300 {
        let publish = format!(r#"{{"channel":"flood","data":{}}}"#, numbered(number));
        server.api("publish", &publish);
        assert!(fast.text().contains(&numbered(number)));
    }
    assert!(server.api("info", "{}").contains(r#""num_clients":2"#));
    for number in 0..300 {
        assert!(slow.text().contains(&numbered(number)), "{number}");
    }
    server.api("publish", r#"{"channel":"flood","data":"live"}"#);
    assert!(slow.text().contains("live"));
}

#[test]
fn a_shutdown_is_told_and_ends_well() {
    let mut server = Server::dev();
    let mut client = Client::connected(&server);
    let idle = server.connect();
    server.signal("-TERM");
    assert_eq!(client.frame(), Frame::Close(3001, "shutdown".into()));
    client
        .stream
        .write_all(&masked(0x8, &3001_u16.to_be_bytes()))
        .unwrap();
    drop((client, idle));
    assert!(server.wait().success());
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::dev();
    // Says nothing and reads nothing: the server would wait for it.
    let mut client = Client::connected(&server);
    server.signal("-INT");
    assert_eq!(client.frame(), Frame::Close(3001, "shutdown".into()));
    server.signal("-INT");
    assert!(server.wait().success());
}

#[test]
fn pages_of_other_sites_are_refused() {
    let server = Server::dev();
    let own = format!("Origin: http://{}\r\n", server.address);
    let mut stream = server.connect();
    stream
        .write_all(upgrade_request(&server.address.to_string(), &own).as_bytes())
        .unwrap();
    let mut buffer = [0; 1024];
    let count = stream.read(&mut buffer).unwrap();
    assert!(buffer[..count].starts_with(b"HTTP/1.1 101 "));

    let response = refusal(
        &server,
        &upgrade_request("127.0.0.1", "Origin: https://evil.example\r\n"),
    );
    assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
    assert!(
        response.contains("https://evil.example") && response.contains("client.allowed_origins")
    );
    // DNS rebinding: the page's origin is that of the server, by name.
    let response = refusal(
        &server,
        &upgrade_request("evil.example", "Origin: http://evil.example\r\n"),
    );
    assert!(response.starts_with("HTTP/1.1 421 "), "{response}");
}

#[test]
fn what_is_no_request_to_open_a_websocket_is_told_so() {
    let server = Server::dev();
    let plain =
        "GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let no_version = upgrade_request("localhost", "").replace("Version: 13", "Version: 8");
    let no_key = upgrade_request("localhost", "").replace("dGhlIHNhbXBsZSBub25jZQ==", "short");
    let huge = upgrade_request("localhost", &format!("Cookie: {}\r\n", "c".repeat(20_000)));
    for (request, status) in [
        (plain, "426"),
        (&no_version, "426"),
        (&no_key, "400"),
        (&huge, "431"),
        ("NONSENSE\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            "400",
        ),
    ] {
        let response = refusal(&server, request);
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {response}"
        );
        assert!(
            response.split_once("\r\n\r\n").unwrap().1.len() > 10,
            "{response}"
        );
    }
}

#[test]
fn protobuf_is_spoken_to_whoever_asks_for_it() {
    let server = Server::dev();
    let with = |query: &str, protocols: &str| {
        let more = match protocols {
            "" => String::new(),
            protocols => format!("Sec-WebSocket-Protocol: {protocols}\r\n"),
        };
        let path = format!("GET /connection/websocket{query} ");
        upgrade_request("127.0.0.1", &more).replace("GET /connection/websocket ", &path)
    };
    for (request, agreed) in [
        (with("", "centrifuge-protobuf"), "centrifuge-protobuf"),
        (
            with("", "other, centrifuge-protobuf, centrifuge-json"),
            "centrifuge-protobuf",
        ),
        (with("?format=protobuf", ""), ""),
        (
            with("?a=b&cf_protocol=protobuf&cf_protocol_version=v2", ""),
            "",
        ),
        // What the query asks for counts; the other must not be agreed to then.
        (with("?cf_protocol=protobuf", "centrifuge-json"), ""),
        (
            with(
                "?cf_protocol=protobuf",
                "centrifuge-json, centrifuge-protobuf",
            ),
            "centrifuge-protobuf",
        ),
    ] {
        let mut client = open_with(&server, &request, agreed);
        // connect{}, and subscribe{channel:"news"} behind it in the same frame.
        client.send_binary(b"\x04\x08\x01\x22\x00\x0a\x08\x02\x2a\x06\x0a\x04news");
        let Frame::Binary(connected) = client.frame() else {
            panic!("not a binary frame: {request}");
        };
        // Its length, id 1, and a connect result.
        assert_eq!(usize::from(connected[0]), connected.len() - 1);
        assert_eq!(connected[1..4], *b"\x08\x01\x2a", "{connected:x?}");
        let Frame::Binary(subscribed) = client.frame() else {
            panic!("not a binary frame");
        };
        assert_eq!(subscribed[1..4], *b"\x08\x02\x32", "{subscribed:x?}");
        // Nobody looks at the kind of frame. rpc{}: "not available".
        client.send("\u{4}\u{8}\u{3}\u{6a}\u{0}");
        let answer = b"\x15\x08\x03\x12\x11\x08\x6c\x12\x0dnot available";
        loop {
            match client.frame() {
                // Its own coming is announced to it.
                Frame::Binary(push) if push[1] == 0x22 => {}
                frame => break assert_eq!(frame, Frame::Binary(answer.to_vec())),
            }
        }
        client.send_binary(b"\x02\x08");
        assert_eq!(client.frame(), Frame::Close(3501, "bad request".into()));
    }
    for request in [
        with("", "centrifuge-json"),
        with("?format=json", "centrifuge-json, centrifuge-protobuf"),
    ] {
        let mut client = open_with(&server, &request, "centrifuge-json");
        client.send_binary(br#"{"id":1,"connect":{}}"#);
        assert!(client.text().starts_with(r#"{"id":1,"connect":{"#));
    }
}

fn open_with(server: &Server, request: &str, agreed: &str) -> Client {
    let mut stream = server.connect();
    stream
        .write_all(request.as_bytes())
        .expect("the server takes a request");
    let mut client = Client {
        stream,
        received: Vec::new(),
    };
    let head = client.read_head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    let answered = head
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-protocol:"));
    assert_eq!(answered.map_or("", str::trim), agreed, "{request}");
    client
}

#[test]
fn tokens_are_verified_with_the_keys_of_an_identity_provider() {
    let cases: serde_json::Value =
        serde_json::from_str(include_str!("../../auth/tests/data/tokens.json")).unwrap();
    let cases = cases.as_array().unwrap();
    let token = |alg: &str| {
        let case = cases.iter().find(|case| case["alg"] == alg).unwrap();
        case["token"].as_str().unwrap().to_owned()
    };
    let keys: Vec<_> = cases.iter().map(|case| &case["jwk"]).collect();
    let set = serde_json::json!({ "keys": keys }).to_string();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let provider = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the server asks");
        let _ = stream.read(&mut [0; 4096]);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", set.len());
        let _ = stream.write_all((head + &set).as_bytes());
    });
    let config = format!("[client.token]\njwks_public_endpoint = \"http://{address}/keys\"\n");
    let server = Server::serve("keys", &config);
    provider.join().expect("it has answered");
    let connect = |token: &str| {
        let mut client = Client::open(&server);
        client.send(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
        client.frame()
    };
    for alg in ["ES256", "RS256", "PS384", "EdDSA"] {
        // Until the set has arrived, clients are told to come back.
        let reply = wait_until("the keys", || match connect(&token(alg)) {
            Frame::Text(text) if text.contains(r#""code":100"#) => {
                assert!(text.contains(r#""temporary":true"#), "{text}");
                None
            }
            frame => Some(frame),
        });
        let Frame::Text(text) = reply else {
            panic!("{alg}: {reply:?}");
        };
        assert!(text.contains(r#""connect":{"client":""#), "{text}");
    }
    let forged = token("ES256").replace(".eyJ", ".eyK");
    assert_eq!(connect(&forged), Frame::Close(3500, "invalid token".into()));
}
