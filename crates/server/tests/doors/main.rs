//! The doors that are made of plain HTTP, met by raw sockets: what is on the wire, and what no client
//! of good will would do.

#![cfg(unix)]

mod abuse;
mod connection;
#[path = "../../examples/door_cost/ways.rs"]
mod cost;
mod curl;
mod cut;
mod docs;
mod emulation;
mod flood;
#[cfg(target_os = "linux")]
mod half_open;
mod history;
mod http;
mod http2;
mod ladder;
mod lots;
mod plain;
mod plain_poll;
mod plain_tokens;
mod poll;
#[path = "../support/process.rs"]
mod process;
mod protobuf;
mod socket;
mod spread;
mod streams;
mod surrogates;
mod tunnel;
mod uni;
#[path = "../support/vanish.rs"]
mod vanish;
mod ways;
