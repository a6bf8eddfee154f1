//! What a client costs at each door: memory while it is idle, and how long a publication takes to it.
//!
//! ```text
//! cargo run --release -p tautline --example door_cost [CLIENTS]
//! ```
//!
//! Starts itself once more as the server, one worker. Memory is the growth of its resident set (Linux)
//! by so many subscribed clients (1,000 if nothing is said), divided by their number; each door meets a
//! new server. Latency is from before the call of the HTTP API to when a client has read the
//! publication: 20 clients, 50 publications a second for ten seconds, everything on one machine.

#![allow(
    clippy::print_stdout,
    reason = "it is a program that tells its figures"
)]

mod http2;
mod server;

use std::any::Any;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use self::server::{Server, is_server};

const DOORS: [Door; 10] = [
    Door::WebSocket,
    Door::Http2 { to_each: 1 },
    Door::Http2 { to_each: 100 },
    Door::HttpStream,
    Door::Sse,
    Door::Poll,
    Door::PlainSocket,
    Door::Events,
    Door::Lines,
    Door::History,
];

const LISTENERS: usize = 20;
const PUBLICATIONS: usize = 500;
const PACE: Duration = Duration::from_millis(20);

const CONFIG: &str = r#"
[node]
workers = 1
[http_server]
address = "127.0.0.1"
port = 0
[client]
allow_anonymous_connect_without_token = true
[http_api]
key = "dev"
[channel.without_namespace]
history_size = 1000
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
"#;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    if is_server() {
        return tautline::cli::main();
    }
    let clients = std::env::args().nth(1);
    let clients = clients.map_or(Ok(1000), |clients| clients.parse());
    let Ok(clients) = clients else {
        eprintln!("expected a number of clients");
        return ExitCode::from(2);
    };
    println!("| door | memory per idle client | p50 | p99 |\n|---|---|---|---|");
    for door in DOORS {
        match measure(door, clients) {
            Ok(row) => println!("{row}"),
            Err(error) => {
                eprintln!("{}: {error}", door.name());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    WebSocket,
    /// The same over HTTP/2, so many to each connection.
    Http2 {
        to_each: usize,
    },
    HttpStream,
    Sse,
    Poll,
    PlainSocket,
    Events,
    Lines,
    History,
}

impl Door {
    fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "`/connection/websocket`",
            Self::Http2 { to_each: 1 } => "the same over HTTP/2, a connection each",
            Self::Http2 { .. } => "the same over HTTP/2, 100 on a connection",
            Self::HttpStream => "`/connection/http_stream`",
            Self::Sse => "`/connection/sse`",
            Self::Poll => "`/connection/poll`",
            Self::PlainSocket => "`/ws`",
            Self::Events => "`/events`",
            Self::Lines => "`/lines`",
            Self::History => "`/history?wait=`",
        }
    }
}

/// Opens clients, which are there for as long as what is returned.
fn crowd(door: Door, address: SocketAddr, count: usize) -> Result<Box<dyn Any>> {
    if let Door::Http2 { to_each } = door {
        return Ok(Box::new(http2::Crowd::open(address, count, to_each)?));
    }
    let all = (0..count).map(|_| Listener::open(door, address)?.rest());
    Ok(Box::new(all.collect::<Result<Vec<_>>>()?))
}

fn measure(door: Door, clients: usize) -> Result<String> {
    let server = Server::start(CONFIG)?;
    // What the first clients make the allocator take.
    let first = crowd(door, server.address, 50)?;
    let before = server.resident()?;
    let others = crowd(door, server.address, clients)?;
    let memory = server.resident()?.saturating_sub(before) / clients;
    drop((first, others));

    let server = Server::start(CONFIG)?;
    let start = Instant::now();
    let mut times = match door {
        Door::Http2 { to_each } => {
            let address = server.address;
            let (tell, ready) = std::sync::mpsc::channel();
            let listening = std::thread::spawn(move || {
                http2::listen(address, LISTENERS, to_each, start, || {
                    let _ = tell.send(());
                })
            });
            // An error when they broke off, which they tell.
            let _ = ready.recv();
            publish(address, start)?;
            listening.join().map_err(|_| "a listener broke off")??
        }
        _ => {
            let listeners: Vec<_> = (0..LISTENERS)
                .map(|_| Listener::open(door, server.address))
                .collect::<Result<_>>()?;
            let listeners: Vec<_> = listeners
                .into_iter()
                .map(|listener| std::thread::spawn(move || listener.listen(start)))
                .collect();
            publish(server.address, start)?;
            let mut times = Vec::new();
            for listener in listeners {
                times.extend(listener.join().map_err(|_| "a listener broke off")??);
            }
            times
        }
    };
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    Ok(format!(
        "| {} | {:.1} KiB | {:.2} ms | {:.2} ms |",
        door.name(),
        memory as f64 / 1024.0,
        at(50),
        at(99)
    ))
}

