//! How opening a connection can go wrong.

use std::io;
use std::time::Duration;

use super::proxy::ProxyError;
use crate::proto::handshake::{
    RequestError, ResponseError, ResponseHead, ResponseHeadError, UrlError,
};

/// Why a client got no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The stream ended before the server's response did.
    #[error("the server went away before its response was complete")]
    CutOff,
    /// The server's answer to the permessage-deflate offer.
    #[cfg(feature = "deflate")]
    #[error(transparent)]
    Deflate(#[from] crate::proto::deflate::AnswerError),
    /// The server's response took longer than
    /// [`ConnectOptions::handshake_timeout`](super::ConnectOptions::handshake_timeout).
    #[error("the opening handshake was not complete after {} s", .0.as_secs_f64())]
    HandshakeTimedOut(Duration),
    /// What the server sent can't be a response.
    #[error(transparent)]
    Head(#[from] ResponseHeadError),
    /// The HTTP/2 connection, or the stream of this request, is at its end.
    #[cfg(feature = "http2")]
    #[error(transparent)]
    Http2(#[from] crate::conn::http2::Http2Error),
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The server speaks HTTP/2, but takes no WebSockets over it (RFC 8441 §3).
    #[cfg(feature = "http2")]
    #[error(
        "the server takes no WebSockets over HTTP/2 (it has not sent SETTINGS_ENABLE_CONNECT_PROTOCOL); connect over HTTP/1.1"
    )]
    NoExtendedConnect,
    /// The server doesn't speak HTTP/2: TLS has not negotiated it.
    #[cfg(feature = "http2")]
    #[error("the server does not speak HTTP/2; connect over HTTP/1.1")]
    NoHttp2,
    /// A `wss://` URL, and the crate was built without its feature `rustls`.
    #[error(
        "wss:// needs the feature `rustls` of tautline-websocket, or a TLS stream of your own given to `client`"
    )]
    NoTls,
    /// A URL that leads to another server than the HTTP/2 connection over which it was to be opened.
    #[cfg(feature = "http2")]
    #[error("the URL leads to another server than the HTTP/2 connection")]
    OtherServer,
    /// The proxy did not open a tunnel.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The server answered with a status other than 101.
    #[error("the server refused the connection with status {}", .0.head.status())]
    Refused(Box<Rejection>),
    /// The options ask for a request that can't be sent.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The name of the host, or of the proxy, has no address.
    #[error("can't find the address of {host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The server agreed to something else than what was asked for.
    #[error(transparent)]
    Response(ResponseError),
    /// The name of the host, the address and the tunnel through a proxy, and TLS took longer than
    /// [`ConnectOptions::connect_timeout`](super::ConnectOptions::connect_timeout).
    #[error("no connection to the server after {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// TLS could not be set up: most often a certificate that isn't valid for the host.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// The host.
        host: String,
        /// What rustls said.
        source: io::Error,
    },
    /// No address of the host, or of the proxy, took a connection.
    #[error("can't connect to {host} on port {port}: {source}")]
    Unreachable {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What the last attempt said.
        source: io::Error,
    },
    /// The URL.
    #[error(transparent)]
    Url(#[from] UrlError),
}

/// A response with a status other than 101: where to go instead (`Location`), how to log in
/// (`WWW-Authenticate`), when to come back (`Retry-After`). None of it is acted upon.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// Status and headers.
    pub head: ResponseHead,
    /// The first KiB of the body at most, without the framing of chunks: what of it came within a
    /// second.
    pub body: Vec<u8>,
}
