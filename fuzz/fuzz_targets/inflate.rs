//! The inflater under any input, beside zlib's. What is asserted lives with the crate's tests, where
//! the corpus is replayed.

#![no_main]

#[path = "../../crates/deflate/tests/fuzzed/inflate.rs"]
mod inflate;

libfuzzer_sys::fuzz_target!(|data: &[u8]| inflate::check(data));
