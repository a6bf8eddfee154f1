//! The decoder of Protobuf commands under any bytes. What is asserted lives with the crate's tests,
//! where the corpus is replayed.

#![no_main]

#[path = "../../crates/protocol/tests/fuzzed/command_protobuf.rs"]
mod command_protobuf;

libfuzzer_sys::fuzz_target!(|data: &[u8]| command_protobuf::check(data));
