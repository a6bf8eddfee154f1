//! One request on an HTTP/2 connection: what it asks for, and the ways to answer it.

use std::fmt;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::Http2Error;
use super::sending::Http2Reply;
use super::stream::Http2Stream;
use super::unsent::{Chunk, Lingering};
use crate::conn::accept::{AcceptError, AcceptOptions, Accepted, Agreed};
use crate::conn::http_types;
use crate::proto::handshake::{Refusal, RequestHead};

/// A request on an HTTP/2 connection, for a WebSocket or for something else. Dropped without an
/// answer, its stream is reset.
///
/// [`accept`](Self::accept) and [`refuse`](Self::refuse) are for servers of WebSockets, [`respond`](Self::respond) for a
/// page or two beside them. A server that serves all of HTTP takes the request [apart](Self::into_parts),
/// and one with an engine of its own on the stream has [that](Self::into_stream).
#[must_use = "a request waits for its answer"]
pub struct Http2Request {
    parts: http::request::Parts,
    /// The same in our types, for whoever asks.
    head: OnceLock<RequestHead>,
    body: RecvStream,
    respond: SendResponse<Chunk>,
    lingering: Lingering,
}

impl Http2Request {
    pub(super) fn new(
        request: http::Request<RecvStream>,
        respond: SendResponse<Chunk>,
        lingering: &Lingering,
    ) -> Self {
        let (parts, body) = request.into_parts();
        Self {
            parts,
            head: OnceLock::new(),
            body,
            respond,
            lingering: lingering.clone(),
        }
    }

    /// The head of the request.
    pub fn head(&self) -> &RequestHead {
        self.head.get_or_init(|| request_head(&self.parts))
    }

    /// The same as the `http` crate has it. The pseudo-header fields are method and URI; the protocol of
    /// an extended CONNECT is [`protocol`](Self::protocol).
    pub fn http_head(&self) -> &http::request::Parts {
        &self.parts
    }

    /// What an extended CONNECT asks for, such as `websocket` (RFC 8441 §4).
    pub fn protocol(&self) -> Option<&str> {
        let protocol = self.parts.extensions.get::<h2::ext::Protocol>();
        protocol.map(h2::ext::Protocol::as_str)
    }

    /// Checks that the request opens a WebSocket, and answers it.
    ///
    /// Of the options, [`head`](AcceptOptions::head) and
    /// [`head_timeout`](AcceptOptions::head_timeout) have no meaning here.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Refused`] when it was answered with a refusal, by the rules of RFC 8441 or by
    /// [`AcceptOptions::decide`]; [`AcceptError::Http2`] when the client has given the stream up.
    pub fn accept(self, options: &AcceptOptions) -> Result<Accepted<Http2Stream>, AcceptError> {
        let accepted = self.accept_as(options, |stream| stream)?;
        Ok(Accepted {
            websocket: accepted
                .websocket
                .with_writer(Http2Stream::poll_write_queue),
            ..accepted
        })
    }

    /// The same with the stream as a part of another.
    pub(super) fn accept_as<S: AsyncRead + AsyncWrite + Unpin>(
        mut self,
        options: &AcceptOptions,
        wrap: impl FnOnce(Http2Stream) -> S,
    ) -> Result<Accepted<S>, AcceptError> {
        let head = self.head.take();
        let head = head.unwrap_or_else(|| request_head(&self.parts));
        let (response, agreed) = match Agreed::on(&head, options, http_types::accepting) {
            Ok(agreed) => agreed,
            Err(refusal) => {
                self.refuse(&refusal);
                return Err(refusal.into());
            }
        };
        let stream = self.into_stream(response)?;
        Ok(agreed.open(wrap(stream), head, Vec::new()))
    }

    /// Answers with the head of a response, which has status 200 where it opens a WebSocket, and goes on as a
    /// stream of bytes both ways.
    ///
    /// Whether the request asks for that is for the caller to check: [`Opening::from_connect`] does for
    /// WebSockets.
    ///
    /// # Errors
    ///
    /// [`Http2Error`] when the client has given the stream up, or the response can't be one in HTTP/2.
    ///
    /// [`Opening::from_connect`]: crate::proto::handshake::Opening::from_connect
    pub fn into_stream(mut self, response: http::Response<()>) -> Result<Http2Stream, Http2Error> {
        let send = self.respond.send_response(response, false)?;
        Ok(Http2Stream::new(send, self.body, &self.lingering))
    }

