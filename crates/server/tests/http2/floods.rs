//! Clients that send much and mean little. Each loses its connection, and nobody else notices.

use crate::client::Client;
use crate::process::Server;
use crate::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING,
    REFUSED_STREAM, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, block, frame, get,
};
use crate::{CONFIG, in_time};

/// Sends the same until the server has enough, or so many were sent; says what it ended with.
fn flood(raw: &mut Raw, bytes: &[u8], most: usize) -> Option<u32> {
    // In large pieces, and no more than the sockets' buffers take of answers.
    let piece = bytes.repeat(100);
    let mut sent = 0;
    while sent < most && raw.send(&piece) {
        sent += 100;
    }
    raw.given_up()
}

async fn counted(server: &Server, kind: &str) {
    in_time(async {
        let client = Client::connect(server).await;
        let name = format!(r#"http2_floods_total{{kind="{kind}"}}"#);
        client.number_becomes(&name, 1).await;
        client.number_becomes("http2_num_connections", 1).await;
    })
    .await;
}

#[tokio::test]
async fn frames_that_carry_nothing() {
    let floods = [
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("settings", frame(SETTINGS, 0, 0, b"")),
        ("priorities", frame(2, 0, 1, &[0, 0, 0, 0, 16])),
        ("unknown", frame(0xfb, 0, 0, b"grease")),
    ];
    for (name, bytes) in floods {
        let server = Server::serve(&format!("http2-flood-{name}"), CONFIG);
        let mut raw = Raw::open(&server);
        assert_eq!(
            flood(&mut raw, &bytes, 50_000),
            Some(ENHANCE_YOUR_CALM),
            "{name}"
        );
        counted(&server, "control").await;
    }
}

#[tokio::test]
async fn windows_that_open_a_little() {
    let server = Server::serve("http2-flood-windows", CONFIG);
    let mut raw = Raw::open(&server);
    let bytes = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    assert_eq!(flood(&mut raw, &bytes, 1_000_000), Some(ENHANCE_YOUR_CALM));
    counted(&server, "windows").await;
}

#[tokio::test]
async fn bodies_of_empty_frames() {
    let server = Server::serve("http2-flood-empty", CONFIG);
    let mut raw = Raw::open(&server);
    let block = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/emulation"),
    ]);
    raw.send(&frame(HEADERS, END_HEADERS, 1, &block));
    let bytes = frame(DATA, 0, 1, b"");
    assert_eq!(flood(&mut raw, &bytes, 50_000), Some(ENHANCE_YOUR_CALM));
}

/// CVE-2023-44487: requests that are given up as soon as they were sent.
#[tokio::test]
async fn rapid_resets() {
    let server = Server::serve("http2-rapid", CONFIG);
    let mut raw = Raw::open(&server);
    let mut bytes = Vec::new();
    for stream in (1..2_000).step_by(2) {
        bytes.extend(get(stream, "/history?channel=c"));
        bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    raw.send(&bytes);
    assert_eq!(raw.given_up(), Some(ENHANCE_YOUR_CALM));
    counted(&server, "streams").await;
}

/// The patient form: sessions are begun, and given up when they are there.
#[tokio::test]
async fn slow_resets() {
    let server = Server::serve("http2-resets", CONFIG);
    let mut raw = Raw::open(&server);
    let mut first = 1;
    let code = 'flood: loop {
        assert!(first < 1_000_000, "it takes any number of them");
        let streams: Vec<u32> = (0..50).map(|n| first + 2 * n).collect();
        first += 100;
        let requests = streams
            .iter()
            .map(|stream| get(*stream, "/lines?channel=c"));
        raw.send(&requests.collect::<Vec<_>>().concat());
        let mut answered = 0;
        while answered < streams.len() {
            let Some(frame) = raw.next() else {
                break 'flood None;
            };
            match frame.kind {
                HEADERS => answered += 1,
                GOAWAY => break 'flood frame.code(),
                _ => {}
            }
        }
        let resets = streams.iter();
        let resets = resets.map(|stream| frame(RST_STREAM, 0, *stream, &[0, 0, 0, 8]));
        raw.send(&resets.collect::<Vec<_>>().concat());
    };
    assert_eq!(code, Some(ENHANCE_YOUR_CALM));
    counted(&server, "resets").await;
    let client = Client::connect(&server).await;
    in_time(client.number_becomes("node_num_clients", 0)).await;
}

/// CVE-2024-27316 and its kin: a header block without an end.
#[tokio::test]
async fn header_blocks_without_an_end() {
    let server = Server::serve("http2-continuation", CONFIG);
    let mut raw = Raw::open(&server);
    let head = block(&[(":method", "GET"), (":scheme", "http")]);
    raw.send(&frame(HEADERS, END_STREAM, 1, &head));
    let more = block(&[("x-filling", &"x".repeat(100))]).repeat(100);
    assert_eq!(
        flood(&mut raw, &frame(CONTINUATION, 0, 1, &more), 5_000),
        Some(ENHANCE_YOUR_CALM)
    );
    counted(&server, "streams").await;
}

/// A list of fields that is short on the wire, and long when it is read.
#[tokio::test]
async fn long_header_lists_are_refused() {
    let server = Server::serve("http2-list", CONFIG);
    in_time(async {
        let client = Client::connect(&server).await;
        let mut request = client.request("GET", "/health");
        for number in 0..200 {
            request = request.header(format!("x-{number}"), "x".repeat(100));
        }
        let answer = client.send(request.body(()).unwrap(), b"").await;
        assert_eq!(answer.status, 431);
        // The connection goes on.
        assert_eq!(client.get("/health").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn too_many_streams_are_refused() {
    let config = format!("[http_server.http2]\nmax_concurrent_streams = 2\n{CONFIG}");
    let server = Server::serve("http2-streams", &config);
    let mut raw = Raw::open(&server);
    for stream in [1, 3, 5] {
        raw.send(&get(stream, "/lines?channel=c"));
    }
    let refused = raw.find(|frame| frame.kind == RST_STREAM).unwrap();
    assert_eq!(refused.stream, 5);
    assert_eq!(refused.payload, REFUSED_STREAM.to_be_bytes());
    // When one has gone, there is room for another.
    raw.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    raw.send(&get(7, "/lines?channel=c"));
    let answered = raw.find(|frame| frame.stream == 7).unwrap();
    assert_eq!((answered.kind, answered.flags & END_STREAM), (HEADERS, 0));
    in_time(async {
        let client = Client::connect(&server).await;
        client
            .number_becomes("http2_refused_streams_total", 1)
            .await;
        let streams = r#"http_num_sessions{kind="stream"}"#;
        client.number_becomes(streams, 2).await;
    })
    .await;
}

/// Half-open: a preface and no more, or settings and no request.
#[tokio::test]
async fn connections_that_never_ask_are_counted_while_they_are_there() {
    let server = Server::serve("http2-silent", CONFIG);
    let silent: Vec<_> = (0..100).map(|_| Raw::open(&server)).collect();
    in_time(async {
        let client = Client::connect(&server).await;
        client.number_becomes("http2_num_connections", 101).await;
        drop(silent);
        client.number_becomes("http2_num_connections", 1).await;
    })
    .await;
}
