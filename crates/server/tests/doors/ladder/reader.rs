//! A reader of the stream, by whichever way.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::http::{Response, emulate};
use crate::http2;
use crate::process::{Server, Wait};
use crate::socket::Socket;
use crate::ways::{Asked, Door, Form, Position, Publication, event, parse, publications};

pub(super) const CHANNEL: &str = "stream";

/// A door, over HTTP/1.1 or HTTP/2 (WebSockets by RFC 8441).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) door: Door,
    pub(super) http2: bool,
}

/// A way, opened at a position.
enum Line<'s> {
    Socket(Socket),
    Http2Socket(http2::Socket),
    /// A response that goes on: lines, or events.
    Lines(Stream),
    Events(Stream),
    Poll(Polled<'s>),
    History(Asker<'s>, Position),
}

/// What waits to be read, by whatever way it came.
pub(super) struct Reader<'s> {
    server: &'s Server,
    way: Way,
    line: Line<'s>,
    /// Session and node, where commands go beside the line.
    address: Option<(String, String)>,
    waiting: VecDeque<Publication>,
}

impl<'s> Reader<'s> {
    /// Goes on behind `since`.
    pub(super) fn open(server: &'s Server, way: Way, since: &Position) -> Self {
        let asked = way.door.asks(CHANNEL, since);
        let line = match way.door.form() {
            Form::Frames if way.http2 => {
                let socket = http2::Socket::open(server, &asked.path);
                if !asked.body.is_empty() {
                    socket.send(&asked.body);
                }
                Line::Http2Socket(socket)
            }
            Form::Frames => {
                let mut socket = Socket::open(server, &asked.path, "").expect("it opens");
                if !asked.body.is_empty() {
                    socket.send(&asked.body);
                }
                Line::Socket(socket)
            }
            Form::Lines => Line::Lines(Stream::ask(server, way, &asked)),
            Form::Events => {
                let mut stream = Stream::ask(server, way, &asked);
                if way.door != Door::Events {
                    stream.until(b"\r\n");
                }
                Line::Events(stream)
            }
            Form::Answers => {
                let asker = Asker::open(server, way);
                match way.door {
                    Door::Poll => Line::Poll(Polled::open(asker, &asked.body)),
                    _ => Line::History(asker, since.clone()),
                }
            }
        };
        Self {
            server,
            way,
            line,
            address: None,
            waiting: VecDeque::new(),
        }
    }

    /// The next publication, which should be that of this offset.
    pub(super) fn next(&mut self, expected: u64) -> Publication {
        if let Some(next) = self.waiting.pop_front() {
            return next;
        }
        let wait = Wait::new(format!("publication {expected} by {:?}", self.way));
        loop {
            wait.go_on();
            let heard = self.hear();
            self.answer_pings(&heard);
            for message in heard {
                self.waiting.extend(publications(&message));
            }
            if let Some(next) = self.waiting.pop_front() {
                return next;
            }
        }
    }

    /// The next messages.
    fn hear(&mut self) -> Vec<Value> {
        let lines = |text: &str| text.lines().map(|line| parse(line.as_bytes())).collect();
        match &mut self.line {
            Line::Socket(socket) => lines(&socket.text()),
            Line::Http2Socket(socket) => lines(&socket.text()),
            Line::Lines(stream) => match &*stream.until(b"\n") {
                b"\n" => Vec::new(),
                line => vec![parse(line)],
            },
            Line::Events(stream) => {
                let text = stream.until(b"\n\n");
                event(std::str::from_utf8(&text).expect("an event is text"))
            }
            Line::Poll(polled) => polled.poll(),
            Line::History(asker, since) => {
                let asked = self.way.door.asks(CHANNEL, since);
                let (status, page) = asker.ask(&asked);
                assert_eq!(status, 200, "{page}");
                let page = parse(page.as_bytes());
                let next = page["next"].as_str().expect("a position");
                let (next, _) = next.split_once(',').expect("an epoch");
                since.offset = next.parse().expect("an offset");
                page["publications"].as_array().expect("a list").clone()
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

/// A response that goes on.
enum Stream {
    Http1(Response),
    Http2(http2::Response),
}

impl Stream {
    fn ask(server: &Server, way: Way, asked: &Asked) -> Self {
        if way.http2 {
            let Asked { method, path, body } = asked;
            Self::Http2(http2::Response::ask(server, method, path, body))
        } else {
            let response = asked.send(server);
            assert_eq!(response.status, 200, "{}", response.head);
            Self::Http1(response)
        }
    }

    fn until(&mut self, end: &[u8]) -> Vec<u8> {
        match self {
            Self::Http1(response) => response.until(end).expect("it goes on"),
            Self::Http2(response) => response.until(end),
        }
    }
}

/// Who asks one thing after the other: on a connection each, or on one of HTTP/2.
enum Asker<'s> {
    Http1(&'s Server),
    Http2(http2::Requests),
}

impl<'s> Asker<'s> {
    fn open(server: &'s Server, way: Way) -> Self {
        if way.http2 {
            Self::Http2(http2::Requests::open(server))
        } else {
            Self::Http1(server)
        }
    }

    /// Status and body of the answer.
    fn ask(&self, asked: &Asked) -> (u16, String) {
        match self {
            Self::Http1(server) => {
                let answer = asked.send(server);
                (answer.status, answer.rest())
            }
            Self::Http2(requests) => requests.ask(asked.method, &asked.path, &asked.body),
        }
    }
}

/// A long-polled session, in which every third answer gets lost.
struct Polled<'s> {
    asker: Asker<'s>,
    session: Value,
    next: Value,
    polls: u32,
    sent: u32,
    first: Vec<Value>,
}

impl<'s> Polled<'s> {
    fn open(asker: Asker<'s>, commands: &str) -> Self {
        let mut this = Self {
            asker,
            session: Value::Null,
            next: Value::Null,
            polls: 0,
            sent: 0,
            first: Vec::new(),
        };
        let (head, first) = this.messages(&json!({"open": 1}), commands);
        this.session = head["session"].clone();
        this.next = head["next"].clone();
        this.first = first;
        this
    }

    fn ask(&self, head: &Value, data: &str) -> (u16, String) {
        self.asker.ask(&Asked {
            method: "POST",
            path: "/connection/poll".to_owned(),
            body: format!("{head}\n{data}"),
        })
    }

    fn messages(&self, head: &Value, data: &str) -> (Value, Vec<Value>) {
        let (status, body) = self.ask(head, data);
        assert_eq!(status, 200, "{body}");
        let mut lines = body.lines().map(|line| parse(line.as_bytes()));
        let head = lines.next().expect("a head");
        assert_eq!(head["end"], Value::Null);
        (head, lines.collect())
    }

    fn send(&mut self, commands: &str) {
        self.sent += 1;
        let head = json!({"session": self.session, "send": self.sent});
        // The answer gets lost each time, too.
        for _ in 0..2 {
            assert_eq!(self.ask(&head, commands).0, 204);
        }
    }

    fn poll(&mut self) -> Vec<Value> {
        if !self.first.is_empty() {
            return std::mem::take(&mut self.first);
        }
        self.polls += 1;
        let head = json!({"session": self.session, "poll": self.next});
        let (answer, messages) = self.messages(&head, "");
        if self.polls.is_multiple_of(3) {
            // It never came.
            return Vec::new();
        }
        self.next = answer["next"].clone();
        messages
    }
}
