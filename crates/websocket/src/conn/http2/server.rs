//! The server's end of an HTTP/2 connection: requests, and the WebSockets that come of them.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::server::Connection;
use h2::{Ping, PingPong, Reason};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::error::Http2Error;
use super::meter::{Metered, Notes, RefusedStreams};
use super::options::Http2Options;
use super::request::Http2Request;
use super::unsent::{Chunk, Lingering};

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
    connection: Connection<Metered<S>, Chunk>,
    options: Http2Options,
    /// Where it is noted that the client sends too much that carries nothing, and what it was refused.
    notes: Arc<Notes>,
    keep_alive: Option<Box<KeepAlive>>,
    /// Runs while there is no stream.
    idle: Pin<Box<Sleep>>,
    is_idle: bool,
    /// There was none for all of that time.
    was_idle: bool,
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
        let (io, notes) = Metered::new(io, options);
        let handshake = timeout(options.handshake_timeout, options.server().handshake(io)).await;
        let mut connection =
            handshake.map_err(|_| Http2Error::TimedOut(options.handshake_timeout))??;
        let pings = options
            .keep_alive
            .and_then(|interval| Some((interval, connection.ping_pong()?)));
        let keep_alive = pings.map(|(interval, pings)| {
            Box::new(KeepAlive {
                pings,
                interval,
                patience: options.keep_alive_timeout,
                timer: Box::pin(sleep(interval)),
                is_waiting: false,
            })
        });
        Ok(Self {
            connection,
            notes,
            keep_alive,
            options: *options,
            idle: Box::pin(sleep(options.idle_timeout)),
            is_idle: true,
            was_idle: false,
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
        if let Some(keep_alive) = &mut self.keep_alive
            && let Poll::Ready(error) = keep_alive.poll(cx)
        {
            self.give_up(cx, Reason::NO_ERROR);
            return Poll::Ready(Err(error));
        }
        let accepted = self.connection.poll_accept(cx);
        self.lingering.poll(cx, self.linger.as_mut());
        if let Some(flood) = self.notes.flood.get() {
            let error = Http2Error::Flooded(*flood);
            self.give_up(cx, Reason::ENHANCE_YOUR_CALM);
            return Poll::Ready(Err(error));
        }
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
        self.was_idle = true;
        self.give_up(cx, Reason::NO_ERROR);
        Poll::Ready(Ok(None))
    }

    /// Ends the connection with a `GOAWAY`, which nobody needs to have read.
    fn give_up(&mut self, cx: &mut Context<'_>, reason: Reason) {
        self.connection.abrupt_shutdown(reason);
        let _ = self.connection.poll_closed(cx);
    }

    /// Whether [`next`](Self::next) returned `None` because there was no stream for
    /// [`idle_timeout`](Http2Options::idle_timeout).
    pub fn was_idle(&self) -> bool {
        self.was_idle
    }

    /// How many streams the client is refused: more than [`max_streams`](Http2Options::max_streams) at a time. Keeps
    /// its count while [`next`](Self::next) waits.
    pub fn refused_streams(&self) -> RefusedStreams {
        RefusedStreams(Arc::clone(&self.notes))
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

/// Finds out whether the client is still there.
struct KeepAlive {
    pings: PingPong,
    interval: Duration,
    patience: Duration,
    /// Until the next ping, or until its answer is too late.
    timer: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl KeepAlive {
    /// Ready when no answer came. To be polled before the connection is.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Http2Error> {
        loop {
            if self.is_waiting && self.pings.poll_pong(cx).is_ready() {
                // With an error the connection has ended, which it says itself.
                self.is_waiting = false;
                self.timer.as_mut().reset(Instant::now() + self.interval);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.is_waiting {
                return Poll::Ready(Http2Error::NoPong(self.patience));
            }
            self.is_waiting = self.pings.send_ping(Ping::opaque()).is_ok();
            let until = if self.is_waiting {
                self.patience
            } else {
                self.interval
            };
            self.timer.as_mut().reset(Instant::now() + until);
        }
    }
}
