//! What must hold for two engines that talk to each other, whatever they do and however their bytes
//! are cut: nothing is lost, nothing is invented, and both agree on the end. The fuzz target `pair`
//! calls this with what it invents, and an ordinary test with the corpus.

use tautline_websocket::proto::deflate::{Agreement, MessageCodec};
use tautline_websocket::proto::{
    CloseCode, Connection, Event, Extensions, Limits, PeerFault, Role,
};

/// The first byte chooses the set-up; each further byte, with those it takes, is a step.
pub(crate) fn check(data: &[u8]) {
    let [setup, steps @ ..] = data else {
        return;
    };
    let mut pair = Pair::new(*setup);
    let mut steps = Steps(steps);
    while let Some(step) = steps.byte() {
        if !pair.step(step, &mut steps) {
            // Cut off: what was received is a beginning of what was sent.
            return pair.check_beginnings();
        }
    }
    pair.deliver_all();
    pair.check_end();
}

struct Pair {
    /// The client, then the server.
    ends: [End; 2],
    codec: MessageCodec,
    /// Whether a codec is lent to every call, or to none.
    lends: bool,
}

struct End {
    engine: Connection,
    /// Bytes for the other end that it hasn't seen.
    out: Vec<u8>,
    /// Messages that it has sent, and those that it has received.
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
    pings: Vec<Vec<u8>>,
    pongs: Vec<Vec<u8>>,
    /// The code with which it began to close.
    closed_with: Option<u16>,
    /// The code that came in the other's Close.
    saw_close: Option<Option<u16>>,
    failed: Option<PeerFault>,
}

impl Pair {
    fn new(setup: u8) -> Self {
        let extensions = if setup & 1 == 0 {
            Extensions::NONE
        } else {
            Extensions::deflate(Agreement {
                server_no_context_takeover: setup & 2 != 0,
                client_no_context_takeover: setup & 4 != 0,
                server_max_window_bits: if setup & 8 == 0 { 15 } else { 9 },
                client_max_window_bits: if setup & 8 == 0 { 15 } else { 9 },
            })
        };
        let limits = Limits {
            max_message: if setup & 16 == 0 { 1 << 20 } else { 300 },
            // The messages repeat themselves as they like.
            max_inflate_ratio: 2000,
            ..Limits::default()
        };
        let end = |role| End {
            engine: Connection::new(role, limits).with_extensions(extensions),
            out: Vec::new(),
            sent: Vec::new(),
            received: Vec::new(),
            pings: Vec::new(),
            pongs: Vec::new(),
            closed_with: None,
            saw_close: None,
            failed: None,
        };
        let mut key = 0_u32;
        let keys = move || {
            key = key.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            key.to_be_bytes()
        };
        Self {
            ends: [end(Role::Client(Box::new(keys))), end(Role::Server)],
            codec: MessageCodec::default().with_threshold(usize::from(setup >> 6) * 20),
            lends: setup & 32 == 0,
        }
    }

    /// `false` when the connection was cut off.
    fn step(&mut self, step: u8, steps: &mut Steps<'_>) -> bool {
        let who = usize::from(step & 1);
        let end = &mut self.ends[who];
        match step >> 1 & 0x0F {
            0..=2 => {
                let text =
                    String::from_utf8_lossy(steps.bytes(60)).repeat(usize::from(step >> 5) * 3 + 1);
                let sent = if self.lends {
                    let mut sender = end.engine.sender_with(&mut self.codec);
                    sender.send_text(&text, &mut end.out)
                } else {
                    end.engine.send_text(&text, &mut end.out)
                };
                assert_eq!(sent.is_ok(), end.closed_with.is_none() && end.is_sending());
                if sent.is_ok() {
                    end.sent.push(text.into_bytes());
                }
            }
            3..=4 => {
                let bytes = steps.bytes(255).to_vec();
                let sent = if self.lends {
                    let mut sender = end.engine.sender_with(&mut self.codec);
                    sender.send_binary(&bytes, &mut end.out)
                } else {
                    end.engine.send_binary(&bytes, &mut end.out)
                };
                if sent.is_ok() {
                    end.sent.push(bytes);
                }
            }
            5 => {
                let payload = steps.bytes(130).to_vec();
                let asked = end.engine.ping(&payload, &mut end.out);
                assert!(asked.is_err() || payload.len() <= 125);
                if asked.is_ok() {
                    end.pings.push(payload);
                }
            }
            6 if step >> 5 == 7 => {
                let code = 995 + u16::from(steps.byte().unwrap_or_default());
                let reason = String::from_utf8_lossy(steps.bytes(40)).into_owned();
                let closing = end
                    .engine
                    .close(CloseCode::from(code), &reason, &mut end.out);
                if closing.is_ok() {
                    assert!(CloseCode::from(code).may_be_sent() && reason.len() <= 123);
                    end.closed_with = Some(code);
                }
            }
            7 if step >> 5 == 7 => return false,
            8..=10 => self.deliver(who, usize::from(step >> 5) * 7 + 1, usize::MAX),
            // Asked for few events, the rest is held.
            11..=12 => self.deliver(who, 200, usize::from(step >> 5)),
            _ => self.deliver(who, usize::MAX, usize::MAX),
        }
        true
    }

