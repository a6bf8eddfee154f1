//! One stream of an HTTP/2 connection, as a stream of bytes (RFC 8441 §5).

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::Http2Error;
use super::sending::Http2Reply;
use super::unsent::{Chunk, Lingering};
use crate::conn::write_queue::WriteQueue;

/// The stream below a WebSocket over HTTP/2.
///
/// Reading gives the peer room for as many bytes as were read. Writing takes what there is room for
/// at the peer's. Shutting down sends `END_STREAM`.
///
/// When it is dropped before that, what was written is still sent, and then the stream is reset with
/// the code `CANCEL`. When it is dropped after that, the peer has 5 s to end its side too.
//= rfc8441 5-8
pub struct Http2Stream {
    sending: Http2Reply,
    /// `None` only while it is dropped.
    recv: Option<RecvStream>,
    id: u32,
    /// What came in one frame and didn't fit into one read.
    unread: Bytes,
}

impl Http2Stream {
    pub(super) fn new(send: SendStream<Chunk>, recv: RecvStream, lingering: &Lingering) -> Self {
        Self {
            id: send.stream_id().as_u32(),
            sending: Http2Reply::new(send, lingering, false),
            recv: Some(recv),
            unread: Bytes::new(),
        }
    }

    /// The number of the stream in its connection.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How many bytes were written that haven't left yet: no more than
    /// [`send_buffer`](super::Http2Options::send_buffer).
    pub fn unsent(&self) -> usize {
        self.sending.unsent()
    }

    /// Gives the stream up: it is reset with the code `CANCEL`, and what was written and has not left is thrown away.
    /// Nothing can be written any more.
    pub fn abort(&mut self) {
        self.sending.reset();
    }

    /// Writes a queue, without a copy of what is long: cheaper than [`WriteQueue::poll_write`], which
    /// doesn't know that what it writes to keeps the bytes.
    ///
    /// Ready when nothing is left. Pending when there is no more room; then the task of `cx` is woken
    /// when there is, and what was not written stays queued.
    ///
    /// # Errors
    ///
    /// How the stream has ended.
    pub fn poll_write_queue(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut WriteQueue,
    ) -> Poll<io::Result<()>> {
        self.sending.poll_write_queue(cx, queue)
    }
}

impl AsyncRead for Http2Stream {
    /// Gathers the frames that are there, as far as they fit.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(recv) = &mut this.recv else {
            return Poll::Ready(Ok(()));
        };
        let before = buffer.filled().len();
        while buffer.remaining() > 0 {
            if this.unread.is_empty() {
                match recv.poll_data(cx) {
                    Poll::Ready(Some(Ok(bytes))) => this.unread = bytes,
                    // Comes again with the next read.
                    Poll::Ready(Some(Err(_))) if buffer.filled().len() > before => break,
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(Http2Error::from(error).into()));
                    }
                    //= rfc8441 5-9
                    Poll::Ready(None) => break,
                    Poll::Pending if buffer.filled().len() > before => break,
                    Poll::Pending => return Poll::Pending,
                }
                continue;
            }
            let len = this.unread.len().min(buffer.remaining());
            buffer.put_slice(&this.unread[..len]);
            this.unread.advance(len);
            if this.unread.is_empty() {
                // It would keep the memory that it was a part of.
                this.unread = Bytes::new();
            }
        }
        let len = buffer.filled().len() - before;
        if len > 0 {
            let released = recv.flow_control().release_capacity(len);
            released.map_err(|error| io::Error::from(Http2Error::from(error)))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let sending = &mut self.sending;
        let room = ready!(sending.poll_room(cx, bytes.len()))?;
        let len = room.min(bytes.len());
        sending.send(Bytes::copy_from_slice(&bytes[..len]), false)?;
        if len == bytes.len() {
            sending.release();
        }
        Poll::Ready(Ok(len))
    }

    /// Nothing is held back: the connection's task sends as soon as it can.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    //= rfc8441 5-9
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.sending.finish())
    }
}

//= rfc8441 5-10
impl Drop for Http2Stream {
    fn drop(&mut self) {
        let recv = self.recv.take();
        self.sending.let_go(recv);
    }
}

impl fmt::Debug for Http2Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Stream")
            .field("id", &self.id)
            .field("shut_down", &self.sending.is_ended())
            .finish_non_exhaustive()
    }
}
