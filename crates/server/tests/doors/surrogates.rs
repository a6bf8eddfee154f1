//! Halves of surrogate pairs in data, as escapes: JSON by its grammar, of which RFC 8259 (section 8.2) says that what
//! becomes of them can't be foretold. Data is for the clients to read, so it comes to them as it was sent; names, which the
//! server reads, can't have them.

use std::io::Write as _;

use crate::emulation::WORKERS;
use crate::http::{get, post, send};
use crate::process::Server;
use crate::protobuf;
use crate::socket::{Said, Socket};

const DATA: &str = r#"{"half":"\ud800","and":["\uDFFFx","\udc00\ud800"]}"#;

fn open(server: &Server, path: &str) -> Socket {
    Socket::open(server, path, "").expect("it opens")
}

/// A session of an SDK, which may be subscribed.
fn sdk(server: &Server, channel: Option<&str>) -> Socket {
    let mut socket = open(server, "/connection/websocket");
    socket.send(r#"{"id":1,"connect":{}}"#);
    socket.text();
    if let Some(channel) = channel {
        socket.send(&format!(
            r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#
        ));
        assert!(socket.text().contains("\"subscribe\""));
    }
    socket
}

#[test]
fn data_comes_as_it_was_sent_whoever_sends_and_hears_it() {
    let may_read = "allow_history_for_client = true\nallow_history_for_anonymous = true\n";
    let server = Server::serve("surrogates", &format!("{WORKERS}{may_read}"));
    let expected = format!("\"data\":{DATA}");
    let mut listeners = sdk(&server, Some("a"));
    let mut plain = open(&server, "/ws?channel=a");
    let mut envelope = open(&server, "/ws?channel=a&envelope=1");
    assert!(envelope.text().contains("\"subscribed\""));
    let mut events = get(&server, "/events?channel=a");
    let mut lines = get(&server, "/lines?channel=a");
    assert_eq!(lines.message()["event"], "subscribed");
    let mut hears = |who: &str| {
        let text = listeners.text();
        assert!(text.contains(&expected), "{who}: {text}");
        assert_eq!(plain.next(), Said::Text(DATA.into()), "{who}");
        let text = envelope.text();
        assert!(text.contains(&expected), "{who}: {text}");
        let mut event = events.event().expect("an event");
        if !event.contains("data: ") {
            // Where it begins.
            event = events.event().expect("an event");
        }
        assert!(event.contains(DATA), "{who}: {event}");
        let line = lines.until(b"\n").expect("a line");
        let line = String::from_utf8(line).expect("UTF-8");
        assert!(line.contains(DATA), "{who}: {line}");
    };
    server.api("publish", &format!(r#"{{"channel":"a","data":{DATA}}}"#));
    hears("publish of the API");
    server.api(
        "broadcast",
        &format!(r#"{{"channels":["a"],"data":{DATA}}}"#),
    );
    hears("broadcast of the API");
    let mut publisher = sdk(&server, None);
    publisher.send(&format!(
        r#"{{"id":3,"publish":{{"channel":"a","data":{DATA}}}}}"#
    ));
    assert_eq!(publisher.text().trim(), r#"{"id":3,"publish":{}}"#);
    hears("an SDK");
    let binary = open(&server, "/connection/websocket?cf_protocol=protobuf");
    let commands = [protobuf::connect(1), protobuf::publish(2, "a", DATA)].concat();
    let length = 0x80 | u8::try_from(commands.len()).expect("short");
    let frame = [&[0x82, length, 0, 0, 0, 0][..], &commands].concat();
    binary.stream().write_all(&frame).expect("a frame");
    hears("an SDK in Protobuf");
    let mut other = open(&server, "/ws?channel=b&channel=a");
    other.send(&format!(r#"{{"channel":"a","data":{DATA}}}"#));
    hears("a plain WebSocket");
    let path = "/publish?channel=a";
    assert!(post(&server, path, "application/json", DATA.as_bytes()).status < 300);
    hears("a plain request");
    // And from history.
    for page in [
        get(&server, "/history?channel=a").rest(),
        server.api("history", r#"{"channel":"a","limit":10}"#),
    ] {
        assert_eq!(page.matches(&expected).count(), 6, "{page}");
    }
    publisher.send(r#"{"id":4,"history":{"channel":"a","limit":10}}"#);
    assert_eq!(publisher.text().matches(&expected).count(), 6);
}

#[test]
fn names_cannot_have_them() {
    let server = Server::serve("surrogate-names", WORKERS);
    let head = "POST /api/publish HTTP/1.1\r\nX-API-Key: dev";
    let answer = send(&server, head, br#"{"channel":"\ud800","data":1}"#);
    assert_eq!(answer.status, 400);
    let said = answer.rest();
    assert!(said.contains("hex escape"), "{said}");
    let mut socket = sdk(&server, None);
    socket.send(r#"{"id":2,"subscribe":{"channel":"\ud800"}}"#);
    assert_eq!(socket.closed().0, 3501);
}
