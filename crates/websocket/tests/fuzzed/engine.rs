//! What must hold for the engine, whatever bytes come. The fuzz target `engine` calls this with
//! what it invents, and an ordinary test with the corpus.

use tautline_websocket::proto::{Connection, Event, Limits, Role};

/// The first two bytes choose the set-up, the rest is what the peer sends.
pub(crate) fn check(data: &[u8]) {
    let [setup, seed, input @ ..] = data else {
        return;
    };
    let setup = Setup {
        client: setup & 1 != 0,
        limits: if setup & 2 == 0 {
            Limits::default()
        } else {
            Limits {
                max_frame: 60,
                max_message: 100,
                max_fragments: 4,
                max_inflate_ratio: 200,
                pong_backlog: 50,
            }
        },
    };
    let whole = setup.run(&[input], usize::MAX);
    whole.check_against(input, &setup.limits);
    let chunks = cut(input, u32::from(*seed));
    assert_eq!(
        setup.run(&chunks, usize::MAX),
        whole,
        "cut into {} chunks",
        chunks.len()
    );
    assert_eq!(setup.run(&chunks, 1), whole, "one event a call");
    if input.len() < 300 {
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(setup.run(&bytes, usize::MAX), whole, "byte by byte");
    }
}

struct Setup {
    client: bool,
    limits: Limits,
}

/// What a run brought.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    events: Vec<String>,
    message_bytes: usize,
    output: Vec<u8>,
    wants_input: bool,
}

impl Setup {
    /// Feeds the chunks to a fresh engine, asking for at most `per_call` events of each call.
    fn run(&self, chunks: &[&[u8]], per_call: usize) -> Outcome {
        let role = if self.client {
            Role::Client(Box::new(|| [1, 2, 3, 4]))
        } else {
            Role::Server
        };
        let mut engine = Connection::new(role, self.limits);
        let mut outcome = Outcome {
            events: Vec::new(),
            message_bytes: 0,
            output: Vec::new(),
            wants_input: true,
        };
        for chunk in chunks {
            outcome.feed(&mut engine, &mut chunk.to_vec(), per_call);
        }
        while engine.has_held_input() {
            outcome.feed(&mut engine, &mut [], per_call);
        }
        outcome.wants_input = engine.wants_input();
        outcome
    }
}

impl Outcome {
    fn feed(&mut self, engine: &mut Connection, chunk: &mut [u8], per_call: usize) {
        let over = !engine.wants_input();
        let mut events = engine.receive(chunk);
        for _ in 0..per_call {
            let Some(event) = events.next(&mut self.output) else {
                break;
            };
            assert!(!over, "an event after the last: {event:?}");
            self.events.push(format!("{event:?}"));
            match event {
                Event::Text(text) => self.message_bytes += text.len(),
                Event::Binary(bytes) => self.message_bytes += bytes.len(),
                _ => {}
            }
        }
    }

    fn check_against(&self, input: &[u8], limits: &Limits) {
        assert!(
            self.message_bytes <= input.len(),
            "more came out than went in"
        );
        // A pong is no longer than its ping but for the mask, and there is one Close.
        let room = (limits.pong_backlog + 131).min(3 * input.len());
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
