//! Everything that reads the opening handshake. What is asserted lives with the crate's
//! tests, where the corpus is replayed.

#![no_main]

#[path = "../../crates/websocket/tests/fuzzed/handshake.rs"]
mod handshake;

libfuzzer_sys::fuzz_target!(|data: &[u8]| handshake::check(data));
