//! The Tautline server: what the `tautline` binary is made of.
//!
//! This crate is where I/O happens. It knows the operating system, sockets, HTTP and the command
//! line, and leaves what a message means to `tautline-hub`, and how a WebSocket works to
//! `tautline-websocket`.
//!
//! # A server of one's own
//!
//! It is a library as well: an application in Rust has the whole server in its own process, and decides in
//! code what a configuration leaves open.
//!
//! ```no_run
//! use tautline::{Client, Config, ConnectEvent, ConnectReply, Handler, Node, Publish, Refusal};
//!
//! struct Doorman;
//!
//! impl Handler for Doorman {
//!     async fn on_connecting(
//!         &self,
//!         client: &Client,
//!         _: ConnectEvent,
//!     ) -> Result<ConnectReply, Refusal> {
//!         match client.request().cookie("user") {
//!             Some(user) => Ok(ConnectReply::user(user).subscribe("news")),
//!             None => Err(Refusal::error(401, "log in first")),
//!         }
//!     }
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::builder(Config::from_toml("")?).handler(Doorman).start()?;
//! let news = Publish {
//!     channel: "news".into(),
//!     data: r#"{"text":"hello"}"#.into(),
//!     ..Publish::default()
//! };
//! node.handle().publish(news).await.map_err(|error| error.message)?;
//! node.run().await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Handler`] has what can be decided, [`NodeHandle`] what an application can do, and
//! [`WebSocketService`] brings it into an HTTP server that the application has already. The chapter
//! `docs/embedding.md` tells the rest, and `examples/` has a game and an application of axum.
//!
//! What is re-exported here, and [`config`], keep to semantic versioning. The other modules are public for the sake of
//! tests and of the binary, and promise nothing.

#[cfg_attr(not(feature = "acme"), path = "acme/absent.rs")]
mod acme;
pub mod cli;
pub mod client_address;
pub mod config;
mod descriptors;
mod door;
mod drain;
mod embed;
pub mod entropy;
mod events;
pub mod glob;
pub mod http;
mod io;
mod kept;
pub mod keys;
mod log_queue;
pub mod network;
pub mod node;
mod node_api;
mod object;
mod pem;
mod proxy;
pub mod proxy_protocol;
pub mod reload;
mod revocations;
mod systemd;
pub mod telemetry;
mod tls;
pub mod trace;
mod worker;

pub use tautline_hub as hub;
pub use tautline_protocol as protocol;

pub use self::config::{Config, ConfigFile};
pub use self::embed::{
    ApiRpcEvent, Client, Handler, Node, NodeBuilder, NodeHandle, Request, WebSocketService,
};
pub use self::events::{
    DeadEvent, DeadEvents, Event, EventHandler, EventKind, EventsError, NotTaken,
};
pub use self::reload::{ReloadError, Reloaded};
pub use self::revocations::{RevocationsError, Revoke, Revoked};
pub use tautline_hub::application::{
    ApplicationOptions as HandlerOptions, ConnectEvent, ConnectReply, DisconnectEvent, Identity,
    Interests, MessageEvent, PublishEvent, PublishInstead, PublishReply, RefreshBy, RefreshEvent,
    RefreshReply, Refusal, RpcEvent, RpcReply, SubRefreshEvent, SubscribeEvent, SubscribeReply,
    UnsubscribeEvent,
};
pub use tautline_hub::{
    ApiHistory as HistoryQuery, ApiPresence as PresenceQuery, ApiPublish as Publish,
    ApiRefresh as RefreshCall, ApiSubscribe as SubscribeCall, PublishOutcome, Target,
};
pub use tautline_protocol::{Disconnect, ErrorCode, message::Error};

/// Version of the server.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
