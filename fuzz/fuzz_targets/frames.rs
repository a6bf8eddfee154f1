//! Frames, good and bad, for the WebSocket engine. What is asserted lives with the crate's
//! tests, where the corpus is replayed.

#![no_main]

#[path = "../../crates/websocket/tests/fuzzed/engine.rs"]
mod engine;
#[path = "../../crates/websocket/tests/fuzzed/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|data: &[u8]| frames::check(data));
