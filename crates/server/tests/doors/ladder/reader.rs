//! A reader of the stream, by whichever way.

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::carrier::{Asker, Socket, Stream};
use crate::http::Broken;
use crate::process::Wait;
use crate::protobuf;
use crate::ways::{Asked, Door, Form, Position, Publication, event, parse, publications};

pub(super) const CHANNEL: &str = "stream";

/// A door, over HTTP/1.1 or HTTP/2 (WebSockets by RFC 8441).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) door: Door,
    pub(super) http2: bool,
}

/// A way, opened at a position.
enum Line {
    Socket(Socket),
    /// With what came of it that is no whole message yet.
    Stream(Stream, Vec<u8>),
    Polls(Polls),
    History(Asker, Position),
}

/// What waits to be read, by whatever way it came.
pub(super) struct Reader {
    address: SocketAddr,
    way: Way,
    line: Line,
    /// Session and node, where commands go beside the line.
    session: Option<(String, String)>,
    waiting: VecDeque<Publication>,
}

impl Reader {
    /// Goes on behind `since`.
    pub(super) fn open(address: SocketAddr, way: Way, since: &Position) -> Result<Self, Broken> {
        let Way { door, http2 } = way;
        let asked = door.asks(CHANNEL, since);
        let line = match door.form() {
            Form::Frames => {
                let mut socket = Socket::open(address, http2, &asked.path)?;
                if !asked.body.is_empty() {
                    socket.send(&asked.body, door.is_protobuf());
                }
                Line::Socket(socket)
            }
            Form::Lines | Form::Events | Form::Lengths => {
                Line::Stream(Stream::ask(address, http2, &asked)?, Vec::new())
            }
            Form::Answers => {
                let asker = Asker::new(address, http2);
                if matches!(door, Door::History | Door::Polling) {
                    Line::History(asker, since.clone())
                } else {
                    Line::Polls(Polls::open(asker, door, &asked)?)
                }
            }
        };
        Ok(Self {
            address,
            way,
            line,
            session: None,
            waiting: VecDeque::new(),
        })
    }

    /// The next publication, which should be that of this offset.
    pub(super) fn next(&mut self, expected: u64) -> Result<Publication, Broken> {
        let wait = Wait::new(format!("publication {expected} by {:?}", self.way));
        loop {
            if let Some(next) = self.waiting.pop_front() {
                return Ok(next);
            }
            wait.go_on();
            let heard = self.hear()?;
            self.answer_pings(&heard);
            self.waiting.extend(heard.iter().flat_map(publications));
        }
    }

    /// The next messages.
    fn hear(&mut self) -> Result<Vec<Value>, Broken> {
        let door = self.way.door;
        match &mut self.line {
            Line::Socket(socket) => {
                let mut message = socket.message()?;
                Ok(door.messages(&mut message))
            }
            Line::Stream(stream, came) => loop {
                let heard = take(door.form(), came);
                if !heard.is_empty() {
                    return Ok(heard);
                }
                // None of these doors ends an answer without a word.
                if !stream.read(came)? {
                    panic!("{:?} ended: {}", self.way, String::from_utf8_lossy(came));
                }
            },
            Line::Polls(polls) => polls.poll(),
            Line::History(asker, since) => {
                let (status, page) = asker.ask(&door.asks(CHANNEL, since))?;
                let page = String::from_utf8(page).expect("text");
                assert_eq!(status, 200, "{page}");
                let page = parse(page.as_bytes());
                let next = page["next"].as_str().expect("a position");
                let (next, _) = next.split_once(',').expect("an epoch");
                since.offset = next.parse().expect("an offset");
                Ok(page["publications"].as_array().expect("a list").clone())
            }
        }
    }

    /// Notes where commands go, and answers pings there.
    fn answer_pings(&mut self, heard: &[Value]) {
        let is_protobuf = self.way.door.is_protobuf();
        let pong: &[u8] = if is_protobuf { &[0] } else { b"{}" };
        for message in heard {
            let connect = &message["connect"];
            if let (Some(session), Some(node)) =
                (connect["session"].as_str(), connect["node"].as_str())
            {
                self.session = Some((session.to_owned(), node.to_owned()));
            }
            if *message != json!({}) {
                continue;
            }
            match (&mut self.line, &self.session) {
                (Line::Socket(socket), _) => socket.send(pong, is_protobuf),
                (Line::Polls(polls), _) => polls.send(pong),
                (Line::Stream(..), Some((session, node))) => {
                    let body = if is_protobuf {
                        protobuf::emulation(session, node, pong)
                    } else {
                        let body = json!({"session": session, "node": node, "data": "{}"});
                        body.to_string().into_bytes()
                    };
                    let mut asker = Asker::new(self.address, self.way.http2);
                    // If it breaks, so does the line.
                    let _ = asker.ask(&Asked {
                        method: "POST",
                        path: "/emulation".to_owned(),
                        body,
                        is_protobuf,
                    });
                }
                // A client that only listens.
                _ => {}
            }
        }
    }
}

