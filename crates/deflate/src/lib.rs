//! permessage-deflate ([RFC 7692]) without a socket, and without zlib state per connection.
//!
//! A WebSocket extension negotiates four parameters ([`offer`]), and then compresses each message
//! by itself or in the context of the messages before it. The usual implementation keeps a
//! compressor and a decompressor for each connection, some 200 to 400 KiB of memory. Here a thread
//! has one of each ([`Codec`]), lent to one message at a time, and a connection keeps nothing but
//! the *plaintext* of its last messages ([`History`]), a KiB or so.
//!
//! # Why plaintext is enough
//!
//! Context takeover means that a message may refer to bytes of earlier messages, as far back as the
//! agreed window reaches. A message ends on a byte boundary (an empty stored block, whose last four
//! bytes are not sent: RFC 7692, section 7.2.1), so between two messages neither side has half a
//! byte, an open block or a Huffman table to remember. What is left is the window. So before each
//! message the thread's compressor is reset and primed with the connection's history as its dictionary,
//! and to the peer, with its ordinary streaming inflater, there is no difference. The same is done
//! in the other direction.
//!
//! A sender may remember less than the window: it then refers to less. A receiver has to remember
//! as much as it agreed to. That is why what we *send* needs a KiB or two, and what we *receive* as much as
//! `2^max_window_bits` of the other side, and why [`ServerConfig`] asks clients for a small window or for no
//! takeover.
//!
//! # What is bounded
//!
//! The inflated size of a message, by a number and by a ratio to its compressed size
//! ([`InflateLimits`]), while inflating: a bomb is noticed when it has grown to the limit, not
//! when it has exploded.
//!
//! [RFC 7692]: https://www.rfc-editor.org/rfc/rfc7692

mod codec;
mod fast;
mod history;
mod inflate;
mod limits;
pub mod offer;

pub use codec::Codec;
pub use history::History;
pub use limits::{InflateError, InflateLimits};
pub use offer::{Agreement, ClientConfig, ServerConfig};
