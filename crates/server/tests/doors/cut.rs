//! An answer that goes on is cut at each of its bytes, and its client comes back by the same door: what it has taken
//! before and gets then is the whole stream, once, in order.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::emulation::WORKERS;
use crate::http::{Response, post};
use crate::process::{Server, Wait};
use crate::protobuf;
use crate::ways::{Door, Form, Position, Publication, event, parse, publications};

/// How many publications there are before a client comes, and in all.
const BEFORE: u64 = 2;
const ALL: u64 = 4;

/// What is published: found at once in whatever it is put.
const DATA: u64 = 9_000_000;

/// How many channels are made ready in one call.
const BATCH: usize = 100;

fn serve(name: &str) -> Server {
    Server::serve(
        name,
        &format!("{WORKERS}allow_history_for_client = true\nallow_history_for_anonymous = true\n"),
    )
}

/// Channels with a stream that has begun, each for one cut.
struct Channels<'s> {
    server: &'s Server,
    name: String,
    count: usize,
    ready: Vec<(String, Position)>,
    publisher: TcpStream,
}

impl<'s> Channels<'s> {
    fn new(server: &'s Server, name: &str) -> Self {
        Self {
            server,
            name: name.to_lowercase(),
            count: 0,
            ready: Vec::new(),
            publisher: server.connect(),
        }
    }

    /// A channel, and where its stream begins.
    fn next(&mut self) -> (String, Position) {
        if self.ready.is_empty() {
            let names: Vec<_> = (0..BATCH)
                .map(|number| format!("{}-{}", self.name, self.count + number))
                .collect();
            self.count += BATCH;
            let commands: Vec<_> = names
                .iter()
                .flat_map(|name| (1..=BEFORE).map(move |n| publish(name, n)))
                .collect();
            let answer = self
                .server
                .api("batch", &json!({"commands": commands}).to_string());
            let answer = parse(answer.as_bytes());
            for (index, name) in names.into_iter().enumerate() {
                let reply = &answer["replies"][index * BEFORE as usize];
                let epoch = reply["publish"]["epoch"].as_str();
                let epoch = epoch.expect("an epoch").to_owned();
                self.ready.push((name, Position { offset: 0, epoch }));
            }
        }
        self.ready.pop().expect("there are some")
    }

    /// The rest of the stream comes.
    fn go_on(&mut self, channel: &str) {
        let commands: Vec<_> = (BEFORE + 1..=ALL).map(|n| publish(channel, n)).collect();
        let body = json!({"commands": commands}).to_string();
        let (address, len) = (self.server.address, body.len());
        write!(
            self.publisher,
            "POST /api/batch HTTP/1.1\r\nHost: {address}\r\nX-API-Key: dev\r\nContent-Length: {len}\r\n\r\n{body}"
        )
        .expect("a request");
        let stream = self.publisher.try_clone().expect("a clone");
        let answer = Response::read(stream).rest();
        assert!(!answer.contains("error"), "{answer}");
    }
}

fn publish(channel: &str, number: u64) -> Value {
    json!({"publish": {"channel": channel, "data": DATA + number}})
}

/// The bytes of a request.
fn request(server: &Server, door: Door, channel: &str, since: &Position) -> Vec<u8> {
    let (asked, address) = (door.asks(channel, since), server.address);
    if door.form() != Form::Frames {
        return asked.request(address);
    }
    let (path, body) = (asked.path, asked.body);
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes();
    if !body.is_empty() {
        let opcode = if door.is_protobuf() { 0x82 } else { 0x81 };
        match u16::try_from(body.len()).expect("short").to_be_bytes() {
            [0, len @ ..126] => request.extend([opcode, 0x80 | len]),
            len => request.extend([&[opcode, 0xfe], &len[..]].concat()),
        }
        request.extend([0; 4]);
        request.extend(body);
    }
    request
}

