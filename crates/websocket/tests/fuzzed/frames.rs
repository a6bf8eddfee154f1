//! The same as for any bytes, for bytes that are frames: so that the fuzzer gets past the first header. The fuzz
//! target `frames` calls this with what it invents, and an ordinary test with the corpus.

use tautline_websocket::proto::deflate::{Agreement, MessageCodec};
use tautline_websocket::proto::{Connection, Extensions, Limits, Role};

/// The first two bytes choose the set-up, as for the raw engine; the rest says which frames come.
pub(crate) fn check(data: &[u8]) {
    let [setup, seed, rest @ ..] = data else {
        return;
    };
    let mut input = vec![*setup, *seed];
    Frames::new(*setup).write(rest, &mut input);
    crate::engine::check(&input);
}

/// Whoever is at the other end of the engine under test.
struct Frames {
    engine: Connection,
    codec: MessageCodec,
    is_client: bool,
}

impl Frames {
    fn new(setup: u8) -> Self {
        // The bits are those of the raw engine's set-up.
        let is_client = setup & 1 == 0;
        let role = if is_client {
            Role::Client(Box::new(|| [9, 8, 7, 6]))
        } else {
            Role::Server
        };
        let extensions = if setup & 4 == 0 {
            Extensions::NONE
        } else {
            let (server, client) = if setup & 16 == 0 { (15, 15) } else { (9, 8) };
            Extensions::deflate(Agreement {
                server_no_context_takeover: setup & 8 != 0,
                client_no_context_takeover: setup & 8 != 0,
                server_max_window_bits: server,
                client_max_window_bits: client,
            })
        };
        Self {
            engine: Connection::new(role, Limits::default()).with_extensions(extensions),
            codec: MessageCodec::default().with_threshold(0),
            is_client,
        }
    }

    /// Each step is a byte that says what, one that says how long, and the payload.
    fn write(&mut self, mut steps: &[u8], out: &mut Vec<u8>) {
        while let [first, len, rest @ ..] = steps {
            let (payload, rest) = rest.split_at(rest.len().min(usize::from(*len) % 160));
            steps = rest;
            match first {
                // A message that a good peer sends, compressed where that was agreed.
                0x10..0x20 => {
                    let text = String::from_utf8_lossy(payload).repeat(usize::from(first & 3) + 1);
                    let _ = self
                        .engine
                        .sender_with(&mut self.codec)
                        .send_text(&text, out);
                }
                // Any other first byte, and now and then the mask bit as it must not be.
                _ => self.put(*first, payload, *len == 0xFF, out),
            }
        }
    }

    fn put(&self, first: u8, payload: &[u8], wrongly_masked: bool, out: &mut Vec<u8>) {
        let masked = self.is_client != wrongly_masked;
        let mask_bit = u8::from(masked) << 7;
        out.push(first);
        match payload.len() {
            len @ 0..126 => out.push(mask_bit | len as u8),
            len => out.extend([mask_bit | 126, 0, len as u8]),
        }
        let key = [0x11, 0xA2, 0x00, 0xFE];
        if !masked {
            out.extend_from_slice(payload);
            return;
        }
        out.extend_from_slice(&key);
        out.extend(
            payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
    }
}
