//! The client's side of WebSocket, by hand: just what a load needs, and nothing that could hide in a library.

pub(crate) mod deflate;
pub(crate) mod frame;
pub(crate) mod http;
pub(crate) mod patch;
pub(crate) mod session;
mod tls;
pub(crate) mod upgrade;

use std::net::TcpStream;

use rustls::{ClientConnection, StreamOwned};

/// A connection behind TLS.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A small deterministic generator (SplitMix64): masking keys and payloads that differ, the same in every run.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Any seed will do.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A masking key, RFC 6455 section 5.3. Never zero: that would spare a server the unmasking.
    pub(crate) fn key(&mut self) -> [u8; 4] {
        let bits = self.next() as u32;
        (bits | 0x0101_0101).to_ne_bytes()
    }

    /// A JSON object of `length` bytes with this number in it and a text that nobody can guess.
    pub(crate) fn object(&mut self, number: u64, length: usize) -> String {
        let mut object = format!(r#"{{"number":{number},"text":""#);
        while object.len() < length.saturating_sub(2) {
            object.push(char::from(b'a' + (self.next() % 26) as u8));
        }
        object.push_str("\"}");
        object
    }
}
