//! The engine: history, presence, and the feed of publications between workers and nodes.
//!
//! # Contract
//!
//! - **Order.** Publications of a channel reach each worker's [`Mailbox`] in the order of their
//!   offsets, and every worker that is subscribed gets each one exactly once (at most once for an
//!   engine whose feed may lose; the hub then sees the gap by the offsets).
//! - **No lock is held by the caller.** Methods return at once. An operation that needs the
//!   network returns [`Started::Later`], and its outcome reaches the mailbox of the worker that
//!   asked, as [`Delivery::Outcome`] with the same ticket.
//! - **What was acknowledged stays** for as long as the engine promises: for the memory engine,
//!   the life of the process and the limits of the channel's history.
//! - **Time is an argument.** Engines have no clock of their own.
