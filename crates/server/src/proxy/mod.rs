//! Proxies: the application's backend decides, over HTTP.
//!
//! A question of the hub (may this client come in, may it subscribe, what does this call return) goes as
//! a POST with a JSON body to an endpoint of the backend, and what comes back decides. The bodies are those
//! which backends of Centrifugo know; `docs/proxy.md` has them. To the hub [`Proxies`] is a
//! [`Handler`](crate::Handler) like one in code.
//!
//! - `settings`: what is asked where, checked;
//! - `endpoint`: one endpoint's options, checked;
//! - `handler`: from questions to calls, and from what comes back to answers;
//! - `wire`: the bodies;
//! - `call`: a call, with its limits, its time, its second attempt;
//! - `breaker`: when a backend is left alone; no clock, no sockets;
//! - `sign`: how a backend knows that it is asked by its own server.
//!
//! All calls are made on one thread that does nothing else, so that all workers share the connections to
//! the backend, and none of them waits for a handshake. What isn't for the backend to decide is answered on the
//! worker, at once.

mod breaker;
mod call;
pub(crate) mod endpoint;
mod handler;
pub(crate) mod settings;
pub(crate) mod sign;
mod wire;

pub(crate) use self::call::{HttpClient, causes, client};
pub(crate) use self::handler::Proxies;
