//! Doors for clients with no SDK: `/ws`, `/events`, `/lines`, `/history`, `/publish`.
//!
//! A browser's `WebSocket` or `EventSource`, `curl`, whatever makes an HTTP request. The session behind
//! them is an ordinary one: the door makes the commands of an SDK (connect, subscribe with recovery),
//! so permissions, limits and cursors are the same; and [`Plain`](voice::Plain) makes of the replies
//! what such a client wants to hear.

mod listen;
mod publish;
mod read;
mod reconnect;
mod refusal;
mod socket;
mod voice;
mod wanted;

pub(crate) use listen::{events, lines};
pub(crate) use publish::publish;
pub(crate) use read::history;
pub(crate) use reconnect::Reconnects;
pub(crate) use socket::{Greeting, Publisher, accept, check, greet};
pub(crate) use wanted::cookie_of;
