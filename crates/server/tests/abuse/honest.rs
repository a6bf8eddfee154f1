//! Users of good will, who publish and receive while others abuse the server.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_rustls::rustls::ClientConfig;

use crate::process::{Server, wait_until};
use crate::wire::{From, Http, Wire};

/// How long the messages of each user took, before the abuse and during it.
pub(crate) type Times = [Vec<Duration>; 2];

/// Both users.
pub(crate) struct Users {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Times>>,
}

struct Shared {
    phase: AtomicUsize,
    /// Publications of both.
    published: AtomicU64,
    /// By user and phase.
    rounds: [[AtomicUsize; 2]; 2],
    /// Where both wait before they look whether they have got everything.
    end: Barrier,
}

const BEFORE: usize = 0;
const DURING: usize = 1;
const OVER: usize = 2;

impl Users {
    /// Has both subscribe, and publish for a while.
    pub(crate) fn begin(server: &Server, tls: Option<&Arc<ClientConfig>>) -> Self {
        let shared = Arc::new(Shared {
            phase: AtomicUsize::new(BEFORE),
            published: AtomicU64::new(0),
            rounds: Default::default(),
            end: Barrier::new(2),
        });
        let open = || Wire::open(server, From::User, tls);
        let socket = SocketUser::connect(open());
        let poll = PollUser::connect(open(), open());
        let (its, other) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::spawn(move || go_on(&its, 0, socket)),
            thread::spawn(move || go_on(&other, 1, poll)),
        ];
        let users = Self { shared, threads };
        users.wait(BEFORE);
        users
    }

    pub(crate) fn abuse_begins(&self) {
        self.shared.phase.store(DURING, Ordering::SeqCst);
    }

    /// Whether they have not done enough yet to tell how they fare.
    pub(crate) fn want_more(&self) -> bool {
        let rounds = &self.shared.rounds;
        self.threads.iter().all(|user| !user.is_finished())
            && rounds
                .iter()
                .any(|rounds| rounds[DURING].load(Ordering::SeqCst) < ROUNDS)
    }

    fn wait(&self, phase: usize) {
        wait_until("the users have had their turns", || {
            let rounds = &self.shared.rounds;
            let broken = self.threads.iter().any(JoinHandle::is_finished);
            let is_enough = |rounds: &[AtomicUsize; 2]| rounds[phase].load(Ordering::SeqCst);
            let is_done = broken || rounds.iter().all(|all| is_enough(all) >= ROUNDS);
            is_done.then_some(()).or_else(|| {
                thread::sleep(PACE);
                None
            })
        });
    }

    /// Has them stop. Each has got every publication of both by then, once and in order, or this panics.
    pub(crate) fn end(self) -> [Times; 2] {
        self.shared.phase.store(OVER, Ordering::SeqCst);
        let mut times = self.threads.into_iter();
        let mut next = || times.next().unwrap().join().expect("a user got all");
        [next(), next()]
    }
}

trait User {
    fn publish(&mut self, data: &Value);

    /// Waits for messages.
    fn hear(&mut self) -> Vec<Value>;
}

fn go_on(shared: &Shared, index: usize, mut user: impl User) -> Times {
    let mut times = Times::default();
    let mut offset = 0;
    let mut number = 0;
    // Returns whether what was heard ends with its own.
    let hear = |user: &mut dyn User, offset: &mut u64, wanted: Option<u64>| {
        let mut is_there = false;
        for message in user.hear() {
            let publication = &message["push"]["pub"];
            if publication.is_null() {
                assert_eq!(message["error"], Value::Null, "{message}");
                assert_eq!(message["push"], Value::Null, "{message}");
                continue;
            }
            *offset += 1;
            assert_eq!(publication["offset"], *offset, "{message}");
            let data = &publication["data"];
            is_there |= data["user"] == index && wanted.is_some_and(|wanted| data["n"] == wanted);
        }
        is_there
    };
    loop {
        let phase = shared.phase.load(Ordering::SeqCst);
        if phase == OVER {
            break;
        }
        number += 1;
        let start = Instant::now();
        user.publish(&json!({"user": index, "n": number}));
        while !hear(&mut user, &mut offset, Some(number)) {}
        times[phase].push(start.elapsed());
        shared.published.fetch_add(1, Ordering::SeqCst);
        shared.rounds[index][phase].fetch_add(1, Ordering::SeqCst);
        // Users are no flood.
        thread::sleep(PACE);
    }
    shared.end.wait();
    let all = shared.published.load(Ordering::SeqCst);
    while offset < all {
        hear(&mut user, &mut offset, None);
    }
    assert_eq!(offset, all);
    times
}

fn subscribing() -> String {
    let subscribe = json!({"id": 2, "subscribe": {"channel": CHANNEL}});
    format!("{{\"id\":1,\"connect\":{{}}}}\n{subscribe}")
}

