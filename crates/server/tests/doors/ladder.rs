//! One reader goes down, up and across all transports: each is cut in the middle of the traffic and not
//! used the next time, and every ordered pair of them has its turn. What it gets is the whole stream,
//! once, in order.
//!
//! `cargo xtask test ladder` is the long one, with a million messages.

use std::collections::{HashSet, VecDeque};
use std::sync::mpsc;
use std::time::Instant;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::emulation::WORKERS;
use crate::http::{Response, emulate, get, post};
use crate::http2;
use crate::process::Server;
use crate::socket::Socket;

/// Messages in all, unless the environment says more.
const MESSAGES: u64 = 100_000;

/// How far the publisher may be ahead: less than the history keeps, and more than any page, so that
/// there is something to catch up with at each change, and something live behind it.
const AHEAD: u64 = 4_000;

/// How many are published in one call.
const BATCH: u64 = 200;

/// Where a reader is in the stream.
#[derive(Clone, Debug, PartialEq)]
struct Position {
    offset: u64,
    epoch: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Way {
    WebSocket,
    /// RFC 8441.
    Http2Socket,
    HttpStream,
    Http2Stream,
    Sse,
    Poll,
    UniSocket,
    UniSse,
    UniHttpStream,
    PlainSocket,
    Events,
    Lines,
    Http2Lines,
    History,
}

const WAYS: [Way; 14] = [
    Way::WebSocket,
    Way::Http2Socket,
    Way::HttpStream,
    Way::Http2Stream,
    Way::Sse,
    Way::Poll,
    Way::UniSocket,
    Way::UniSse,
    Way::UniHttpStream,
    Way::PlainSocket,
    Way::Events,
    Way::Lines,
    Way::Http2Lines,
    Way::History,
];

/// A publication: its offset, and the number that was published.
type Publication = (u64, u64);

/// A way, opened at a position.
enum Line<'s> {
    /// A WebSocket.
    Socket(Socket),
    Http2Socket(http2::Socket),
    /// A response that goes on: lines, or events.
    Lines(Response),
    Http2Lines(http2::Response),
    Events(Response),
    Poll(Polled<'s>),
    History(&'s Server, Position),
}

/// What waits to be read, by whatever way it came.
struct Reader<'s> {
    server: &'s Server,
    line: Line<'s>,
    /// Session and node, where commands go beside the line.
    address: Option<(String, String)>,
    waiting: VecDeque<Publication>,
}

impl<'s> Reader<'s> {
    /// Goes on behind `since`.
    fn open(server: &'s Server, way: Way, since: &Position) -> Self {
        let Position { offset, epoch } = since;
        let position = json!({"recover": true, "offset": offset, "epoch": epoch});
        let mut subscribe = position.clone();
        subscribe["channel"] = json!(CHANNEL);
        let commands = [
            json!({"id": 1, "connect": {}}).to_string(),
            json!({"id": 2, "subscribe": subscribe}).to_string(),
        ]
        .join("\n");
        let uni = json!({"subs": {CHANNEL: position}}).to_string();
        let query = format!("channel={CHANNEL}&since={offset},{epoch}");
        let line = match way {
            Way::WebSocket => {
                let mut socket =
                    Socket::open(server, "/connection/websocket", "").expect("it opens");
                socket.send(&commands);
                Line::Socket(socket)
            }
            Way::Http2Socket => {
                let socket = http2::Socket::open(server, "/connection/websocket");
                socket.send(&commands);
                Line::Http2Socket(socket)
            }
            Way::PlainSocket => {
                let path = format!("/ws?envelope=1&{query}");
                Line::Socket(Socket::open(server, &path, "").expect("it opens"))
            }
            Way::HttpStream => {
                let path = "/connection/http_stream";
                Line::Lines(post(server, path, "application/json", commands.as_bytes()))
            }
            Way::Http2Stream => {
                let path = "/connection/http_stream";
                Line::Http2Lines(http2::Response::ask(server, "POST", path, &commands))
            }
            Way::Sse => {
                let mut response =
                    post(server, "/connection/sse", "text/plain", commands.as_bytes());
                response.until(b"\r\n");
                Line::Events(response)
            }
            Way::UniSocket => {
                let connect = utf8_percent_encode(&uni, NON_ALPHANUMERIC);
                let path = format!("/connection/uni_websocket?cf_connect={connect}");
                Line::Socket(Socket::open(server, &path, "").expect("it opens"))
            }
            Way::UniHttpStream => {
                let path = "/connection/uni_http_stream";
                Line::Lines(post(server, path, "application/json", uni.as_bytes()))
            }
            Way::UniSse => {
                let mut response =
                    post(server, "/connection/uni_sse", "text/plain", uni.as_bytes());
                response.until(b"\r\n");
                Line::Events(response)
            }
            Way::Events => Line::Events(get(server, &format!("/events?{query}"))),
            Way::Lines => Line::Lines(get(server, &format!("/lines?{query}"))),
            Way::Http2Lines => {
                let path = format!("/lines?{query}");
                Line::Http2Lines(http2::Response::ask(server, "GET", &path, ""))
            }
            Way::Poll => Line::Poll(Polled::open(server, &commands)),
            Way::History => Line::History(server, since.clone()),
        };
        Self {
            server,
            line,
            address: None,
            waiting: VecDeque::new(),
        }
    }

