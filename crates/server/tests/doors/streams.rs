//! HTTP streaming and server-sent events, as the SDKs expect them.

use serde_json::json;

use crate::http::{Session, get, post, send};
use crate::process::Server;
use crate::protobuf;

#[test]
fn http_streaming_carries_a_session() {
    let mut server = Server::dev();
    let mut session = Session::connect(&server);
    for (name, value) in [
        ("content-type", "application/x-ndjson"),
        ("x-accel-buffering", "no"),
        (
            "cache-control",
            "private, no-cache, no-store, must-revalidate, max-age=0",
        ),
        ("pragma", "no-cache"),
        ("expire", "0"),
        ("connection", "keep-alive"),
    ] {
        assert_eq!(session.response.header(name), Some(value), "{name}");
    }
    let reply = session.call(r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    assert_eq!(reply["id"], 2, "{reply}");
    assert!(reply["subscribe"].is_object(), "{reply}");
    server.api("publish", r#"{"channel":"news","data":{"text":"ü\u2028"}}"#);
    // Two commands in one request, as one that is busy sends them.
    let commands = "{\"id\":3,\"publish\":{\"channel\":\"news\",\"data\":1}}\n{\"id\":4,\"presence\":{\"channel\":\"news\"}}";
    assert_eq!(session.send(commands), 204);
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(session.response.message());
    }
    // Its own coming first, then what others and it itself did.
    assert!(seen[0]["push"]["join"].is_object(), "{seen:?}");
    assert_eq!(seen[1]["push"]["pub"]["data"], json!({"text": "ü\u{2028}"}));
    let others: Vec<_> = seen[2..].iter().map(ToString::to_string).collect();
    for part in [r#""data":1"#, r#""id":3"#, r#""id":4"#] {
        assert!(
            others.iter().any(|m| m.contains(part)),
            "{part}: {others:?}"
        );
    }

    server.signal("-TERM");
    let last = session.response.message();
    let shutdown = json!({"push": {"disconnect": {"code": 3001, "reason": "shutdown"}}});
    assert_eq!(last, shutdown);
    assert_eq!(session.response.line(), None, "nothing follows");
    assert!(session.response.ends());
    assert!(server.wait().success());
}

#[test]
fn http_streaming_carries_protobuf() {
    let server = Server::dev();
    let connect = b"\x04\x08\x01\x22\x00";
    let kind = "application/octet-stream";
    let mut response = post(&server, "/connection/http_stream", kind, connect);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some(kind));
    let reply = response.chunk().expect("a reply");
    assert_eq!(usize::from(reply[0]) + 2, reply.len(), "{reply:?}");
    let connected = &protobuf::take_replies(&mut { reply })[0]["connect"];
    let [session, node] = ["session", "node"].map(|name| connected[name].as_str().expect("a name"));

    // Reply 2: a subscription with nothing to say would be `04 08 02 32 00`.
    let subscribe = b"\x0a\x08\x02\x2a\x06\x0a\x04news";
    let envelope = protobuf::emulation(session, node, subscribe);
    let answer = post(&server, "/emulation", kind, &envelope);
    assert_eq!(answer.status, 204);
    let reply = response.chunk().expect("a reply");
    assert_eq!(reply[1..3], [0x08, 0x02], "{reply:?}");
    assert_eq!(reply[3], 0x32, "{reply:?}");
    // What isn't Protobuf at all, and what belongs to another encoding.
    assert_eq!(post(&server, "/emulation", kind, b"{").status, 400);
    let answer = crate::http::emulate(&server, session, "", "{}");
    assert_eq!(answer.status, 404, "a session of Protobuf takes no JSON");
}

