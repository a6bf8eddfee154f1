//! The server's end of an HTTP/2 connection: requests, and the WebSockets that come of them.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::error::Http2Error;
use super::options::Http2Options;
use super::stream::Http2Stream;
use super::unsent::{Chunk, Lingering};
use crate::conn::accept::{AcceptError, AcceptOptions, Accepted, Agreed};
use crate::conn::http_types;
use crate::proto::handshake::{Refusal, RequestHead};

/// A connection on which a client speaks HTTP/2.
///
/// ```
/// # use tautline_websocket::conn::AcceptOptions;
/// # use tautline_websocket::conn::http2::{Http2Error, Http2Options, Http2Server};
/// # use tautline_websocket::proto::handshake::Refusal;
/// # use tokio::io::{AsyncRead, AsyncWrite};
/// # async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<(), Http2Error> {
/// let mut server = Http2Server::new(stream, &Http2Options::default()).await?;
/// while let Some(request) = server.next().await? {
///     if request.head().path() != "/chat" {
///         request.refuse(&Refusal::new(404, "there is only /chat"));
///     } else if let Ok(accepted) = request.accept(&AcceptOptions::default()) {
///         tokio::spawn(accepted.websocket.serve(|_message, _replies| {}));
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Http2Server<S> {
    connection: Connection<S, Chunk>,
    options: Http2Options,
    /// Runs while there is no stream.
    idle: Pin<Box<Sleep>>,
    is_idle: bool,
    lingering: Lingering,
    /// Runs while there are lingering streams.
    linger: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http2Server<S> {
    /// Begins HTTP/2 on a stream whose client does too, by prior knowledge or because TLS has
    /// negotiated `h2`.
    ///
    /// # Errors
    ///
    /// [`Http2Error`]; the stream is gone with it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream, as it is the owner.
    pub async fn new(io: S, options: &Http2Options) -> Result<Self, Http2Error> {
        let handshake = timeout(options.handshake_timeout, options.server().handshake(io)).await;
        let connection =
            handshake.map_err(|_| Http2Error::TimedOut(options.handshake_timeout))??;
        Ok(Self {
            connection,
            options: *options,
            idle: Box::pin(sleep(options.idle_timeout)),
            is_idle: true,
            lingering: Lingering::default(),
            linger: Box::pin(sleep(options.idle_timeout)),
        })
    }

    /// The next request, `None` when the connection has ended.
    ///
    /// While this waits it drives all WebSockets of the connection: keep calling it until it returns
    /// `None`, and do nothing slow in between.
    ///
    /// # Errors
    ///
    /// [`Http2Error`]: the connection is at its end, and with it all of its WebSockets.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped at any point, no request is lost.
    pub async fn next(&mut self) -> Result<Option<Http2Request>, Http2Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Http2Request>, Http2Error>> {
        let accepted = self.connection.poll_accept(cx);
        self.lingering.poll(cx, self.linger.as_mut());
        match accepted {
            Poll::Ready(Some(Ok((request, respond)))) => {
                self.is_idle = false;
                return Poll::Ready(Ok(Some(Http2Request::new(
                    request,
                    respond,
                    &self.lingering,
                ))));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
            Poll::Ready(None) => return Poll::Ready(Ok(None)),
            Poll::Pending => {}
        }
        if self.connection.has_streams() {
            self.is_idle = false;
            return Poll::Pending;
        }
        if !self.is_idle {
            self.is_idle = true;
            let until = Instant::now() + self.options.idle_timeout;
            self.idle.as_mut().reset(until);
        }
        ready!(self.idle.as_mut().poll(cx));
        // Says so with a GOAWAY, which nobody needs to have read.
        self.connection.abrupt_shutdown(h2::Reason::NO_ERROR);
        let _ = self.connection.poll_closed(cx);
        Poll::Ready(Ok(None))
    }

    /// Takes no more requests: tells the client with a `GOAWAY`. The WebSockets that are open
    /// go on; close them in order, and [`next`](Self::next) returns `None` after the last.
    pub fn shut_down(&mut self) {
        self.connection.graceful_shutdown();
    }
}

impl<S> fmt::Debug for Http2Server<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Server")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A request on an HTTP/2 connection, for a WebSocket or for something else. Dropped without an
/// answer, its stream is reset.
#[must_use = "a request waits for its answer"]
pub struct Http2Request {
    head: RequestHead,
    body: RecvStream,
    respond: SendResponse<Chunk>,
    lingering: Lingering,
}

impl Http2Request {
    fn new(
        request: http::Request<RecvStream>,
        respond: SendResponse<Chunk>,
        lingering: &Lingering,
    ) -> Self {
        let (parts, body) = request.into_parts();
        let protocol = parts.extensions.get::<h2::ext::Protocol>();
        Self {
            head: http_types::request_head(
                &parts.method,
                &parts.uri,
                parts.version,
                &parts.headers,
                protocol.map(h2::ext::Protocol::as_str),
            ),
            body,
            respond,
            lingering: lingering.clone(),
        }
    }

    /// The head of the request.
    pub fn head(&self) -> &RequestHead {
        &self.head
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
        let (response, agreed) = match Agreed::on(&self.head, options, http_types::accepting) {
            Ok(agreed) => agreed,
            Err(refusal) => {
                self.refuse(&refusal);
                return Err(refusal.into());
            }
        };
        let sent = self.respond.send_response(response, false);
        let send = sent.map_err(Http2Error::from)?;
        let stream = Http2Stream::new(send, self.body, &self.lingering);
        Ok(agreed.open(wrap(stream), self.head, Vec::new()))
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
        f.debug_tuple("Http2Request").field(&self.head).finish()
    }
}
