//! What waits in tunnels counts among what waits for all clients of the node, and is given up where that is too much.

use std::io::Write as _;

use super::client::{Poll, ask};
use super::upstream::Upstream;
use crate::process::{Server, wait_until};

/// `most` is what may wait for all clients.
fn serve(name: &str, upstream: &Upstream, most: usize) -> Server {
    let limits =
        format!("[limits.memory]\nmax_queued_bytes = {most}\n[prometheus]\nenabled = true\n");
    Server::serve(name, &(upstream.tunnel("to", "") + &limits))
}

fn number(server: &Server, name: &str) -> u64 {
    let page = server.get("/metrics");
    let name = format!("tautline_{name} ");
    let found = page.lines().find_map(|line| line.strip_prefix(&name));
    found.expect("it is counted").parse().expect("a number")
}

const LET_GO: &str = "limits_refused_total{limit=\"queues\",mode=\"enforced\"}";

#[test]
fn what_waits_in_a_tunnel_is_known() {
    let upstream = Upstream::start();
    let server = serve("tunnel-held", &upstream, 1 << 30);
    // Nobody polls, so it fills as far as it may.
    let client = Poll::open(&server, "/tunnel/to/flood");
    wait_until("it counts", || {
        (number(&server, "client_queues_memory_bytes") >= 256 * 1024).then_some(())
    });
    assert_eq!(number(&server, LET_GO), 0);
    assert_eq!(client.close(1000, ""), 204);
    wait_until("it doesn't any more", || {
        (number(&server, "client_queues_memory_bytes") == 0).then_some(())
    });
}

#[test]
fn a_tunnel_that_holds_too_much_is_cut_off() {
    let upstream = Upstream::start();
    let server = serve("tunnel-cut", &upstream, 48 * 1024);
    let polled = Poll::open(&server, "/tunnel/to/flood");
    wait_until("it is let go", || {
        (number(&server, LET_GO) >= 1).then_some(())
    });
    // The session is over, and the server behind has noticed.
    wait_until("it is unknown", || {
        let answer = ask(
            &server,
            "/tunnel/to/flood",
            &polled.poll_head(0, false),
            b"",
        );
        (answer.status == 404).then_some(())
    });
    wait_until("no tunnel is left", || {
        (number(&server, "tunnel_num_connections{tunnel=\"to\"}") == 0).then_some(())
    });
    // A WebSocket of which nobody takes anything.
    let before = number(&server, LET_GO);
    let mut stream = server.connect();
    let upgrade = "GET /tunnel/to/flood HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).expect("it listens");
    wait_until("it is cut off, too", || {
        (number(&server, LET_GO) > before).then_some(())
    });
    wait_until("none is left again", || {
        (number(&server, "tunnel_num_connections{tunnel=\"to\"}") == 0).then_some(())
    });
}
