//! The doors that are made of plain HTTP, met by raw sockets: what is on the wire, and what no client
//! of good will would do.

#![cfg(unix)]

mod abuse;
mod emulation;
mod http;
#[path = "../support/process.rs"]
mod process;
mod streams;
mod uni;
