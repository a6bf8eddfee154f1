//! Limits by address, seen from outside: who is refused, who isn't, and whom the server believes about addresses.

#![cfg(unix)]

#[path = "support/process.rs"]
mod process;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use self::process::{Server, wait_until};

const BASE: &str = "[client]\nallow_anonymous_connect_without_token = true\n[prometheus]\nenabled = true\n\
                    [http_api]\nkey = \"dev\"\n";

/// `server` is what stands in `[http_server]`, `limits` all that is behind it.
fn serve(name: &str, server: &str, limits: &str) -> Server {
    Server::serve(name, &format!("{server}\n{limits}\n{BASE}"))
}

/// Sends bytes, and reads the answer to its end.
fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect();
    finish(&mut stream, bytes)
}

fn finish(stream: &mut TcpStream, bytes: &[u8]) -> String {
    // The server may have answered and closed already.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A connection that goes on behind the answer to a first request.
fn begin(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).expect("a request");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n{}") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    stream
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Connection: close\r\n\r\n")
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

#[test]
fn connections_of_an_address_have_a_limit() {
    let limits = "[limits]\nexempt_loopback = false\n[limits.address]\nconnections = 3\n";
    let server = serve("limits-connections", "", limits);
    // Each is answered once, so that it is known to be there.
    let mut held: Vec<_> = (0..3).map(|_| begin(&server)).collect();
    let refused = exchange(&server, get("/health", "").as_bytes());
    assert_eq!(status(&refused), "429");
    assert!(refused.contains("\r\nRetry-After: 5\r\n"), "{refused}");
    assert!(refused.contains("limits.address.connections"), "{refused}");
    // Who was there before goes on.
    let answer = finish(&mut held[0], get("/health", "").as_bytes());
    assert_eq!(status(&answer), "200");
    held.clear();
    let page = wait_until("there is room again", || {
        let answer = exchange(&server, get("/metrics", "").as_bytes());
        (status(&answer) == "200").then_some(answer)
    });
    let counted = "tautline_limits_refused_total{limit=\"connections\",mode=\"enforced\"} ";
    let line = page.lines().find_map(|line| line.strip_prefix(counted));
    assert!(line.is_some_and(|count| count != "0"), "{page}");
}

#[test]
fn a_dry_run_counts_and_this_machine_is_exempt() {
    let dry =
        "[limits]\nexempt_loopback = false\n[limits.address]\nconnections = 1\ndry_run = true\n";
    let exempt = "[limits.address]\nconnections = 1\n";
    for (name, limits) in [("limits-dry-run", dry), ("limits-exempt", exempt)] {
        let server = serve(name, "", limits);
        let _held: Vec<_> = (0..5).map(|_| server.connect()).collect();
        for _ in 0..5 {
            let answer = exchange(&server, get("/health", "").as_bytes());
            assert_eq!(status(&answer), "200", "{name}");
        }
    }
}

#[test]
fn a_trusted_proxy_tells_whose_a_request_is_and_nobody_else_does() {
    let limits = "[limits]\nexempt_loopback = false\n[limits.address]\nrequests = \"1/h\"\n";
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]";
    let ask = |server: &Server, field: &str| {
        let answer = exchange(server, get("/history?channel=x", field).as_bytes());
        status(&answer) == "429"
    };
    let server = serve("limits-forwarded", trusted, limits);
    let field = "X-Forwarded-For: 203.0.113.1, 198.51.100.1\r\n";
    assert!(!ask(&server, field));
    assert!(ask(&server, field));
    // Another client; and one that only says so is still the same.
    assert!(!ask(&server, "X-Forwarded-For: 198.51.100.2\r\n"));
    assert!(ask(&server, "X-Forwarded-For: 192.0.2.9, 198.51.100.1\r\n"));
    // Whoever isn't trusted has the address of the connection, whatever is written there.
    let server = serve("limits-forged", "", limits);
    assert!(!ask(&server, field));
    assert!(ask(&server, "X-Forwarded-For: 198.51.100.2\r\n"));
    assert!(ask(&server, "Forwarded: for=198.51.100.3\r\n"));
}

#[test]
fn the_proxy_protocol_comes_first_where_it_is_spoken() {
    let trusted = "trusted_proxies = [\"127.0.0.0/8\"]\nproxy_protocol = true";
    let limits = "[limits]\nexempt_loopback = false\n[limits.address]\nconnect = \"1/h\"\n";
    let server = serve("limits-proxy-protocol", trusted, limits);
    let request = get("/health", "");
    let ask = |header: &[u8]| exchange(&server, &[header, request.as_bytes()].concat());
    let client = |last: u8| {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        header.extend([192, 0, 2, last, 10, 0, 0, 1, 0x12, 0x67, 1, 187]);
        header
    };
    assert_eq!(status(&ask(&client(1))), "200");
    assert_eq!(status(&ask(&client(1))), "429");
    assert_eq!(status(&ask(&client(2))), "200");
    // Version 1 says the same of the same client.
    assert_eq!(
        status(&ask(b"PROXY TCP4 192.0.2.1 10.0.0.1 80 80\r\n")),
        "429"
    );
    // The proxy's own look whether the server is there is no client's.
    for _ in 0..3 {
        assert_eq!(status(&ask(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")), "200");
        assert_eq!(status(&ask(b"PROXY UNKNOWN\r\n")), "200");
    }
    assert_eq!(ask(b""), "", "without it there is no answer");
}

#[test]
fn without_memory_nobody_new_is_let_in() {
    let memory = "[limits]\nexempt_loopback = false\n[limits.memory]\nmax_bytes = 1\ncheck_interval = \"10ms\"\n";
    let server = serve("limits-memory", "", memory);
    let answer = wait_until("it was measured", || {
        let answer = exchange(&server, get("/health", "").as_bytes());
        (status(&answer) == "503").then_some(answer)
    });
    assert!(answer.contains("\r\nRetry-After: 10\r\n"), "{answer}");
    let server = serve(
        "limits-memory-dry",
        "",
        &format!("{memory}dry_run = true\n"),
    );
    let answer = wait_until("it was measured", || {
        let answer = exchange(&server, get("/metrics", "").as_bytes());
        assert_eq!(status(&answer), "200");
        answer
            .contains("limit=\"memory\",mode=\"enforced\"} 0")
            .then_some(answer)
    });
    assert!(
        answer.contains("tautline_node_memory_ceiling_bytes"),
        "{answer}"
    );
}
