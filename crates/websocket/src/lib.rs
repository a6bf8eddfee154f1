//! WebSocket engine and connections: RFC 6455.
//!
//! Two layers, one crate:
//!
//! - [`proto`] is the protocol as a state machine. It is lent bytes and gives events that point
//!   into them; what it has to say goes into a buffer that it is lent too.
//! - `conn` (feature `tokio`, on by default) joins it to sockets.
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
pub mod conn;
pub mod proto;
