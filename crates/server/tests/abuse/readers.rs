//! Those who take everything, and read nothing.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::json;

use crate::process::wait_until;
use crate::raw::{DATA, END_HEADERS, END_STREAM, HEADERS, Raw, SETTINGS, block, frame, get};
use crate::socket::Socket;
use crate::stand::Stand;
use crate::vanish::vanish;
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

/// Replies to commands are what a client can have most of for the least: some bytes for half a MiB each.
const DEEP: u64 = 10_000 * 60;

/// Keeps so much that a few words are answered with 400 KB of it.
fn keep_much(stand: &Stand) {
    let text = "x".repeat(10_000);
    for number in 0..60 {
        let body = json!({"channel": "deep", "data": {"n": number, "text": text}});
        stand.api("publish", &body);
    }
}

/// Connects, and asks twice for it.
fn asking() -> String {
    let ask = |id| json!({"id": id, "history": {"channel": "deep", "limit": 40}});
    format!("{{\"id\":1,\"connect\":{{}}}}\n{}\n{}", ask(2), ask(3))
}

/// Opens sockets that ask twice for a long history, and read none of it.
fn ask_and_leave(stand: &Stand, count: usize) -> Vec<Socket> {
    let open = |_| {
        let mut socket =
            Socket::open(&stand.server, "/connection/websocket", "").expect("it is let in");
        socket.send(&asking());
        socket
    };
    (0..count).map(open).collect()
}

/// The same at a door of plain HTTP.
fn post_and_leave(stand: &Stand, path: &str, first: &str, count: usize) -> Vec<TcpStream> {
    let body = format!("{first}{}", asking());
    let len = body.len();
    let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}");
    let open = |_| {
        let mut stream = stand.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    (0..count).map(open).collect()
}

/// The same over HTTP/2, so many at each connection. `begin` is what a stream begins with.
fn leave_streams(stand: &Stand, count: usize, begin: impl Fn(u32) -> Vec<u8>) -> Vec<Raw> {
    const EACH: usize = 10;
    let open = |_| {
        let mut raw = Raw::open(&stand.server);
        for stream in 0..EACH as u32 {
            assert!(raw.send(&begin(2 * stream + 1)));
        }
        raw
    };
    (0..count / EACH).map(open).collect()
}

/// A WebSocket over HTTP/2 (RFC 8441), and what is said on it.
fn socket_stream(stream: u32) -> Vec<u8> {
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/connection/websocket"),
        ("sec-websocket-version", "13"),
    ];
    let text = asking();
    let len = u8::try_from(text.len()).unwrap();
    assert!(len < 126);
    let mut message = vec![0x81, 0x80 | len, 0, 0, 0, 0];
    message.extend_from_slice(text.as_bytes());
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &block(&fields));
    bytes.extend(frame(DATA, 0, stream, &message));
    bytes
}

/// A request over HTTP/2.
fn post_stream(stream: u32) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/connection/http_stream"),
    ];
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &block(&fields));
    bytes.extend(frame(DATA, END_STREAM, stream, asking().as_bytes()));
    bytes
}

