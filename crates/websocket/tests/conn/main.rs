//! Connections over streams that do what real ones do: stop anywhere, take a part, go away.

mod accept;
mod cancel;
mod client;
mod stream;
mod support;
mod write_queue;
