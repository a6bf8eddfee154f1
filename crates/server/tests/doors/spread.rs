//! Requests of one session, each sent to a worker that is drawn by lot: no request needs the worker of its
//! session, or that of the request before it.
//!
//! Which worker the kernel gives a connection to is its own affair. So connections are opened until each worker
//! has one, and are kept: the name of a session that begins on a connection says which worker that is.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tautline_websocket::proto::Message;

use crate::emulation::WORKERS;
use crate::http::Response;
use crate::lots::Lots;
use crate::process::Server;
use crate::protobuf;
use crate::tunnel::client::{frame, unframe};
use crate::tunnel::upstream::Upstream;
use crate::ways::{Asked, Door, Form, event, parse};

const COUNT: usize = 3;
const ROUNDS: u64 = 100;
const POLL: &str = "/connection/poll";

/// A connection that carries one request after the other.
struct Kept {
    stream: TcpStream,
    address: SocketAddr,
    came: Vec<u8>,
}

impl Kept {
    fn open(server: &Server) -> Self {
        Self {
            stream: server.connect(),
            address: server.address,
            came: Vec::new(),
        }
    }

    /// Asks, and gives status and body of the answer, which has to be whole.
    fn ask(&mut self, asked: &Asked) -> (u16, Vec<u8>) {
        self.send(asked);
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
        let body = self.came.drain(..len).collect();
        (head[9..12].parse().expect("a status"), body)
    }

    fn send(&mut self, asked: &Asked) {
        let request = asked.request(self.address);
        let sent = self.stream.write_all(&request);
        sent.expect("the server takes a request");
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
        let session = open(&mut kept, POLL, false, b"").0;
        close(&mut kept, POLL, &session);
        found[worker_of(&session)] = Some(kept);
    }
    found.into_iter().flatten().collect()
}

/// A request of a session that is polled.
fn polled(path: &str, is_protobuf: bool, head: &Value, data: &[u8]) -> Asked {
    Asked {
        body: [format!("{head}\n").as_bytes(), data].concat(),
        is_protobuf,
        ..post(path, "")
    }
}

fn post(path: &str, body: &str) -> Asked {
    Asked {
        method: "POST",
        path: path.to_owned(),
        body: body.into(),
        is_protobuf: false,
    }
}

/// Head and data of an answer.
fn answered((status, body): (u16, Vec<u8>)) -> (Value, Vec<u8>) {
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let feed = body.iter().position(|byte| *byte == b'\n').expect("a head");
    (parse(&body[..feed]), body[feed + 1..].to_vec())
}

/// Begins a session that is polled: its name, the first number to poll with, and what came with that.
fn open(kept: &mut Kept, path: &str, is_protobuf: bool, data: &[u8]) -> (String, Value, Vec<u8>) {
    let asked = polled(path, is_protobuf, &json!({"open": 1}), data);
    let (head, data) = answered(kept.ask(&asked));
    let session = head["session"].as_str().expect("a name").to_owned();
    (session, head["next"].clone(), data)
}

fn close(kept: &mut Kept, path: &str, session: &str) {
    let asked = polled(
        path,
        false,
        &json!({"session": session, "close": true}),
        b"",
    );
    assert_eq!(kept.ask(&asked).0, 204);
}

/// Which worker a request goes to.
fn draw(lots: &mut Lots) -> usize {
    lots.below(COUNT as u64) as usize
}

/// How many requests of a session went to each worker: enough to each, or this has shown nothing.
fn check_spread(counts: [u64; COUNT]) {
    assert!(
        counts.iter().all(|count| *count >= ROUNDS / 6),
        "{counts:?}"
    );
}

/// To connect and to subscribe.
fn commands(is_protobuf: bool) -> Vec<u8> {
    if is_protobuf {
        [protobuf::connect(1), protobuf::subscribe(2, "c", None)].concat()
    } else {
        b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"c\"}}".to_vec()
    }
}

fn publish(is_protobuf: bool, number: u64) -> Vec<u8> {
    if is_protobuf {
        return protobuf::publish(3, "c", &number.to_string());
    }
    let publish = json!({"id": number + 10, "publish": {"channel": "c", "data": number}});
    publish.to_string().into_bytes()
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
    for (home, door) in (0..COUNT).flat_map(|home| {
        let doors = [Door::Poll, Door::PollProtobuf];
        doors.map(move |door| (home, door))
    }) {
        let is_protobuf = door.is_protobuf();
        let mut lots = Lots(0x5eed + home as u64);
        let mut counts = [0; COUNT];
        let commands = commands(is_protobuf);
        let (session, mut next, mut first) = open(&mut workers[home], POLL, is_protobuf, &commands);
        assert_eq!(
            worker_of(&session),
            home,
            "it begins where it was asked for"
        );
        let mut heard = numbers(&door.messages(&mut first));
        for number in 1..=ROUNDS {
            let lot = draw(&mut lots);
            counts[lot] += 1;
            let head = json!({"session": session, "send": number});
            let asked = polled(POLL, is_protobuf, &head, &publish(is_protobuf, number));
            assert_eq!(workers[lot].ask(&asked).0, 204);
            while heard.len() < number as usize {
                let lot = draw(&mut lots);
                counts[lot] += 1;
                let head = json!({"session": session, "poll": next});
                let asked = polled(POLL, is_protobuf, &head, b"");
                let (head, mut messages) = answered(workers[lot].ask(&asked));
                next = head["next"].clone();
                heard.extend(numbers(&door.messages(&mut messages)));
            }
        }
        assert_eq!(heard, (1..=ROUNDS).collect::<Vec<_>>(), "{door:?}");
        check_spread(counts);
        let lot = draw(&mut lots);
        close(&mut workers[lot], POLL, &session);
    }
}

