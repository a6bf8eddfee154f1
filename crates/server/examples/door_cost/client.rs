//! A client of HTTP/1.1 that listens.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::heard::{Heard, find};
use crate::ways::Door;
use crate::{COMMANDS, Result, UNI};

/// One that is subscribed, or about to ask.
pub(crate) struct Client {
    line: Line,
    asks: Asks,
}

/// How it goes on.
enum Asks {
    /// It doesn't ask any more.
    Never,
    /// For what comes behind a number.
    Poll {
        path: &'static str,
        session: String,
        next: String,
        goes_on: bool,
    },
    /// For what comes behind a position.
    History(String),
}

impl Client {
    pub(crate) async fn open(door: Door, address: SocketAddr) -> Result<Self> {
        let mut line = Line::connect(address).await?;
        let asks = match door {
            Door::WebSocket | Door::UniSocket | Door::PlainSocket | Door::Tunnel => {
                line.open_socket(door).await?;
                Asks::Never
            }
            Door::HttpStream => {
                line.stream("POST /connection/http_stream", COMMANDS)
                    .await?
            }
            Door::Sse => line.stream("POST /connection/sse", COMMANDS).await?,
            Door::UniHttpStream => line.stream("POST /connection/uni_http_stream", UNI).await?,
            Door::UniSse => line.stream("POST /connection/uni_sse", UNI).await?,
            Door::Lines => line.stream("GET /lines?channel=c", "").await?,
            Door::Events => line.stream("GET /events?channel=c", "").await?,
            Door::Poll | Door::PollStream => {
                let goes_on = door == Door::PollStream;
                let opening = format!("{{\"open\":1}}\n{COMMANDS}");
                line.begin("/connection/poll", &opening, goes_on).await?
            }
            Door::PolledTunnel => line.begin("/tunnel/to", "{\"open\":1}\n", true).await?,
            Door::History => {
                let answer = line.ask("GET /history?channel=c&limit=1", "").await?;
                Asks::History(between(&answer, "\"next\":\"", |c| c == '"')?)
            }
        };
        Ok(Self { line, asks })
    }

    /// Begins to wait, where a client does so by a request.
    pub(crate) async fn ask(&mut self) -> Result<()> {
        let (line, body) = match &self.asks {
            Asks::Never => return Ok(()),
            Asks::Poll {
                path,
                session,
                next,
                goes_on,
            } => (format!("POST {path}"), poll(session, next, *goes_on)),
            Asks::History(next) => {
                let path = format!("GET /history?channel=c&since={next}&wait=55");
                (path, String::new())
            }
        };
        self.line.send(&line, "", &body).await
    }

    /// Hears what comes, for as long as it is polled.
    pub(crate) async fn listen(mut self, heard: &Heard) -> Result<()> {
        loop {
            // What was asked for before is there still.
            match &mut self.asks {
                Asks::Never => {
                    let from = heard.take(&self.line.received, 0)?;
                    self.line.received.drain(..from);
                    self.line.read().await?;
                    continue;
                }
                Asks::Poll {
                    next,
                    goes_on: true,
                    ..
                } => *next = self.line.parts(heard).await?,
                Asks::Poll { next, .. } => {
                    let answer = self.line.answer().await?;
                    *next = between(&answer, "\"next\":", |c| !c.is_ascii_digit())?;
                    heard.take(answer.as_bytes(), 0)?;
                }
                Asks::History(next) => {
                    let answer = self.line.answer().await?;
                    *next = between(&answer, "\"next\":\"", |c| c == '"')?;
                    heard.take(answer.as_bytes(), 0)?;
                }
            }
            self.ask().await?;
        }
    }
}

/// A request to poll.
pub(crate) fn poll(session: &str, next: &str, goes_on: bool) -> String {
    format!("{{\"session\":\"{session}\",\"poll\":{next},\"hold\":55,\"stream\":{goes_on}}}\n")
}

/// What is in `text` behind `before`, until a character ends it.
pub(crate) fn between(text: &str, before: &str, ends: impl Fn(char) -> bool) -> Result<String> {
    let (_, rest) = text
        .split_once(before)
        .ok_or_else(|| format!("expected {before}, got {text}"))?;
    Ok(rest.split(ends).next().unwrap_or_default().to_owned())
}

