//! An end of a tunnel that is a WebSocket: the server behind always, the client where one gets through.

use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use tautline_websocket::conn::http2::Http2Request;
use tautline_websocket::conn::{ClientStream, WebSocket};
use tautline_websocket::proto::handshake::{Opening, Refusal, RequestHead};
use tautline_websocket::proto::{CloseCode, Connection, KeepAliveOptions, Message, Role};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::asked::{Asked, Far, Request};
use super::relay::{self, Bye, End, Next};
use super::{Carrier, Tunnel};
use crate::door::admission::{Permit, Permits};
use crate::drain::Stage;
use crate::http::fields::{fields, set_headers};
use crate::http::http2::join_cookies;
use crate::http::rewind::Rewind;
use crate::io::{Http2Io, Io};
use crate::worker::live::Live;
use crate::worker::relays::Relayed;

/// A client's WebSocket, and the one to the server behind.
pub(crate) struct Joined {
    near: WebSocket<Rewind<Io>>,
    far: Far,
    permits: Permits,
    /// Where what TLS keeps of the client's is [written down](Io::count_unsent).
    pub(in crate::door) held: Option<Arc<Relayed>>,
}

impl Joined {
    /// Of a connection whose opening was answered.
    pub(crate) fn new(io: Rewind<Io>, far: Far, permits: Permits) -> Self {
        let engine = Connection::new(Role::Server, far.tunnel.limits());
        let near = WebSocket::new(io, engine)
            .with_keep_alive(KeepAliveOptions::default())
            .with_close_timeout(CLOSE_TIMEOUT);
        Self {
            near,
            far,
            permits,
            held: None,
        }
    }

    /// Carries messages until one side is over, or the node is.
    pub(crate) async fn serve(self, stage: watch::Receiver<Stage>, relayed: Relayed) {
        let Self {
            near, far, permits, ..
        } = self;
        let number = far.tunnel.counts.opened(Carrier::WebSocket);
        relay::run(Socket::client(near), far, stage, number, relayed).await;
        drop(permits);
    }
}

/// What the request of a connection in HTTP/1.1 asks of a tunnel, once it is known that it may.
///
/// # Errors
///
/// The refusal. Whose page it is comes first: who may not connect learns nothing else.
pub(crate) fn ask(
    live: &Live,
    tunnel: &Tunnel,
    rest: &str,
    head: &RequestHead,
    opening: &Opening<'_>,
    address: std::net::IpAddr,
) -> Result<(Asked, Permit), Refusal> {
    let policy = &live.websocket;
    policy.check(opening)?;
    let permit = policy.admission.client()?;
    let protocols = opening.subprotocols().iter();
    let request = Request {
        rest,
        query: head.query(),
        protocols: protocols.map(|name| (*name).to_owned()).collect(),
        cookies_count: policy.trusts(opening),
        address: Some(address),
    };
    Ok((Asked::new(tunnel, request, head.headers())?, permit))
}

/// Opens a stream of an HTTP/2 connection; `None` when the request was refused.
pub(crate) async fn open_http2(
    live: &Live,
    tunnel: &Arc<Tunnel>,
    rest: &str,
    request: Http2Request,
    from: SocketAddr,
) -> Option<Joined> {
    let mut headers = request.http_head().headers.clone();
    join_cookies(&mut headers);
    let policy = &live.websocket;
    let address = policy.admission.client_address(from.ip(), fields(&headers));
    let begin = async {
        let opening = request.head().opening().map_err(|error| error.refusal())?;
        policy.check(&opening)?;
        let permits = policy.admission.client_from(Some(address))?;
        let protocols = opening.subprotocols().iter();
        let asking = Request {
            rest,
            query: request.head().query(),
            protocols: protocols.map(|name| (*name).to_owned()).collect(),
            cookies_count: policy.trusts(&opening),
            address: Some(address),
        };
        let far = Asked::new(tunnel, asking, fields(&headers))?
            .dial(tunnel, &policy.admission)
            .await?;
        let acceptance = opening.accept(far.subprotocol.as_deref());
        let mut response = http::Response::new(());
        *response.status_mut() = StatusCode::OK;
        set_headers(response.headers_mut(), acceptance.headers());
        Ok((response, far, permits))
    };
    let (response, far, permits) = match begin.await {
        Ok(begun) => begun,
        Err(refusal) => {
            let refusal: Refusal = refusal;
            request.refuse(&refusal);
            return None;
        }
    };
    // Fails when the client has given the stream up meanwhile.
    let stream = request.into_stream(response).ok()?;
    let io = Io::Http2(Box::new(Http2Io {
        stream,
        remote: Some(from),
    }));
    Some(Joined::new(Rewind::new(Vec::new(), io), far, permits))
}

