//! Those who take everything and collect nothing: what they cost is bounded, and paid by nobody else.

use serde_json::json;

use crate::emulation::WORKERS;
use crate::http::{Response, Session, post, send};
use crate::process::{Server, wait_until};

/// Opens a session that is subscribed to `flood` and will not be read; what is returned keeps it open.
fn open(server: &Server, path: &str) -> Response {
    let commands = r#"{"id":1,"connect":{}}
{"id":2,"subscribe":{"channel":"flood"}}"#;
    let body = if path == POLL {
        format!("{{\"open\":1}}\n{commands}")
    } else {
        commands.to_owned()
    };
    post(server, path, "text/plain", body.as_bytes())
}

/// Begins a poll whose answer nobody reads.
fn begin_poll(server: &Server, opened: Response) -> std::net::TcpStream {
    use std::io::Write as _;
    let head = opened.rest();
    let head: serde_json::Value =
        serde_json::from_str(head.lines().next().expect("a head")).expect("JSON");
    let body = json!({"session": head["session"], "poll": head["next"], "hold": 55}).to_string();
    let mut stream = server.connect();
    let (address, len) = (server.address, body.len());
    write!(
        stream,
        "POST {POLL} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .expect("a request");
    stream
}

const POLL: &str = "/connection/poll";

/// How much memory the process has, in bytes.
#[cfg(target_os = "linux")]
fn resident(server: &Server) -> u64 {
    let path = format!("/proc/{}/status", server.process.id());
    let status = std::fs::read_to_string(path).expect("the process is there");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("its memory is told");
    let kib: u64 = line
        .trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number");
    kib * 1024
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_never_collected_is_bounded() {
    const EACH: usize = 25;
    // Kept for all, once.
    const PUBLISHED: u64 = 16 * 1024 * 1024;
    let server = Server::serve("flood-memory", WORKERS);
    let mut reader = Session::connect(&server);
    let reply = reader.call(r#"{"id":2,"subscribe":{"channel":"flood"}}"#);
    assert!(reply["subscribe"].is_object(), "{reply}");
    let before = resident(&server);
    let streams: Vec<_> = ["/connection/http_stream", "/connection/sse", POLL]
        .iter()
        .flat_map(|path| (0..EACH).map(|_| open(&server, path)))
        .collect();
    let polls: Vec<_> = (0..EACH)
        .map(|_| begin_poll(&server, open(&server, POLL)))
        .collect();
    let text = "x".repeat(16 * 1024);
    for number in 0..PUBLISHED / text.len() as u64 {
        let publish = json!({"channel": "flood", "data": {"n": number, "text": text}});
        server.api("publish", &publish.to_string());
        // Who reads has all of it, whatever the others do.
        loop {
            let message = reader.response.message();
            let data = &message["push"]["pub"]["data"];
            if !data.is_null() {
                assert_eq!(data["n"], number);
                break;
            }
        }
    }
    let grown = resident(&server).saturating_sub(before);
    // A quarter of the queue's limit and a message wait for each, and a page of the HTTP layer's.
    let each = (256 + 16 + 16 + 64 + 32) * 1024;
    let bound = 2 * PUBLISHED + 4 * EACH as u64 * each;
    assert!(
        grown < bound,
        "grown by {grown} bytes, expected less than {bound}"
    );
    drop((streams, polls));
}

#[test]
fn a_flood_of_sessions_ends_at_the_limit_and_passes() {
    let config = format!("{WORKERS}\n[doors]\npoll_timeout = \"2s\"\nmax_sessions = 300\n");
    let server = Server::serve("flood-sessions", &config);
    let mut reader = Session::connect(&server);
    let statuses: Vec<_> = (0..900)
        .map(|number| {
            // With commands and without, and some that are never to be heard of again.
            let data = if number % 2 == 0 {
                ""
            } else {
                "\n{\"id\":1,\"connect\":{}}"
            };
            let body = format!("{{\"open\":1}}{data}");
            post(&server, POLL, "text/plain", body.as_bytes()).status
        })
        .collect();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)));
    assert!(statuses.contains(&503));
    // Who was there before goes on as if nothing were.
    let reply = reader.call(r#"{"id":3,"presence":{"channel":"a"}}"#);
    assert_eq!(reply["id"], 3);
    wait_until("all others are gone", || {
        let info: serde_json::Value =
            serde_json::from_str(&server.api("info", "{}")).expect("JSON");
        (info["result"]["nodes"][0]["num_clients"] == 1).then_some(())
    });
    let answer = post(&server, POLL, "text/plain", b"{\"open\":1}");
    assert_eq!(answer.status, 200);
}

#[test]
fn half_a_request_opens_nothing() {
    use std::io::Write as _;
    let server = Server::serve("flood-halves", WORKERS);
    let mut halves = Vec::new();
    for path in [
        "/connection/http_stream",
        "/connection/sse",
        POLL,
        "/emulation",
        "/publish",
    ] {
        for _ in 0..20 {
            let mut half = server.connect();
            write!(
                half,
                "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 60000\r\n\r\n{{\"open\":1}}\n",
                server.address
            )
            .expect("half a request");
            halves.push(half);
        }
    }
    let info = server.api("info", "{}");
    assert!(info.contains("\"num_clients\":0"), "{info}");
    assert_eq!(send(&server, "GET /health HTTP/1.1", b"").status, 200);
}
