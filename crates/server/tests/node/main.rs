//! The whole server as a process, met by raw sockets: what no SDK would do, and what only shows
//! when workers, doors and signals come together.

#![cfg(unix)]

#[path = "../support/process.rs"]
mod process;

mod client;
mod delivery;
#[path = "../support/directory.rs"]
mod directory;
mod encoding;
mod ending;
mod revoked;
mod tokens;
mod upgrade;
