//! A server of one's own: handlers in code, a handle to publish with, and a way into an application's
//! own HTTP server.
//!
//! - `handler`: what may be decided in code;
//! - `client`: whom it is about, and the request that brought the client here;
//! - `builder`: from a configuration and a handler to a running node;
//! - `handle`: what an application does with it;
//! - `mount`: the WebSocket endpoint as a service for hyper, axum and whatever speaks `tower`;
//! - `api_call`: calls of the application's backend, which handlers answer, too;
//! - `desk`: where a worker's hub puts its questions, and handlers answer them.

mod api_call;
mod builder;
mod client;
pub(crate) mod desk;
mod handle;
mod handler;
mod mount;

pub(crate) use self::api_call::ApiCalls;
pub use self::api_call::ApiRpcEvent;
pub(crate) use self::builder::told;
pub use self::builder::{Node, NodeBuilder};
pub use self::client::{Client, Request};
pub use self::handle::NodeHandle;
pub use self::handler::Handler;
pub use self::mount::WebSocketService;
