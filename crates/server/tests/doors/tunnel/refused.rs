//! Who gets nothing: where there is no tunnel, no place, no server behind, and whose page it isn't.

use std::io::Write as _;

use serde_json::json;
use tautline_websocket::conn::http2::{Http2Client, Http2Options};
use tautline_websocket::conn::{ConnectError, ConnectOptions};
use tautline_websocket::proto::Message;

use super::client::{Poll, ask, block_on, dial, frame};
use super::upstream::Upstream;
use crate::http::{get, post, send};
use crate::process::{Server, wait_until};

/// The status that a WebSocket is refused with; 101 for none.
fn websocket(server: &Server, path: &str, headers: &[(&str, &str)]) -> u16 {
    let options = ConnectOptions {
        headers: headers
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        ..ConnectOptions::default()
    };
    block_on(async {
        match dial(server, path, &options).await {
            Ok(_) => 101,
            Err(ConnectError::Refused(rejection)) => rejection.head.status(),
            Err(error) => panic!("{error}"),
        }
    })
}

fn poll(server: &Server, path: &str) -> u16 {
    ask(server, path, &json!({"open": 1}), b"").status
}

#[test]
fn where_there_is_no_tunnel_there_is_nothing() {
    let upstream = Upstream::start();
    let server = Server::serve("tunnel-none", &upstream.tunnel("to", ""));
    for path in ["/tunnel/other", "/tunnel/", "/tunnel", "/tunnel/to2/echo"] {
        assert_eq!(websocket(&server, path, &[]), 404, "{path}");
        assert_eq!(poll(&server, path), 404, "{path}");
    }
    for path in ["/tunnel/to/../x", "/tunnel/to/%2e%2e/x"] {
        assert_eq!(websocket(&server, path, &[]), 400, "{path}");
        assert_eq!(poll(&server, path), 400, "{path}");
    }
    let plain = get(&server, "/tunnel/to/echo");
    assert_eq!(
        (plain.status, plain.header("upgrade")),
        (426, Some("websocket"))
    );
    let other = send(&server, "PUT /tunnel/to HTTP/1.1", b"");
    assert_eq!(
        (other.status, other.header("allow")),
        (405, Some("GET, POST, OPTIONS"))
    );
    assert_eq!(upstream.opened(), 0);
    let dev = Server::dev();
    assert_eq!(websocket(&dev, "/tunnel/to", &[]), 404);
}

#[test]
fn pages_of_other_sites_get_nothing_before_anything_happens() {
    let upstream = Upstream::start();
    let server = Server::serve("tunnel-origin", &upstream.tunnel("to", ""));
    let evil = ("Origin", "https://evil.test");
    assert_eq!(websocket(&server, "/tunnel/to/echo", &[evil]), 403);
    for fields in ["Origin: https://evil.test", "Sec-Fetch-Site: cross-site"] {
        let head = format!("POST /tunnel/to/echo HTTP/1.1\r\n{fields}");
        assert_eq!(
            send(&server, &head, b"{\"open\":1}\n").status,
            403,
            "{fields}"
        );
    }
    // Over HTTP/2 it is the same.
    block_on(async {
        let url = format!("ws://{}/tunnel/to/echo", server.address);
        let options = ConnectOptions {
            headers: vec![("origin".to_owned(), "https://evil.test".to_owned())],
            ..ConnectOptions::default()
        };
        let client = Http2Client::connect(&url, &options, &Http2Options::default()).await;
        let opened = client.expect("HTTP/2").open(&url, &options).await;
        match opened.err() {
            Some(ConnectError::Refused(rejection)) => assert_eq!(rejection.head.status(), 403),
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(upstream.opened(), 0);
}

#[test]
fn what_the_server_behind_refuses_is_told_and_that_it_is_away() {
    let upstream = Upstream::start();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let away = closed.local_addr().expect("an address");
    // One that takes connections, and never says a word.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = mute.local_addr().expect("an address");
    drop(closed);
    let config = format!(
        "{}[[tunnels]]\nname = \"away\"\nupstream = \"ws://{away}\"\n\
         [[tunnels]]\nname = \"silent\"\nupstream = \"ws://{silent}\"\nconnect_timeout = \"200ms\"\n",
        upstream.tunnel("to", "")
    );
    let server = Server::serve("tunnel-away", &config);
    for (path, status) in [
        ("/tunnel/to/refuse", 403),
        ("/tunnel/to/fail", 502),
        ("/tunnel/away", 502),
        ("/tunnel/silent", 504),
    ] {
        assert_eq!(websocket(&server, path, &[]), status, "{path}");
        assert_eq!(poll(&server, path), status, "{path}");
    }
}

/// Two that say nothing, asked one after the other: the one with little time is given up, and the other may still answer.
#[test]
fn the_server_behind_has_the_time_of_the_options_to_answer() {
    let slow = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let tunnel = |name: &str, to: &std::net::TcpListener, time: &str| {
        let address = to.local_addr().expect("an address");
        format!(
            "[[tunnels]]\nname = \"{name}\"\nupstream = \"ws://{address}\"\nconnect_timeout = \"{time}\"\n"
        )
    };
    let config = tunnel("slow", &slow, "60s") + &tunnel("mute", &mute, "100ms");
    let server = Server::serve("tunnel-times", &config);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| poll(&server, "/tunnel/slow"));
        let (mut stream, _) = slow.accept().expect("it is asked");
        for _ in 0..2 {
            assert_eq!(poll(&server, "/tunnel/mute"), 504);
        }
        let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
        // Who has gone hears nothing.
        let _ = stream.write_all(answer);
        assert_eq!(first.join().expect("it is answered"), 403);
    });
}

