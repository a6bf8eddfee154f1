//! Sessions, channels and fan-out of the Tautline real-time server, with no I/O.
//!
//! A [`Hub`] owns the sessions of one worker thread. Bytes, deliveries and time go in by method
//! call; messages and closes come out through an [`Outbox`] which the caller lends. It owns no
//! socket, no thread and no clock, so a test drives a whole node by hand, and a server drives one
//! hub on each core without a lock.
//!
//! What neither options nor tokens decide, an [`Application`](application::Application) may: code of
//! whoever builds on this.
//!
//! What hubs share is an [`Engine`](engine::Engine): history, presence, and the feed of
//! publications between workers (and, for engines that span nodes, between nodes).
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use tautline_hub::config::{ChannelOptions, ClientOptions};
//! use tautline_hub::engine::memory::{MemoryEngine, MemoryOptions};
//! use tautline_hub::engine::{Delivery, Mailbox, WorkerId};
//! use tautline_hub::{Entropy, Frame, Hub, HubConfig, Now, Outbox, SessionId, Transport};
//! use tautline_protocol::{Disconnect, Encoding};
//!
//! // What a server brings along: a mailbox, randomness, and a way out.
//! #[derive(Default)]
//! struct Inbox(Mutex<Vec<Delivery>>);
//! impl Mailbox for Inbox {
//!     fn push(&self, delivery: Delivery) {
//!         self.0.lock().unwrap().push(delivery);
//!     }
//! }
//! struct Zeros; // A real source must never repeat itself.
//! impl Entropy for Zeros {
//!     fn fill(&mut self, bytes: &mut [u8]) {
//!         bytes.fill(0);
//!     }
//! }
//! #[derive(Default)]
//! struct Printed(Vec<String>);
//! impl Outbox for Printed {
//!     type Prepared = Vec<u8>;
//!     fn prepare(&mut self, _: Encoding, message: &[u8]) -> Vec<u8> {
//!         message.to_vec()
//!     }
//!     fn send_prepared(&mut self, to: SessionId, message: &Vec<u8>) -> usize {
//!         self.send(to, message)
//!     }
//!     fn send(&mut self, _: SessionId, message: &[u8]) -> usize {
//!         self.0.push(String::from_utf8_lossy(message).into_owned());
//!         0
//!     }
//!     fn queued(&self, _: SessionId) -> usize {
//!         0
//!     }
//!     fn written(&self, _: SessionId) -> u64 {
//!         0
//!     }
//!     fn when_drained(&mut self, _: SessionId) {}
//!     fn resume(&mut self, _: SessionId) {}
//!     fn close(&mut self, _: SessionId, disconnect: &Disconnect, _: bool) {
//!         self.0.push(format!("closed: {}", disconnect.reason));
//!     }
//! }
//!
//! let client = ClientOptions { insecure: true, ..ClientOptions::default() };
//! let config = HubConfig::new(client, ChannelOptions::default(), None)?;
//! let engine = Arc::new(MemoryEngine::new(MemoryOptions::default(), Box::new(Zeros)));
//! let (inbox, mut out) = (Arc::new(Inbox::default()), Printed::default());
//! let mut hub = Hub::new(Arc::new(config), engine, WorkerId(0), inbox.clone(), Box::new(Zeros));
//!
//! let now = Now::default(); // A server reads its clocks for each call.
//! let session = hub.open(now, Transport::new("websocket", Encoding::Json));
//! let frame = "{\"id\":1,\"connect\":{}}\n\
//!              {\"id\":2,\"subscribe\":{\"channel\":\"news\"}}\n\
//!              {\"id\":3,\"publish\":{\"channel\":\"news\",\"data\":\"hello\"}}";
//! hub.receive(now, session, Frame::Json(frame), &mut out);
//! hub.deliver(now, &mut inbox.0.lock().unwrap(), &mut out);
//!
//! assert!(out.0[0].starts_with(r#"{"id":1,"connect":{"client":"00000000-"#));
//! assert_eq!(out.0[1], r#"{"id":2,"subscribe":{}}"#);
//! assert_eq!(out.0[2], r#"{"id":3,"publish":{}}"#);
//! assert!(out.0[3].starts_with(r#"{"push":{"channel":"news","pub":{"data":"hello""#));
//! # Ok::<(), tautline_hub::config::ConfigError>(())
//! ```

pub mod application;
pub mod config;
mod durations;
pub mod engine;
mod entropy;
mod hub;
mod outbox;
pub mod rate;
mod time;
pub mod trace;
pub mod watch;
pub mod witness;

pub use durations::{Durations, FineHistogram, Histogram};
pub use hub::{Bound, Census, Operation, OverLimit, RefusedTokens, TokenRefusal};
pub use hub::{
    ClientCounters, ClientName, FrameType, Messages, Suppressed, Traffic, TransportCounters,
};

pub use config::HubConfig;
pub use entropy::Entropy;
pub use hub::{
    ApiHistory, ApiPresence, ApiPublish, ApiRefresh, ApiSubscribe, Ended, Frame, Hub, HubCounters,
    HubStats, Pings, PresenceList, PublishOutcome, SessionId, SessionName, Target, Transport,
};
pub use outbox::{Outbox, SessionAddress};
pub use time::Now;