    /// Takes up to `bytes` from an end to the other, and up to so many events out of them.
    fn deliver(&mut self, from: usize, bytes: usize, events: usize) {
        let len = self.ends[from].out.len().min(bytes);
        let mut input: Vec<u8> = self.ends[from].out.drain(..len).collect();
        let to = &mut self.ends[1 - from];
        let mut received = if self.lends {
            to.engine.receive_with(&mut input, &mut self.codec)
        } else {
            to.engine.receive(&mut input)
        };
        for _ in 0..events {
            let Some(event) = received.next(&mut to.out) else {
                break;
            };
            match event {
                Event::Text(text) => to.received.push(text.as_bytes().to_vec()),
                Event::Binary(bytes) => to.received.push(bytes.to_vec()),
                Event::Ping(_) => {}
                Event::Pong(payload) => to.pongs.push(payload.to_vec()),
                Event::Close(close) => to.saw_close = Some(close.map(|close| close.code.get())),
                Event::Failed(fault) => to.failed = Some(fault),
            }
        }
        drop(received);
        to.engine.flush_pong(&mut to.out);
    }

    fn deliver_all(&mut self) {
        let is_busy = |end: &End| !end.out.is_empty() || end.engine.has_held_input();
        for round in 0.. {
            assert!(round < 1000, "they never come to rest");
            for from in 0..2 {
                self.deliver(from, usize::MAX, usize::MAX);
            }
            if !self.ends.iter().any(is_busy) {
                return;
            }
        }
    }

    fn check_beginnings(&self) {
        for from in 0..2 {
            let (from, to) = (&self.ends[from], &self.ends[1 - from]);
            assert!(from.sent.starts_with(&to.received), "other messages came");
            let mut pings = from.pings.iter();
            assert!(
                from.pongs.iter().all(|pong| pings.any(|ping| ping == pong)),
                "a pong for no ping"
            );
        }
    }

    fn check_end(&self) {
        self.check_beginnings();
        for from in 0..2 {
            let (from, to) = (&self.ends[from], &self.ends[1 - from]);
            // Two good ends are at odds over limits alone.
            if let Some(fault) = to.failed {
                assert_eq!(fault.close_code(), CloseCode::MESSAGE_TOO_BIG, "{fault}");
                assert!(from.sent.len() > to.received.len(), "nothing was too big");
                assert!(!to.engine.is_closed_cleanly() && to.engine.should_end_stream());
                continue;
            }
            assert_eq!(from.sent.len(), to.received.len(), "messages were lost");
            if from.failed.is_none() && from.closed_with.is_none() && to.closed_with.is_none() {
                assert!(from.engine.is_open());
                assert_eq!(from.pings, from.pongs, "a ping without a pong");
            }
        }
        let [client, server] = &self.ends;
        if client.failed.is_some() || server.failed.is_some() {
            return;
        }
        let closing = client.closed_with.is_some() || server.closed_with.is_some();
        for (end, other) in [(client, server), (server, client)] {
            assert_eq!(end.engine.is_closed_cleanly(), closing);
            assert_eq!(end.saw_close.is_some(), closing);
            // Its own Close, or the answer with the code that it was sent.
            let expected = other.closed_with.or(end.closed_with);
            if closing {
                assert_eq!(end.saw_close, Some(expected), "another code");
            }
        }
        assert_eq!(server.engine.should_end_stream(), closing);
    }
}

impl End {
    /// Whether neither an answer to a Close nor the Close for a fault has gone out.
    fn is_sending(&self) -> bool {
        self.engine.can_send()
    }
}

/// What the steps are made of.
struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// A byte that says how many, at most `max`, then so many as there are.
    fn bytes(&mut self, max: usize) -> &'a [u8] {
        let len = usize::from(self.byte().unwrap_or_default()).min(max);
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}