/// What a client can take of an answer of which so much has come: all that is whole, and nothing else.
fn taken(door: Door, raw: &[u8]) -> Vec<Publication> {
    let Some(end) = find(raw, b"\r\n\r\n") else {
        return Vec::new();
    };
    let messages = match door.form() {
        Form::Frames => frames(door, &raw[end..]),
        Form::Lengths => protobuf::take_replies(&mut body(&raw[end..])),
        Form::Lines => split(&body(&raw[end..]), b"\n")
            .filter(|line| line != b"\n")
            .map(|line| parse(&line))
            .collect(),
        Form::Events => split(&body(&raw[end..]), b"\n\n")
            .flat_map(|text| event(std::str::from_utf8(&text).expect("an event is text").trim()))
            .collect(),
        Form::Answers => unreachable!("whole answers have their own test"),
    };
    messages.iter().flat_map(publications).collect()
}

/// Where the first `mark` ends.
fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    let start = bytes.windows(mark.len()).position(|part| part == mark)?;
    Some(start + mark.len())
}

/// The pieces that have their end, with it.
fn split(bytes: &[u8], end: &'static [u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut rest = bytes.to_vec();
    std::iter::from_fn(move || {
        let at = find(&rest, end)?;
        Some(rest.drain(..at).collect())
    })
}

/// What has come of a body in chunks (RFC 9112, section 7.1): of the last one too.
fn body(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = find(raw, b"\r\n") {
        let len = std::str::from_utf8(&raw[..end - 2]).expect("a length is text");
        let len = usize::from_str_radix(len, 16).expect("a length");
        raw = &raw[end..];
        body.extend_from_slice(&raw[..len.min(raw.len())]);
        raw = raw.get(len + 2..).unwrap_or_default();
    }
    body
}

/// The text messages that are whole (RFC 6455, section 5.2).
fn frames(door: Door, mut raw: &[u8]) -> Vec<Value> {
    let mut messages = Vec::new();
    while let [first, len, rest @ ..] = raw {
        let (len, rest) = match (len, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (126, _) => break,
            (len, rest) => (usize::from(*len), rest),
        };
        let Some((payload, rest)) = rest.split_at_checked(len) else {
            break;
        };
        raw = rest;
        if matches!(first & 0xf, 1 | 2) {
            messages.extend(door.messages(&mut payload.to_vec()));
        }
    }
    messages
}

/// Reads an answer until all of the stream was taken, or so many bytes have come. `live` has the rest published, once
/// what was there before has come.
fn read(
    stream: &mut TcpStream,
    door: Door,
    wait: &Wait,
    cut: usize,
    mut live: impl FnMut(),
) -> Vec<Publication> {
    let (mut raw, mut is_live) = (Vec::new(), false);
    let mark = (DATA + BEFORE).to_string();
    loop {
        let got = taken(door, &raw);
        let is_all = got.last().is_some_and(|(_, number)| *number == DATA + ALL);
        if is_all || raw.len() >= cut {
            return got;
        }
        if !is_live && find(&raw, mark.as_bytes()).is_some() {
            is_live = true;
            live();
        }
        assert!(
            wait.read_up_to(stream, &mut raw, cut),
            "it ended: {}",
            String::from_utf8_lossy(&raw)
        );
    }
}

fn is_whole(got: &[Publication]) -> bool {
    let expected = (1..=ALL).map(|number| (number, DATA + number));
    got.iter().copied().eq(expected)
}

