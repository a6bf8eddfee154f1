//! Clients of both versions of HTTP on one listener.

use std::fmt;
use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;

use super::options::Http2Options;
use super::plain::{Http1Request, Rewound};
use super::request::Http2Request;
use super::server::Http2Server;
use super::stream::Http2Stream;
use crate::conn::accept::{AcceptError, AcceptOptions, Accepted, Came, Plain, accept_rest};
use crate::conn::delegate::{delegate_read, delegate_write};
use crate::conn::write_queue::WriteQueue;
use crate::proto::handshake::{OpeningError, RequestHead};

/// A stream from a client that speaks HTTP/1.1 or HTTP/2, and the WebSockets that it opens: one over
/// HTTP/1.1, any number over HTTP/2.
///
/// Which one it is shows in the first bytes (RFC 9113 §3.4), with TLS and without, so ALPN needs no
/// looking at.
pub struct Incoming<S> {
    kind: Kind<S>,
    other: Option<Box<Other>>,
    http1: Option<Box<TakeHttp1<S>>>,
}

/// See [`Incoming::with_other`].
type Other = dyn Fn(&RequestHead) -> http::Response<Bytes> + Send + Sync;

/// See [`Incoming::with_http1`].
type TakeHttp1<S> = dyn Fn(Http1Request<S>) + Send + Sync;

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
            let server = Http2Server::new(Rewound::new(seen, io), options).await?;
            Kind::Http2(Box::new(server))
        } else {
            Kind::Http1(io, seen)
        };
        Ok(Self {
            kind,
            other: None,
            http1: None,
        })
    }

    /// The same with an answer for requests that don't ask for a WebSocket, such as those for a page.
    /// Their bodies are thrown away, and a connection of HTTP/1.1 ends with the answer. Without it they are refused,
    /// with a status that says so: 426, or 405 over HTTP/2.
    #[must_use]
    pub fn with_other(
        mut self,
        respond: impl Fn(&RequestHead) -> http::Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.other = Some(Box::new(respond));
        self
    }

    /// The same with somebody who takes such requests over HTTP/1.1, before [`with_other`](Self::with_other) is asked: with
    /// their stream, of which nothing seems to have been read. So a library can serve all of HTTP beside
    /// WebSocket, bodies and connections that are used again included. [`accept`](Self::accept) returns `None` then.
    ///
    /// The head was read within the limits of [`AcceptOptions::head`] and
    /// [`head_timeout`](AcceptOptions::head_timeout). `take` must not block, so it mostly starts a task.
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// # use tautline_websocket::conn::AcceptError;
    /// # use tautline_websocket::conn::http2::{Http2Options, Incoming};
    /// # use tokio::io::{AsyncRead, AsyncWrite};
    /// use hyper::body::Incoming as Body;
    /// use hyper::service::service_fn;
    /// use hyper_util::rt::TokioIo;
    ///
    /// async fn page(_: http::Request<Body>) -> Result<http::Response<String>, Infallible> {
    ///     Ok(http::Response::new("a page".to_owned()))
    /// }
    ///
    /// # async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<(), AcceptError> {
    /// let incoming = Incoming::new(stream, &Http2Options::default()).await?;
    /// let incoming = incoming.with_http1(|request| {
    ///     let io = TokioIo::new(request.into_stream());
    ///     let serving = hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(page));
    ///     tokio::spawn(serving);
    /// });
    /// # drop(incoming);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_http1(mut self, take: impl Fn(Http1Request<S>) + Send + Sync + 'static) -> Self {
        self.http1 = Some(Box::new(take));
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
    /// Over HTTP/2 it is safe. Over HTTP/1.1, dropping the future drops the stream, whatever of the answer was
    /// written, and the next call returns `None`.
    pub async fn accept(
        &mut self,
        options: &AcceptOptions,
    ) -> Result<Option<Accepted<ServerStream<S>>>, AcceptError> {
        let Kind::Http2(server) = &mut self.kind else {
            let Kind::Http1(io, seen) = std::mem::replace(&mut self.kind, Kind::Done) else {
                return Ok(None);
            };
            // Not within this future, which lasts as long as the connection.
            return Box::pin(self.accept_http1(io, seen, options)).await;
        };
        while let Some(request) = server.next().await? {
            if let Some(accepted) = answer(request, options, self.other.as_deref()) {
                return Ok(Some(accepted));
            }
        }
        self.kind = Kind::Done;
        Ok(None)
    }

    async fn accept_http1(
        &self,
        io: S,
        seen: Vec<u8>,
        options: &AcceptOptions,
    ) -> Result<Option<Accepted<ServerStream<S>>>, AcceptError> {
        let plain = if self.http1.is_some() || self.other.is_some() {
            Plain::GivenBack
        } else {
            Plain::Refused
        };
        let (stream, head, seen) =
            match accept_rest(ServerStream::Http1(io), seen, options, plain).await? {
                Came::WebSocket(accepted) => return Ok(Some(accepted)),
                Came::Plain { io, head, seen } => (io, head, seen),
            };
        let ServerStream::Http1(io) = stream else {
            return Ok(None);
        };
        let request = Http1Request::new(head, seen, io);
        if let Some(take) = &self.http1 {
            take(request);
        } else if let Some(other) = &self.other {
            let response = other(request.head());
            // Whether the client hears it is its own affair.
            let _ = timeout(options.close_timeout, request.respond(response)).await;
        }
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
    other: Option<&Other>,
) -> Option<Accepted<ServerStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if request.head().opening() == Err(OpeningError::NotConnect) {
        match other {
            Some(other) => {
                let response = other(request.head());
                request.respond(response);
            }
            None => request.refuse(&OpeningError::NotConnect.refusal()),
        }
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

delegate_read!({ S } ServerStream<S>, this => *this, stream in {
    Self::Http1(stream),
    Self::Http2(stream)
});

delegate_write!({ S } ServerStream<S>, this => *this, stream in {
    Self::Http1(stream),
    Self::Http2(stream)
});

/// What a client says first in HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