    /// The request with its body, as the `http` crate has it, and what answers it.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use tautline_websocket::conn::http2::{Http2Error, Http2Request};
    /// # use std::future::poll_fn;
    /// async fn echo(request: Http2Request) -> Result<(), Box<dyn std::error::Error>> {
    ///     let (request, responder) = request.into_parts();
    ///     let mut body = request.into_body();
    ///     let mut reply = responder.send(http::Response::new(()), false)?;
    ///     while let Some(bytes) = poll_fn(|cx| body.poll_data(cx)).await {
    ///         let mut bytes = bytes?;
    ///         poll_fn(|cx| reply.poll_send(cx, &mut bytes)).await?;
    ///     }
    ///     reply.finish()?;
    ///     Ok(())
    /// }
    /// ```
    pub fn into_parts(self) -> (http::Request<Http2Body>, Http2Responder) {
        let body = Http2Body { recv: self.body };
        let responder = Http2Responder {
            respond: self.respond,
            lingering: self.lingering,
        };
        (http::Request::from_parts(self.parts, body), responder)
    }

    /// Answers with a refusal.
    pub fn refuse(self, refusal: &Refusal) {
        let response = http_types::refusing(refusal, http::Version::HTTP_2);
        self.respond(response.map(Bytes::from));
    }

    /// Answers a request that is for something else than a WebSocket. The body of the request is
    /// thrown away, that of the response is kept in memory until it was sent.
    pub fn respond(mut self, response: http::Response<Bytes>) {
        let (head, body) = response.into_parts();
        let response = http::Response::from_parts(head, ());
        // A client that has given the stream up doesn't want to hear it.
        if let Ok(mut send) = self.respond.send_response(response, body.is_empty())
            && !body.is_empty()
        {
            let _ = send.send_data(Chunk::uncounted(body), true);
        }
    }
}

impl fmt::Debug for Http2Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Http2Request").field(self.head()).finish()
    }
}

/// The body of a request. The client has room for as many bytes more as were taken.
pub struct Http2Body {
    recv: RecvStream,
}

impl Http2Body {
    /// The next bytes, `None` at the end. Trailers are passed over.
    ///
    /// # Errors
    ///
    /// How the stream has ended before.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Http2Error>>> {
        let Some(came) = ready!(self.recv.poll_data(cx)) else {
            return Poll::Ready(None);
        };
        let taken = came.and_then(|bytes| {
            self.recv.flow_control().release_capacity(bytes.len())?;
            Ok(bytes)
        });
        Poll::Ready(Some(taken.map_err(Http2Error::from)))
    }

    /// Whether nothing comes any more.
    pub fn is_end_stream(&self) -> bool {
        self.recv.is_end_stream()
    }
}

impl fmt::Debug for Http2Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Body")
            .field("is_end_stream", &self.is_end_stream())
            .finish_non_exhaustive()
    }
}

/// Answers a request. Dropped before, the stream is reset.
#[must_use = "a request waits for its answer"]
pub struct Http2Responder {
    respond: SendResponse<Chunk>,
    lingering: Lingering,
}

impl Http2Responder {
    /// Sends the head of the response. `is_whole` says that there is no body; else it goes by what is returned.
    ///
    /// # Errors
    ///
    /// [`Http2Error`] when the client has given the stream up, or the response can't be one in HTTP/2: it has
    /// a header field such as `Connection` (RFC 9113 §8.2.2).
    pub fn send(
        mut self,
        response: http::Response<()>,
        is_whole: bool,
    ) -> Result<Http2Reply, Http2Error> {
        let send = self.respond.send_response(response, is_whole)?;
        Ok(Http2Reply::new(send, &self.lingering, is_whole))
    }

    /// Ready when the client doesn't want an answer any more: it has reset the stream, or the connection has
    /// ended.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Http2Error> {
        self.respond.poll_reset(cx).map(|reset| match reset {
            Ok(code) => Http2Error::reset_by_peer(code),
            Err(error) => error.into(),
        })
    }
}

impl fmt::Debug for Http2Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Responder").finish_non_exhaustive()
    }
}

fn request_head(parts: &http::request::Parts) -> RequestHead {
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    http_types::request_head(
        &parts.method,
        &parts.uri,
        parts.version,
        &parts.headers,
        protocol.map(h2::ext::Protocol::as_str),
    )
}
