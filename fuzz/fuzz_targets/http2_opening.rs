//! Telling the versions of HTTP apart, and what an extended CONNECT is taken for. What is asserted lives
//! with the crate's tests, where the corpus is replayed.

#![no_main]

#[path = "../../crates/websocket/tests/fuzzed/http2_opening.rs"]
mod http2_opening;

libfuzzer_sys::fuzz_target!(|data: &[u8]| http2_opening::check(data));
