//! What must hold for the engine, whatever bytes come. The fuzz target `engine` calls this with
//! what it invents, and an ordinary test with the corpus.

use tautline_websocket::proto::deflate::{Agreement, MessageCodec};
use tautline_websocket::proto::{Connection, Event, Extensions, Limits, Role};

/// The first two bytes choose the set-up, the rest is what the peer sends.
pub(crate) fn check(data: &[u8]) {
    let [setup, seed, input @ ..] = data else {
        return;
    };
    let setup = Setup {
        client: setup & 1 != 0,
        deflate: (setup & 4 != 0).then_some(Agreement {
            server_no_context_takeover: setup & 8 != 0,
            client_no_context_takeover: setup & 8 != 0,
            server_max_window_bits: if setup & 16 == 0 { 15 } else { 9 },
            client_max_window_bits: if setup & 16 == 0 { 15 } else { 8 },
        }),
        limits: if setup & 2 == 0 {
            Limits::default()
        } else {
            Limits {
                max_frame: 60,
                max_message: 100,
                max_fragments: 4,
                max_inflate_ratio: 200,
                pong_backlog: 50,
                max_control_rate: 1000,
            }
        },
    };
    let codec = &mut MessageCodec::default();
    let whole = setup.run(&[input], usize::MAX, Some(codec));
    whole.check_against(input, &setup);
    let chunks = cut(input, u32::from(*seed));
    assert_eq!(
        setup.run(&chunks, usize::MAX, Some(codec)),
        whole,
        "cut into {} chunks",
        chunks.len()
    );
    assert_eq!(
        setup.run(&chunks, 1, Some(codec)),
        whole,
        "one event a call"
    );
    if input.len() < 300 {
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        let outcome = setup.run(&bytes, usize::MAX, Some(codec));
        assert_eq!(outcome, whole, "byte by byte");
    }
    if setup.deflate.is_some() {
        let outcome = setup.run(&chunks, usize::MAX, None);
        assert_eq!(outcome, whole, "no codec lent");
        setup.check_echo(input);
    }
}

struct Setup {
    client: bool,
    deflate: Option<Agreement>,
    limits: Limits,
}

/// What a run brought.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    events: Vec<String>,
    message_bytes: usize,
    longest_message: usize,
    output: Vec<u8>,
    wants_input: bool,
}

impl Setup {
    fn engine(&self, client: bool, limits: Limits) -> Connection {
        let role = if client {
            Role::Client(Box::new(|| [1, 2, 3, 4]))
        } else {
            Role::Server
        };
        let extensions = self.deflate.map_or(Extensions::NONE, Extensions::deflate);
        Connection::new(role, limits).with_extensions(extensions)
    }

    /// Feeds the chunks to a fresh engine, asking for at most `per_call` events of each call.
    fn run(
        &self,
        chunks: &[&[u8]],
        per_call: usize,
        mut codec: Option<&mut MessageCodec>,
    ) -> Outcome {
        let mut engine = self.engine(self.client, self.limits);
        let mut outcome = Outcome {
            events: Vec::new(),
            message_bytes: 0,
            longest_message: 0,
            output: Vec::new(),
            wants_input: true,
        };
        for chunk in chunks {
            let codec = codec.as_deref_mut();
            outcome.feed(&mut engine, &mut chunk.to_vec(), per_call, codec);
        }
        while engine.has_held_input() {
            outcome.feed(&mut engine, &mut [], per_call, codec.as_deref_mut());
        }
        outcome.wants_input = engine.wants_input();
        outcome
    }

    /// Sends every message back, compressed where that makes it smaller, to an engine in the peer's
    /// place, which has to receive the same messages.
    fn check_echo(&self, input: &[u8]) {
        let mut engine = self.engine(self.client, self.limits);
        let mut codec = MessageCodec::default().with_threshold(0);
        let (mut messages, mut echoed, mut out) = (Vec::new(), Vec::new(), Vec::new());
        let mut input = input.to_vec();
        let mut events = engine.receive_with(&mut input, &mut codec);
        while let Some((event, mut sender)) = events.next_with_sender(&mut out) {
            match event {
                Event::Text(text) => sender.send_text(text, &mut out),
                Event::Binary(bytes) => sender.send_binary(bytes, &mut out),
                _ => continue,
            }
            .expect("not closing before the last message");
            messages.push(format!("{event:?}"));
        }
        drop(events);
        let limits = Limits {
            max_inflate_ratio: 2000,
            ..Limits::default()
        };
        let mut peer = self.engine(!self.client, limits);
        let mut events = peer.receive_with(&mut out, &mut codec);
        while let Some(event) = events.next(&mut Vec::new()) {
            match event {
                Event::Text(_) | Event::Binary(_) => echoed.push(format!("{event:?}")),
                Event::Failed(fault) => panic!("the echo is at fault: {fault}"),
                _ => {}
            }
        }
        assert_eq!(echoed, messages);
    }
}

impl Outcome {
    fn feed<'a>(
        &mut self,
        engine: &'a mut Connection,
        chunk: &'a mut [u8],
        per_call: usize,
        codec: Option<&'a mut MessageCodec>,
    ) {
        let over = !engine.wants_input();
        let mut events = match codec {
            Some(codec) => engine.receive_with(chunk, codec),
            None => engine.receive(chunk),
        };
        for _ in 0..per_call {
            let Some(event) = events.next(&mut self.output) else {
                break;
            };
            assert!(!over, "an event after the last: {event:?}");
            self.events.push(format!("{event:?}"));
            let len = match event {
                Event::Text(text) => text.len(),
                Event::Binary(bytes) => bytes.len(),
                _ => 0,
            };
            self.message_bytes += len;
            self.longest_message = self.longest_message.max(len);
        }
    }

    fn check_against(&self, input: &[u8], setup: &Setup) {
        let limits = &setup.limits;
        assert!(
            self.message_bytes <= input.len() || setup.deflate.is_some(),
            "more came out than went in"
        );
        assert!(
            self.longest_message <= limits.max_message,
            "a message of {} bytes",
            self.longest_message
        );
        // A pong is no longer than its ping but for the mask, and there is one Close.
        let room = (limits.pong_backlog as usize + 131).min(3 * input.len());
        assert!(
            self.output.len() <= room + 131,
            "{} bytes of output",
            self.output.len()
        );
        let last = self
            .events
            .last()
            .is_some_and(|event| event.starts_with("Failed") || event.starts_with("Close"));
        assert_eq!(last, !self.wants_input, "{:?}", self.events);
    }
}

/// Cuts the input at places that follow from `seed`.
fn cut(mut input: &[u8], mut seed: u32) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    while !input.is_empty() {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Mostly a few bytes, so that headers are cut, and now and then many.
        let most = if seed >> 30 == 0 { 200 } else { 12 };
        let (chunk, rest) = input.split_at(input.len().min((seed >> 16) as usize % most));
        chunks.push(chunk);
        input = rest;
    }
    chunks
}