fn publishing(id: u64, data: &Value) -> String {
    json!({"id": id, "publish": {"channel": CHANNEL, "data": data}}).to_string()
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))
}

/// A user over a WebSocket.
struct SocketUser {
    wire: Wire,
    came: Vec<u8>,
    id: u64,
}

impl SocketUser {
    fn connect(mut wire: Wire) -> Self {
        let request = "GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        wire.write_all(request.as_bytes()).unwrap();
        let mut user = Self {
            wire,
            came: Vec::new(),
            id: 2,
        };
        let end = loop {
            if let Some(end) = user.came.windows(4).position(|part| part == b"\r\n\r\n") {
                break end + 4;
            }
            user.read();
        };
        let head: Vec<u8> = user.came.drain(..end).collect();
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{head:?}");
        user.send(&subscribing());
        while !user
            .hear()
            .iter()
            .any(|message| message["subscribe"].is_object())
        {}
        user
    }

    fn send(&mut self, text: &str) {
        let mut frame = vec![0x81];
        match text.len() {
            len @ ..126 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        // A key of zeros masks nothing.
        frame.extend([0; 4]);
        frame.extend_from_slice(text.as_bytes());
        self.wire.write_all(&frame).unwrap();
    }

    fn read(&mut self) {
        let mut buffer = [0; 16 * 1024];
        let count = self.wire.read(&mut buffer).unwrap();
        assert!(count > 0, "a user of good will was cut off");
        self.came.extend_from_slice(&buffer[..count]);
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let [first, len, rest @ ..] = &*self.came {
                let (head, len) = match (len, rest) {
                    (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
                    (..126, _) => (2, usize::from(*len)),
                    _ => (4, usize::MAX / 2),
                };
                if self.came.len() >= head + len {
                    let opcode = first & 0xf;
                    let frame: Vec<u8> = self.came.drain(..head + len).collect();
                    return (opcode, frame[head..].to_vec());
                }
            }
            self.read();
        }
    }
}

impl User for SocketUser {
    fn publish(&mut self, data: &Value) {
        self.id += 1;
        self.send(&publishing(self.id, data));
    }

    fn hear(&mut self) -> Vec<Value> {
        let (opcode, payload) = self.frame();
        let text = String::from_utf8_lossy(&payload);
        assert_eq!(opcode, 1, "{text}");
        let messages: Vec<_> = text.lines().map(parse).collect();
        if messages.contains(&json!({})) {
            self.send("{}");
        }
        messages
    }
}

/// A user by long-polling.
struct PollUser {
    polls: Http<Wire>,
    sends: Http<Wire>,
    session: Value,
    next: Value,
    frames: u64,
    id: u64,
}

impl PollUser {
    fn connect(polls: Wire, sends: Wire) -> Self {
        let mut user = Self {
            polls: Http::new(polls),
            sends: Http::new(sends),
            session: Value::Null,
            next: Value::Null,
            frames: 0,
            id: 2,
        };
        let body = format!("{{\"open\":1}}\n{}", subscribing());
        let mut heard = user.poll(&body);
        while !heard.iter().any(|message| message["subscribe"].is_object()) {
            heard = user.hear();
        }
        user
    }

    fn poll(&mut self, body: &str) -> Vec<Value> {
        let answer = self.polls.ask(POST, body.as_bytes());
        let text = answer.text();
        assert_eq!(answer.status, 200, "{text}");
        let mut lines = text.lines().map(parse);
        let head = lines.next().unwrap();
        assert_eq!(head["end"], Value::Null, "{head}");
        if self.session.is_null() {
            self.session = head["session"].clone();
        }
        self.next = head["next"].clone();
        lines.collect()
    }

    fn send(&mut self, commands: &str) {
        self.frames += 1;
        let head = json!({"session": self.session, "send": self.frames});
        let body = format!("{head}\n{commands}");
        let answer = self.sends.ask(POST, body.as_bytes());
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
}

impl User for PollUser {
    fn publish(&mut self, data: &Value) {
        self.id += 1;
        let command = publishing(self.id, data);
        self.send(&command);
    }

    fn hear(&mut self) -> Vec<Value> {
        let body = json!({"session": self.session, "poll": self.next}).to_string();
        let messages = self.poll(&body);
        if messages.contains(&json!({})) {
            self.send("{}");
        }
        messages
    }
}

const CHANNEL: &str = "honest";
const POST: &str = "POST /connection/poll HTTP/1.1";

/// Between two messages of a user.
const PACE: Duration = Duration::from_millis(2);

/// How many messages of each tell how they fare: so many that one in a hundred is no accident. Where figures count for
/// nothing, as in a build for debugging, fewer do.
const ROUNDS: usize = if cfg!(debug_assertions) { 150 } else { ENOUGH };

/// Of fewer, one in a hundred says nothing.
pub(crate) const ENOUGH: usize = 1_000;
