//! WebSockets over HTTP/2 (RFC 8441): both of our ends, and each against the library below it used
//! by hand, which can do what ours would not.

mod cancel;
mod ending;
mod messages;
mod opening;
mod requests;
mod support;
