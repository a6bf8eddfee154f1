//! An extractor for [axum] 0.8: [`WebSocketUpgrade`].
//!
//! ```
//! use axum::{Router, response::Response, routing::any};
//! use tautline_websocket::conn::axum::WebSocketUpgrade;
//!
//! async fn echo(upgrade: WebSocketUpgrade) -> Response {
//!     upgrade.on_upgrade(|ws| async move {
//!         let echo = ws.serve(|message, replies| {
//!             let _ = replies.send(message);
//!         });
//!         let _ = echo.await;
//!     })
//! }
//!
//! // HTTP/1.1 asks with GET, HTTP/2 with CONNECT.
//! let app: Router = Router::new().route("/echo", any(echo));
//! ```
//!
//! A connection leaves axum and hyper behind when it opens: what it holds then is what one holds
//! that came through [`accept`](super::accept()), and nothing of HTTP. For streams other than TCP, as TLS,
//! name the type: `WebSocketUpgrade<TlsStream<TcpStream>>`.
//!
//! [axum]: https://docs.rs/axum

use std::fmt;
use std::marker::PhantomData;

use axum_core::body::Body;
use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::Version;
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::accept::AcceptOptions;
use super::http_types;
use super::hyper::{Upgrade, UpgradeError, UpgradedStream, request_head};
use super::stream::WebSocket;
use crate::proto::Limits;
#[cfg(feature = "deflate")]
use crate::proto::deflate::ServerConfig;
use crate::proto::handshake::{Opening, OpeningError, Refusal, RequestHead};

/// A request that opens a WebSocket connection: every check of RFC 6455 §4.2.1 has passed, over
/// HTTP/2 those of RFC 8441.
///
/// Extracting it fails with [`UpgradeRejection`] when the request is another one. As
/// `Option<WebSocketUpgrade>` it is `None` for requests that don't ask for a WebSocket at all, so that
/// one path can serve both.
///
/// **A server that browsers come to with cookies must look at the origin**, with
/// [`allow_origins`](Self::allow_origins) or [`origin`](Self::origin): any page on the web can make its
/// visitors' browsers connect (RFC 6455 §10.2).
#[must_use = "a connection opens when the response of on_upgrade is returned"]
pub struct WebSocketUpgrade<S = TcpStream> {
    head: RequestHead,
    version: Version,
    on_upgrade: OnUpgrade,
    options: AcceptOptions,
    on_failed_upgrade: OnFailedUpgrade,
    stream: PhantomData<fn() -> S>,
}

type OnFailedUpgrade = Box<dyn FnOnce(UpgradeError) + Send>;

impl<S> WebSocketUpgrade<S> {
    /// The subprotocols that the server can speak. The client's favourite among them is agreed on,
    /// none when it asked for none of them.
    pub fn protocols<I>(self, protocols: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let supported: Vec<String> = protocols.into_iter().map(Into::into).collect();
        self.decide(move |_, opening| {
            let supported: Vec<&str> = supported.iter().map(String::as_str).collect();
            Ok(opening.select_subprotocol(&supported).map(str::to_owned))
        })
    }

    /// Refuses, with 403, browsers that come from a page of another origin than these, written as
    /// browsers do: `https://example.com`. Clients that send no `Origin`, as those other than browsers,
    /// are let in.
    ///
    /// The checks made so far stay.
    pub fn allow_origins<I>(self, origins: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let origins: Vec<String> = origins.into_iter().map(Into::into).collect();
        self.decide(move |_, opening| match opening.origin() {
            Some(origin) if !origins.iter().any(|o| o.eq_ignore_ascii_case(origin)) => Err(
                Refusal::new(403, format!("the origin {origin} is not allowed here")),
            ),
            _ => Ok(None),
        })
    }

