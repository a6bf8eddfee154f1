//! What is counted of clients, by whatever door they came, against what they have done: and of those who come and go, who
//! come back too late, and what had no effect.

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

use self::numbers::{expect, number, numbers};
use self::peer::Peer;
use self::process::{Server, Wait, wait_until};
use self::run::run;

/// A client that says something once, and listens.
struct Listener {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Listener {
    fn begin(server: &Server, request: &str, body: &str) -> Self {
        let mut stream = server.connect();
        let address = server.address;
        let length = match body.len() {
            0 => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let head = format!("{request}\r\nHost: {address}\r\n{length}\r\n");
        stream.write_all((head + body).as_bytes()).unwrap();
        Self {
            stream,
            heard: Vec::new(),
        }
    }

    /// Waits for something in what comes.
    fn hear(&mut self, mark: &str) {
        let wait = Wait::new(mark);
        while !self.text().contains(mark) {
            assert!(
                wait.read(&mut self.stream, &mut self.heard),
                "{mark}: {}",
                self.text()
            );
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

/// Each byte as a query has it.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// A way to listen to `lobby`: its transport, the request, its body, and what says that it has begun.
fn ways() -> Vec<(&'static str, String, String, &'static str)> {
    let connect = r#"{"id":1,"connect":{}}"#;
    let commands = format!("{connect}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"lobby\"}}}}");
    let subscribed = r#"{"subs":{"lobby":{}}}"#;
    let uni = escaped(subscribed);
    let get = |path: &str| format!("GET {path} HTTP/1.1");
    let post = |path: &str| format!("POST {path} HTTP/1.1");
    vec![
        (
            "http_stream",
            post("/connection/http_stream"),
            commands.clone(),
            "\"subscribe\"",
        ),
        (
            "sse",
            get(&format!(
                "/connection/sse?cf_connect={}",
                escaped(&commands)
            )),
            String::new(),
            "\"subscribe\"",
        ),
        (
            "uni_http_stream",
            post("/connection/uni_http_stream"),
            subscribed.into(),
            "\"connect\"",
        ),
        (
            "uni_sse",
            get(&format!("/connection/uni_sse?cf_connect={uni}")),
            String::new(),
            "\"connect\"",
        ),
        (
            "uni_websocket",
            get(&format!("/connection/uni_websocket?cf_connect={uni}")) + "\r\n" + UPGRADE,
            String::new(),
            "\"connect\"",
        ),
        (
            "ws",
            get("/ws?channel=lobby&envelope=1") + "\r\n" + UPGRADE,
            String::new(),
            "\"subscribed\"",
        ),
        (
            "events",
            get("/events?channel=lobby"),
            String::new(),
            "id: 0,",
        ),
        (
            "lines",
            get("/lines?channel=lobby"),
            String::new(),
            "\"subscribed\"",
        ),
    ]
}

const PUBLISHED: usize = 3;

#[test]
fn what_each_door_says_and_hears_is_counted() {
    for (transport, request, body, begun) in ways() {
        let server = Server::dev();
        let of = |name: &str, what: &str| {
            format!("transport_messages_{name}{{transport=\"{transport}\",frame_type=\"{what}\"}}")
        };
        let clients = |name: &str| {
            format!(
                "client_connections_{name}{{transport=\"{transport}\",client_name=\"unnamed\"}}"
            )
        };
        let mut listener = Listener::begin(&server, &request, &body);
        listener.hear(begun);
        for index in 0..PUBLISHED {
            let data = format!(r#"{{"channel":"lobby","data":"mark {index}"}}"#);
            server.api("publish", &data);
            listener.hear(&format!("mark {index}"));
        }
        // Another channel is nobody's.
        server.api("publish", r#"{"channel":"elsewhere","data":1}"#);
        expect(
            &server,
            &[
                (&clients("accepted"), 1.0),
                (&clients("inflight"), 1.0),
                (&of("received", "connect"), 1.0),
                (&of("sent", "push_publication"), PUBLISHED as f64),
                ("client_num_coming", 0.0),
                ("client_subscriptions_accepted", 1.0),
                ("client_subscriptions_inflight", 1.0),
                ("node_num_clients", 1.0),
                ("node_num_users", 1.0),
                ("node_num_subscriptions", 1.0),
                ("node_num_channels", 1.0),
                (
                    "node_messages_sent_count{type=\"publication\"}",
                    1.0 + PUBLISHED as f64,
                ),
                (
                    "node_messages_received_count{type=\"publication\"}",
                    PUBLISHED as f64,
                ),
            ],
        );
        let sizes = numbers(&server);
        let size = number(&sizes, &of("sent_size", "push_publication"));
        let least = PUBLISHED * "\"mark 0\"".len();
        assert!(size >= least as f64, "{transport}: {size}");
        // Nothing is counted as what it isn't.
        let others = sizes.iter().filter(|(name, value)| {
            *value > 0.5
                && name.contains("transport=\"")
                && !name.contains(&format!("transport=\"{transport}\""))
        });
        let others: Vec<_> = others.collect();
        assert!(others.is_empty(), "{transport}: {others:?}");
        drop(listener);
        wait_until("it is gone", || {
            let numbers = numbers(&server);
            (number(&numbers, &clients("inflight")) < 0.5).then_some(())
        });
        expect(
            &server,
            &[
                (&clients("accepted"), 1.0),
                ("client_subscriptions_inflight", 0.0),
                ("client_subscriptions_accepted", 1.0),
                ("node_num_clients", 0.0),
                ("node_num_users", 0.0),
                ("node_num_channels", 0.0),
            ],
        );
    }
}

#[test]
fn what_is_polled_is_counted() {
    let server = Server::dev();
    let ask = |head: &Value, commands: &str, mark: &str| {
        let body = format!("{head}\n{commands}");
        let mut one = Listener::begin(&server, "POST /connection/poll HTTP/1.1", &body);
        one.hear(mark);
        one.text()
    };
    let commands = "{\"id\":1,\"connect\":{\"name\":\"go\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"lobby\"}}";
    let told = ask(&json!({"open": 1}), commands, "\"subscribe\"");
    let session = told.split("\"session\":\"").nth(1).unwrap();
    let session = session.split('"').next().unwrap();
    let next = told.split("\"next\":").nth(1).unwrap();
    let next: u64 = next.split([',', '}']).next().unwrap().parse().unwrap();
    server.api("publish", r#"{"channel":"lobby","data":"a mark"}"#);
    let poll = json!({"session": session, "poll": next, "hold": 25});
    let told = ask(&poll, "", "a mark");
    let push = told
        .lines()
        .find(|line| line.contains("a mark"))
        .unwrap()
        .len();
    // Asked for once more, it is the same message.
    ask(&poll, "", "a mark");
    let publish = r#"{"id":3,"publish":{"channel":"lobby","data":2}}"#;
    ask(
        &json!({"session": session, "send": 1}),
        publish,
        "HTTP/1.1 204",
    );
    let of = |name: &str, what: &str| {
        format!("transport_messages_{name}{{transport=\"poll\",frame_type=\"{what}\"}}")
    };
    expect(
        &server,
        &[
            (
                "client_connections_inflight{transport=\"poll\",client_name=\"go\"}",
                1.0,
            ),
            ("http_num_sessions{kind=\"polled\"}", 1.0),
            ("http_num_sessions{kind=\"stream\"}", 0.0),
            (&of("received", "connect"), 1.0),
            (&of("received", "subscribe"), 1.0),
            (&of("received", "publish"), 1.0),
            (&of("received_size", "publish"), publish.len() as f64),
            (&of("sent", "connect"), 1.0),
            (&of("sent", "publish"), 1.0),
            (&of("sent", "push_publication"), 2.0),
        ],
    );
    let size = number(&numbers(&server), &of("sent_size", "push_publication"));
    assert!(size > push as f64, "{size} {push}");
    ask(
        &json!({"session": session, "close": true}),
        "",
        "HTTP/1.1 20",
    );
    expect(
        &server,
        &[
            (
                "client_connections_inflight{transport=\"poll\",client_name=\"go\"}",
                0.0,
            ),
            ("connections_dropped_total{reason=\"poll\"}", 0.0),
            ("node_num_clients", 0.0),
        ],
    );
}

const COMPANY: &str = r#"
[client]
insecure = true
[http_api]
key = "dev"
[prometheus]
enabled = true
[channel.without_namespace]
history_size = 3
history_ttl = "60s"
force_recovery = true
presence = true
join_leave = true
force_push_join_leave = true
"#;

/// Who comes and who goes, and what others are told of that.
#[test]
fn company_is_counted() {
    run(async {
        let server = Server::serve("traffic-company", COMPANY);
        let url = format!("ws://{}/connection/websocket", server.address);
        let mut peers = Vec::new();
        let mut joins = 0;
        for _ in 0..3 {
            let mut peer = Peer::connect(&url).await;
            peer.ask("subscribe", json!({"channel": "room"})).await;
            peers.push(peer);
            // Those who were there are told, and whoever has come.
            joins += peers.len();
            for peer in &mut peers {
                peer.push("join").await;
            }
        }
        let mut gone = peers.pop().unwrap();
        gone.ask("unsubscribe", json!({"channel": "room"})).await;
        for peer in &mut peers {
            peer.push("leave").await;
        }
        let sent = |what: &str| {
            format!("transport_messages_sent{{transport=\"websocket\",frame_type=\"{what}\"}}")
        };
        expect(
            &server,
            &[
                ("node_messages_sent_count{type=\"join\"}", 3.0),
                ("node_messages_sent_count{type=\"leave\"}", 1.0),
                (&sent("push_join"), joins as f64),
                (&sent("push_leave"), 2.0),
                ("client_subscriptions_inflight", 2.0),
                ("node_num_clients", 3.0),
            ],
        );
        // One that says nothing yet is coming.
        let _coming = Peer::open(&url, &[]).await;
        wait_until("it is there", || {
            let coming = number(&numbers(&server), "client_num_coming");
            (coming > 0.5).then_some(())
        });
        expect(
            &server,
            &[("client_num_coming", 1.0), ("node_num_clients", 3.0)],
        );
    });
}

#[test]
fn what_has_no_effect_and_who_comes_too_late_is_counted() {
    run(async {
        let server = Server::serve("traffic-late", COMPANY);
        let url = format!("ws://{}/connection/websocket", server.address);
        for (version, epoch) in [(2, "a"), (2, "a"), (1, "a"), (3, "a"), (1, "b")] {
            let body = json!({"channel": "room", "data": version, "version": version, "version_epoch": epoch});
            server.api("publish", &body.to_string());
        }
        expect(
            &server,
            &[
                ("broker_publish_suppressed_count{reason=\"version\"}", 2.0),
                (
                    "broker_publish_suppressed_count{reason=\"idempotency\"}",
                    0.0,
                ),
                ("node_messages_sent_count{type=\"publication\"}", 3.0),
                // Nobody is subscribed.
                ("node_messages_received_count{type=\"publication\"}", 0.0),
            ],
        );
        let mut peer = Peer::connect(&url).await;
        let first = peer.ask("subscribe", json!({"channel": "room"})).await;
        let epoch = first["subscribe"]["epoch"].clone();
        peer.ask("unsubscribe", json!({"channel": "room"})).await;
        for _ in 0..4 {
            server.api("publish", r#"{"channel":"room","data":1}"#);
        }
        let mut recover = [[0.0; 2]; 2];
        for (offset, epoch) in [
            // All that was missed; nothing was; more than is kept; of another stream.
            (json!(5), epoch.clone()),
            (json!(7), epoch.clone()),
            (json!(1), epoch),
            (json!(1), json!("another")),
        ] {
            let request =
                json!({"channel": "room", "recover": true, "offset": offset, "epoch": epoch});
            let reply = peer.ask("subscribe", request).await;
            let reply = &reply["subscribe"];
            let recovered = reply["recovered"] == true;
            let has_some = reply["publications"]
                .as_array()
                .is_some_and(|all| !all.is_empty());
            recover[usize::from(recovered)][usize::from(has_some)] += 1.0;
            peer.ask("unsubscribe", json!({"channel": "room"})).await;
        }
        assert!(
            recover[1] == [1.0, 1.0] && recover[0][0] + recover[0][1] > 1.5,
            "{recover:?}"
        );
        for (recovered, counts) in ["no", "yes"].into_iter().zip(recover) {
            for (has_some, count) in ["no", "yes"].into_iter().zip(counts) {
                let name = format!(
                    "client_recover{{recovered=\"{recovered}\",has_recovered_publications=\"{has_some}\"}}"
                );
                expect(&server, &[(&name, count)]);
            }
        }
        expect(
            &server,
            &[
                ("client_subscriptions_accepted", 5.0),
                ("client_subscriptions_inflight", 0.0),
                ("client_num_server_unsubscribes{code=\"2500\"}", 0.0),
            ],
        );
    });
}
