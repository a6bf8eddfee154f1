//! Two engines, one a client and one a server. What is asserted lives with the crate's
//! tests, where the corpus is replayed.

#![no_main]

#[path = "../../crates/websocket/tests/fuzzed/pair.rs"]
mod pair;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pair::check(data));
