//! The Protobuf encoding: messages with their length before them.
//!
//! A frame (a binary WebSocket message, a request body) carries one or more messages, each behind
//! its length in bytes as a varint, even when there is only one. [`Commands`] reads what a client
//! sent; [`encode_reply`] writes what a server answers.
//!
//! ```
//! use tautline_protocol::protobuf::{self, Commands};
//! use tautline_protocol::{Reply, Request, Response};
//!
//! let frame = b"\x0b\x08\x01\x22\x07\x0a\x01t\x22\x02js\x0a\x08\x02\x32\x06\x0a\x04news";
//! let mut commands = Commands::new(frame);
//! assert!(matches!(commands.next(), Some(Ok(command)) if command.id == 1));
//! let command = commands.next().unwrap()?;
//! assert!(matches!(command.request, Some(Request::Unsubscribe(request)) if request.channel == "news"));
//!
//! let mut bytes = Vec::new();
//! protobuf::encode_reply(&Reply::Answer(2, Ok(Response::Unsubscribe)), &mut bytes);
//! assert_eq!(bytes, b"\x04\x08\x02\x3a\x00");
//! # Ok::<(), protobuf::DecodeError>(())
//! ```
//!
//! The codec is written by hand: the messages are few, a request borrows its strings and payloads
//! from the frame, and a push is written once, straight into the caller's buffer. It reads what
//! proto3 allows (fields in any order, unknown fields, parts of a message that are to be merged) and
//! writes fields in the order of their numbers, those at their default left out.

mod decode;
mod encode;
mod wire;

pub use decode::{Commands, decode_emulation};
pub use encode::encode_reply;
pub(crate) use wire::Reader;
pub use wire::{DecodeError, MAX_GROUP_DEPTH};
