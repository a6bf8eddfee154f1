//! The engine from outside: bytes in, events and bytes out. Section numbers are RFC 6455's.

mod closing;
mod deflate;
mod limits;
mod model;
mod peer;
mod splits;
mod support;
