//! Many WebSocket connections over one of HTTP/2 (RFC 8441).
//!
//! As a server, [`Incoming`] takes both: a client that begins in HTTP/2 opens any number of
//! connections, one that begins in HTTP/1.1 opens one. What else they ask for is refused, or
//! [answered](Incoming::with_other), or [handed on](Incoming::with_http1) to a library that serves pages.
//!
//! ```
//! use tautline_websocket::conn::AcceptOptions;
//! use tautline_websocket::conn::http2::{Http2Options, Incoming};
//! # use tautline_websocket::conn::AcceptError;
//! # use tokio::io::{AsyncRead, AsyncWrite};
//!
//! # async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<(), AcceptError> {
//! let mut incoming = Incoming::new(stream, &Http2Options::default()).await?;
//! while let Some(accepted) = incoming.accept(&AcceptOptions::default()).await? {
//!     tokio::spawn(accepted.websocket.serve(|message, replies| {
//!         let _ = replies.send(message);
//!     }));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Over TLS, offer `h2` and `http/1.1` by ALPN: browsers speak HTTP/2 in no other way. They open their
//! WebSockets over it by themselves, when they have a connection of HTTP/2 to that server anyway.
//!
//! A server that serves all of HTTP beside WebSockets takes [`Http2Server`], whose requests come
//! [apart](Http2Request::into_parts) into what the `http` crate has, a body, and what answers them.
//!
//! As a client, [`Http2Client`] is one connection to a server, and each
//! [`open`](Http2Client::open) a WebSocket over it.
//!
//! # How it works
//!
//! Each WebSocket is a stream of HTTP/2, [`Http2Stream`], on which all goes on as over TCP. The end
//! of the one is the end of the other: `END_STREAM` is what FIN is there, and `RST_STREAM` with the
//! code `CANCEL` is a reset. Whoever drops a connection without closing it resets the stream, and the
//! others go on.
//!
//! One task drives the HTTP/2 connection below all of them: that which calls
//! [`accept`](Incoming::accept), or the one which [`Http2Client::connect`] starts. While it rests,
//! so do they.
//!
//! # Flow control
//!
//! A stream may send no more than the other side has room for, and room is given as bytes are read, so
//! one that isn't read holds up to [`stream_window`](Http2Options::stream_window) bytes here and
//! then the sender. The room of the whole connection is that of all its streams together: one that
//! isn't read can't stop the others. In the other direction at most
//! [`send_buffer`](Http2Options::send_buffer) bytes of a stream lie ready to be sent, and what is
//! more waits in its [`WebSocket`](super::WebSocket), as over TCP.

mod client;
mod error;
mod incoming;
mod meter;
mod options;
mod plain;
mod request;
mod sending;
mod server;
mod stream;
mod unsent;

pub use client::Http2Client;
pub use error::Http2Error;
pub use incoming::{Incoming, ServerStream};
pub use meter::{Flood, RefusedStreams};
pub use options::Http2Options;
pub use plain::{Http1Request, Rewound};
pub use request::{Http2Body, Http2Request, Http2Responder};
pub use sending::Http2Reply;
pub use server::Http2Server;
pub use stream::Http2Stream;
