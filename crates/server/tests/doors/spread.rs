//! Requests of one session, each sent to a worker that is drawn by lot: no request needs the worker of its
//! session, or that of the request before it.
//!
//! Which worker the kernel gives a connection to is its own affair. So connections are opened until each worker
//! has one, and are kept: the name of a session that begins on a connection says which worker that is.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::emulation::WORKERS;
use crate::http::Response;
use crate::process::Server;

const COUNT: usize = 3;
const ROUNDS: u64 = 100;
const COMMANDS: &str = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"c\"}}";

/// A connection that carries one request after the other.
struct Kept {
    stream: TcpStream,
    host: String,
    came: Vec<u8>,
}

impl Kept {
    fn open(server: &Server) -> Self {
        Self {
            stream: server.connect(),
            host: server.address.to_string(),
            came: Vec::new(),
        }
    }

    /// Asks, and gives status and body of the answer, which has to be whole.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.send(method, path, body);
        let end = loop {
            let end = self.came.windows(4).position(|part| part == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None => self.read(),
            }
        };
        let head = String::from_utf8(self.came.drain(..end).collect()).expect("text");
        let head = head.to_ascii_lowercase();
        let len = head
            .split_once("content-length: ")
            .map_or("0", |(_, len)| len.split("\r\n").next().expect("a line"));
        let len: usize = len.parse().expect("a length");
        while self.came.len() < len {
            self.read();
        }
        let body = String::from_utf8(self.came.drain(..len).collect()).expect("text");
        (head[9..12].parse().expect("a status"), body)
    }

    fn send(&mut self, method: &str, path: &str, body: &str) {
        write!(
            self.stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        )
        .expect("the server takes a request");
    }

    fn read(&mut self) {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer).expect("the server answers");
        assert!(count > 0, "the connection was ended");
        self.came.extend_from_slice(&buffer[..count]);
    }
}

/// The worker of a session.
fn worker_of(session: &str) -> usize {
    let (_, place) = session.split_once('.').expect("a node's name");
    let place = URL_SAFE_NO_PAD.decode(place).expect("a place");
    usize::from(u16::from_be_bytes([place[0], place[1]]))
}

/// A connection to each worker.
fn one_each(server: &Server) -> Vec<Kept> {
    let mut found: Vec<Option<Kept>> = (0..COUNT).map(|_| None).collect();
    while found.iter().any(Option::is_none) {
        let mut kept = Kept::open(server);
        let session = begin(&mut kept, "").0;
        let head = json!({"session": session, "close": true}).to_string();
        assert_eq!(kept.ask("POST", "/connection/poll", &head).0, 204);
        found[worker_of(&session)] = Some(kept);
    }
    found.into_iter().flatten().collect()
}

/// Begins a long-polled session.
fn begin(kept: &mut Kept, commands: &str) -> (String, Vec<Value>) {
    let (status, body) = kept.ask(
        "POST",
        "/connection/poll",
        &format!("{{\"open\":1}}\n{commands}"),
    );
    assert_eq!(status, 200, "{body}");
    let mut lines = lines(&body);
    let head = lines.pop_front().expect("a head");
    let session = head["session"].as_str().expect("a name").to_owned();
    (session, std::iter::once(head).chain(lines).collect())
}

fn lines(text: &str) -> VecDeque<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// Lots that are the same in each run (xorshift).
struct Lots(u64);

impl Lots {
    fn draw(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % COUNT as u64) as usize
    }
}

/// How many requests of a session went to each worker: enough to each, or this has shown nothing.
fn check_spread(counts: [u64; COUNT]) {
    assert!(
        counts.iter().all(|count| *count >= ROUNDS / 6),
        "{counts:?}"
    );
}

fn publish(number: u64) -> String {
    json!({"id": number + 10, "publish": {"channel": "c", "data": number}}).to_string()
}

/// The numbers among what a client was told.
fn numbers<'m>(messages: impl IntoIterator<Item = &'m Value>) -> Vec<u64> {
    let messages = messages.into_iter();
    messages
        .filter_map(|message| message["push"]["pub"]["data"].as_u64())
        .collect()
}