    /// The next publication.
    fn next(&mut self) -> Publication {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                return next;
            }
            let mut heard = Vec::new();
            match &mut self.line {
                Line::Socket(socket) => {
                    let text = socket.text();
                    heard.extend(text.lines().map(|line| parse(line.as_bytes())));
                }
                Line::Http2Socket(socket) => {
                    let text = socket.text();
                    heard.extend(text.lines().map(|line| parse(line.as_bytes())));
                }
                Line::Http2Lines(response) => {
                    let line = response.until(b"\n");
                    if line != b"\n" {
                        heard.push(parse(&line));
                    }
                }
                Line::Lines(response) => {
                    let line = response.until(b"\n").expect("it goes on");
                    if line != b"\n" {
                        heard.push(parse(&line));
                    }
                }
                Line::Events(response) => {
                    let event = response.event().expect("it goes on");
                    // With a position of its own: data alone, as with no SDK.
                    let mut offset = None;
                    for field in event.lines() {
                        if let Some(id) = field.strip_prefix("id: ") {
                            let (before, _) = id.split_once(',').expect("a position");
                            offset = Some(before.parse::<u64>().expect("an offset"));
                        } else if let Some(data) = field.strip_prefix("data: ") {
                            let data = parse(data.as_bytes());
                            heard.push(match offset {
                                Some(offset) => json!({"offset": offset, "data": data}),
                                None => data,
                            });
                        } else {
                            assert!(!field.contains("gap"), "{event}");
                        }
                    }
                }
                Line::Poll(polled) => heard = polled.poll(),
                Line::History(server, since) => {
                    let Position { offset, epoch } = &*since;
                    let path = format!(
                        "/history?channel={CHANNEL}&since={offset},{epoch}&limit=100&wait=20"
                    );
                    let answer = get(server, &path);
                    let status = answer.status;
                    let page = answer.rest();
                    assert_eq!(status, 200, "{page}");
                    let page = parse(page.as_bytes());
                    let next = page["next"].as_str().expect("a position");
                    let (next, _) = next.split_once(',').expect("an epoch");
                    since.offset = next.parse().expect("an offset");
                    heard.extend(page["publications"].as_array().expect("a list").clone());
                }
            }
            self.answer_pings(&heard);
            for message in heard {
                self.waiting.extend(publications(&message));
            }
        }
    }

    /// Notes where commands go, and answers pings there.
    fn answer_pings(&mut self, heard: &[Value]) {
        for message in heard {
            let connect = &message["connect"];
            if let (Some(session), Some(node)) =
                (connect["session"].as_str(), connect["node"].as_str())
            {
                self.address = Some((session.to_owned(), node.to_owned()));
            }
            if *message != json!({}) {
                continue;
            }
            match (&mut self.line, &self.address) {
                (Line::Socket(socket), _) => socket.send("{}"),
                (Line::Http2Socket(socket), _) => socket.send("{}"),
                (Line::Poll(polled), _) => polled.send("{}"),
                (_, Some((session, node))) => {
                    assert_eq!(emulate(self.server, session, node, "{}").status, 204);
                }
                // A client that only listens.
                _ => {}
            }
        }
    }
}

/// A long-polled session, in which every third answer gets lost.
struct Polled<'s> {
    server: &'s Server,
    session: Value,
    next: Value,
    polls: u32,
    sent: u32,
    first: Vec<Value>,
}

impl<'s> Polled<'s> {
    fn open(server: &'s Server, commands: &str) -> Self {
        let (head, first) = Self::ask(server, &json!({"open": 1}), commands);
        Self {
            server,
            session: head["session"].clone(),
            next: head["next"].clone(),
            polls: 0,
            sent: 0,
            first,
        }
    }

    fn ask(server: &Server, head: &Value, data: &str) -> (Value, Vec<Value>) {
        let body = format!("{head}\n{data}");
        let answer = post(server, "/connection/poll", "text/plain", body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.head);
        let body = answer.rest();
        let mut lines = body.lines().map(|line| parse(line.as_bytes()));
        let head = lines.next().expect("a head");
        assert_eq!(head["end"], Value::Null);
        (head, lines.collect())
    }

    fn send(&mut self, commands: &str) {
        self.sent += 1;
        let head = json!({"session": self.session, "send": self.sent});
        let body = format!("{head}\n{commands}");
        // The answer gets lost each time, too.
        for _ in 0..2 {
            let answer = post(
                self.server,
                "/connection/poll",
                "text/plain",
                body.as_bytes(),
            );
            assert_eq!(answer.status, 204);
        }
    }

