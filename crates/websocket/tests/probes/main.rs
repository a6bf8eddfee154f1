//! Behaviour in which WebSocket libraries are known to differ, and beyond what conformance suites
//! look at: what other implementations accept, lose, keep or sit out. Each is tried as a server and
//! as a client, without and with permessage-deflate.
//!
//! `rows` and `memory` have a test for each row of the table of probes by which libraries were
//! compared; the chapter on other libraries' bugs in the crate's manual names them. `strict` is what
//! conformance suites let pass as "non-strict", `rules` the rest of the framing rules.

mod memory;
mod rows;
mod rules;
mod strict;

#[path = "../conn/support.rs"]
#[allow(dead_code, reason = "shared with the tests of connections")]
mod conn_support;
#[path = "../engine/peer.rs"]
#[allow(dead_code, reason = "shared with the tests of the engine")]
mod peer;
#[path = "../engine/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the engine")]
mod support;