#[test]
fn polls_and_commands_of_a_session_go_to_any_worker() {
    let server = Server::serve("spread-poll", WORKERS);
    let mut workers = one_each(&server);
    for home in 0..COUNT {
        let mut lots = Lots(0x5eed + home as u64);
        let mut counts = [0; COUNT];
        let (session, first) = begin(&mut workers[home], COMMANDS);
        assert_eq!(
            worker_of(&session),
            home,
            "it begins where it was asked for"
        );
        let mut next = first[0]["next"].clone();
        let mut heard = numbers(&first);
        for number in 1..=ROUNDS {
            let lot = lots.draw();
            counts[lot] += 1;
            let head = json!({"session": session, "send": number});
            let body = format!("{head}\n{}", publish(number));
            let (status, body) = workers[lot].ask("POST", "/connection/poll", &body);
            assert_eq!(status, 204, "{body}");
            while heard.len() < number as usize {
                let lot = lots.draw();
                counts[lot] += 1;
                let head = json!({"session": session, "poll": next}).to_string();
                let (status, body) = workers[lot].ask("POST", "/connection/poll", &head);
                assert_eq!(status, 200, "{body}");
                let lines = lines(&body);
                next = lines[0]["next"].clone();
                heard.extend(numbers(&lines));
            }
        }
        assert_eq!(heard, (1..=ROUNDS).collect::<Vec<_>>());
        check_spread(counts);
        let lot = lots.draw();
        let head = json!({"session": session, "close": true}).to_string();
        assert_eq!(workers[lot].ask("POST", "/connection/poll", &head).0, 204);
    }
}

#[test]
fn commands_for_a_stream_go_to_any_worker() {
    let server = Server::serve("spread-stream", WORKERS);
    let mut workers = one_each(&server);
    // Streams until each worker has had one.
    let mut homes = [false; COUNT];
    while homes.contains(&false) {
        let mut lots = Lots(0x5eed);
        let mut counts = [0; COUNT];
        let mut stream = Kept::open(&server);
        stream.send("POST", "/connection/http_stream", COMMANDS);
        let mut response = Response::read(stream.stream);
        let connect = response.message()["connect"].take();
        let session = connect["session"].as_str().expect("a name").to_owned();
        if std::mem::replace(&mut homes[worker_of(&session)], true) {
            continue;
        }
        let mut heard = Vec::new();
        for number in 1..=ROUNDS {
            let lot = lots.draw();
            counts[lot] += 1;
            let body = json!({
                "session": session,
                "node": connect["node"],
                "data": publish(number),
            });
            let (status, body) = workers[lot].ask("POST", "/emulation", &body.to_string());
            assert_eq!(status, 204, "{body}");
            while heard.len() < number as usize {
                heard.extend(numbers([&response.message()]));
            }
        }
        assert_eq!(heard, (1..=ROUNDS).collect::<Vec<_>>());
        check_spread(counts);
    }
}

/// Clients with no SDK: who reads pages has a position, which any worker understands.
#[test]
fn pages_and_publications_come_from_any_worker() {
    let config =
        format!("{WORKERS}allow_history_for_client = true\nallow_history_for_anonymous = true\n");
    let server = Server::serve("spread-pages", &config);
    let mut workers = one_each(&server);
    let mut lots = Lots(0x5eed);
    let mut counts = [0; COUNT];
    let page = |kept: &mut Kept, since: &str| {
        let path = format!("/history?channel=c{since}&limit=7");
        let (status, body) = kept.ask("GET", &path, "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).expect("JSON")
    };
    let mut next = page(&mut workers[0], "")["next"].clone();
    let mut heard = Vec::new();
    for number in 1..=ROUNDS {
        let lot = lots.draw();
        let body = number.to_string();
        let (status, body) = workers[lot].ask("POST", "/publish?channel=c", &body);
        assert_eq!(status, 200, "{body}");
        let lot = lots.draw();
        counts[lot] += 1;
        let since = format!("&since={}", next.as_str().expect("a position"));
        let mut page = page(&mut workers[lot], &since);
        let publications = page["publications"].as_array().expect("a list");
        heard.extend(publications.iter().filter_map(|one| one["data"].as_u64()));
        next = page["next"].take();
    }
    assert_eq!(heard, (1..=ROUNDS).collect::<Vec<_>>());
    check_spread(counts);
}
