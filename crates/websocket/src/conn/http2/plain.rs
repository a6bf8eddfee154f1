//! A request over HTTP/1.1 that doesn't ask for a WebSocket, and its stream.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::conn::accept::say_last;
use crate::conn::delegate::delegate_write;
use crate::conn::http_types;
use crate::proto::handshake::RequestHead;

/// A request over HTTP/1.1 that doesn't ask for a WebSocket, such as one for a page; see
/// [`Incoming::with_http1`](super::Incoming::with_http1). Dropped without an answer, its stream is closed.
#[must_use = "a request waits for its answer"]
pub struct Http1Request<S> {
    head: RequestHead,
    stream: Rewound<S>,
}

impl<S> Http1Request<S> {
    /// A request whose head, and maybe more, was read of `io`.
    pub(super) fn new(head: RequestHead, seen: Vec<u8>, io: S) -> Self {
        let stream = Rewound::new(seen, io);
        Self { head, stream }
    }

    /// The head of the request.
    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    /// The stream, to be read from the first byte of the request on: for a library of HTTP, which
    /// reads the head once more, the body, and whatever comes on the same connection afterwards.
    pub fn into_stream(self) -> Rewound<S> {
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1Request<S> {
    /// Answers, and ends the connection. The body of the request is thrown away, that of the
    /// response is left out where the request was a `HEAD`.
    ///
    /// This waits for the client to end the connection too, for as long as that takes: put it under a timeout.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream, as it is the owner, whatever of the response was written.
    pub async fn respond(mut self, response: http::Response<Bytes>) -> io::Result<()> {
        let mut bytes = Vec::new();
        http_types::write_last(&response, self.head.method() == "HEAD", &mut bytes);
        say_last(&mut self.stream.io, &bytes).await
    }
}

impl<S> fmt::Debug for Http1Request<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Http1Request").field(&self.head).finish()
    }
}

/// A stream of which the first bytes were read already, and are read again.
pub struct Rewound<S> {
    seen: Bytes,
    io: S,
}

impl<S> Rewound<S> {
    pub(super) fn new(seen: impl Into<Bytes>, io: S) -> Self {
        Self {
            seen: seen.into(),
            io,
        }
    }

    /// The stream, and what was read of it and not yet again.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.io, self.seen)
    }
}

impl<S> fmt::Debug for Rewound<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewound")
            .field("seen", &self.seen.len())
            .finish_non_exhaustive()
    }
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

delegate_write!({ S } Rewound<S>, this => this.io, io in { io });
