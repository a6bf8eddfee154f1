//! Sessions at the doors of plain HTTP that are opened and never used, or never collected.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::process::wait_until;
use crate::stand::Stand;
use crate::wire::Http;

const POLL: &str = "/connection/poll";

/// Opens a session that is subscribed to `flood`, at a door whose answer goes on or with a poll that waits; what is
/// returned keeps it open, and will not be read.
fn open(stand: &Stand, path: &str, is_polled: bool) -> TcpStream {
    let commands = r#"{"id":1,"connect":{}}
{"id":2,"subscribe":{"channel":"flood"}}"#;
    if path != POLL {
        let mut stream = stand.connect();
        let len = commands.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{commands}"
        )
        .unwrap();
        return stream;
    }
    let mut http = stand.http();
    let head = format!("POST {POLL} HTTP/1.1");
    let answer = http.ask(&head, format!("{{\"open\":1}}\n{commands}").as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    if is_polled {
        let said = answer.text();
        let first: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
        let body = json!({"session": first["session"], "poll": first["next"], "hold": 55});
        let body = body.to_string();
        let len = body.len();
        write!(
            http.wire,
            "POST {POLL} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}"
        )
        .unwrap();
    }
    http.wire
}

#[test]
fn what_is_never_collected() {
    const EACH: usize = 25;
    // Kept for all, once.
    const PUBLISHED: u64 = 16 * 1024 * 1024;
    let stand = Stand::new("uncollected", "connect = \"off\"", "");
    // A quarter of the queue's limit and a message wait for each, and a page of the HTTP layer's.
    let each = (256 + 16 + 16 + 64 + 32) * 1024;
    stand.endures(
        "100 streams and polls that nobody reads, and 16 MiB for each: they are parked",
        2 * PUBLISHED + 4 * EACH as u64 * each,
        |_| {
            let doors = ["/connection/http_stream", "/connection/sse", POLL];
            let mut all = Vec::new();
            for _ in 0..EACH {
                all.extend(doors.iter().map(|path| open(&stand, path, false)));
                all.push(open(&stand, POLL, true));
            }
            stand.counts("node_num_subscriptions", 4 * EACH + 2);
            let text = "x".repeat(16 * 1024);
            for number in 0..PUBLISHED / text.len() as u64 {
                let data = json!({"n": number, "text": text});
                stand.api("publish", &json!({"channel": "flood", "data": data}));
            }
            drop(all);
        },
    );
    stand.counts("subscription_parked_total", 4 * EACH);
}

/// Opens sessions at a door until it is full, and a good deal further.
#[test]
fn floods_of_sessions() {
    const LIMIT: usize = 300;
    let stand = Stand::new(
        "sessions",
        "connect = \"off\"",
        &format!("[doors]\npoll_timeout = \"3s\"\nmax_sessions = {LIMIT}\n"),
    );
    let refused = stand.endures(
        "2,000 sessions at the doors of plain HTTP: 300 stay, others get 503",
        LIMIT as u64 * 48 * 1024,
        |_| {
            let mut held = Vec::new();
            let mut refused = 0;
            let doors = [
                ("/connection/http_stream", r#"{"id":1,"connect":{}}"#),
                ("/connection/sse", r#"{"id":1,"connect":{}}"#),
                (POLL, "{\"open\":1}\n{\"id\":1,\"connect\":{}}"),
                (POLL, "{\"open\":1}"),
                ("/connection/uni_http_stream", "{}"),
                ("/connection/uni_sse", "{}"),
            ];
            for number in 0..2_000 {
                let (path, body) = doors[number % doors.len()];
                let mut http = stand.http();
                let answer = http.ask(&format!("POST {path} HTTP/1.1"), body.as_bytes());
                match answer.status {
                    200 => held.push(http),
                    503 => {
                        assert!(answer.head.contains("retry-after: "), "{}", answer.head);
                        refused += 1;
                    }
                    other => panic!("{other}: {}", answer.text()),
                }
            }
            assert!(refused > 0);
            refused
        },
    );
    assert_eq!(stand.number(r#"http_errors_total{status="503"}"#), refused);
    wait_until("all are gone", || {
        (stand.number("node_num_clients") == 0).then_some(())
    });
    let answer = stand
        .http()
        .ask(&format!("POST {POLL} HTTP/1.1"), b"{\"open\":1}");
    assert_eq!(answer.status, 200);
}

/// Sessions that were named by somebody who doesn't know the node's key.
#[test]
fn forged_sessions() {
    let stand = Stand::new("forged-sessions", "connect = \"off\"", "");
    let count = stand.endures(
        "names of sessions, made up or changed by a bit: 404",
        0,
        |users| {
            let mut http = Http::new(stand.connect());
            let name = begin(&mut http);
            let mut count = 0;
            while count < 1_000 || users.want_more() {
                let mut forged = name.clone().into_bytes();
                let place = count % forged.len();
                forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
                let forged = String::from_utf8(forged).unwrap();
                assert_eq!(speak_for(&mut http, &forged, count), 404, "{forged}");
                count += 1;
            }
            // It is there, and nobody has touched it.
            let ask = json!({"session": name, "send": 1}).to_string() + "\n" + CONNECT;
            let head = format!("POST {POLL} HTTP/1.1");
            assert_eq!(http.ask(&head, ask.as_bytes()).status, 204);
            count
        },
    );
    stand.counts(r#"http_errors_total{status="404"}"#, count);
}

/// Names that were good, and are said again when their sessions are over and others have their places.
#[test]
fn replayed_sessions() {
    let stand = Stand::new("replayed-sessions", "connect = \"off\"", "");
    let count = stand.endures(
        "names of sessions that are over, said again: 404",
        0,
        |users| {
            let mut http = Http::new(stand.connect());
            let head = format!("POST {POLL} HTTP/1.1");
            let mut count = 0;
            while count < 1_000 || users.want_more() {
                let name = begin(&mut http);
                let close = json!({"session": name, "close": true}).to_string();
                assert_eq!(http.ask(&head, close.as_bytes()).status, 204);
                let other = begin(&mut http);
                assert_ne!(name, other);
                for way in 0..4 {
                    assert_eq!(speak_for(&mut http, &name, way), 404, "{name}");
                    count += 1;
                }
                let close = json!({"session": other, "close": true}).to_string();
                assert_eq!(http.ask(&head, close.as_bytes()).status, 204);
            }
            count
        },
    );
    stand.counts(r#"http_errors_total{status="404"}"#, count);
}

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

/// Begins a session, and gives its name.
fn begin(http: &mut Http<TcpStream>) -> String {
    let answer = http.ask(&format!("POST {POLL} HTTP/1.1"), b"{\"open\":1}");
    let first: Value = serde_json::from_str(answer.text().trim()).unwrap();
    first["session"].as_str().unwrap().to_owned()
}

/// Speaks for a session in one of the ways that there are. The status that this comes to.
fn speak_for(http: &mut Http<TcpStream>, session: &str, way: usize) -> u16 {
    let (path, body) = match way % 4 {
        0 => (
            POLL,
            json!({"session": session, "poll": 0, "hold": 1}).to_string(),
        ),
        1 => (
            POLL,
            json!({"session": session, "send": 1}).to_string() + "\n" + CONNECT,
        ),
        2 => (POLL, json!({"session": session, "close": true}).to_string()),
        _ => (
            "/emulation",
            json!({"session": session, "node": "", "data": CONNECT}).to_string(),
        ),
    };
    http.ask(&format!("POST {path} HTTP/1.1"), body.as_bytes())
        .status
}
