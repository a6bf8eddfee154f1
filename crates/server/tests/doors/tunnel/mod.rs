//! Tunnels: a server of the test's own, reached through the server under test by WebSockets and by plain HTTP.

mod carried;
pub(crate) mod client;
mod held;
mod kept;
mod lossy;
mod refused;
pub(crate) mod upstream;
