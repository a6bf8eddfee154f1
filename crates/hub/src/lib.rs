//! Sessions, channels and fan-out of the Tautline real-time server, with no I/O.
//!
//! A [`Hub`] owns the sessions of one worker thread. Bytes, deliveries and time go in by method
//! call; messages and closes come out through an [`Outbox`] which the caller lends. It owns no
//! socket, no thread and no clock, so a test drives a whole node by hand, and a server drives one
//! hub on each core without a lock.
//!
//! What hubs share is an [`Engine`](engine::Engine): history, presence, and the feed of
//! publications between workers (and, for engines that span nodes, between nodes).

pub mod config;
pub mod engine;
mod entropy;
mod hub;
mod outbox;
mod time;

pub use config::HubConfig;
pub use entropy::Entropy;
pub use hub::{ApiHistory, ApiPublish, Frame, Hub, HubStats, PublishOutcome, SessionId, Transport};
pub use outbox::Outbox;
pub use time::Now;
