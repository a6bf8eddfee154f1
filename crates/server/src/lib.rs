//! The Tautline server: what the `tautline` binary is made of.
//!
//! This crate is where I/O happens. It knows the operating system, sockets, HTTP and the command
//! line, and leaves what a message means to `tautline-hub`, and how a WebSocket works to
//! `tautline-websocket`.
//!
//! It is a library so that its parts can be tested from outside. It makes no promise of stability:
//! programs talk to a running server, and Rust programs build on the crates below.

pub mod cli;
pub mod config;
mod door;
pub mod entropy;
pub mod glob;
pub mod http;
pub mod keys;
pub mod node;
mod node_api;
mod worker;

/// Version of the server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
