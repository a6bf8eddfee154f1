//! The guide: chapters for reading, beside the reference that the types are.
//!
//! - [`driving_the_engine`]: the sans-IO engine under an I/O loop of your own.
//! - [`defaults`]: every default, and why it is what it is.
//! - [`memory`]: what a connection holds, idle and busy, and what changes it.
//! - [`other_libraries`]: bugs that WebSocket libraries have had, and what is done about each here.
//! - [`deploying`]: behind nginx, HAProxy, Caddy and Amazon's load balancer.
//! - [`moving_over`]: from tungstenite, from axum's `ws`, from fastwebsockets.
//!
//! What compression costs and saves, with figures, is in `docs/compression.md` of the repository.

#[doc = include_str!("driving_the_engine.md")]
pub mod driving_the_engine {}

#[doc = include_str!("defaults.md")]
pub mod defaults {}

#[doc = include_str!("memory.md")]
pub mod memory {}

#[doc = include_str!("other_libraries.md")]
pub mod other_libraries {}

#[doc = include_str!("deploying.md")]
pub mod deploying {}

#[doc = include_str!("moving_over.md")]
pub mod moving_over {}
