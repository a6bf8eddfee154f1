//! Tokens and key sets of any bytes. What is asserted lives with the crate's tests, where the corpus
//! is replayed.

#![no_main]

#[path = "../../crates/auth/tests/fuzzed/token.rs"]
mod token;

libfuzzer_sys::fuzz_target!(|data: &[u8]| token::check(data));
