//! HTTP/2 frame by frame.

#![allow(dead_code, reason = "each test binary uses another part")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::process::Server;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A connection of which the preface and empty settings were sent.
pub(crate) struct Raw {
    stream: TcpStream,
    came: Vec<u8>,
}

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    pub(crate) fn open(server: &Server) -> Self {
        let mut raw = Self {
            stream: server.connect(),
            came: Vec::new(),
        };
        assert!(raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        assert!(raw.send(&frame(SETTINGS, 0, 0, b"")));
        raw
    }

    /// Whether it could be sent.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame; `None` when the connection has ended.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            if let [a, b, c, kind, flags, stream @ ..] = &*self.came
                && let Some((stream, rest)) = stream.split_first_chunk()
            {
                let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if let Some(payload) = rest.get(..len) {
                    let frame = Frame {
                        kind: *kind,
                        flags: *flags,
                        stream: u32::from_be_bytes(*stream),
                        payload: payload.to_vec(),
                    };
                    self.came.drain(..9 + len);
                    return Some(frame);
                }
            }
            let mut buffer = [0; 16 * 1024];
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("reading failed: {error}"),
            };
            self.came.extend_from_slice(&buffer[..count]);
        }
    }

    /// Reads until there is a frame like this, or the connection has ended.
    pub(crate) fn find(&mut self, is_it: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if is_it(&frame) {
                return Some(frame);
            }
        }
    }

    /// Reads until the server gives the connection up, and says with what code.
    pub(crate) fn given_up(&mut self) -> Option<u32> {
        self.find(|frame| frame.kind == GOAWAY)?.code()
    }
}

impl Frame {
    /// What a `GOAWAY` gives as the reason.
    pub(crate) fn code(&self) -> Option<u32> {
        let code = self.payload.get(4..8)?;
        Some(u32::from_be_bytes(code.try_into().ok()?))
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header block in the simplest form (RFC 7541, section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let len = u8::try_from(text.len()).unwrap();
            assert!(len < 127);
            block.push(len);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The whole of a request.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    let block = block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", path),
    ]);
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
}
