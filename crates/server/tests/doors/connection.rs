//! One connection of HTTP/1.1 with answers that are given at once, and such that go on or are waited for: whoever
//! writes them, they come whole, one after the other.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::emulation::WORKERS;
use crate::http::post;
use crate::process::{Server, wait_until};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn serve(name: &str) -> Server {
    let more = "allow_history_for_client = true\nallow_history_for_anonymous = true\n";
    Server::serve(name, &format!("{WORKERS}{more}"))
}

/// A whole answer: status, head and body.
fn answer(stream: &mut TcpStream) -> (u16, String, String) {
    let mut came = Vec::new();
    let mut more = |came: &mut Vec<u8>| {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("it goes on");
        came.push(byte[0]);
    };
    while !came.ends_with(b"\r\n\r\n") {
        more(&mut came);
    }
    let head = String::from_utf8(came).expect("text").to_ascii_lowercase();
    let status = head[9..12].parse().expect("a status");
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                more(&mut line);
            }
            let text = String::from_utf8(line).expect("a length");
            let len = usize::from_str_radix(text.trim(), 16).expect("a length");
            for _ in 0..len + 2 {
                more(&mut body);
            }
            body.truncate(body.len() - 2);
            if len == 0 {
                break;
            }
        }
    } else if let Some((_, rest)) = head.split_once("content-length: ") {
        let len = rest.split("\r\n").next().expect("a length");
        for _ in 0..len.parse().expect("a length") {
            more(&mut body);
        }
    }
    (status, head, String::from_utf8(body).expect("text"))
}

fn poll_request(session: &Value, number: &Value, hold: u64, fields: &str) -> String {
    let stream = fields.contains("X-Stream");
    let body = json!({"session": session, "poll": number, "hold": hold, "stream": stream});
    let body = body.to_string();
    let len = body.len();
    format!(
        "POST /connection/poll HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {len}\r\n\r\n{body}"
    )
}

/// A session that is subscribed to a channel: its name, and what to poll with.
fn open(server: &Server, channel: &str) -> (Value, Value) {
    let subscribe = json!({"id": 2, "subscribe": {"channel": channel}});
    let body = format!("{{\"open\":1}}\n{{\"id\":1,\"connect\":{{}}}}\n{subscribe}");
    let opened = post(server, "/connection/poll", "text/plain", body.as_bytes()).rest();
    assert!(opened.contains("\"subscribe\""), "{opened}");
    let head: Value = serde_json::from_str(opened.lines().next().expect("a head")).expect("JSON");
    (head["session"].clone(), head["next"].clone())
}

fn publish(server: &Server, channel: &str, data: &Value) {
    server.api(
        "publish",
        &json!({"channel": channel, "data": data}).to_string(),
    );
}

#[test]
fn requests_behind_one_that_waits_have_their_turn() {
    let server = serve("connection-pipeline");
    let (session, number) = open(&server, "a");
    let mut stream = server.connect();
    // Far more than is read ahead: the rest waits in the socket.
    let many = 2_000;
    let wait = poll_request(&session, &number, 55, "");
    let sent = [HEALTH, &wait, &HEALTH.repeat(many)].concat();
    let mut writing = stream.try_clone().expect("it can be shared");
    let writer = std::thread::spawn(move || writing.write_all(sent.as_bytes()));
    assert_eq!(answer(&mut stream).0, 200);
    publish(&server, "a", &json!("news"));
    let (status, _, body) = answer(&mut stream);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"data\":\"news\""), "{body}");
    for _ in 0..many {
        assert_eq!(answer(&mut stream).2, "{}");
    }
    writer.join().expect("no panic").expect("all is taken");
    // The same once more, as nothing was acknowledged.
    let again = poll_request(&session, &number, 55, "");
    stream.write_all(again.as_bytes()).expect("a request");
    assert!(answer(&mut stream).2.contains("\"data\":\"news\""));
    stream.write_all(LAST.as_bytes()).expect("a request");
    assert_eq!(answer(&mut stream).2, "{}");
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
}

/// What was answered before and not taken yet isn't lost when the next answer goes on.
#[test]
fn an_answer_that_goes_on_comes_behind_those_before_it() {
    let server = serve("connection-order");
    let text = "x".repeat(4_000);
    for number in 0..90 {
        publish(&server, "long", &json!({"n": number, "text": text}));
    }
    let page = "GET /history?channel=long&limit=100 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20);
    let lines = "GET /lines?channel=long HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut stream = server.connect();
    stream
        .write_all(format!("{page}{lines}").as_bytes())
        .expect("requests");
    // Nobody reads until somebody else was served, so that answers are stuck on their way.
    for _ in 0..20 {
        server.api("info", "{}");
    }
    for _ in 0..20 {
        let (status, _, body) = answer(&mut stream);
        assert_eq!(status, 200);
        let page: Value = serde_json::from_str(&body).expect("a whole page");
        assert_eq!(page["publications"].as_array().map(Vec::len), Some(90));
    }
    let mut head = vec![0; 15];
    stream.read_exact(&mut head).expect("the last answer");
    assert_eq!(head, b"HTTP/1.1 200 OK");
}

/// A body that nobody has asked for is no request, be it there at once or when the answer is under way.
#[test]
fn a_body_that_is_not_read_is_never_taken_for_a_request() {
    let server = serve("connection-body");
    let hidden = "POST /publish?channel=hidden HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1";
    for is_late in [false, true] {
        let mut stream = server.connect();
        let len = hidden.len();
        let head = format!(
            "GET /history?channel=a&wait=1 HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("a request");
        if is_late {
            wait_until("the answer is waited for", || {
                let info = server.api("info", "{}");
                info.contains("\"num_clients\":1").then_some(())
            });
        }
        // The server may close, as it doesn't want all that.
        let _ = stream.write_all(hidden.as_bytes());
        let _ = stream.write_all(LAST.as_bytes());
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        assert!(said.matches("HTTP/1.1 200 OK").count() <= 2, "{said}");
    }
    let history = server.api("history", r#"{"channel":"hidden","limit":1}"#);
    assert!(history.contains("\"publications\":[]"), "{history}");
}

#[test]
fn a_connection_that_is_to_end_ends_behind_the_answer() {
    let server = serve("connection-close");
    let (session, number) = open(&server, "a");
    let mut stream = server.connect();
    let request = poll_request(&session, &number, 1, "Connection: close\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let (status, head, _) = answer(&mut stream);
    assert_eq!(status, 200);
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert!(head.contains("\r\ndate: "), "{head}");
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    // An older version of HTTP has neither chunks nor requests that follow.
    let mut stream = server.connect();
    stream
        .write_all(b"GET /lines?channel=a HTTP/1.0\r\n\r\n")
        .expect("a request");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    assert!(!head.contains("chunked"), "{head}");
}

/// Answers that go on and end leave the connection to the next request.
#[test]
fn what_goes_on_and_ends_is_followed_by_the_next() {
    let server = serve("connection-parts");
    let (session, number) = open(&server, "a");
    let mut stream = server.connect();
    for _ in 0..2 {
        let parts = poll_request(&session, &number, 1, "X-Stream: 1\r\n");
        let sent = format!("{parts}{HEALTH}");
        stream.write_all(sent.as_bytes()).expect("requests");
        let (status, head, body) = answer(&mut stream);
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        assert!(body.contains("\"size\":0"), "{body}");
        assert_eq!(answer(&mut stream).2, "{}");
    }
}