    fn poll(&mut self) -> Vec<Value> {
        if !self.first.is_empty() {
            return std::mem::take(&mut self.first);
        }
        self.polls += 1;
        let head = json!({"session": self.session, "poll": self.next});
        let (answer, messages) = Self::ask(self.server, &head, "");
        if self.polls.is_multiple_of(3) {
            // It never came.
            return Vec::new();
        }
        self.next = answer["next"].clone();
        messages
    }
}

fn parse(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(text)))
}

/// The publications in a message, in whichever form it has.
fn publications(message: &Value) -> Vec<Publication> {
    let one = |publication: &Value| {
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{message}"));
        (number(&publication["offset"]), number(&publication["data"]))
    };
    let all = |list: &Value| list.as_array().into_iter().flatten().map(one).collect();
    assert_eq!(message["error"], Value::Null, "{message}");
    assert_ne!(message["event"], "gap", "{message}");
    let replies = [
        &message["subscribe"],
        &message["connect"]["subs"][CHANNEL],
        &message["subs"][CHANNEL],
    ];
    for reply in replies {
        if reply.is_object() {
            assert_eq!(reply["recovered"], true, "{message}");
            return all(&reply["publications"]);
        }
    }
    for publication in [&message["push"]["pub"], &message["pub"], message] {
        if !publication["data"].is_null() {
            return vec![one(publication)];
        }
    }
    Vec::new()
}

/// A walk that goes over every ordered pair of ways once (an Eulerian circuit: Hierholzer).
fn walk() -> Vec<Way> {
    let mut left: HashSet<(usize, usize)> = (0..WAYS.len())
        .flat_map(|from| (0..WAYS.len()).map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
        .collect();
    let mut path = vec![0];
    let mut walk = Vec::new();
    while let Some(&at) = path.last() {
        match (0..WAYS.len()).find(|to| left.remove(&(at, *to))) {
            Some(to) => path.push(to),
            None => walk.extend(path.pop().map(|at| WAYS[at])),
        }
    }
    walk
}

#[test]
fn every_ordered_pair_of_transports_resumes() {
    let messages = std::env::var("LADDER_MESSAGES").map_or(MESSAGES, |messages| {
        messages.parse().expect("LADDER_MESSAGES is a number")
    });
    let config = WORKERS.replace("history_size = 1000", "history_size = 10000");
    let config =
        format!("{config}allow_history_for_client = true\nallow_history_for_anonymous = true\n");
    let server = Server::serve("ladder", &config);
    let walk = walk();
    assert_eq!(walk.len(), WAYS.len() * (WAYS.len() - 1) + 1);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let mut since = Position {
            offset: 0,
            epoch: epoch(&server),
        };
        // Its end is the publisher's, too.
        let (progress, read) = mpsc::channel();
        let its_server = &server;
        scope.spawn(move || publish(its_server, messages, &read));
        let stages = walk.len() as u64;
        for (stage, way) in walk.iter().enumerate() {
            // The last way reads what is left; each other is cut with more on the way.
            let until = messages * (stage as u64 + 1) / stages;
            let mut reader = Reader::open(&server, *way, &since);
            while since.offset < until {
                let (offset, number) = reader.next();
                let expected = since.offset + 1;
                assert_eq!(
                    (offset, number),
                    (expected, expected),
                    "stage {stage}: {way:?} after {:?}",
                    stage.checked_sub(1).map(|before| walk[before])
                );
                since.offset = offset;
                progress.send(offset).ok();
            }
        }
        assert_eq!(since.offset, messages);
    });
    println!(
        "{messages} messages over {} changes of transport in {:.1?}: none lost, none twice",
        walk.len() - 1,
        start.elapsed()
    );
}

fn epoch(server: &Server) -> String {
    let answer = server.api("history", &json!({"channel": CHANNEL}).to_string());
    let answer = parse(answer.as_bytes());
    let epoch = answer["result"]["epoch"].as_str().expect("an epoch");
    epoch.to_owned()
}

/// Publishes the numbers from 1, never much further than what was read.
fn publish(server: &Server, messages: u64, progress: &mpsc::Receiver<u64>) {
    let mut read = 0;
    let mut next = 1;
    while next <= messages {
        let last = messages.min(next + BATCH - 1);
        while last > read + AHEAD {
            match progress.recv() {
                Ok(offset) => read = offset,
                Err(_) => return,
            }
        }
        let commands: Vec<_> = (next..=last)
            .map(|number| json!({"publish": {"channel": CHANNEL, "data": number}}))
            .collect();
        let answer = server.api("batch", &json!({"commands": commands}).to_string());
        assert!(!answer.contains("error"), "{answer}");
        next = last + 1;
    }
}

const CHANNEL: &str = "stream";
