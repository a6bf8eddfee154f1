//! Tautline's engine alone: parses and unmasks binary frames, and frames an answer to each, in a loop. Prints the
//! nanoseconds and the allocations of a message.
//!
//! The input is copied afresh for each turn of the loop, as a read would bring it, for the engine unmasks in place.

use std::env;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use tautline_websocket::proto::frame::{FrameHeader, MAX_HEADER, OpCode};
use tautline_websocket::proto::{Connection, Event, Limits, MaskKey, Role};

fn main() -> ExitCode {
    let (mut payload, mut batch, mut messages) = (32, 16, 10_000_000);
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().and_then(|value| value.parse().ok());
        match (word.as_str(), value) {
            ("--payload", Some(value)) => payload = value,
            ("--batch", Some(value @ 1..)) => batch = value,
            ("--messages", Some(value)) => messages = value,
            _ => {
                eprintln!(
                    "usage: engine [--payload BYTES] [--batch MESSAGES] [--messages MESSAGES]"
                );
                return ExitCode::from(2);
            }
        }
    }
    let frames = frames(payload, batch);
    let mut connection = Connection::new(Role::Server, Limits::default());
    let (mut input, mut out) = (frames.clone(), Vec::new());
    // The first turn makes room for the answers.
    turn(&mut connection, &frames, &mut input, &mut out);
    let allocations = allocation_counter::measure(|| {
        turn(&mut connection, &frames, &mut input, &mut out);
    });
    let turns = messages / batch;
    let start = Instant::now();
    for _ in 0..turns {
        turn(&mut connection, &frames, &mut input, &mut out);
    }
    let elapsed = start.elapsed();
    println!(
        "{} {}",
        elapsed.as_nanos() as f64 / (turns * batch) as f64,
        allocations.count_total as f64 / batch as f64
    );
    ExitCode::SUCCESS
}

/// One read's worth.
fn turn(connection: &mut Connection, frames: &[u8], input: &mut [u8], out: &mut Vec<u8>) {
    input.copy_from_slice(frames);
    out.clear();
    let mut events = connection.receive(black_box(input));
    while let Some((event, mut sender)) = events.next_with_sender(out) {
        if let Event::Binary(bytes) = event {
            // It can't fail: nothing closes here.
            let _ = sender.send_binary(bytes, out);
        }
    }
    drop(events);
    black_box(out);
}

/// `count` masked binary frames, each with a payload and a key of its own.
fn frames(payload: usize, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..count {
        let mut key = MaskKey::new([0x37, 0xfa, 0x21, number as u8 | 1]);
        let header = FrameHeader {
            fin: true,
            reserved: 0,
            opcode: OpCode::Binary,
            mask: Some(key),
            payload_len: payload as u64,
        };
        let mut head = [0; MAX_HEADER];
        let len = header.write(&mut head);
        bytes.extend_from_slice(&head[..len]);
        let mut body: Vec<u8> = (0..payload).map(|at| (at * 7 + number) as u8).collect();
        key.apply(&mut body);
        bytes.extend_from_slice(&body);
    }
    bytes
}
