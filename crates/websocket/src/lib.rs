//! WebSocket connections that cost little: RFC 6455 as an engine without I/O, and Tokio around it.
//!
//! ```
//! use tautline_websocket::conn::{AcceptOptions, accept};
//! use tokio::net::TcpStream;
//!
//! /// Sends each message back.
//! async fn echo(stream: TcpStream) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut ws = accept(stream, &AcceptOptions::default()).await?.websocket;
//!     while let Some(message) = ws.recv().await? {
//!         ws.queue(&message)?;
//!     }
//!     Ok(())
//! }
//! ```
//!
//! As a client, `conn::connect` takes a URL:
//!
//! ```no_run
//! use tautline_websocket::conn::{ConnectOptions, connect};
//!
//! # async fn hello() -> Result<(), Box<dyn std::error::Error>> {
//! let mut ws = connect("ws://127.0.0.1:9001/", &ConnectOptions::default()).await?.websocket;
//! ws.send("Hello").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Two layers
//!
//! [`proto`] is the protocol, and nothing but. [`proto::Connection`] is lent the bytes that came
//! and gives events that point into them; what it has to say goes into an output that it is lent
//! too. It has no socket, no clock and no randomness, so it runs under any runtime, and a test can
//! try every way to cut the input. [`proto::handshake`] does the same for the HTTP request that
//! comes first, from raw bytes or from the headers of any HTTP library. With
//! `default-features = false` this is all there is.
//!
//! `conn` (feature `tokio`, on by default) joins the engine to streams: `conn::accept` and
//! `conn::connect` for the handshake, `conn::WebSocket` to receive and send, its `serve` for handlers that get each
//! message lent from the read buffer. Servers with ideas of their own can drive the engine
//! themselves, with the same two buffers.
//!
//! # Ways to use a connection
//!
//! All of them go through one driver, in one task which both reads and writes:
//!
//! - `serve` with a closure, or `serve_with` with a `conn::Handler` which is also told of the end:
//!   messages are lent, answers to one read leave in one write, nothing is allocated.
//! - `recv`, `send`, `queue`: a conversation, step by step. Every future can be dropped at any point.
//! - `Stream` and `Sink`, for what is built on these; split, its halves may be in two tasks.
//!
//! And from elsewhere, with no second task and no lock around the socket:
//!
//! - a `conn::Sender` sends on one connection from any task or thread, through a bounded queue;
//! - a `conn::Group` sends one message to many connections, framed and compressed once, and for those
//!   served with `serve_member` written in one burst;
//! - a `conn::Tracker` closes all connections and waits until they are gone, to shut down.
//!
//! `WebSocket::with_keep_alive` finds peers that are gone without a word; a connection has one
//! timer for it and for closing, and none without.
//!
//! # The guide
//!
//! `manual` has chapters for reading: driving the engine, the defaults and why, memory, other libraries'
//! bugs, deploying behind proxies, moving over from other libraries.
//!
//! # Where the speed comes from
//!
//! A system call costs some two hundred times what it takes to parse a small frame. So all that
//! one read has brought is handled before anything is written, and the answers leave in one write.
//! Messages are unmasked and checked where they lie; what came in one piece is never copied, and
//! nothing is allocated for it.
//!
//! # What a connection costs
//!
//! One that is idle holds no buffer: all connections of a thread read into one, and a buffer for
//! output is borrowed from the thread's pool while there is output. Only a message of which a part
//! is still to come is kept, and its memory grows with what came, never with what was
//! announced.
//!
//! With permessage-deflate ([RFC 7692], `proto::deflate`, feature `deflate`, on by default) it keeps
//! the plaintext that later messages may refer to, 2 KiB with the defaults, and no compressor: the
//! thread has one, lent to one message at a time.
//!
//! # What a stranger can do
//!
//! Every length and count has a limit with a documented default ([`proto::Limits`],
//! [`proto::handshake::HeadLimits`]). A peer that breaks the protocol or a limit is an event, not a panic and
//! not a silent close: the answers to what was good go out first, then a Close frame with
//! the right code. A compressed message is bounded in its inflated size and its ratio while it is
//! inflated. A peer that asks and doesn't read gets no more memory than a bounded backlog.
//!
//! # Features
//!
//! - `tokio` (default): `conn`, with clients for `ws://`, also through HTTP and SOCKS 5 proxies.
//! - `rustls`: `wss://` for `conn::connect`. Cryptography is aws-lc-rs, and the certificate roots are
//!   those of the operating system, so that what its administrator trusts is what is trusted.
//!   Other choices are a `rustls::ClientConfig` of your own, or `conn::client` over a TLS stream.
//! - `hyper`: `conn::hyper`, for servers of hyper 1.x.
//! - `axum`: `conn::axum`, an extractor for axum 0.8.
//! - `http2`: `conn::http2`, for connections over HTTP/2 (RFC 8441), as a server and as a client. With
//!   `hyper` or `axum`, theirs over HTTP/2 as well.
//!
//! [RFC 7692]: https://www.rfc-editor.org/rfc/rfc7692
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
pub mod conn;
#[cfg(all(feature = "deflate", feature = "tokio"))]
pub mod manual;
pub mod proto;
