//! Commands beside the connection: any worker takes them, and none that are not the client's own.

use std::io::Write as _;

use serde_json::json;

use crate::http::{Session, emulate, post, send};
use crate::process::{Server, wait_until};

/// Three workers, so that most requests come to another than the session's.
pub(crate) const WORKERS: &str = r#"
[node]
workers = 3
[client]
allow_anonymous_connect_without_token = true
[http_api]
key = "dev"
[channel.without_namespace]
presence = true
history_size = 1000
history_ttl = "60s"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_presence_for_client = true
allow_presence_for_anonymous = true
"#;

#[test]
fn any_worker_takes_any_request() {
    let server = Server::serve("emulation-workers", WORKERS);
    let mut sessions: Vec<_> = (0..12).map(|_| Session::connect(&server)).collect();
    for session in &mut sessions {
        let reply = session.call(r#"{"id":2,"subscribe":{"channel":"spread"}}"#);
        assert!(reply["subscribe"].is_object(), "{reply}");
    }
    // Each on a connection of its own, which the kernel gives to whichever worker.
    for round in 0..20 {
        let publisher = &sessions[round % 12];
        let data = format!(
            r#"{{"id":{},"publish":{{"channel":"spread","data":{round}}}}}"#,
            round + 10
        );
        assert_eq!(publisher.send(&data), 204);
        for session in &mut sessions {
            loop {
                let message = session.response.message();
                if let Some(data) = message["push"]["pub"]["data"].as_u64() {
                    assert_eq!(data, round as u64);
                    break;
                }
            }
        }
    }
}

#[test]
fn requests_of_one_session_keep_their_order() {
    let server = Server::serve("emulation-order", WORKERS);
    let mut session = Session::connect(&server);
    // The SDK waits for no answer before its next request; here each waits, and none overtakes.
    for number in 2..60 {
        let command = format!(r#"{{"id":{number},"presence":{{"channel":"order"}}}}"#);
        assert_eq!(session.send(&command), 204);
    }
    for number in 2..60 {
        assert_eq!(session.response.message()["id"], number);
    }
}

#[test]
fn nobody_speaks_for_another() {
    let server = Server::serve("emulation-forged", WORKERS);
    let session = Session::connect(&server);
    let name = session.session.clone();
    let (node, code) = name.split_once('.').expect("a node");
    let flipped = |index: usize| {
        let mut code = code.as_bytes().to_vec();
        code[index] = if code[index] == b'A' { b'B' } else { b'A' };
        format!("{node}.{}", String::from_utf8(code).expect("text"))
    };
    for forged in [
        String::new(),
        "x".into(),
        code.into(),
        flipped(0),
        flipped(5),
        flipped(20),
        format!("other.{code}"),
    ] {
        let answer = emulate(&server, &forged, &session.node, "{}");
        assert_eq!(answer.status, 404, "{forged}");
        assert!(answer.rest().contains("connect again"));
    }
    let answer = emulate(&server, &name, "another-node", "{}");
    assert_eq!(answer.status, 404);
    // What may be left out is what the session's name says as well.
    let ping = r#"{"id":2,"presence":{"channel":"a"}}"#;
    assert_eq!(emulate(&server, &name, "", ping).status, 204);

    // A name is worth nothing any more when its session is over, even if the place is taken again.
    drop(session);
    wait_until("the session is over", || {
        (emulate(&server, &name, "", ping).status == 404).then_some(())
    });
    let others: Vec<_> = (0..12).map(|_| Session::connect(&server)).collect();
    assert!(others.iter().all(|other| other.session != name));
    assert_eq!(emulate(&server, &name, "", ping).status, 404);
}

#[test]
fn requests_that_can_not_be_are_told_so() {
    let server = Server::dev();
    let session = Session::connect(&server);
    let kind = "application/json";
    for (body, part) in [
        ("", "session"),
        ("[1]", "session"),
        (r#"{"session":1}"#, "session"),
        ("\u{fffd}", "session"),
    ] {
        let answer = post(&server, "/emulation", kind, body.as_bytes());
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.rest().contains(part), "{body}");
    }
    let answer = send(&server, "GET /emulation HTTP/1.1", b"");
    assert_eq!(answer.status, 405);
    let long = json!({"session": session.session, "node": "", "data": "x".repeat(65_536)});
    let answer = post(&server, "/emulation", kind, long.to_string().as_bytes());
    assert_eq!(answer.status, 413);
    // Nonsense in good form is the session's own business, and its end.
    let mut session = session;
    assert_eq!(session.send("nonsense"), 204);
    assert_eq!(
        session.response.message()["push"]["disconnect"]["code"],
        3501
    );
    assert_eq!(session.response.line(), None);
}

#[test]
fn browsers_may_ask_first() {
    let server = Server::dev();
    for path in [
        "/emulation",
        "/connection/http_stream",
        "/connection/poll",
        "/connection/uni_http_stream",
    ] {
        let origin = format!("http://{}", server.address);
        let head = format!(
            "OPTIONS {path} HTTP/1.1\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type"
        );
        let answer = send(&server, &head, b"");
        assert_eq!(answer.status, 204, "{path}");
        for (name, value) in [
            ("access-control-allow-origin", &*origin),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-headers", "content-type"),
            ("access-control-allow-methods", "POST, OPTIONS"),
            ("access-control-max-age", "300"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
    }
}

#[test]
fn a_request_that_never_ends_holds_nothing_up() {
    let server = Server::dev();
    let mut session = Session::connect(&server);
    let mut half = server.connect();
    write!(
        half,
        "POST /emulation HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000\r\n\r\n{{",
        server.address
    )
    .expect("half a request");
    let reply = session.call(r#"{"id":2,"presence":{"channel":"a"}}"#);
    assert_eq!(reply["id"], 2);
    drop(half);
}