/// Takes the messages that are whole of an answer that goes on.
fn take(form: Form, came: &mut Vec<u8>) -> Vec<Value> {
    let mark: &[u8] = match form {
        Form::Lengths => return protobuf::take_replies(came),
        Form::Events => b"\n\n",
        _ => b"\n",
    };
    let end = came.windows(mark.len()).rposition(|part| part == mark);
    let whole: Vec<u8> = came
        .drain(..end.map_or(0, |end| end + mark.len()))
        .collect();
    let text = std::str::from_utf8(&whole).expect("text");
    if form == Form::Events {
        // Before the first of them may be an empty line.
        text.split("\n\n")
            .flat_map(|text| event(text.trim()))
            .collect()
    } else {
        let lines = text.lines().filter(|line| !line.is_empty());
        lines.map(|line| parse(line.as_bytes())).collect()
    }
}

/// A long-polled session. A poll whose answer breaks off is asked again.
struct Polls {
    asker: Asker,
    door: Door,
    session: Value,
    next: Value,
    sent: u32,
    first: Vec<Value>,
    /// An answer that goes on, and what came of it that is no whole part yet.
    goes_on: Option<(Stream, Vec<u8>)>,
}

impl Polls {
    fn open(asker: Asker, door: Door, asked: &Asked) -> Result<Self, Broken> {
        let mut this = Self {
            asker,
            door,
            session: Value::Null,
            next: Value::Null,
            sent: 0,
            first: Vec::new(),
            goes_on: None,
        };
        let (status, body) = this.ask(&json!({"open": 1}), &asked.body)?;
        let (head, first) = this.messages(status, body);
        this.session = head["session"].clone();
        this.next = head["next"].clone();
        this.first = first;
        Ok(this)
    }

    fn asked(&self, head: &Value, data: &[u8]) -> Asked {
        let mut body = format!("{head}\n").into_bytes();
        body.extend_from_slice(data);
        Asked {
            method: "POST",
            path: "/connection/poll".to_owned(),
            body,
            is_protobuf: self.door.is_protobuf(),
        }
    }

    fn ask(&mut self, head: &Value, data: &[u8]) -> Result<(u16, Vec<u8>), Broken> {
        let asked = self.asked(head, data);
        self.asker.ask(&asked)
    }

    /// Head and messages of a whole answer, or of a part of one.
    fn messages(&self, status: u16, mut body: Vec<u8>) -> (Value, Vec<Value>) {
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let feed = body.iter().position(|byte| *byte == b'\n');
        let head: Vec<u8> = body.drain(..=feed.expect("a head has a line")).collect();
        let head = parse(&head);
        assert_eq!(head["end"], Value::Null);
        (head, self.door.messages(&mut body))
    }

    fn send(&mut self, commands: &[u8]) {
        self.sent += 1;
        let head = json!({"session": self.session, "send": self.sent});
        // Until there is an answer; what is broken for good the next poll sees.
        for _ in 0..3 {
            if let Ok((status, _)) = self.ask(&head, commands) {
                return assert_eq!(status, 204);
            }
        }
    }

    fn poll(&mut self) -> Result<Vec<Value>, Broken> {
        if !self.first.is_empty() {
            return Ok(std::mem::take(&mut self.first));
        }
        if self.door.goes_on() {
            return self.part();
        }
        let (status, body) = self.ask(&json!({"session": self.session, "poll": self.next}), b"")?;
        let (head, messages) = self.messages(status, body);
        self.next = head["next"].clone();
        Ok(messages)
    }

    /// The next part of an answer that goes on; nothing where one is over.
    fn part(&mut self) -> Result<Vec<Value>, Broken> {
        let (mut stream, mut came) = match self.goes_on.take() {
            Some(goes_on) => goes_on,
            None => {
                let head = json!({"session": self.session, "poll": self.next, "stream": true});
                let asked = self.asked(&head, b"");
                let (address, http2) = (self.asker.address, self.asker.is_http2());
                (Stream::ask(address, http2, &asked)?, Vec::new())
            }
        };
        loop {
            if let Some(end) = whole_part(&came) {
                let part: Vec<u8> = came.drain(..end).collect();
                let (head, messages) = self.messages(200, part);
                self.next = head["next"].clone();
                self.goes_on = Some((stream, came));
                return Ok(messages);
            }
            // What is left of it is thrown away if it breaks.
            if !stream.read(&mut came)? {
                assert_eq!(came, b"", "an answer that is over has whole parts");
                return Ok(Vec::new());
            }
        }
    }
}

/// Where the first part ends, if all of it has come.
fn whole_part(came: &[u8]) -> Option<usize> {
    let feed = came.iter().position(|byte| *byte == b'\n')?;
    let size = parse(&came[..feed])["size"].as_u64().expect("a size");
    let end = feed + 1 + usize::try_from(size).expect("small");
    (came.len() >= end).then_some(end)
}
