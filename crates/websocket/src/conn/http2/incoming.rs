//! Clients of both versions of HTTP on one listener.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::options::Http2Options;
use super::server::{Http2Request, Http2Server};
use super::stream::Http2Stream;
use crate::conn::accept::{AcceptError, AcceptOptions, Accepted, accept_rest};
use crate::conn::write_queue::WriteQueue;
use crate::proto::handshake::{OpeningError, RequestHead};

/// A stream from a client that speaks HTTP/1.1 or HTTP/2, and the WebSockets that it opens: one over
/// HTTP/1.1, any number over HTTP/2.
///
/// Which one it is shows in the first bytes (RFC 9113 §3.4), with TLS and without, so ALPN needs no
/// looking at.
pub struct Incoming<S> {
    kind: Kind<S>,
    other: Box<Other>,
}

/// See [`Incoming::with_other`].
type Other = dyn Fn(&RequestHead) -> http::Response<Bytes> + Send + Sync;

enum Kind<S> {
    /// What was read of the stream already.
    Http1(S, Vec<u8>),
    Http2(Box<Http2Server<Rewound<S>>>),
    Done,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Incoming<S> {
    /// Finds out what a client speaks.
    ///
    /// # Errors
    ///
    /// [`AcceptError`]; the stream is gone with it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream, as it is the owner.
    pub async fn new(mut io: S, options: &Http2Options) -> Result<Self, AcceptError> {
        let read = timeout(options.handshake_timeout, read_preface(&mut io)).await;
        let seen = read.map_err(|_| AcceptError::TimedOut(options.handshake_timeout))??;
        let kind = if seen == PREFACE {
            let seen = Bytes::from_static(PREFACE);
            let server = Http2Server::new(Rewound { seen, io }, options).await?;
            Kind::Http2(Box::new(server))
        } else {
            Kind::Http1(io, seen)
        };
        Ok(Self {
            kind,
            other: Box::new(refuse_other),
        })
    }

    /// The same with an answer for requests over HTTP/2 that don't open a WebSocket, such as those
    /// for a page. The default is a 405 which says so. Over HTTP/1.1 they are refused with a 426.
    #[must_use]
    pub fn with_other(
        mut self,
        respond: impl Fn(&RequestHead) -> http::Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.other = Box::new(respond);
        self
    }

    /// The next WebSocket of this client, `None` when there will be no more.
    ///
    /// Over HTTP/2 this drives all WebSockets of the connection while it waits: keep calling it until it
    /// returns `None`, and do nothing slow in between. Requests that are refused are answered, and
    /// waiting goes on.
    ///
    /// # Errors
    ///
    /// [`AcceptError`]. Over HTTP/2 it means that the connection has failed, and all of its WebSockets
    /// with it.
    ///
    /// # Cancel safety
    ///
    /// Over HTTP/2 it is safe. Over HTTP/1.1, dropping the future drops the stream, and the next call
    /// returns `None`.
    pub async fn accept(
        &mut self,
        options: &AcceptOptions,
    ) -> Result<Option<Accepted<ServerStream<S>>>, AcceptError> {
        let Kind::Http2(server) = &mut self.kind else {
            let Kind::Http1(io, seen) = std::mem::replace(&mut self.kind, Kind::Done) else {
                return Ok(None);
            };
            // Not within this future, which lasts as long as the connection.
            let accepting = Box::pin(accept_rest(ServerStream::Http1(io), seen, options));
            return Ok(Some(accepting.await?));
        };
        while let Some(request) = server.next().await? {
            if let Some(accepted) = answer(request, options, &*self.other) {
                return Ok(Some(accepted));
            }
        }
        self.kind = Kind::Done;
        Ok(None)
    }

    /// Takes no more WebSockets: a client over HTTP/2 is told with a `GOAWAY`, one over HTTP/1.1
    /// that has opened none is cut off. What is open goes on; close it in order, and
    /// [`accept`](Self::accept) returns `None` after the last.
    pub fn shut_down(&mut self) {
        match &mut self.kind {
            Kind::Http2(server) => server.shut_down(),
            kind => *kind = Kind::Done,
        }
    }

    /// Whether the client speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.kind, Kind::Http2(_))
    }
}

fn answer<S>(
    request: Http2Request,
    options: &AcceptOptions,
    other: &Other,
) -> Option<Accepted<ServerStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if request.head().opening() == Err(OpeningError::NotConnect) {
        let response = other(request.head());
        request.respond(response);
        return None;
    }
    let accepted = request.accept_as(options, ServerStream::Http2).ok()?;
    Some(Accepted {
        websocket: accepted
            .websocket
            .with_writer(ServerStream::poll_write_queue),
        ..accepted
    })
}

fn refuse_other(_: &RequestHead) -> http::Response<Bytes> {
    let refusal = OpeningError::NotConnect.refusal();
    crate::conn::http_types::refusing(&refusal, http::Version::HTTP_2).map(Bytes::from)
}

/// Reads until it is clear whether this is HTTP/2. What was read is all of the preface then, or
/// something else.
async fn read_preface(io: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, AcceptError> {
    let mut seen = Vec::with_capacity(PREFACE.len());
    while seen.len() < PREFACE.len() && PREFACE.starts_with(&seen) {
        // No further than the preface goes: what is behind it is read where it is parsed.
        let mut rest = (&mut *io).take((PREFACE.len() - seen.len()) as u64);
        if rest.read_buf(&mut seen).await? == 0 {
            return Err(AcceptError::CutOff);
        }
    }
    Ok(seen)
}

impl<S> fmt::Debug for Incoming<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Http1(..) => "HTTP/1.1",
            Kind::Http2(_) => "HTTP/2",
            Kind::Done => "done",
        };
        f.debug_tuple("Incoming").field(&kind).finish()
    }
}

/// The stream below a connection that came through [`Incoming`].
#[derive(Debug)]
pub enum ServerStream<S> {
    /// The client's own, over HTTP/1.1.
    Http1(S),
    /// One of many, over HTTP/2.
    Http2(Http2Stream),
}

impl<S: AsyncWrite + Unpin> ServerStream<S> {
    fn poll_write_queue(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut WriteQueue,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Http1(stream) => queue.poll_write(cx, stream),
            Self::Http2(stream) => stream.poll_write_queue(cx, queue),
        }
    }
}

/// Calls a poll function of whichever stream it is.
macro_rules! delegate {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Self::Http1(stream) => Pin::new(stream).$method($($argument),*),
            Self::Http2(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl<S: AsyncRead + Unpin> AsyncRead for ServerStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, poll_read(cx, buffer))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ServerStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Http1(stream) => stream.is_write_vectored(),
            Self::Http2(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_shutdown(cx))
    }
}

/// A stream of which the first bytes were read already, and are read again.
struct Rewound<S> {
    seen: Bytes,
    io: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let len = self.seen.len().min(buffer.remaining());
        buffer.put_slice(&self.seen[..len]);
        self.seen.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What a client says first in HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
