//! The engine on Tokio.
//!
//! - [`accept()`] takes a raw stream through the opening handshake, [`WebSocket`] is the connection
//!   that comes of it.
//! - [`scratch`] and [`WriteQueue`] are the two buffers that make a connection cheap: one that all
//!   connections of a thread read into, and one that a connection holds only while it has
//!   something to write. They are public for servers that drive the engine by themselves.

mod accept;
mod error;
pub mod scratch;
mod stream;
mod write_queue;

pub use accept::{AcceptError, AcceptOptions, Accepted, Decide, accept};
pub use error::Error;
pub use stream::{Closed, Replies, WebSocket};
pub use write_queue::{SHARE_FROM, WriteQueue};