/// What a stream has said: pieces with their end, each a message.
fn said(door: Door, response: &mut Response) -> Vec<Value> {
    match door.form() {
        Form::Events => {
            let text = response.until(b"\n\n").expect("it goes on");
            event(std::str::from_utf8(&text).expect("text").trim())
        }
        Form::Lines => vec![response.message()],
        // The server makes no more of a chunk than messages that are whole.
        _ => protobuf::take_replies(&mut response.chunk().expect("it goes on")),
    }
}

#[test]
fn commands_for_a_stream_go_to_any_worker() {
    let server = Server::serve("spread-stream", WORKERS);
    let mut workers = one_each(&server);
    for (door, path) in [
        (Door::HttpStream, "/connection/http_stream"),
        (Door::HttpStreamProtobuf, "/connection/http_stream"),
        (Door::Sse, "/connection/sse"),
    ] {
        let is_protobuf = door.is_protobuf();
        // Streams until each worker has had one.
        let mut homes = [false; COUNT];
        while homes.contains(&false) {
            let mut lots = Lots(0x5eed);
            let mut counts = [0; COUNT];
            let stream = Asked {
                body: commands(is_protobuf),
                is_protobuf,
                ..post(path, "")
            };
            let mut response = Response::read(stream.send(server.address));
            let mut messages = Vec::new();
            let connect = loop {
                messages.extend(said(door, &mut response));
                let connects = messages.iter().map(|message| &message["connect"]);
                if let Some(connect) = { connects }.find(|connect| connect.is_object()) {
                    break connect.clone();
                }
            };
            let [session, node] = ["session", "node"].map(|name| {
                let name = connect[name].as_str().expect("a name");
                name.to_owned()
            });
            if std::mem::replace(&mut homes[worker_of(&session)], true) {
                continue;
            }
            let mut heard = numbers(&messages);
            for number in 1..=ROUNDS {
                let lot = draw(&mut lots);
                counts[lot] += 1;
                let data = publish(is_protobuf, number);
                let body = if is_protobuf {
                    protobuf::emulation(&session, &node, &data)
                } else {
                    let data = String::from_utf8(data).expect("text");
                    let body = json!({"session": session, "node": node, "data": data});
                    body.to_string().into_bytes()
                };
                let asked = Asked {
                    body,
                    is_protobuf,
                    ..post("/emulation", "")
                };
                assert_eq!(workers[lot].ask(&asked).0, 204, "{door:?}");
                while heard.len() < number as usize {
                    heard.extend(numbers(&said(door, &mut response)));
                }
            }
            assert_eq!(heard, (1..=ROUNDS).collect::<Vec<_>>(), "{door:?}");
            check_spread(counts);
        }
    }
}

/// Both ways, in pieces of whatever the server behind and its client say to each other.
#[test]
fn pieces_of_a_tunnel_go_to_any_worker() {
    let upstream = Upstream::start();
    let server = Server::serve(
        "spread-tunnel",
        &format!("{WORKERS}{}", upstream.tunnel("to", "")),
    );
    let mut workers = one_each(&server);
    let path = "/tunnel/to/echo";
    for home in 0..COUNT {
        let mut lots = Lots(0x5eed + home as u64);
        let mut counts = [0; COUNT];
        let (session, mut next, _) = open(&mut workers[home], path, true, b"");
        assert_eq!(worker_of(&session), home);
        let mut heard = Vec::new();
        for number in 1..=ROUNDS {
            let lot = draw(&mut lots);
            counts[lot] += 1;
            let head = json!({"session": session, "send": number});
            let asked = polled(
                path,
                true,
                &head,
                &frame(&Message::from(number.to_string())),
            );
            assert_eq!(workers[lot].ask(&asked).0, 204);
            while heard.len() < number as usize {
                let lot = draw(&mut lots);
                counts[lot] += 1;
                let head = json!({"session": session, "poll": next});
                let (head, data) = answered(workers[lot].ask(&polled(path, true, &head, b"")));
                next = head["next"].clone();
                heard.extend(unframe(&data));
            }
        }
        let sent: Vec<_> = (1..=ROUNDS)
            .map(|number| Message::from(number.to_string()))
            .collect();
        assert_eq!(heard, sent);
        check_spread(counts);
        let lot = draw(&mut lots);
        close(&mut workers[lot], path, &session);
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
        let (status, body) = kept.ask(&Asked {
            method: "GET",
            ..post(&path, "")
        });
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        parse(&body)
    };
    let mut next = page(&mut workers[0], "")["next"].clone();
    let mut heard = Vec::new();
    for number in 1..=ROUNDS {
        let lot = draw(&mut lots);
        let asked = post("/publish?channel=c", &number.to_string());
        assert_eq!(workers[lot].ask(&asked).0, 200);
        let lot = draw(&mut lots);
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
