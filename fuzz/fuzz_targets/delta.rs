//! Patches of any bytes, made and applied. What is asserted lives with the crate's tests, where the
//! corpus is replayed.

#![no_main]

#[path = "../../crates/protocol/tests/fuzzed/delta.rs"]
mod delta;

libfuzzer_sys::fuzz_target!(|data: &[u8]| delta::check(data));
