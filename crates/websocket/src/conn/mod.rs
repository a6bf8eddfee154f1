//! The engine on Tokio.
//!
//! [`scratch`] and [`WriteQueue`] are the two buffers that make a connection cheap: one that all
//! connections of a thread read into, and one that a connection holds only while it has something
//! to write.

pub mod scratch;
mod write_queue;

pub use write_queue::{SHARE_FROM, WriteQueue};
