//! Which of the protocol's encodings is spoken.

use std::io::Write;

use crate::client::{Client, Frame, upgrade_request};
use crate::process::Server;

#[test]
fn a_method_may_be_there_to_measure_by() {
    let config = "[client]\nallow_anonymous_connect_without_token = true\n\
                  [rpc.ping]\nenabled = true\nmethod = \"now\"\n";
    let server = Server::serve("rpc-ping", config);
    let mut client = Client::connected(&server);
    client.send(r#"{"id":2,"rpc":{"method":"now","data":1}}"#);
    assert_eq!(client.text(), r#"{"id":2,"rpc":{}}"#);
    client.send(r#"{"id":3,"rpc":{"method":"ping"}}"#);
    let reply = client.text();
    assert!(reply.contains(r#""code":104"#), "there are calls: {reply}");
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

#[test]
fn pings_may_be_control_frames() {
    let config = "[client]\nallow_anonymous_connect_without_token = true\n\
                  ping_interval = \"2s\"\npong_timeout = \"1900ms\"\n";
    let server = Server::serve("frame-pings", config);
    let parameter = "GET /connection/websocket?cf_ws_frame_ping_pong=true";
    let request = upgrade_request("127.0.0.1", "").replace("GET /connection/websocket", parameter);
    let mut client = open_with(&server, &request, "");
    client.send(r#"{"id":1,"connect":{}}"#);
    let connected = client.text();
    assert!(connected.contains(r#""client":""#), "{connected}");
    assert!(
        !connected.contains(r#""p"#),
        "no ping, no pong: {connected}"
    );
    let request = request.replace("=true", "=true&cf_protocol=protobuf");
    let mut other = open_with(&server, &request, "");
    other.send_binary(b"\x04\x08\x01\x22\x00");
    let Frame::Binary(connected) = other.frame() else {
        panic!("not a binary frame");
    };
    // Its length, id 1, and a connect result which has a client and a version, and nothing else.
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(connected.len(), 5 + 2 + 36 + 2 + version.len());
    for client in [&mut client, &mut other] {
        let Frame::Ping(payload) = client.frame() else {
            panic!("not a ping");
        };
        client.send_pong(&payload);
    }
    // Who has answered is asked again; who doesn't answer is given up.
    for client in [&mut client, &mut other] {
        assert_eq!(client.frame(), Frame::Ping(Vec::new()));
        assert_eq!(client.frame(), Frame::Close(3012, "no pong".into()));
    }
    // Whoever says something else has the protocol's own.
    let request = request.replace("=true", "=false");
    let mut usual = open_with(&server, &request, "");
    usual.send_binary(b"\x04\x08\x01\x22\x00");
    let Frame::Binary(connected) = usual.frame() else {
        panic!("not a binary frame");
    };
    assert!(connected.ends_with(b"\x38\x02\x40\x01"), "{connected:x?}");
}

fn open_with(server: &Server, request: &str, agreed: &str) -> Client {
    let mut stream = server.connect();
    stream
        .write_all(request.as_bytes())
        .expect("the server takes a request");
    let mut client = Client::over(stream);
    let head = client.read_head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    let answered = head
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-protocol:"));
    assert_eq!(answered.map_or("", str::trim), agreed, "{request}");
    client
}