/// Publishes at a steady pace.
fn publish(address: SocketAddr, start: Instant) -> Result<()> {
    let mut publisher = Http::connect(address)?;
    let mut next = Instant::now();
    for number in 1..=PUBLICATIONS {
        next += PACE;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let sent = start.elapsed().as_nanos();
        let body = format!(r#"{{"channel":"c","data":{{"n":{number},"t":{sent}}}}}"#);
        publisher.ask("POST /api/publish", &body)?;
    }
    Ok(())
}

/// How long the publications took that are in what was heard at `now`.
fn times_in(heard: &str, now: Duration, times: &mut Vec<Duration>) -> Result<()> {
    for sent in heard.split("\"t\":").skip(1) {
        let end = sent.find('}').ok_or("a publication breaks off")?;
        let sent = Duration::from_nanos(sent[..end].parse()?);
        times.push(now.saturating_sub(sent));
    }
    Ok(())
}

/// What an SDK says first.
const COMMANDS: &str = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"c\"}}";

/// A client that is subscribed, or about to ask.
struct Listener {
    door: Door,
    http: Http,
    /// What the next poll says: the session and a number; or a position.
    session: String,
    next: String,
}

impl Listener {
    fn open(door: Door, address: SocketAddr) -> Result<Self> {
        let commands = COMMANDS;
        let mut http = Http::connect(address)?;
        let (mut session, mut next) = (String::new(), String::new());
        match door {
            Door::Http2 { .. } => return Err("it is no connection of HTTP/1.1".into()),
            Door::WebSocket | Door::PlainSocket => {
                let path = if door == Door::WebSocket {
                    "/connection/websocket"
                } else {
                    "/ws?channel=c"
                };
                http.send(
                    &format!(
                        "GET {path} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                    ),
                    "",
                )?;
                http.until(b"\r\n\r\n")?;
                if door == Door::WebSocket {
                    let len = u8::try_from(commands.len())?;
                    let mut frame = vec![0x81, 0x80 | len, 0, 0, 0, 0];
                    frame.extend_from_slice(commands.as_bytes());
                    http.stream.write_all(&frame)?;
                    http.until(b"\"subscribe\":")?;
                }
            }
            Door::HttpStream | Door::Sse => {
                let path = if door == Door::Sse {
                    "sse"
                } else {
                    "http_stream"
                };
                http.send(&format!("POST /connection/{path} HTTP/1.1\r\n"), commands)?;
                http.until(b"\"subscribe\":")?;
            }
            Door::Events | Door::Lines => {
                let path = if door == Door::Lines {
                    "lines"
                } else {
                    "events"
                };
                http.send(&format!("GET /{path}?channel=c HTTP/1.1\r\n"), "")?;
                // The first line, or the first event, has the position.
                let first: &[u8] = if door == Door::Lines {
                    b"epoch"
                } else {
                    b"id: "
                };
                http.until(first)?;
            }
            Door::Poll => {
                let body = format!("{{\"open\":1}}\n{commands}");
                let answer = http.ask("POST /connection/poll", &body)?;
                session = between(&answer, "\"session\":\"", "\"")?;
                next = between(&answer, "\"next\":", &|c: char| !c.is_ascii_digit())?;
            }
            Door::History => {
                let answer = http.ask("GET /history?channel=c&limit=1", "")?;
                next = between(&answer, "\"next\":\"", "\"")?;
            }
        }
        Ok(Self {
            door,
            http,
            session,
            next,
        })
    }

    /// Begins to wait, where a client does so by a request.
    fn ask(&mut self) -> Result<()> {
        let (session, next) = (&self.session, &self.next);
        match self.door {
            Door::Poll => {
                let body = format!(r#"{{"session":"{session}","poll":{next},"hold":55}}"#);
                self.http.send("POST /connection/poll HTTP/1.1\r\n", &body)
            }
            Door::History => {
                let head = format!("GET /history?channel=c&since={next}&wait=55 HTTP/1.1\r\n");
                self.http.send(&head, "")
            }
            _ => Ok(()),
        }
    }

    fn rest(mut self) -> Result<Self> {
        self.ask()?;
        Ok(self)
    }

    /// Hears all publications, and tells how long each took.
    fn listen(mut self, start: Instant) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        while times.len() < PUBLICATIONS {
            let is_polling = matches!(self.door, Door::Poll | Door::History);
            let heard = if is_polling {
                self.ask()?;
                let answer = self.http.answer()?;
                self.next = if self.door == Door::Poll {
                    between(&answer, "\"next\":", &|c: char| !c.is_ascii_digit())?
                } else {
                    between(&answer, "\"next\":\"", "\"")?
                };
                answer
            } else {
                // Publications are short, and end with their time.
                let heard = self.http.until(b"\"t\":")?;
                let digits = self.http.until(b"}")?;
                String::from_utf8_lossy(&[heard, digits].concat()).into_owned()
            };
            times_in(&heard, start.elapsed(), &mut times)?;
        }
        Ok(times)
    }
}

fn between(text: &str, before: &str, after: &(impl Delimiter + ?Sized)) -> Result<String> {
    let at = text
        .find(before)
        .ok_or_else(|| format!("expected {before}, got {text}"))?;
    let rest = &text[at + before.len()..];
    let end = after.find_in(rest).unwrap_or(rest.len());
    Ok(rest[..end].to_owned())
}

trait Delimiter {
    fn find_in(&self, text: &str) -> Option<usize>;
}

impl Delimiter for str {
    fn find_in(&self, text: &str) -> Option<usize> {
        text.find(self)
    }
}

impl<F: Fn(char) -> bool> Delimiter for F {
    fn find_in(&self, text: &str) -> Option<usize> {
        text.find(self)
    }
}

/// A connection of HTTP/1.1.
struct Http {
    stream: TcpStream,
    address: SocketAddr,
    received: Vec<u8>,
}

impl Http {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            stream,
            address,
            received: Vec::new(),
        })
    }

    fn send(&mut self, head: &str, body: &str) -> Result<()> {
        let (address, len) = (self.address, body.len());
        let length = if head.starts_with("GET") {
            String::new()
        } else {
            format!("Content-Length: {len}\r\n")
        };
        let request = format!("{head}Host: {address}\r\nX-API-Key: dev\r\n{length}\r\n{body}");
        self.stream.write_all(request.as_bytes())?;
        Ok(())
    }

    fn ask(&mut self, line: &str, body: &str) -> Result<String> {
        self.send(&format!("{line} HTTP/1.1\r\n"), body)?;
        self.answer()
    }

    /// The body of a whole answer.
    fn answer(&mut self) -> Result<String> {
        let head = String::from_utf8(self.until(b"\r\n\r\n")?)?.to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(head.into());
        }
        let len: usize = between(&head, "content-length: ", "\r\n")?.parse()?;
        while self.received.len() < len {
            self.read()?;
        }
        Ok(String::from_utf8(self.received.drain(..len).collect())?)
    }

    /// All up to and with `end`.
    fn until(&mut self, end: &[u8]) -> Result<Vec<u8>> {
        loop {
            let found = self
                .received
                .windows(end.len())
                .position(|part| part == end);
            if let Some(found) = found {
                return Ok(self.received.drain(..found + end.len()).collect());
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        let count = self.stream.read(&mut buffer)?;
        if count == 0 {
            let got = String::from_utf8_lossy(&self.received).into_owned();
            return Err(format!("cut off after {got}").into());
        }
        self.received.extend_from_slice(&buffer[..count]);
        Ok(())
    }
}