/// A connection.
struct Line {
    stream: TcpStream,
    address: SocketAddr,
    received: Vec<u8>,
}

impl Line {
    async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            address,
            received: Vec::new(),
        })
    }

    async fn open_socket(&mut self, door: Door) -> Result<()> {
        let path = match door {
            Door::WebSocket => "/connection/websocket",
            Door::PlainSocket => "/ws?channel=c",
            Door::Tunnel => "/tunnel/to",
            _ => "/connection/uni_websocket",
        };
        let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        self.send(&format!("GET {path}"), fields, "").await?;
        self.until(b"\r\n\r\n").await?;
        let (says, hears) = match door {
            Door::WebSocket => (COMMANDS, &b"\"subscribe\":"[..]),
            Door::UniSocket => (UNI, &b"\"subs\":"[..]),
            _ => return Ok(()),
        };
        let len = u8::try_from(says.len())?;
        let mut frame = vec![0x81, 0x80 | len, 0, 0, 0, 0];
        frame.extend_from_slice(says.as_bytes());
        self.stream.write_all(&frame).await?;
        self.until(hears).await?;
        Ok(())
    }

    /// Begins an answer that goes on, and waits until its client is subscribed.
    async fn stream(&mut self, line: &str, body: &str) -> Result<Asks> {
        self.send(line, "", body).await?;
        let begins: &[u8] = match line {
            "GET /lines?channel=c" => b"epoch",
            "GET /events?channel=c" => b"id: ",
            _ if body == UNI => b"\"subs\":",
            _ => b"\"subscribe\":",
        };
        self.until(begins).await?;
        Ok(Asks::Never)
    }

    /// Opens a session to poll.
    async fn begin(&mut self, path: &'static str, opening: &str, goes_on: bool) -> Result<Asks> {
        let answer = self.ask(&format!("POST {path}"), opening).await?;
        Ok(Asks::Poll {
            path,
            session: between(&answer, "\"session\":\"", |c| c == '"')?,
            next: between(&answer, "\"next\":", |c| !c.is_ascii_digit())?,
            goes_on,
        })
    }

    async fn send(&mut self, line: &str, fields: &str, body: &str) -> Result<()> {
        let (address, len) = (self.address, body.len());
        let length = match line.starts_with("GET") {
            true => String::new(),
            false => format!("Content-Length: {len}\r\n"),
        };
        let request = format!("{line} HTTP/1.1\r\nHost: {address}\r\n{fields}{length}\r\n{body}");
        self.stream.write_all(request.as_bytes()).await?;
        Ok(())
    }

    async fn ask(&mut self, line: &str, body: &str) -> Result<String> {
        self.send(line, "", body).await?;
        self.answer().await
    }

    /// The body of a whole answer.
    async fn answer(&mut self) -> Result<String> {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await?)?.to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(head.into());
        }
        let len: usize = between(&head, "content-length: ", |c| c == '\r')?.parse()?;
        while self.received.len() < len {
            self.read().await?;
        }
        Ok(String::from_utf8(self.received.drain(..len).collect())?)
    }

    /// Hears all parts of an answer that goes on. The number to poll with next.
    async fn parts(&mut self, heard: &Heard) -> Result<String> {
        let mut from = 0;
        loop {
            from = heard.take(&self.received, from)?;
            if self.received.ends_with(b"\r\n0\r\n\r\n") {
                let all = String::from_utf8_lossy(&self.received);
                let last = all.rfind("\"next\":").ok_or("an answer without a part")?;
                let next = between(&all[last..], "\"next\":", |c| !c.is_ascii_digit())?;
                self.received.clear();
                return Ok(next);
            }
            self.read().await?;
        }
    }

    /// All up to and with `end`.
    async fn until(&mut self, end: &[u8]) -> Result<Vec<u8>> {
        loop {
            if let Some(found) = find(&self.received, end) {
                return Ok(self.received.drain(..found + end.len()).collect());
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<()> {
        self.received.reserve(READ);
        if self.stream.read_buf(&mut self.received).await? == 0 {
            let got = String::from_utf8_lossy(&self.received).into_owned();
            return Err(format!("cut off after {got}").into());
        }
        Ok(())
    }
}

/// How much is read at a time, at least.
const READ: usize = 64 * 1024;
