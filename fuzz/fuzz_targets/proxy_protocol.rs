//! The PROXY protocol's parser under any bytes. What is asserted lives with the server's tests, where the corpus is
//! replayed.

#![no_main]

#[path = "../../crates/server/tests/fuzzed/proxy_protocol.rs"]
mod body;
/// The file alone, as the whole server would take minutes to build for it.
#[path = "../../crates/server/src/proxy_protocol.rs"]
#[allow(dead_code, reason = "it is read from sockets, too")]
mod proxy_protocol;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::check(data));