/// Cuts the answers of a door at each byte, until they are whole.
fn cut_everywhere(door: Door) {
    let name = format!("cut-{door:?}");
    let server = serve(&name);
    let mut channels = Channels::new(&server, &name);
    for cut in 0.. {
        let (channel, mut position) = channels.next();
        let wait = Wait::new(format!(
            "the end of the stream by {door:?}, cut at byte {cut}"
        ));
        let mut got = {
            let mut stream = server.connect();
            let request = request(&server, door, &channel, &position);
            stream.write_all(&request).expect("a request");
            let mut is_live = false;
            let got = read(&mut stream, door, &wait, cut, || {
                channels.go_on(&channel);
                is_live = true;
            });
            drop(stream);
            if !is_live {
                channels.go_on(&channel);
            }
            got
        };
        if is_whole(&got) {
            assert!(cut > 100, "{cut} bytes are no answer");
            return;
        }
        if let Some((offset, _)) = got.last() {
            position.offset = *offset;
        }
        let mut stream = server.connect();
        let request = request(&server, door, &channel, &position);
        stream.write_all(&request).expect("a request");
        got.extend(read(&mut stream, door, &wait, usize::MAX, || {}));
        assert!(is_whole(&got), "{door:?}, cut at byte {cut}: {got:?}");
    }
}

#[test]
fn http_streaming_cut_at_each_byte() {
    cut_everywhere(Door::HttpStream);
}

#[test]
fn server_sent_events_cut_at_each_byte() {
    cut_everywhere(Door::Sse);
}

#[test]
fn unidirectional_http_streaming_cut_at_each_byte() {
    cut_everywhere(Door::UniHttpStream);
}

#[test]
fn unidirectional_server_sent_events_cut_at_each_byte() {
    cut_everywhere(Door::UniSse);
}

#[test]
fn events_cut_at_each_byte() {
    cut_everywhere(Door::Events);
}

#[test]
fn lines_cut_at_each_byte() {
    cut_everywhere(Door::Lines);
}

#[test]
fn websockets_cut_at_each_byte() {
    cut_everywhere(Door::WebSocket);
}

#[test]
fn plain_websockets_cut_at_each_byte() {
    cut_everywhere(Door::PlainSocket);
}

#[test]
fn websockets_of_protobuf_cut_at_each_byte() {
    cut_everywhere(Door::WebSocketProtobuf);
}

#[test]
fn http_streaming_of_protobuf_cut_at_each_byte() {
    cut_everywhere(Door::HttpStreamProtobuf);
}

/// A long-polled session that has asked for a subscription, and polled nothing yet.
struct Polled<'s> {
    server: &'s Server,
    session: Value,
    next: Value,
}

impl<'s> Polled<'s> {
    fn open(server: &'s Server, channel: &str, since: &Position) -> Self {
        let (head, _) = answer(&raw_answer(server, &json!({"open": 1}), "")).expect("an answer");
        let this = Self {
            server,
            session: head["session"].clone(),
            next: head["next"].clone(),
        };
        let commands = Door::Poll.asks(channel, since).body;
        let commands = String::from_utf8(commands).expect("text");
        let head = json!({"session": this.session, "send": 1});
        assert_eq!(ask(server, &head, &commands).status, 204);
        this
    }

