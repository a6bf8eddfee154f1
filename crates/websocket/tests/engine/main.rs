//! The engine from outside: bytes in, events and bytes out. Section numbers are RFC 6455's.

mod closing;
mod limits;
mod model;
mod probes;
mod splits;
mod support;
