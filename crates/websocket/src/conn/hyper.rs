//! A way in for servers of [hyper] 1.x, over HTTP/1.1 and HTTP/2: from a request to the response
//! and the connection.
//!
//! ```
//! use std::convert::Infallible;
//! use http::{Request, Response};
//! use tautline_websocket::conn::AcceptOptions;
//! use tautline_websocket::conn::hyper::{refusal, upgrade};
//!
//! /// A service for hyper: an echo server.
//! async fn serve<B>(mut request: Request<B>) -> Result<Response<String>, Infallible> {
//!     Ok(match upgrade(&mut request, &AcceptOptions::default()) {
//!         Ok((response, upgrade)) => {
//!             tokio::spawn(async move {
//!                 let Ok(accepted) = upgrade.open::<tokio::net::TcpStream>().await else {
//!                     return;
//!                 };
//!                 let echo = accepted.websocket.serve(|message, replies| {
//!                     let _ = replies.send(message);
//!                 });
//!                 let _ = echo.await;
//!             });
//!             response.map(|()| String::new())
//!         }
//!         Err(refused) => refusal(&refused, request.version()),
//!     })
//! }
//! ```
//!
//! hyper must be told that connections may be upgraded: `with_upgrades` of its HTTP/1.1
//! connections, `enable_connect_protocol` of its HTTP/2 ones.
//!
//! # What a connection costs
//!
//! Over HTTP/1.1 nothing of hyper is left: [`Upgrade::open`] is told the type of the stream that the
//! server was given, and takes it back out of what hyper hands over. A stream of another type is
//! used as hyper gives it, boxed; that works as well and costs a little more.
//!
//! Over HTTP/2 each write goes through a channel to another task of hyper, copied. Where there
//! are many such connections, `conn::http2` (feature `http2`) does without.
//!
//! [hyper]: https://hyper.rs

use std::any::Any;
use std::fmt;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::accept::{AcceptOptions, Accepted, Agreed};
use super::delegate::{delegate_read, delegate_write};
use super::http_types;
use crate::proto::handshake::{Refusal, RequestHead};

/// Checks a request that came through hyper, and gives the response to it and what becomes the
/// connection once hyper has sent that.
///
/// Of the options, [`head`](AcceptOptions::head) is hyper's affair. The request stays the caller's,
/// with its extensions; only hyper's own is taken out of it.
///
/// # Errors
///
/// The [`Refusal`] to answer with, see [`refusal`]: by the rules of RFC 6455 §4.2.1 or RFC 8441, or
/// by [`AcceptOptions::decide`].
pub fn upgrade<B>(
    request: &mut http::Request<B>,
    options: &AcceptOptions,
) -> Result<(http::Response<()>, Upgrade), Refusal> {
    let head = request_head(
        request.method(),
        request.uri(),
        request.version(),
        request.headers(),
        request.extensions(),
    );
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    Upgrade::new(head, on_upgrade, options)
}

/// A refusal as a response of the `http` crate. With a version other than that of the request it may
/// have headers that the client can't take.
pub fn refusal(refusal: &Refusal, version: http::Version) -> http::Response<String> {
    http_types::refusing(refusal, version)
}

/// A connection that opens when hyper has sent the response.
#[must_use = "a connection must be opened for anything to happen"]
pub struct Upgrade {
    on_upgrade: OnUpgrade,
    head: RequestHead,
    agreed: Agreed,
    timeout: Duration,
}

impl Upgrade {
    /// As [`upgrade`] does it, from the pieces.
    pub(super) fn new(
        head: RequestHead,
        on_upgrade: Option<OnUpgrade>,
        options: &AcceptOptions,
    ) -> Result<(http::Response<()>, Self), Refusal> {
        let (response, agreed) = Agreed::on(&head, options, http_types::accepting)?;
        let on_upgrade = on_upgrade.ok_or_else(|| Refusal::new(500, NOT_UPGRADABLE))?;
        let upgrade = Self {
            on_upgrade,
            head,
            agreed,
            timeout: options.head_timeout,
        };
        Ok((response, upgrade))
    }

    /// The request.
    pub fn request(&self) -> &RequestHead {
        &self.head
    }

