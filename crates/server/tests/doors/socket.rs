//! A WebSocket of the simplest kind.

#![allow(dead_code, reason = "each test binary uses another part")]

use std::io::Write;
use std::net::TcpStream;

use serde_json::Value;

use crate::process::{Server, Wait};

pub(crate) struct Socket {
    stream: TcpStream,
    received: Vec<u8>,
    /// Control pings that came.
    pub(crate) pings: usize,
    /// Doesn't answer them.
    pub(crate) is_silent: bool,
}

/// What a server says on a WebSocket.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    Text(String),
    Close(u16, String),
}

impl Socket {
    /// Opens one, with more fields in the request; or the status and body of the refusal.
    pub(crate) fn open(server: &Server, path: &str, fields: &str) -> Result<Self, (u16, String)> {
        Self::open_on(server.connect(), path, fields)
    }

    /// The same on a connection that is there.
    pub(crate) fn open_on(
        mut stream: TcpStream,
        path: &str,
        fields: &str,
    ) -> Result<Self, (u16, String)> {
        let address = stream.peer_addr().expect("it is connected");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
        )
        .expect("a request");
        let mut socket = Self {
            stream,
            received: Vec::new(),
            pings: 0,
            is_silent: false,
        };
        let wait = Wait::new("the answer to an opening");
        let end = loop {
            let head = &socket.received;
            if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(
                wait.read(&mut socket.stream, &mut socket.received),
                "no head"
            );
        };
        let head: Vec<u8> = socket.received.drain(..end).collect();
        let head = String::from_utf8(head).expect("a head is text");
        if head.starts_with("HTTP/1.1 101") {
            if fields.contains("Sec-WebSocket-Protocol") {
                let chosen = head.to_ascii_lowercase();
                assert!(
                    chosen.contains("sec-websocket-protocol: tautline\r\n"),
                    "{head}"
                );
            }
            return Ok(socket);
        }
        while wait.read(&mut socket.stream, &mut socket.received) {}
        let body = String::from_utf8(socket.received).expect("text");
        Err((head[9..12].parse().expect("a status"), body))
    }

    /// Reads until it is pinged, before any message.
    pub(crate) fn pinged(&mut self) {
        let (opcode, _) = self.frame(&Wait::new("a ping"));
        assert_eq!(opcode, 9, "not a ping");
        self.on_ping();
    }

    fn on_ping(&mut self) {
        self.pings += 1;
        if !self.is_silent {
            self.stream
                .write_all(&[0x8a, 0x80, 0, 0, 0, 0])
                .expect("the server takes a pong");
        }
    }

    /// The connection below, to be written to as one likes.
    pub(crate) fn stream(&self) -> TcpStream {
        self.stream.try_clone().expect("it can be shared")
    }

    /// The next message, or the Close.
    pub(crate) fn next(&mut self) -> Said {
        self.next_by(&Wait::new("a message or a Close"))
    }

    fn next_by(&mut self, wait: &Wait) -> Said {
        loop {
            let (opcode, payload) = self.frame(wait);
            match opcode {
                1 => return Said::Text(String::from_utf8(payload).expect("UTF-8")),
                8 => {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    return Said::Close(
                        code,
                        String::from_utf8(payload[2..].to_vec()).expect("UTF-8"),
                    );
                }
                9 => self.on_ping(),
                // An answer to a ping.
                10 => {}
                other => panic!("opcode {other}"),
            }
        }
    }

    /// The next message as JSON.
    pub(crate) fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).expect("JSON")
    }

    /// The next message as it is.
    pub(crate) fn text(&mut self) -> String {
        match self.next() {
            Said::Text(text) => text,
            Said::Close(code, reason) => panic!("closed with {code} {reason}"),
        }
    }

    /// Reads until the Close.
    pub(crate) fn closed(&mut self) -> (u16, String) {
        let wait = Wait::new("a Close");
        loop {
            if let Said::Close(code, reason) = self.next_by(&wait) {
                return (code, reason);
            }
        }
    }

    pub(crate) fn send(&mut self, text: &str) {
        let len = u16::try_from(text.len()).expect("short");
        let mut frame = vec![0x81];
        match u8::try_from(len) {
            Ok(len) if len < 126 => frame.push(0x80 | len),
            _ => {
                frame.push(0x80 | 126);
                frame.extend(len.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend_from_slice(text.as_bytes());
        self.stream
            .write_all(&frame)
            .expect("the server takes a frame");
    }

    fn frame(&mut self, wait: &Wait) -> (u8, Vec<u8>) {
        loop {
            if let [first, len, rest @ ..] = &*self.received {
                let (head, len) = match (len, rest) {
                    (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
                    (127, [a, b, c, d, e, f, g, h, ..]) => {
                        let len = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                        (10, usize::try_from(len).expect("it fits"))
                    }
                    (126 | 127, _) => (usize::MAX / 2, 0),
                    (len, _) => (2, usize::from(*len)),
                };
                if self.received.len() >= head + len {
                    let opcode = first & 0xf;
                    let frame: Vec<u8> = self.received.drain(..head + len).collect();
                    return (opcode, frame[head..].to_vec());
                }
            }
            assert!(wait.read(&mut self.stream, &mut self.received), "cut off");
        }
    }
}
