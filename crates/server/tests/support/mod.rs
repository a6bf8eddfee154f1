//! What several test binaries share.

pub(crate) mod node;
pub(crate) mod server;