    /// The subprotocol that was agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.agreed.subprotocol.as_deref()
    }

    /// Waits until hyper has sent the response, and gives the connection. `S` is the type of the
    /// streams that hyper was given, without its `TokioIo`.
    ///
    /// Runs beside the service: hyper sends the response only after the service has returned it.
    ///
    /// # Errors
    ///
    /// [`UpgradeError`]: the client went away, or didn't take the response in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection.
    pub async fn open<S>(self) -> Result<Accepted<UpgradedStream<S>>, UpgradeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let upgraded = timeout(self.timeout, self.on_upgrade).await;
        let upgraded = upgraded.map_err(|_| UpgradeError::TimedOut(self.timeout))??;
        let (stream, rest) = UpgradedStream::new(upgraded);
        Ok(self.agreed.open(stream, self.head, rest))
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade")
            .field("head", &self.head)
            .field("subprotocol", &self.agreed.subprotocol)
            .finish_non_exhaustive()
    }
}

/// Why no connection came of an [`Upgrade`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// hyper didn't give the stream away: the client went away, the response was never sent, or the
    /// server doesn't serve its connections `with_upgrades`.
    #[error("the connection was not upgraded: {0}")]
    Hyper(#[from] hyper::Error),
    /// The response was not sent within [`AcceptOptions::head_timeout`].
    #[error("the connection was not upgraded within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
}

/// The stream below a connection that came through hyper.
pub struct UpgradedStream<S = TcpStream>(Kind<S>);

enum Kind<S> {
    Direct(S),
    // Boxed, for it would make the other larger, which is what there is thousands of.
    Hyper(Box<TokioIo<Upgraded>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> UpgradedStream<S> {
    /// The stream, and what hyper has read of it already.
    fn new(upgraded: Upgraded) -> (Self, Vec<u8>) {
        // Servers that take both versions of HTTP have it in another wrapping.
        let upgraded = match auto::upgrade::downcast::<TokioIo<S>>(upgraded) {
            Ok(parts) => return (Self::direct(parts.io), parts.read_buf.to_vec()),
            Err(upgraded) => upgraded,
        };
        match upgraded.downcast::<TokioIo<S>>() {
            Ok(parts) => (Self::direct(parts.io), parts.read_buf.to_vec()),
            Err(upgraded) => {
                let boxed = Box::new(TokioIo::new(upgraded));
                (Self(Kind::Hyper(boxed)), Vec::new())
            }
        }
    }

    fn direct(io: TokioIo<S>) -> Self {
        let stream = io.into_inner();
        // Whole messages are written, so there is nothing to wait for. A socket that fails here
        // fails at its first read as well.
        if let Some(tcp) = (&stream as &dyn Any).downcast_ref::<TcpStream>() {
            let _ = tcp.set_nodelay(true);
        }
        Self(Kind::Direct(stream))
    }
}

impl<S> UpgradedStream<S> {
    /// The stream that the server gave to hyper; `None` over HTTP/2, and where it has another type.
    pub fn get_ref(&self) -> Option<&S> {
        match &self.0 {
            Kind::Direct(stream) => Some(stream),
            Kind::Hyper(_) => None,
        }
    }
}

/// Whatever `S` is.
impl<S> fmt::Debug for UpgradedStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UpgradedStream").finish_non_exhaustive()
    }
}

delegate_read!({ S } UpgradedStream<S>, this => this.0, stream in {
    Kind::Direct(stream),
    Kind::Hyper(stream)
});

delegate_write!({ S } UpgradedStream<S>, this => this.0, stream in {
    Kind::Direct(stream),
    Kind::Hyper(stream)
});

/// The head of a request as hyper has it.
pub(super) fn request_head(
    method: &http::Method,
    uri: &http::Uri,
    version: http::Version,
    headers: &http::HeaderMap,
    extensions: &http::Extensions,
) -> RequestHead {
    #[cfg(feature = "http2")]
    let protocol = extensions
        .get::<hyper::ext::Protocol>()
        .map(hyper::ext::Protocol::as_str);
    #[cfg(not(feature = "http2"))]
    let protocol = {
        let _ = extensions;
        None
    };
    http_types::request_head(method, uri, version, headers, protocol)
}

/// What a client hears when the server is put together wrongly.
const NOT_UPGRADABLE: &str = "this server can't upgrade the connection; with hyper, serve it with_upgrades, over HTTP/2 with enable_connect_protocol";
