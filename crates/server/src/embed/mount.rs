//! The WebSocket endpoint as a service of an application's own HTTP server.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::Full;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tower_service::Service;

use super::{NodeHandle, Request};
use crate::door::Caller;
use crate::door::websocket::Manner;
use crate::http::fields::{refused, set_headers};
use crate::http::upgrade_required;

/// How long the application's server may take to send the response that opens a connection.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens WebSockets of clients that come by another server: a `tower` service, which axum takes with
/// `route_service`, and whatever is built on hyper can [`call`](Self::respond).
///
/// ```no_run
/// # fn route(node: &tautline::NodeHandle) -> axum::Router {
/// axum::Router::new().route_service("/connection/websocket", node.websocket())
/// # }
/// ```
///
/// The checks are those of the server's own listener, that of the page's origin included
/// (`client.allowed_origins`; without it, only pages of the same origin). What layers before the service have
/// put into the request's extensions, handlers find in
/// [`Request::extensions`].
///
/// The connection then leaves the application's server for one of the node's workers, with nothing of
/// hyper left. So it must be a plain TCP connection of HTTP/1.1, as `axum::serve` has it; others are closed
/// after the upgrade. Where TLS ends in the same process, let the node have a listener, or a proxy, of its own.
#[derive(Clone, Debug)]
pub struct WebSocketService {
    node: NodeHandle,
}

impl WebSocketService {
    pub(super) fn new(node: NodeHandle) -> Self {
        Self { node }
    }

    /// The response to a request. If it is 101, the connection goes to the node once the response is sent.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn respond<B>(&self, request: http::Request<B>) -> http::Response<Full<Bytes>> {
        let live = Arc::clone(&self.node.shared.live.borrow());
        let policy = &live.websocket;
        let (acceptance, mut manner) = match policy.accept_request(Caller::Sdk, &request) {
            None => return upgrade_required(),
            Some(Err(refusal)) => return refused(&refusal),
            Some(Ok(accepted)) => accepted,
        };
        manner.permit = match policy.admission.client() {
            Ok(client) => Some(client),
            Err(over) => return refused(&over.into()),
        };
        let mut response = http::Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        set_headers(response.headers_mut(), acceptance.headers());
        let (mut parts, _) = request.into_parts();
        let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
            let text =
                "This server can't upgrade connections; with hyper, serve them with_upgrades.\n";
            let mut response = http::Response::new(Full::from(text));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, plain);
            return response;
        };
        let request = Request {
            uri: parts.uri.to_string(),
            headers: parts.headers,
            remote: None,
            address: None,
            extensions: parts.extensions,
        };
        let node = self.node.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(UPGRADE_TIMEOUT, upgrade).await {
                Ok(Ok(upgraded)) => node.admit(upgraded, manner, request),
                Ok(Err(error)) => tracing::debug!(%error, "a connection was not upgraded"),
                Err(_) => tracing::debug!("the response that opens a connection was not sent"),
            }
        });
        response
    }
}

impl<B> Service<http::Request<B>> for WebSocketService {
    type Response = http::Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        ready(Ok(self.respond(request)))
    }
}

impl NodeHandle {
    /// Hands a connection to one of the workers.
    fn admit(&self, upgraded: Upgraded, manner: Manner, mut request: Request) {
        // Servers that take both versions of HTTP have it in another wrapping.
        let (io, leftover) = match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
            Ok(parts) => (parts.io, parts.read_buf),
            Err(upgraded) => match upgraded.downcast::<TokioIo<TcpStream>>() {
                Ok(parts) => (parts.io, parts.read_buf),
                Err(_) => {
                    tracing::error!(
                        "the application's server has connections that are not plain TCP; clients can't be taken over"
                    );
                    return;
                }
            },
        };
        let io = io.into_inner();
        request.remote = io.peer_addr().ok();
        // Out of the reactor of this runtime, for that of the worker's.
        let io = match io.into_std() {
            Ok(io) => io,
            Err(error) => {
                tracing::debug!(%error, "a connection was lost on its way to a worker");
                return;
            }
        };
        let workers = &self.shared.visits;
        let next = self.shared.next_visit.fetch_add(1, Ordering::Relaxed);
        let request = Arc::new(request);
        // A worker that has ended drops the connection.
        let _ = workers[next % workers.len()].send(Box::new(move |node| {
            node.host(io, manner, leftover.to_vec(), request);
        }));
    }
}
