//! Reloading the configuration of a running server.

#![cfg(unix)]

#[path = "../support/directory.rs"]
mod directory;
#[path = "../support/process.rs"]
mod process;

#[path = "../node/client.rs"]
#[allow(dead_code, reason = "each test binary uses another part")]
mod client;

mod api;
mod effects;
mod options;
mod outcome;
mod tokens;
