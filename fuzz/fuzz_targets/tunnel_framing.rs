//! How a tunnel's messages are set apart over plain HTTP, under any bytes. What is asserted lives with the server's tests,
//! where the corpus is replayed.

#![no_main]

#[path = "../../crates/server/tests/fuzzed/tunnel_framing.rs"]
mod body;
/// The file alone, as the whole server would take minutes to build for it.
#[path = "../../crates/server/src/door/tunnel/framing.rs"]
mod framing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::check(data));