    /// Decides on the request: the subprotocol to speak, or a refusal. Of several decisions the first
    /// refusal counts, and the last subprotocol.
    pub fn decide(
        mut self,
        decide: impl Fn(&RequestHead, &Opening<'_>) -> Result<Option<String>, Refusal>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let before = self.options.decide;
        self.options.decide = Box::new(move |head, opening| {
            let earlier = before(head, opening)?;
            Ok(decide(head, opening)?.or(earlier))
        });
        self
    }

    /// The limits of the connection.
    pub fn limits(self, limits: Limits) -> Self {
        self.options(|options| options.limits = limits)
    }

    /// The largest message that the connection takes, in bytes. As [`Limits::for_messages`] has it.
    pub fn max_message_size(self, bytes: usize) -> Self {
        self.limits(Limits::for_messages(bytes))
    }

    /// Agrees to permessage-deflate when the client offers it; see [`AcceptOptions::deflate`] for
    /// what to consider before.
    #[cfg(feature = "deflate")]
    pub fn deflate(self, config: ServerConfig) -> Self {
        self.options(|options| options.deflate = Some(config))
    }

    /// Changes any of the options, those included that have no method here.
    pub fn options(mut self, change: impl FnOnce(&mut AcceptOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// What to do when the connection isn't opened after all, because the client has gone away.
    /// The default is nothing.
    pub fn on_failed_upgrade(
        mut self,
        callback: impl FnOnce(UpgradeError) + Send + 'static,
    ) -> Self {
        self.on_failed_upgrade = Box::new(callback);
        self
    }

    /// The value of `Origin`: the site whose page wants the connection. Other clients than browsers
    /// hardly ever send it.
    pub fn origin(&self) -> Option<&str> {
        str::from_utf8(self.head.header("Origin")?.trim_ascii()).ok()
    }

    /// The subprotocols that the client can speak, the best first.
    pub fn requested_protocols(&self) -> Vec<&str> {
        let opening = self.head.opening();
        opening
            .map(|opening| opening.subprotocols().to_vec())
            .unwrap_or_default()
    }

    /// The request.
    pub fn request(&self) -> &RequestHead {
        &self.head
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> WebSocketUpgrade<S> {
    /// The response to return. `callback` gets the connection once it is open, in a task of its own.
    ///
    /// When a decision refuses the request, the response says so, and `callback` is dropped.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn on_upgrade<C, F>(self, callback: C) -> Response
    where
        C: FnOnce(WebSocket<UpgradedStream<S>>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let upgraded = Upgrade::new(self.head, Some(self.on_upgrade), &self.options);
        let (response, upgrade) = match upgraded {
            Ok(upgraded) => upgraded,
            Err(refusal) => return http_types::refusing(&refusal, self.version).into_response(),
        };
        let on_failed_upgrade = self.on_failed_upgrade;
        tokio::spawn(async move {
            // What opening needs is gone while the connection lasts: the future, and the request.
            let websocket = match Box::pin(upgrade.open::<S>()).await {
                Ok(accepted) => accepted.websocket,
                Err(error) => return on_failed_upgrade(error),
            };
            drop(on_failed_upgrade);
            callback(websocket).await;
        });
        response.map(|()| Body::empty())
    }
}

impl<S> fmt::Debug for WebSocketUpgrade<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketUpgrade")
            .field("head", &self.head)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<T: Sync, S> FromRequestParts<T> for WebSocketUpgrade<S> {
    type Rejection = UpgradeRejection;

    async fn from_request_parts(parts: &mut Parts, _: &T) -> Result<Self, UpgradeRejection> {
        let head = request_head(
            &parts.method,
            &parts.uri,
            parts.version,
            &parts.headers,
            &parts.extensions,
        );
        let version = parts.version;
        if let Err(error) = head.opening() {
            return Err(UpgradeRejection::Opening { error, version });
        }
        let on_upgrade = parts.extensions.remove::<OnUpgrade>();
        Ok(Self {
            head,
            version,
            on_upgrade: on_upgrade.ok_or(UpgradeRejection::NotUpgradable)?,
            options: AcceptOptions::default(),
            on_failed_upgrade: Box::new(drop),
            stream: PhantomData,
        })
    }
}

impl<T: Sync, S> OptionalFromRequestParts<T> for WebSocketUpgrade<S> {
    type Rejection = UpgradeRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &T,
    ) -> Result<Option<Self>, UpgradeRejection> {
        match <Self as FromRequestParts<T>>::from_request_parts(parts, state).await {
            Ok(upgrade) => Ok(Some(upgrade)),
            Err(UpgradeRejection::Opening {
                error: OpeningError::NoUpgrade | OpeningError::NotConnect,
                ..
            }) => Ok(None),
            Err(rejection) => Err(rejection),
        }
    }
}

/// Why a request is no [`WebSocketUpgrade`]. As a response it has the status and the text of the
/// [`Refusal`] that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeRejection {
    /// The rule of the opening handshake that it breaks.
    #[error("{error}")]
    Opening {
        /// The rule.
        error: OpeningError,
        /// The version of HTTP in which the answer goes.
        version: Version,
    },
    /// The server can't upgrade connections at all: it was not made by `axum::serve`, and serves
    /// them without upgrades.
    #[error("this server can't upgrade connections")]
    NotUpgradable,
}

impl UpgradeRejection {
    /// The response.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Opening { error, .. } => error.refusal(),
            Self::NotUpgradable => Refusal::new(500, self.to_string()),
        }
    }
}

impl IntoResponse for UpgradeRejection {
    fn into_response(self) -> Response {
        let version = match self {
            Self::Opening { version, .. } => version,
            Self::NotUpgradable => Version::HTTP_11,
        };
        http_types::refusing(&self.refusal(), version).into_response()
    }
}
