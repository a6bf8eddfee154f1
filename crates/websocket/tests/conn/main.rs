//! Connections over streams that do what real ones do: stop anywhere, take a part, go away.

mod accept;
mod cancel;
mod client;
#[cfg(feature = "deflate")]
mod deflate;
mod futures;
mod group;
mod keep_alive;
mod long;
mod sender;
mod serve_member;
mod stream;
mod support;
mod write_queue;
