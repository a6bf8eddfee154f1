//! What is counted of what clients say and are told, against what they have said and were told.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/numbers.rs"]
mod numbers;
#[path = "support/peer.rs"]
mod peer;
#[path = "support/process.rs"]
mod process;
#[path = "support/run.rs"]
mod run;

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};

use self::numbers::{expect, numbers};
use self::peer::Peer;
use self::process::{Server, Wait, wait_until};
use self::run::run;

/// The length of a message as a client has sent it.
fn len(message: &Value) -> f64 {
    message.to_string().len() as f64
}

const SENT: &str = "transport_messages_sent{transport=\"websocket\",frame_type=";
const RECEIVED: &str = "transport_messages_received{transport=\"websocket\",frame_type=";
const SIZE: &str = "transport_messages_received_size{transport=\"websocket\",frame_type=";
const IN_FLIGHT: &str = "client_connections_inflight{transport=\"websocket\",client_name=";
const COMMANDS: &str = "client_command_duration_seconds_histogram_count{method=";

#[test]
fn what_a_websocket_says_and_is_told_is_counted() {
    run(async {
        let server = Server::dev();
        let of = |name: &str, label: &str| format!("{name}\"{label}\"}}");
        let url = format!("ws://{}/connection/websocket", server.address);
        let mut peer = Peer::open(&url, &[]).await;
        let mut stranger = Peer::open(&url, &[]).await;
        peer.ask("connect", json!({"name": "js"})).await;
        // Whatever strangers say that they are is one name.
        let named = json!({"name": "a\"b\n{"});
        stranger.ask("connect", named).await;
        let first = peer.ask("subscribe", json!({"channel": "lobby"})).await;
        let publish = r#"{"channel":"lobby","data":{"n":1},"idempotency_key":"k"}"#;
        server.api("publish", publish);
        server.api("publish", publish);
        peer.push("pub").await;
        let channel = "x".repeat(300);
        for _ in 0..3 {
            let reply = peer.ask("subscribe", json!({"channel": channel})).await;
            assert_eq!(reply["error"]["code"], 107, "{reply}");
        }
        let command = json!({"id": 100, "publish": {"channel": "lobby", "data": 2}});
        peer.send(&command).await;
        peer.find(|message| message["id"] == 100).await;
        peer.push("pub").await;
        expect(
            &server,
            &[
                (&of(SENT, "connect"), 2.0),
                (&of(SENT, "error"), 3.0),
                (&of(SENT, "push_publication"), 2.0),
                (&of(RECEIVED, "connect"), 2.0),
                (&of(RECEIVED, "subscribe"), 4.0),
                (&of(RECEIVED, "publish"), 1.0),
                (&of(SIZE, "publish"), len(&command)),
                (&of(IN_FLIGHT, "js"), 1.0),
                (&of(IN_FLIGHT, "other"), 1.0),
                ("client_num_coming", 0.0),
                ("client_subscriptions_inflight", 1.0),
                ("client_subscriptions_accepted", 1.0),
                (
                    "client_num_reply_errors{method=\"subscribe\",code=\"107\"}",
                    3.0,
                ),
                (&of(COMMANDS, "subscribe"), 4.0),
                (&of(COMMANDS, "publish"), 1.0),
                (&of("node_messages_sent_count{type=", "publication"), 2.0),
                (
                    &of("node_messages_received_count{type=", "publication"),
                    2.0,
                ),
                (
                    &of("broker_publish_suppressed_count{reason=", "idempotency"),
                    1.0,
                ),
            ],
        );
        // Those that leave together in one message count each.
        let together = json!({"publish": {"channel": "lobby", "data": 3}});
        let batch = json!({"commands": vec![together; 20]});
        server.api("batch", &batch.to_string());
        for _ in 0..20 {
            peer.push("pub").await;
        }
        expect(&server, &[(&of(SENT, "push_publication"), 22.0)]);
        // Sent away, and back.
        server.api("unsubscribe", r#"{"user":"","channel":"lobby"}"#);
        peer.push("unsubscribe").await;
        let (offset, epoch) = (&first["subscribe"]["offset"], &first["subscribe"]["epoch"]);
        let offset = offset.as_u64().unwrap_or(0);
        let again = json!({"channel": "lobby", "recover": true, "offset": offset, "epoch": epoch});
        let again = peer.ask("subscribe", again).await;
        assert_eq!(again["subscribe"]["recovered"], true, "{first} {again}");
        server.api("disconnect", r#"{"user":""}"#);
        let code = peer.closed().await;
        stranger.closed().await;
        let closes =
            format!("transport_outgoing_close_count{{transport=\"websocket\",code=\"{code}\"}}");
        let ended = format!("client_num_server_disconnects{{code=\"{code}\"}}");
        let accepted = IN_FLIGHT.replace("inflight", "accepted");
        expect(
            &server,
            &[
                (
                    "client_recover{recovered=\"yes\",has_recovered_publications=\"yes\"}",
                    1.0,
                ),
                (
                    "client_recover{recovered=\"no\",has_recovered_publications=\"no\"}",
                    0.0,
                ),
                (&of("client_num_server_unsubscribes{code=", "2000"), 1.0),
                (&closes, 2.0),
                (&ended, 2.0),
                ("client_subscriptions_inflight", 0.0),
                ("client_subscriptions_accepted", 2.0),
                (&of(IN_FLIGHT, "js"), 0.0),
                (&of(&accepted, "js"), 1.0),
            ],
        );
    });
}

/// Asks for a stream.
fn listen(server: &Server, request: &str, body: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = server.connect();
    let (address, length) = (server.address, body.len());
    let head = format!("{request} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    (stream, Vec::new())
}

/// Waits for something in it.
fn hear((stream, heard): &mut (TcpStream, Vec<u8>), mark: &str) {
    let wait = Wait::new(mark);
    while !String::from_utf8_lossy(heard).contains(mark) {
        assert!(wait.read(stream, heard), "{mark}");
    }
}

#[test]
fn what_streams_say_and_are_told_is_counted() {
    let server = Server::dev();
    let connect = json!({"id": 1, "connect": {"name": "dart"}});
    let subscribe = json!({"id": 2, "subscribe": {"channel": "lobby"}});
    let body = format!("{connect}\n{subscribe}");
    let escaped: String = body.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let query = format!("GET /connection/sse?cf_connect={escaped}");
    let post = "POST /connection/http_stream";
    let mut streams = [
        ("http_stream", listen(&server, post, &body)),
        ("sse", listen(&server, &query, "")),
    ];
    for (_, stream) in &mut streams {
        hear(stream, "\"subscribe\"");
    }
    server.api("publish", r#"{"channel":"lobby","data":"a mark"}"#);
    for (transport, stream) in &mut streams {
        hear(stream, "a mark\"");
        let of = |name: &str, what: &str| {
            format!("transport_messages_{name}{{transport=\"{transport}\",frame_type=\"{what}\"}}")
        };
        let clients = format!(
            "client_connections_inflight{{transport=\"{transport}\",client_name=\"dart\"}}"
        );
        // As it came, without what sets messages apart.
        let heard = String::from_utf8_lossy(&stream.1).into_owned();
        let push = heard.lines().find(|line| line.contains("a mark")).unwrap();
        let push = push.trim_start_matches("data: ").len();
        expect(
            &server,
            &[
                (&clients, 1.0),
                (&of("sent", "connect"), 1.0),
                (&of("sent", "push_publication"), 1.0),
                (&of("sent_size", "push_publication"), push as f64),
                (&of("received", "subscribe"), 1.0),
                (&of("received_size", "subscribe"), len(&subscribe)),
            ],
        );
    }
    drop(streams);
    wait_until("they are gone", || {
        let numbers = numbers(&server);
        let clients = numbers.iter();
        let mut clients =
            clients.filter(|(name, _)| name.starts_with("client_connections_inflight"));
        clients.all(|(_, value)| *value < 0.5).then_some(())
    });
}
