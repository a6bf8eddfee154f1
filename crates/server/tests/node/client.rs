//! A client of raw sockets: what no SDK would do.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::process::Server;

/// A WebSocket client that does what it is told.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) received: Vec<u8>,
    /// Messages that came in a frame with others.
    waiting: VecDeque<String>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
}

impl Client {
    pub(crate) fn open(server: &Server) -> Self {
        Self::upgrade(server.connect(), "127.0.0.1", b"")
    }

    /// Over a connection on which the client has asked for an upgrade.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Upgrades a connection; `behind` follows the request in the same write.
    pub(crate) fn upgrade(mut stream: TcpStream, host: &str, behind: &[u8]) -> Self {
        let mut request = upgrade_request(host, "").into_bytes();
        request.extend_from_slice(behind);
        stream
            .write_all(&request)
            .expect("the server takes a request");
        let mut client = Self::over(stream);
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // RFC 6455, section 1.3: the answer to that key.
        assert!(
            head.to_ascii_lowercase()
                .contains("s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{head}"
        );
        client
    }

    pub(crate) fn connected(server: &Server) -> Self {
        let mut client = Self::open(server);
        client.send(r#"{"id":1,"connect":{}}"#);
        let reply = client.text();
        assert!(reply.contains(r#""connect":{"client":""#), "{reply}");
        client
    }

    pub(crate) fn subscribed(server: &Server, channel: &str) -> Self {
        let mut client = Self::connected(server);
        client.send(&format!(
            r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#
        ));
        let reply = client.text();
        assert!(reply.starts_with(r#"{"id":2,"subscribe":{"#), "{reply}");
        client
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream
            .write_all(&masked(0x1, text.as_bytes()))
            .expect("the server takes a frame");
    }

    pub(crate) fn send_binary(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(&masked(0x2, bytes))
            .expect("the server takes a frame");
    }

    pub(crate) fn send_pong(&mut self, payload: &[u8]) {
        self.stream
            .write_all(&masked(0xA, payload))
            .expect("the server takes a frame");
    }

    pub(crate) fn read_head(&mut self) -> String {
        loop {
            if let Some(end) = self
                .received
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                let head = self.received.drain(..end + 4).collect();
                return String::from_utf8(head).expect("a head is text");
            }
            self.read();
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        let count = self.stream.read(&mut buffer).expect("the server sends");
        assert!(
            count > 0,
            "the server closed the connection; before: {:?}",
            self.received
        );
        self.received.extend_from_slice(&buffer[..count]);
    }

    /// The next frame that is not a ping of the protocol; the messages of one that has several are as
    /// many.
    pub(crate) fn frame(&mut self) -> Frame {
        loop {
            if let Some(text) = self.waiting.pop_front() {
                return Frame::Text(text);
            }
            let Some((opcode, payload)) = take_frame(&mut self.received) else {
                self.read();
                continue;
            };
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text is UTF-8");
            return match opcode {
                0x1 if payload == b"{}" => continue,
                0x1 => {
                    let text = text(&payload);
                    self.waiting.extend(text.lines().map(str::to_owned));
                    continue;
                }
                0x2 if payload == b"\0" => continue,
                0x2 => Frame::Binary(payload),
                0x9 => Frame::Ping(payload),
                0xA => Frame::Pong(payload),
                0x8 => Frame::Close(
                    u16::from_be_bytes([payload[0], payload[1]]),
                    text(&payload[2..]),
                ),
                other => panic!("a frame of type {other:#x}"),
            };
        }
    }

    pub(crate) fn text(&mut self) -> String {
        match self.frame() {
            Frame::Text(text) => text,
            other => panic!("expected a message, got {other:?}"),
        }
    }
}

pub(crate) fn upgrade_request(host: &str, more: &str) -> String {
    format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(length @ 0..126) => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
            if payload.len() <= 0xffff {
                frame.truncate(1);
                frame.push(0x80 | 126);
                frame.extend((payload.len() as u16).to_be_bytes());
            }
        }
    }
    frame.extend(mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// The first whole frame of what was received.
fn take_frame(received: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let &[first, second, ..] = &received[..] else {
        return None;
    };
    assert_eq!(
        (first & 0xf0, second & 0x80),
        (0x80, 0),
        "a whole frame without a mask"
    );
    let (head, length) = match second {
        126 => (
            4,
            usize::from(u16::from_be_bytes([*received.get(2)?, *received.get(3)?])),
        ),
        127 => (
            10,
            u64::from_be_bytes(received.get(2..10)?.try_into().ok()?) as usize,
        ),
        length => (2, usize::from(length)),
    };
    if received.len() < head + length {
        return None;
    }
    let frame: Vec<u8> = received.drain(..head + length).collect();
    Some((first & 0xf, frame[head..].to_vec()))
}