/// Clients of some kind that ask for 800 KB each and read nothing. The limits by address are the defaults here, as is what of
/// the memory is for queues.
fn replies_that_nobody_reads<T>(name: &str, what: &str, open: impl Fn(&Stand, usize) -> T) {
    const ALL: usize = 400;
    const CEILING: u64 = 120 * 1024 * 1024;
    let ceiling = format!("[limits.memory]\nmax_bytes = {CEILING}\n");
    let stand = Stand::new(&format!("replies-{name}"), "", &ceiling);
    keep_much(&stand);
    // The handshake's buffers, the session, the hub's tables; and a part of what is on its way when a session is let go, until
    // its task has its turn.
    let connections = ALL as u64 * 32 * 1024;
    stand.endures(
        &format!(
            "400 {what} that ask for 800 KB of history each and read nothing: not listened to, and 3008 for the longest \
             queues beyond a quarter of the memory"
        ),
        CEILING / 4 + DEEP + connections,
        |users| {
            let all = open(&stand, ALL);
            // Few fit, with what a queue has of the kernel's.
            let fit = CEILING / 4 / (400 * 1024);
            stand.counts(
                r#"limits_refused_total{limit="queues",mode="enforced"}"#,
                ALL - 2 * fit as usize,
            );
            while users.want_more() {
                std::thread::yield_now();
            }
            assert_eq!(stand.number("client_queues_ceiling_bytes"), CEILING / 4);
            wait_until("what waits is within its bound", || {
                let held = stand.number("client_queues_memory_bytes");
                (held > 0 && held <= CEILING / 4).then_some(())
            });
            drop(all);
        },
    );
    assert!(stand.number(r#"client_num_server_disconnects{code="3008"}"#) > 0);
}

#[test]
fn replies_that_nobody_reads_from_sockets() {
    replies_that_nobody_reads("sockets", "WebSockets", ask_and_leave);
}

#[test]
fn replies_that_nobody_reads_from_streams_of_http2() {
    replies_that_nobody_reads("http2", "WebSockets over HTTP/2", |stand, count| {
        leave_streams(stand, count, socket_stream)
    });
}

#[test]
fn replies_that_nobody_reads_from_responses() {
    replies_that_nobody_reads("responses", "streams of plain HTTP", |stand, count| {
        let path = "/connection/http_stream";
        let one = post_and_leave(stand, path, "", count / 2);
        (one, leave_streams(stand, count / 2, post_stream))
    });
}

#[test]
fn replies_that_nobody_reads_from_polls() {
    replies_that_nobody_reads("polls", "long-polls", |stand, count| {
        post_and_leave(stand, "/connection/poll", "{\"open\":1}\n", count)
    });
}

#[test]
fn what_all_queues_may_hold_can_be_tried_out() {
    const ALL: usize = 20;
    let limits = "[limits.memory]\ndry_run = true\nmax_queued_bytes = 1048576\n";
    let stand = Stand::new("replies-tried", "", limits);
    keep_much(&stand);
    let all = ask_and_leave(&stand, ALL);
    // All of them hold more than that, whoever is chosen, and each counts once.
    stand.counts(
        r#"limits_refused_total{limit="queues",mode="dry_run"}"#,
        ALL / 2,
    );
    assert!(stand.number("client_queues_memory_bytes") > 1024 * 1024);
    for mut socket in all {
        while !socket.text().contains("\"id\":3") {}
    }
    let closed = stand.number(r#"client_num_server_disconnects{code="3008"}"#);
    assert_eq!(closed, 0);
    let counted = stand.number(r#"limits_refused_total{limit="queues",mode="dry_run"}"#);
    assert!(counted <= ALL as u64, "{counted}");
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

/// As phones do that lose their network: nothing is said and nothing acknowledged any more, and nobody expects answers of those
/// who only listen.
#[test]
fn listeners_that_vanish() {
    const EACH: usize = 50;
    const PATHS: [&str; 4] = [
        "GET /events?channel=flood",
        "GET /lines?channel=flood",
        "GET /connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22flood%22%3A%7B%7D%7D%7D",
        "POST /connection/uni_http_stream",
    ];
    const ALL: usize = EACH * PATHS.len();
    let limits = "connect = \"off\"\nrequests = \"off\"";
    let stand = Stand::with_server("vanished", "write_timeout = \"2s\"", limits);
    let dropped = "connections_dropped_total{reason=\"answer\"}";
    stand.endures(
        "200 who listen by plain HTTP and vanish without a word: gone `http_server.write_timeout` after what they are told next",
        // The session, its stream, and what the kernel doesn't count here.
        ALL as u64 * 16 * 1024,
        |users| {
            let open = |number: usize| {
                let mut stream = stand.connect();
                let body = match number % PATHS.len() {
                    3 => r#"{"subs":{"flood":{}}}"#,
                    _ => "",
                };
                let (path, len) = (PATHS[number % PATHS.len()], body.len());
                let length = format!("Content-Length: {len}\r\n");
                let length = if len > 0 { &length } else { "" };
                let request = format!("{path} HTTP/1.1\r\nHost: a\r\n{length}\r\n{body}");
                stream.write_all(request.as_bytes()).unwrap();
                stream
            };
            let all: Vec<_> = (0..ALL).map(open).collect();
            stand.counts("node_num_subscriptions", ALL + 2);
            all.iter().for_each(vanish);
            stand.api("publish", &json!({"channel": "flood", "data": 1}));
            stand.counts(dropped, ALL);
            while users.want_more() {
                std::thread::yield_now();
            }
            wait_until("those of good will are left", || {
                (stand.number("node_num_clients") == 2).then_some(())
            });
            drop(all);
        },
    );
}