/// The header that a request without an upgrade is answered with.
pub(super) const UPGRADE: [(header::HeaderName, HeaderValue); 3] = [
    (header::UPGRADE, HeaderValue::from_static("websocket")),
    (header::CONNECTION, HeaderValue::from_static("upgrade")),
    (
        header::SEC_WEBSOCKET_VERSION,
        HeaderValue::from_static("13"),
    ),
];

/// A WebSocket as an end.
pub(super) struct Socket<S> {
    websocket: WebSocket<S>,
    is_upstream: bool,
}

impl Socket<ClientStream> {
    /// That of the server behind.
    pub(super) fn upstream(websocket: WebSocket<ClientStream>) -> Self {
        Self {
            websocket,
            is_upstream: true,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    fn client(websocket: WebSocket<S>) -> Self {
        Self {
            websocket,
            is_upstream: false,
        }
    }

    /// How it ended that is over.
    fn bye(&self) -> Option<Bye> {
        let closed = self.websocket.closed()?;
        Some(Bye::Closed(closed.code, closed.reason.clone()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> End for Socket<S> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        Poll::Ready(match ready!(self.websocket.poll_recv(cx)) {
            Ok(Some(message)) => Next::Message(message),
            Ok(None) => Next::Over(self.bye().unwrap_or(Bye::Nameless)),
            Err(error) => {
                tracing::debug!(%error, upstream = self.is_upstream, "a tunnel's connection ended early");
                // Who has said why, and then not ended the stream, has said it.
                Next::Over(self.bye().unwrap_or(Bye::Cut))
            }
        })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Bye>> {
        if self.websocket.backlog() == 0 {
            return Poll::Ready(Ok(()));
        }
        pin!(self.websocket.flush()).poll(cx).map_err(|error| {
            tracing::debug!(%error, upstream = self.is_upstream, "a tunnel's connection ended early");
            Bye::Cut
        })
    }

    fn has_room(&self) -> bool {
        self.websocket.backlog() < ROOM
    }

    fn put(&mut self, message: Message) {
        // Fails where it is closing, which is heard from it next.
        let _ = self.websocket.queue_owned(message);
    }

    fn held(&self) -> usize {
        self.websocket.backlog()
    }

    fn abandon(self) {}

    async fn finish(mut self, bye: Bye) {
        let (code, reason) = match bye {
            Bye::Closed(code, reason) if code.may_be_sent() => (code, reason),
            Bye::Closed(..) | Bye::Nameless => (CloseCode::NORMAL, String::new()),
            // As the server behind would see it without a tunnel.
            Bye::Cut if self.is_upstream => return,
            Bye::Cut => (CloseCode::BAD_GATEWAY, AWAY.to_owned()),
        };
        if let Err(error) = self.websocket.close(code, &reason).await {
            tracing::debug!(%error, upstream = self.is_upstream, "a tunnel's connection was not closed in order");
        }
    }
}

/// What clients are told when the server behind has gone without a word.
pub(super) const AWAY: &str = "the server behind the tunnel has gone";

/// Bytes that may wait to be written before nothing more is read for a connection: that, and one message.
const ROOM: usize = 64 * 1024;

/// How long a client has to read what was sent before a Close, and to answer that.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