#[test]
fn there_are_as_many_as_may_be_and_a_place_is_free_again() {
    let upstream = Upstream::start();
    let config = format!(
        "[doors]\npoll_timeout = \"1s\"\n[prometheus]\nenabled = true\n{}",
        upstream.tunnel("to", "max_connections = 1")
    );
    let server = Server::serve("tunnel-places", &config);
    let client = Poll::open(&server, "/tunnel/to/echo");
    assert_eq!(poll(&server, "/tunnel/to/echo"), 503);
    assert_eq!(websocket(&server, "/tunnel/to/echo", &[]), 503);
    // A session without a poll ends, and the server behind sees it as cut off.
    assert_eq!(upstream.end(), None);
    wait_until("the place is free", || {
        (websocket(&server, "/tunnel/to/echo", &[]) == 101).then_some(())
    });
    assert_eq!(
        ask(&server, "/tunnel/to/echo", &client.poll_head(0, false), b"").status,
        404
    );
    let metrics = get(&server, "/metrics").rest();
    for line in [
        "tautline_tunnel_connections_total{tunnel=\"to\",carrier=\"poll\"} 1\n",
        "tautline_tunnel_connections_total{tunnel=\"to\",carrier=\"websocket\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[test]
fn names_of_sessions_are_no_names_elsewhere() {
    let upstream = Upstream::start();
    let config = format!("[client]\ninsecure = true\n{}", upstream.tunnel("to", ""));
    let server = Server::serve("tunnel-names", &config);
    let client = Poll::open(&server, "/tunnel/to/echo");
    let there = client.poll_head(0, false);
    assert_eq!(ask(&server, "/connection/poll", &there, b"").status, 404);
    let opened = post(&server, "/connection/poll", "text/plain", b"{\"open\":1}").rest();
    let opened: serde_json::Value = serde_json::from_str(opened.trim()).expect("JSON");
    let head = json!({"session": opened["session"], "poll": 0, "hold": 0});
    assert_eq!(ask(&server, "/tunnel/to/echo", &head, b"").status, 404);
    // What is a tunnel's is not for sessions of the protocol.
    for head in [
        json!({"open": 1, "protocols": ["a"]}),
        json!({"session": opened["session"], "close": true, "code": 1000}),
    ] {
        assert_eq!(ask(&server, "/connection/poll", &head, b"").status, 400);
    }
}

#[test]
fn a_session_of_one_tunnel_is_none_of_another() {
    let upstream = Upstream::start();
    let config = upstream.tunnel("one", "") + &upstream.tunnel("other", "");
    let server = Server::serve("tunnel-others", &config);
    let mut client = Poll::open(&server, "/tunnel/one/echo");
    let message = Message::from("hello");
    for head in [
        client.poll_head(0, false),
        client.poll_head(0, true),
        json!({"session": client.session(), "send": 1}),
        json!({"session": client.session(), "close": true}),
    ] {
        let data = if head["send"].is_null() {
            Vec::new()
        } else {
            frame(&message)
        };
        let answer = ask(&server, "/tunnel/other/echo", &head, &data);
        assert_eq!(answer.status, 404, "{head}");
    }
    // It goes on where it began, and nothing has come of all that; the rest of the path doesn't count.
    assert_eq!(client.send(&frame(&message)), 204);
    client.path = "/tunnel/one".to_owned();
    assert_eq!(client.poll().0, [message]);
}

#[test]
fn a_reload_brings_tunnels_and_takes_them_away() {
    let upstream = Upstream::start();
    let mut server = Server::serve("tunnel-reload", "");
    assert_eq!(websocket(&server, "/tunnel/to/echo", &[]), 404);
    let metrics = "[prometheus]\nenabled = true\n";
    for (limit, opened) in [(7, 1), (8, 2)] {
        let tunnel = upstream.tunnel("to", &format!("max_connections = {limit}"));
        let said = server.reload(&format!("{metrics}{tunnel}"));
        assert!(said[0].contains("was reloaded"), "{said:?}");
        assert_eq!(websocket(&server, "/tunnel/to/echo", &[]), 101);
        // What was counted before counts on.
        let counted =
            format!("connections_total{{tunnel=\"to\",carrier=\"websocket\"}} {opened}\n");
        let page = get(&server, "/metrics").rest();
        assert!(page.contains(&counted), "{counted} in {page}");
    }
    let head = Poll::open(&server, "/tunnel/to/echo").poll_head(0, false);
    server.reload("");
    assert_eq!(websocket(&server, "/tunnel/to/echo", &[]), 404);
    assert_eq!(ask(&server, "/tunnel/to/echo", &head, b"").status, 404);
}

#[test]
fn a_server_behind_tls_is_believed_by_its_authority_alone() {
    let (upstream, certificate) = Upstream::start_secure();
    let port = upstream.address.port();
    let to = |name: &str, host: &str, pem: &str| {
        format!(
            "[[tunnels]]\nname = \"{name}\"\nupstream = \"wss://{host}:{port}\"\nserver_ca_pem = {pem:?}\n"
        )
    };
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
    let config = [
        to("its", "localhost", &certificate),
        to("name", "127.0.0.1", &certificate),
        to("other", "localhost", &other.cert.pem()),
    ];
    let server = Server::serve("tunnel-tls", &config.concat());
    assert_eq!(websocket(&server, "/tunnel/its/echo", &[]), 101);
    assert_eq!(poll(&server, "/tunnel/its/echo"), 200);
    for path in ["/tunnel/name/echo", "/tunnel/other/echo"] {
        assert_eq!(websocket(&server, path, &[]), 502, "{path}");
        assert_eq!(poll(&server, path), 502, "{path}");
    }
    assert_eq!(upstream.opened(), 2);
}
