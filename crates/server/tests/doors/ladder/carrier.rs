//! What carries a way: a WebSocket, an answer that goes on, or answers to one request after the other, over HTTP/1.1 or
//! HTTP/2. Any of them may break at any byte.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use crate::http::{Broken, Response};
use crate::http2;
use crate::process::{Wait, connect};
use crate::ways::Asked;

/// A WebSocket.
pub(super) enum Socket {
    /// The connection, and what came of it that is no whole frame yet.
    Http1(TcpStream, Vec<u8>),
    Http2(http2::Socket),
}

impl Socket {
    pub(super) fn open(address: SocketAddr, http2: bool, path: &str) -> Result<Self, Broken> {
        if http2 {
            return Ok(Self::Http2(http2::Socket::open(address, path)));
        }
        let mut stream = connect(address);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        // If it breaks meanwhile, that is seen when it is read.
        let _ = stream.write_all(request.as_bytes());
        let response = Response::try_read(stream)?;
        assert_eq!(response.status, 101, "{}", response.head);
        let (stream, came) = response.into_upgraded();
        Ok(Self::Http1(stream, came))
    }

    pub(super) fn send(&mut self, payload: &[u8], is_binary: bool) {
        match self {
            Self::Http1(stream, _) => {
                let opcode = if is_binary { 2 } else { 1 };
                write_frame(stream, opcode, payload);
            }
            Self::Http2(socket) => socket.send(payload, is_binary),
        }
    }

    /// The next message.
    pub(super) fn message(&mut self) -> Result<Vec<u8>, Broken> {
        let (stream, came) = match self {
            Self::Http1(stream, came) => (stream, came),
            Self::Http2(socket) => return socket.message(),
        };
        let wait = Wait::new("a message of a WebSocket");
        loop {
            match take_frame(came) {
                Some((1 | 2, payload)) => return Ok(payload),
                Some((9, payload)) => write_frame(stream, 10, &payload),
                Some((opcode, payload)) => panic!("{opcode}: {payload:?}"),
                None if wait.read(stream, came) => {}
                None => return Err(Broken),
            }
        }
    }
}

/// Writes one with a mask of zeros.
fn write_frame(stream: &mut TcpStream, opcode: u8, payload: &[u8]) {
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(len @ ..126) => frame.push(0x80 | len),
        _ => {
            let len = u16::try_from(payload.len()).expect("short");
            frame.push(0x80 | 126);
            frame.extend(len.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    let _ = stream.write_all(&frame);
}

/// Opcode and payload of a frame that is whole.
fn take_frame(came: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let [first, len, rest @ ..] = &**came else {
        return None;
    };
    let (head, len) = match len {
        126 => {
            let bytes = rest.first_chunk()?;
            (4, usize::from(u16::from_be_bytes(*bytes)))
        }
        127 => {
            let bytes = rest.first_chunk()?;
            let len = usize::try_from(u64::from_be_bytes(*bytes));
            (10, len.expect("it fits"))
        }
        len => (2, usize::from(*len)),
    };
    let opcode = first & 0xf;
    let payload = came.get(head..head + len)?.to_vec();
    came.drain(..head + len);
    Some((opcode, payload))
}

/// An answer that goes on.
pub(super) enum Stream {
    Http1(Response),
    Http2(http2::Response),
}

impl Stream {
    pub(super) fn ask(address: SocketAddr, http2: bool, asked: &Asked) -> Result<Self, Broken> {
        if http2 {
            return Ok(Self::Http2(http2::Response::ask(address, asked)));
        }
        let response = Response::try_read(asked.send(address))?;
        assert_eq!(response.status, 200, "{}", response.head);
        Ok(Self::Http1(response))
    }

    /// Adds what comes next. Returns whether there is something: otherwise it was all, and is whole.
    pub(super) fn read(&mut self, came: &mut Vec<u8>) -> Result<bool, Broken> {
        let chunk = match self {
            Self::Http1(response) => response.try_chunk()?,
            Self::Http2(response) => response.chunk()?.map(Into::into),
        };
        came.extend(chunk.iter().flatten());
        Ok(chunk.is_some())
    }
}

/// Who asks one thing after the other: on a connection each, or on one of HTTP/2, until that breaks.
pub(super) struct Asker {
    pub(super) address: SocketAddr,
    http2: Option<Option<http2::Requests>>,
}

impl Asker {
    pub(super) fn new(address: SocketAddr, http2: bool) -> Self {
        let http2 = http2.then_some(None);
        Self { address, http2 }
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2.is_some()
    }

    /// Status and body of the answer.
    pub(super) fn ask(&mut self, asked: &Asked) -> Result<(u16, Vec<u8>), Broken> {
        let Some(kept) = &mut self.http2 else {
            let answer = Response::try_read(asked.send(self.address))?;
            return Ok((answer.status, answer.try_rest_bytes()?));
        };
        let requests = kept.get_or_insert_with(|| http2::Requests::open(self.address));
        let answer = requests.ask(asked);
        if answer.is_err() {
            *kept = None;
        }
        answer
    }
}
