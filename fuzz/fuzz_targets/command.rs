//! The command decoder under any text. What is asserted lives with the crate's tests, where the
//! corpus is replayed.

#![no_main]

#[path = "../../crates/protocol/tests/fuzzed/command.rs"]
mod command;

libfuzzer_sys::fuzz_target!(|data: &[u8]| command::check(data));
