//! What strangers try, and what it costs the others: nothing.

use std::io::ErrorKind;
use std::net::TcpListener;

use serde_json::json;

use crate::emulation::WORKERS;
use crate::http::{Session, begin, get, post, send};
use crate::process::{Server, wait_until};
use crate::socket::Socket;

/// The doors, each with a request that would open something.
const REQUESTS: [(&str, &str, &str); 12] = [
    (
        "POST",
        "/connection/http_stream",
        r#"{"id":1,"connect":{}}"#,
    ),
    (
        "GET",
        "/connection/sse?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D",
        "",
    ),
    ("POST", "/connection/sse", r#"{"id":1,"connect":{}}"#),
    (
        "POST",
        "/connection/poll",
        "{\"open\":1}\n{\"id\":1,\"connect\":{}}",
    ),
    ("POST", "/emulation", "{}"),
    ("POST", "/connection/uni_http_stream", "{}"),
    ("GET", "/connection/uni_sse", ""),
    ("POST", "/connection/uni_sse", "{}"),
    ("GET", "/events?channel=a", ""),
    ("GET", "/lines?channel=a", ""),
    ("GET", "/history?channel=a", ""),
    ("POST", "/publish?channel=a", "1"),
];

/// The doors of WebSockets, each with a path that would subscribe to something.
const SOCKETS: [&str; 3] = [
    "/connection/websocket",
    "/connection/uni_websocket?cf_connect=%7B%22subs%22%3A%7B%22a%22%3A%7B%7D%7D%7D",
    "/ws?channel=a",
];

fn clients(server: &Server) -> u64 {
    counted(server, "num_clients")
}

/// What the node says how many there are of.
fn counted(server: &Server, what: &str) -> u64 {
    let info: serde_json::Value = serde_json::from_str(&server.api("info", "{}")).expect("JSON");
    info["result"]["nodes"][0][what].as_u64().expect("a number")
}

#[test]
fn other_sites_pages_open_nothing() {
    let config =
        format!("{WORKERS}allow_history_for_client = true\nallow_history_for_anonymous = true\n");
    // Whom the server asks who comes.
    let backend = TcpListener::bind("127.0.0.1:0").expect("a port");
    backend.set_nonblocking(true).expect("it is a socket");
    let address = backend.local_addr().expect("an address");
    let asks = format!(
        "[client.proxy.connect]\nenabled = true\nendpoint = \"http://{address}/connect\"\n"
    );
    let server = Server::serve("cross-site", &format!("{config}{asks}"));
    for path in SOCKETS {
        for origin in ["https://evil.example", "null"] {
            let refused = Socket::open(&server, path, &format!("Origin: {origin}\r\n")).err();
            assert_eq!(refused.expect("it is refused").0, 403, "{path} {origin}");
            assert_eq!(nothing_happened(&server), (0, 0, 0), "{path} {origin}");
        }
    }
    for (method, path, body) in REQUESTS {
        for fields in [
            // What needs no preflight: `fetch` without CORS, a form, an image or a script.
            "Origin: https://evil.example\r\nContent-Type: text/plain",
            "Origin: null\r\nContent-Type: application/x-www-form-urlencoded",
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors",
            "Sec-Fetch-Site: same-site",
        ] {
            let head = format!("{method} {path} HTTP/1.1\r\n{fields}");
            let answer = send(&server, &head, body.as_bytes());
            assert_eq!(answer.status, 403, "{head}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
            assert!(answer.rest().contains("client.allowed_origins"), "{head}");
            // Refused before anything has happened, and not behind it: nobody came, and nothing was published.
            assert_eq!(nothing_happened(&server), (0, 0, 0), "{head}");
        }
    }
    let asked = backend.accept().map(|_| ()).map_err(|error| error.kind());
    assert_eq!(asked, Err(ErrorKind::WouldBlock), "the backend was asked");
    // The same of nobody's page would have done something.
    let poll = REQUESTS[3];
    let head = format!("{} {} HTTP/1.1", poll.0, poll.1);
    let _asking = begin(&server, &head, poll.2.as_bytes());
    wait_until("the backend is asked", || backend.accept().ok());
    let server = Server::serve("cross-site-none", &config);
    for (method, path, body) in REQUESTS {
        let head = format!("{method} {path} HTTP/1.1");
        assert_ne!(send(&server, &head, body.as_bytes()).status, 403, "{head}");
    }
    assert_eq!(offset(&server), 1);
    let sockets = SOCKETS.map(|path| Socket::open(&server, path, "").expect("it is let in"));
    wait_until("two of them have subscribed", || {
        (counted(&server, "num_subs") >= 2).then_some(())
    });
    drop(sockets);
}

/// How many have come, and how many have subscribed, and how much was published.
fn nothing_happened(server: &Server) -> (u64, u64, u64) {
    (clients(server), counted(server, "num_subs"), offset(server))
}

/// What was published in the channel of the requests.
fn offset(server: &Server) -> u64 {
    let history = server.api("history", r#"{"channel":"a"}"#);
    let history: serde_json::Value = serde_json::from_str(&history).expect("JSON");
    history["result"]["offset"].as_u64().expect("a number")
}

#[test]
fn sessions_have_a_limit() {
    let config = format!("{WORKERS}\n[doors]\nmax_sessions = 3\n");
    let server = Server::serve("max-sessions", &config);
    let mut sessions: Vec<_> = (0..3).map(|_| Session::connect(&server)).collect();
    let open = || {
        let body = br#"{"id":1,"connect":{}}"#;
        post(&server, "/connection/http_stream", "application/json", body)
    };
    let answer = open();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("10"));
    assert!(answer.rest().contains("doors.max_sessions"));
    sessions.pop();
    wait_until("there is room again", || {
        (open().status == 200).then_some(())
    });
}

#[test]
fn doors_can_be_shut() {
    let config = format!(
        "{WORKERS}\n[doors]\nhttp_stream = false\nsse = false\npoll = false\nunidirectional = false\nplain = false\n"
    );
    let server = Server::serve("doors-shut", &config);
    for (method, path, body) in REQUESTS {
        let answer = send(
            &server,
            &format!("{method} {path} HTTP/1.1"),
            body.as_bytes(),
        );
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[test]
fn who_never_connects_is_sent_away() {
    let config = WORKERS.replace("[client]", "[client]\nstale_close_delay = \"1s\"");
    let config = config.replace("allow_anonymous_connect_without_token = true", "");
    let server = Server::serve("stale", &config);
    let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x";
    let body = json!({"id": 1, "connect": {"token": token}}).to_string();
    let mut response = post(
        &server,
        "/connection/http_stream",
        "text/plain",
        body.as_bytes(),
    );
    assert_eq!(response.message()["push"]["disconnect"]["code"], 3500);
    assert_eq!(response.line(), None);
    // A ping only: no session that could be kept open with it.
    let mut response = post(&server, "/connection/http_stream", "text/plain", b"{}");
    assert_eq!(response.message()["push"]["disconnect"]["code"], 3501);
}

#[test]
fn who_went_away_is_gone() {
    let server = Server::serve("gone", WORKERS);
    let mut session = Session::connect(&server);
    session.call(r#"{"id":2,"subscribe":{"channel":"here"}}"#);
    assert_eq!(clients(&server), 1);
    drop(session);
    wait_until("it is gone", || (clients(&server) == 0).then_some(()));
    let presence = server.api("presence_stats", r#"{"channel":"here"}"#);
    assert!(presence.contains(r#""num_clients":0"#), "{presence}");
}

#[test]
fn a_reader_that_rests_misses_nothing() {
    let server = Server::dev();
    let mut session = Session::connect(&server);
    session.call(r#"{"id":2,"subscribe":{"channel":"slow"}}"#);
    let mut events = get(
        &server,
        "/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22slow%22%3A%7B%7D%7D%7D",
    );
    events.until(b"\r\n");
    events.data();
    // Far more than sockets and queues hold, and less than the history keeps.
    let text = "x".repeat(20_000);
    for number in 0..900 {
        let publish = json!({"channel": "slow", "data": {"n": number, "text": text}});
        server.api("publish", &publish.to_string());
    }
    for next in [
        Box::new(|| session.response.message()["push"]["pub"].clone())
            as Box<dyn FnMut() -> serde_json::Value>,
        Box::new(|| events.data()["pub"].clone()),
    ] {
        let mut next = next;
        for number in 0..900 {
            let publication = wait_until("a publication", || Some(next()).filter(|p| !p.is_null()));
            assert_eq!(publication["data"]["n"], number);
        }
    }
}

#[test]
fn a_client_that_answers_no_ping_is_cut_off() {
    let config = WORKERS.replace(
        "[client]",
        "[client]\nping_interval = \"2s\"\npong_timeout = \"1900ms\"",
    );
    let server = Server::serve("pongs", &config);
    let mut answering = Session::connect(&server);
    for _ in 0..2 {
        assert_eq!(answering.response.line(), Some(json!({})));
        assert_eq!(answering.send("{}"), 204);
    }
    let mut silent = Session::connect(&server);
    assert_eq!(silent.response.line(), Some(json!({})));
    let last = silent.response.line().expect("the end is told");
    assert_eq!(last["push"]["disconnect"]["code"], 3012);
    assert_eq!(silent.response.line(), None);
}