#[test]
fn server_sent_events_carry_a_session() {
    let mut server = Server::dev();
    let connect = "%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D";
    let mut response = get(&server, &format!("/connection/sse?cf_connect={connect}"));
    assert_eq!(response.status, 200);
    assert_eq!(
        response.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    assert_eq!(response.until(b"\r\n").as_deref(), Some(&b"\r\n"[..]));
    let reply = response.data();
    let session = reply["connect"]["session"].as_str().expect("a session");
    let node = reply["connect"]["node"].as_str().expect("a node");
    let subscribe = r#"{"id":2,"subscribe":{"channel":"sse"}}"#;
    let answer = crate::http::emulate(&server, session, node, subscribe);
    assert_eq!(answer.status, 204);
    assert_eq!(response.data()["id"], 2);
    assert!(response.data()["push"]["join"].is_object());
    // A carriage return would end a line of the event.
    server.api("publish", "{\"channel\":\"sse\",\"data\":{\"a\":\r1}}");
    assert_eq!(response.data()["push"]["pub"]["data"], json!({"a": 1}));
    server.signal("-TERM");
    assert_eq!(response.data()["push"]["disconnect"]["code"], 3001);
    assert_eq!(response.event(), None);
    assert!(server.wait().success());

    let server = Server::dev();
    let body = br#"{"id":1,"connect":{}}"#;
    let mut response = post(&server, "/connection/sse", "application/json", body);
    response.until(b"\r\n");
    assert!(response.data()["connect"]["session"].is_string());
}

#[test]
fn requests_that_open_nothing_are_told_why() {
    let server = Server::dev();
    for (head, body, status, part) in [
        ("GET /connection/http_stream HTTP/1.1", "", 405, "POST"),
        ("PUT /connection/sse HTTP/1.1", "", 405, "GET, POST"),
        ("GET /connection/sse HTTP/1.1", "", 400, "cf_connect"),
        (
            "GET /connection/sse?cf_connect=%ff HTTP/1.1",
            "",
            400,
            "UTF-8",
        ),
        (
            "POST /connection/http_stream HTTP/1.1\r\nX: y",
            &"x".repeat(65_537),
            413,
            "65536",
        ),
    ] {
        let response = send(&server, head, body.as_bytes());
        assert_eq!(response.status, status, "{head}");
        let text = response.rest();
        assert!(text.contains(part), "{head}: {text}");
    }
    // Commands that can't be read are answered as on any other transport.
    for body in ["", "nonsense", "{}\n\n{}"] {
        let kind = "application/json";
        let mut response = post(&server, "/connection/http_stream", kind, body.as_bytes());
        assert_eq!(response.status, 200);
        let disconnect = &response.message()["push"]["disconnect"];
        assert_eq!(disconnect["code"], 3501, "{body}");
        assert_eq!(response.line(), None);
    }
}

#[test]
fn a_connection_that_carried_other_requests_carries_a_stream() {
    use std::io::Write as _;
    let server = Server::dev();
    let mut stream = server.connect();
    let address = server.address;
    let body = r#"{"id":1,"connect":{}}"#;
    write!(
        stream,
        "GET /health HTTP/1.1\r\nHost: {address}\r\n\r\n\
         POST /connection/http_stream HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("requests");
    let first = crate::http::Response::read(stream.try_clone().expect("a clone"));
    assert_eq!(first.status, 200);
    // Both answers may have come in one piece; what is left belongs to the second.
    let mut second = first.into_next(stream);
    assert!(second.message()["connect"]["session"].is_string());
}

#[test]
fn an_old_client_gets_a_stream_too() {
    use std::io::{Read as _, Write as _};
    let server = Server::dev();
    let mut stream = server.connect();
    let body = r#"{"id":1,"connect":{}}"#;
    write!(
        stream,
        "POST /connection/http_stream HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
        server.address,
        body.len()
    )
    .expect("a request");
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("\"session\"") {
        let count = stream.read(&mut buffer).expect("an answer");
        assert!(count > 0, "{text}");
        text.push_str(std::str::from_utf8(&buffer[..count]).expect("text"));
    }
    assert!(text.starts_with("HTTP/1.0 200"), "{text}");
    assert!(!text.to_ascii_lowercase().contains("chunked"), "{text}");
}