    /// Polls, reads what comes up to `cut` bytes, and takes what is whole. An answer that `goes_on` is left when all of
    /// the stream was taken.
    fn poll(
        &mut self,
        goes_on: bool,
        wait: &Wait,
        cut: usize,
        mut live: impl FnMut(),
    ) -> Vec<Publication> {
        let head = json!({"session": self.session, "poll": self.next, "stream": goes_on});
        let body = format!("{head}\n");
        let (mut stream, address) = (self.server.connect(), self.server.address);
        write!(
            stream,
            "POST /connection/poll HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("a request");
        let (mut raw, mut is_live) = (Vec::new(), false);
        let mark = (DATA + BEFORE).to_string();
        let last = (DATA + ALL).to_string();
        loop {
            // The poll that was given up has been looked at behind this one: docs/long-polling.md has its client poll again.
            if cut == usize::MAX && raw.starts_with(b"HTTP/1.1 409 ") {
                return Vec::new();
            }
            let (next, got, is_over) = parts(goes_on, &raw);
            let is_all = got.iter().any(|(_, number)| number.to_string() == last);
            if is_all || is_over || raw.len() >= cut {
                if let Some(next) = next {
                    self.next = next;
                }
                return got;
            }
            if !is_live && find(&raw, mark.as_bytes()).is_some() {
                is_live = true;
                live();
            }
            assert!(
                wait.read_up_to(&mut stream, &mut raw, cut),
                "it ended: {}",
                String::from_utf8_lossy(&raw)
            );
        }
    }
}

fn ask(server: &Server, head: &Value, data: &str) -> Response {
    let body = format!("{head}\n{data}");
    post(server, "/connection/poll", "text/plain", body.as_bytes())
}

fn raw_answer(server: &Server, head: &Value, data: &str) -> Vec<u8> {
    ask(server, head, data).rest_bytes()
}

/// The head of an answer, and its messages.
fn answer(body: &[u8]) -> Option<(Value, Vec<Value>)> {
    let mut lines = split(body, b"\n").map(|line| parse(&line));
    Some((lines.next()?, lines.collect()))
}

/// What is whole of an answer of which so much has come: what to poll with next, if that is known, and the
/// publications; and whether the answer is over.
fn parts(goes_on: bool, raw: &[u8]) -> (Option<Value>, Vec<Publication>, bool) {
    let Some(end) = find(raw, b"\r\n\r\n") else {
        return (None, Vec::new(), false);
    };
    if !goes_on {
        let head = String::from_utf8_lossy(&raw[..end]).to_ascii_lowercase();
        let (_, len) = head.split_once("content-length: ").expect("a length");
        let (len, _) = len.split_once('\r').expect("its end");
        if raw.len() - end < len.parse().expect("a length") {
            return (None, Vec::new(), false);
        }
        let (head, messages) = answer(&raw[end..]).expect("an answer");
        let got = messages.iter().flat_map(publications).collect();
        return (Some(head["next"].clone()), got, true);
    }
    let (body, mut at, mut next, mut got) = (body(&raw[end..]), 0, None, Vec::new());
    while let Some(end) = find(&body[at..], b"\n") {
        let head = parse(&body[at..at + end]);
        let size = head["size"].as_u64().expect("a size") as usize;
        let Some(messages) = body.get(at + end..at + end + size) else {
            break;
        };
        at += end + size;
        next = Some(head["next"].clone());
        got.extend(split(messages, b"\n").flat_map(|line| publications(&parse(&line))));
    }
    (next, got, false)
}

fn cut_polls_everywhere(goes_on: bool) {
    let name = format!("cut-poll-{goes_on}");
    let server = serve(&name);
    let mut channels = Channels::new(&server, &name);
    for cut in 0.. {
        let (channel, position) = channels.next();
        let wait = Wait::new(format!("the end of the stream by polls, cut at byte {cut}"));
        let mut polled = Polled::open(&server, &channel, &position);
        let mut is_live = false;
        let mut got = polled.poll(goes_on, &wait, cut, || {
            channels.go_on(&channel);
            is_live = true;
        });
        if !is_live {
            channels.go_on(&channel);
        }
        // One that doesn't go on is whole before all has come.
        let is_uncut = if goes_on {
            is_whole(&got)
        } else {
            !got.is_empty()
        };
        while got.last().is_none_or(|(_, number)| *number < DATA + ALL) {
            got.extend(polled.poll(goes_on, &wait, usize::MAX, || {}));
        }
        assert!(is_whole(&got), "cut at byte {cut}: {got:?}");
        let close = json!({"session": polled.session, "close": true});
        assert_eq!(ask(&server, &close, "").status, 204);
        if is_uncut {
            assert!(cut > 100, "{cut} bytes are no answer");
            return;
        }
    }
}

#[test]
fn polls_cut_at_each_byte() {
    cut_polls_everywhere(false);
}

#[test]
fn polls_that_go_on_cut_at_each_byte() {
    cut_polls_everywhere(true);
}
