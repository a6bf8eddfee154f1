//! The WebSocket engine under any input, cut anywhere. What is asserted lives with the crate's
//! tests, where the corpus is replayed.

#![no_main]

#[path = "../../crates/websocket/tests/fuzzed/engine.rs"]
mod engine;

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::check(data));
