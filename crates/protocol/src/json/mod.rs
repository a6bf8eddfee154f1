//! The JSON encoding: one object a line.
//!
//! A frame (a WebSocket message, a request body) carries one or more objects separated by a single
//! `\n`. [`Commands`] reads what a client sent; [`encode_reply`] writes what a server answers.
//!
//! ```
//! use tautline_protocol::json::{self, Commands};
//! use tautline_protocol::{Reply, Request, Response};
//!
//! let frame = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"unsubscribe\":{\"channel\":\"news\"}}";
//! let mut commands = Commands::new(frame);
//! assert!(matches!(commands.next(), Some(Ok(command)) if command.id == 1));
//! let command = commands.next().unwrap()?;
//! assert!(matches!(command.request, Some(Request::Unsubscribe(request)) if request.channel == "news"));
//!
//! let mut bytes = Vec::new();
//! json::encode_reply(&Reply::Answer(2, Ok(Response::Unsubscribe)), &mut bytes);
//! assert_eq!(bytes, br#"{"id":2,"unsubscribe":{}}"#);
//! # Ok::<(), json::DecodeError>(())
//! ```
//!
//! Payloads pass through as raw text: a number keeps its digits, an object its key order. The one
//! thing that is taken out is a raw line break, which in valid JSON can only stand between tokens
//! and would break the framing.

mod decode;
mod encode;

pub use decode::{Commands, DecodeError, MAX_DEPTH, check_payload};
pub(crate) use decode::{Str, brief};
pub use encode::{encode_history, encode_push, encode_reply, encode_result, quote};
