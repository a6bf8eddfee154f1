//! From a request to a connection: what is let in, and what others are told.

use std::io::{Read, Write};

use crate::client::{Client, Frame, masked, upgrade_request};
use crate::process::Server;

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
        response.contains("https://evil.example") && response.contains("--allow-origin"),
        "{response}"
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
