//! The engine on Tokio.
//!
//! - [`accept()`] takes a server's stream through the opening handshake, [`connect`] opens one as a
//!   client, [`client()`] does so over a stream that is there already. [`WebSocket`] is the
//!   connection that comes of each.
//! - `hyper` and `axum`, behind features of these names, do the same for requests that came through
//!   these libraries, and `http2` for many connections over one of HTTP/2, as a server and as a client.
//! - [`scratch`] and [`WriteQueue`] are the two buffers that make a connection cheap: one that all
//!   connections of a thread read into, and one that a connection holds only while it has
//!   something to write. They are public for servers that drive the engine by themselves.
//!
//! Where permessage-deflate was agreed ([`AcceptOptions::deflate`]), messages are compressed at
//! level 1 from 128 bytes on, with a codec that all connections of a thread share.
//! [`set_thread_codec`] sets another level, length, and memory of what was sent.

// The files, from the stream up:
//
// - `driver` drives a connection: reads into `scratch`, feeds the engine, writes its `write_queue`; `long` are messages that
//   are written from where they lie, `owned` those that are queued by reference; `timer`, `halves`: who is woken, and when;
//   `codec`: compression lent to whoever needs it; `error`: how it ends;
// - `stream` is the connection for its user (`WebSocket`), `serve` the loop with a handler, `futures` the same as `Stream` and
//   `Sink`;
// - `accept`, `client`, `hyper`, `axum`, `http2` are the ways in, `http_types` and `delegate` what they share;
// - `attached` is what reaches a connection from elsewhere: `sender` and its `inbox`, `group`, `tracker`; `resting` are members of
//   groups that are written to without being woken.

mod accept;
mod attached;
#[cfg(feature = "axum")]
pub mod axum;
mod client;
#[cfg(feature = "deflate")]
mod codec;
mod delegate;
mod driver;
mod error;
mod futures;
mod group;
mod halves;
#[cfg(feature = "http2")]
pub mod http2;
#[cfg(any(feature = "http2", feature = "hyper"))]
mod http_types;
#[cfg(feature = "hyper")]
pub mod hyper;
mod inbox;
mod long;
mod owned;
mod resting;
pub mod scratch;
mod sender;
mod serve;
mod stream;
mod timer;
mod tracker;
mod write_queue;

pub use accept::{AcceptError, AcceptOptions, Accepted, Decide, accept};
#[cfg(feature = "rustls")]
pub use client::tls_config;
pub use client::{
    ClientStream, ConnectError, ConnectOptions, Connected, Proxy, ProxyError, Rejection,
    SecureKeys, client, connect,
};
#[cfg(feature = "deflate")]
pub use codec::set_thread_codec;
pub use error::Error;
pub use group::{Group, GroupFull, GroupOptions, JoinError, SlowMember};
pub use sender::{SendError, Sender, TrySendError};
pub use serve::{Ended, Handler, Replies};
pub use stream::{Closed, WebSocket};
pub use tracker::{StillOpen, Tracker};
pub use write_queue::{SHARE_FROM, WriteQueue};
