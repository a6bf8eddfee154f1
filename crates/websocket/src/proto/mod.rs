//! The protocol, without I/O: frames, messages, closing, and the opening handshake.
//!
//! Bytes and nothing else go in and come out. There is no socket, clock, source of randomness or
//! task in here, so the same code runs under any runtime, in a fuzzer, and in tests that try every
//! way to cut the input. [`Connection`] is the state machine, [`handshake`] is what comes before
//! it, and [`frame`] is for those who build frames themselves, to send one to many.

mod assemble;
mod close;
mod connection;
#[cfg(feature = "deflate")]
pub mod deflate;
#[cfg(not(feature = "deflate"))]
#[path = "no_deflate.rs"]
mod deflate;
mod error;
mod event;
mod extensions;
pub mod frame;
pub mod handshake;
mod keep_alive;
mod limits;
mod mask;
mod message;
mod output;
pub mod utf8;

pub use close::{CloseCode, CloseFrame, MAX_REASON};
pub use connection::{Connection, Events, Role, Sender};
pub use error::{Misuse, PeerFault};
pub use event::Event;
pub use extensions::Extensions;
pub use frame::{FrameHeader, OpCode};
pub use keep_alive::{KeepAlive, KeepAliveDue, KeepAliveOptions};
pub use limits::Limits;
pub use mask::{MaskKey, MaskKeys};
pub use message::{Message, MessageRef};
pub use output::Output;
