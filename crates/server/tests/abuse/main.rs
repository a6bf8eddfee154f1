//! What strangers do to a server that is open to all, one test for each kind of it. Beside each, two users of good
//! will go on publishing and receiving: one over a WebSocket, one by long-polling.
//!
//! Asserted is that the server's memory stays within a bound, that whoever goes too far is refused in the way the
//! documentation says, that this is counted, and that the users of good will lose nothing. How long their messages
//! took before and meanwhile is printed, for the table in `docs/abuse.md`:
//!
//! ```text
//! cargo test --release -p tautline --test abuse -- --nocapture --test-threads=1 | grep -o '| .* |$'
//! ```

// Memory is read from /proc, and users have addresses of their own on the loopback interface.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stdout, reason = "figures are printed for the docs")]

mod commands;
mod connecting;
mod crowds;
#[path = "../support/directory.rs"]
mod directory;
mod frames;
mod honest;
mod http2;
#[path = "../support/process.rs"]
mod process;
#[path = "../http2/raw.rs"]
mod raw;
mod readers;
mod requests;
mod sessions;
mod smuggling;
#[path = "../doors/socket.rs"]
mod socket;
mod stand;
#[path = "../support/vanish.rs"]
mod vanish;
mod wire;
