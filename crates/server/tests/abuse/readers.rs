//! Those who take everything, and read nothing.

use std::io::Write as _;

use serde_json::json;

use crate::raw::{Raw, SETTINGS, frame, get};
use crate::socket::Socket;
use crate::stand::Stand;
use crate::wire::Http;

/// Opens sockets that are subscribed and won't be read.
fn deaf(stand: &Stand, channel: &str, count: usize) -> Vec<Socket> {
    let open = || {
        let mut socket =
            Socket::open(&stand.server, "/connection/websocket", "").expect("it is let in");
        let subscribe = json!({"id": 2, "subscribe": {"channel": channel}});
        socket.send(&format!("{{\"id\":1,\"connect\":{{}}}}\n{subscribe}"));
        while !socket.text().contains("\"subscribe\"") {}
        socket
    };
    (0..count).map(|_| open()).collect()
}

/// Publishes more than all buffers on the way hold, until the server has counted so many.
fn publish_until(stand: &Stand, channel: &str, counted: &str, count: usize) {
    let text = "x".repeat(16 * 1024);
    for number in 0..8_000 {
        let body = json!({"channel": channel, "data": {"n": number, "text": text}});
        let answer = stand.api("publish", &body);
        assert_eq!(answer["error"], serde_json::Value::Null, "{answer}");
        if number % 50 == 49 && stand.number(counted) >= count as u64 {
            return;
        }
    }
    panic!("{counted} is {}", stand.number(counted));
}

#[test]
fn readers_that_stop_where_nothing_is_kept() {
    const ALL: usize = 50;
    let stand = Stand::new("deaf", "connect = \"off\"", "");
    let queue = ALL as u64 * (256 + 64) * 1024;
    stand.endures(
        "50 WebSockets that read nothing of 16 KiB messages: disconnect 3008 at a quarter of their queue",
        queue,
        |_| {
            let all = deaf(&stand, "live:news", ALL);
            publish_until(&stand, "live:news", "client_slow_disconnects_total", ALL);
            drop(all);
        },
    );
    stand.counts(r#"client_num_server_disconnects{code="3008"}"#, ALL);
}

#[test]
fn readers_that_stop_where_history_is_kept() {
    const ALL: usize = 50;
    let stand = Stand::new(
        "parked",
        "connect = \"off\"",
        "[[channel.namespaces]]\nname = \"kept\"\nhistory_size = 100\nhistory_ttl = \"60s\"\nforce_recovery = true\n\
         allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n",
    );
    // What is kept, once for all.
    let kept = 4 * 1024 * 1024;
    stand.endures(
        "50 WebSockets that read nothing where history is kept: they are parked",
        ALL as u64 * (256 + 64) * 1024 + kept,
        |_| {
            let all = deaf(&stand, "kept:news", ALL);
            publish_until(&stand, "kept:news", "subscription_parked_total", ALL);
            drop(all);
        },
    );
}

/// Requests one behind the other, and nobody takes the answers.
#[test]
fn answers_that_nobody_takes() {
    const ALL: usize = 100;
    let stand = Stand::new("pipelines", "connect = \"off\"\nrequests = \"off\"", "");
    let text = "x".repeat(4_000);
    for number in 0..100 {
        stand.api(
            "publish",
            &json!({"channel": "long", "data": {"n": number, "text": text}}),
        );
    }
    // A page is 400 KB.
    stand.endures(
        "100 connections with 2,000 requests each for 400 KB, and nobody reads",
        ALL as u64 * 640 * 1024,
        |users| {
            let request = "GET /history?channel=long&limit=100 HTTP/1.1\r\nHost: a\r\n\r\n";
            let requests = request.repeat(2_000);
            let all: Vec<_> = (0..ALL)
                .map(|_| {
                    let mut stream = stand.connect();
                    stream.set_nonblocking(true).unwrap();
                    // As many as there is room for.
                    let _ = stream.write(requests.as_bytes());
                    stream
                })
                .collect();
            while users.want_more() {
                std::thread::yield_now();
            }
            drop(all);
        },
    );
    let answer = Http::new(stand.connect()).ask("GET /health HTTP/1.1", b"");
    assert_eq!(answer.status, 200);
}

/// They don't keep what waits for them: after a while they are cut off, in HTTP/2 each stream by itself.
#[test]
fn answers_of_which_nothing_is_taken() {
    const CONNECTIONS: usize = 50;
    const HTTP2_CONNECTIONS: usize = 5;
    const STREAMS: usize = 10;
    const ALL: usize = CONNECTIONS + HTTP2_CONNECTIONS * STREAMS;
    let limits = "connect = \"off\"\nrequests = \"off\"";
    let stand = Stand::with_server("stalled", "write_timeout = \"2s\"", limits);
    let text = "x".repeat(4_000);
    for number in 0..100 {
        stand.api(
            "publish",
            &json!({"channel": "long", "data": {"n": number, "text": text}}),
        );
    }
    let dropped = "connections_dropped_total{reason=\"answer\"}";
    stand.endures(
        "100 answers of 400 KB, in HTTP/1.1 and HTTP/2, of which nothing is taken: cut off after `http_server.write_timeout`",
        ALL as u64 * 640 * 1024,
        |users| {
            let path = "/history?channel=long&limit=100";
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(20);
            let all: Vec<_> = (0..CONNECTIONS)
                .map(|_| {
                    let mut stream = stand.connect();
                    stream.write_all(request.as_bytes()).unwrap();
                    stream
                })
                .collect();
            let windowless: Vec<_> = (0..HTTP2_CONNECTIONS)
                .map(|_| {
                    let mut raw = Raw::open(&stand.server);
                    // SETTINGS_INITIAL_WINDOW_SIZE.
                    raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
                    for stream in 0..STREAMS as u32 {
                        raw.send(&get(2 * stream + 1, path));
                    }
                    raw
                })
                .collect();
            while users.want_more() || stand.number(dropped) < ALL as u64 {
                std::thread::yield_now();
            }
            drop((all, windowless));
        },
    );
    stand.counts(dropped, ALL);
}
