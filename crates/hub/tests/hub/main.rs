//! Sessions and hubs, one concern a module, in simulated time.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "JSON is made where it is used"
)]

#[path = "../support/mod.rs"]
mod support;

mod announced;
mod api;
mod application;
mod binary;
mod bounds;
mod capabilities;
mod channel_rates;
mod classes;
mod connect;
mod control;
mod cursor;
mod drain;
mod enforced;
mod except;
mod expiry;
mod facts;
mod heartbeat;
mod held_up;
mod history;
mod history_remove;
mod later;
mod permissions;
mod presence;
mod protobuf;
mod publish;
mod rates;
mod reconfigured;
mod recovery;
mod revoked;
mod runs;
mod seats;
mod server_side;
mod slow;
mod subscribe;
mod trace;
mod versions;
mod watched;
