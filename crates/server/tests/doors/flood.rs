//! Requests that never come whole. What floods cost, `tests/abuse` has.

use crate::emulation::WORKERS;
use crate::http::send;
use crate::process::Server;

const POLL: &str = "/connection/poll";

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
