//! One stream of an HTTP/2 connection, as a stream of bytes (RFC 8441 §5).

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::Http2Error;
use super::unsent::{Chunk, Lingering, Unsent};
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
    /// `None` only while it is dropped.
    halves: Option<(SendStream<Chunk>, RecvStream)>,
    id: u32,
    unsent: Arc<Unsent>,
    lingering: Lingering,
    /// What came in one frame and didn't fit into one read.
    unread: Bytes,
    /// Whether room was asked for and not used.
    reserved: bool,
    shut_down: bool,
}

impl Http2Stream {
    pub(super) fn new(send: SendStream<Chunk>, recv: RecvStream, lingering: &Lingering) -> Self {
        Self {
            id: send.stream_id().as_u32(),
            halves: Some((send, recv)),
            unsent: Arc::default(),
            lingering: lingering.clone(),
            unread: Bytes::new(),
            reserved: false,
            shut_down: false,
        }
    }

    /// The number of the stream in its connection.
    pub fn id(&self) -> u32 {
        self.id
    }

    fn sending(&mut self) -> io::Result<&mut SendStream<Chunk>> {
        let halves = self.halves.as_mut().filter(|_| !self.shut_down);
        halves
            .map(|(send, _)| send)
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Waits for room to send up to `wanted` bytes, more than none; gives how much there is.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        ready!(self.unsent.poll_room(cx));
        self.reserved = true;
        let send = self.sending()?;
        // No more than is sent at once: what a stream has reserved, the others can't use.
        send.reserve_capacity(wanted.min(MAX_RESERVED));
        loop {
            let room = send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(Http2Error::from(error).into())),
                // The stream is at its end: say why.
                None => {
                    let error = match ready!(send.poll_reset(cx)) {
                        Ok(code) => Http2Error::reset_by_peer(code),
                        Err(error) => error.into(),
                    };
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }

    fn send(&mut self, bytes: Bytes, end: bool) -> io::Result<()> {
        let chunk = self.unsent.chunk(bytes);
        let sent = self.sending()?.send_data(chunk, end);
        sent.map_err(|error| Http2Error::from(error).into())
    }

    /// Gives back room that was asked for.
    fn release(&mut self) {
        if self.reserved
            && let Ok(send) = self.sending()
        {
            send.reserve_capacity(0);
            self.reserved = false;
        }
    }

    /// Writes a queue without a copy of what is long.
    pub(in crate::conn) fn poll_write_queue(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut WriteQueue,
    ) -> Poll<io::Result<()>> {
        while !queue.is_empty() {
            let room = ready!(self.poll_room(cx, queue.len()))?;
            let bytes = queue.take(room);
            self.send(bytes, false)?;
        }
        self.release();
        Poll::Ready(Ok(()))
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
        let Some((_, recv)) = &mut this.halves else {
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
        let room = ready!(self.poll_room(cx, bytes.len()))?;
        let len = room.min(bytes.len());
        self.send(Bytes::copy_from_slice(&bytes[..len]), false)?;
        if len == bytes.len() {
            self.release();
        }
        Poll::Ready(Ok(len))
    }

    /// Nothing is held back: the connection's task sends as soon as it can.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    //= rfc8441 5-9
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shut_down {
            return Poll::Ready(Ok(()));
        }
        self.release();
        let sent = self.send(Bytes::new(), true);
        self.shut_down = true;
        Poll::Ready(sent)
    }
}

//= rfc8441 5-10
impl Drop for Http2Stream {
    fn drop(&mut self) {
        self.release();
        if let Some((send, recv)) = self.halves.take() {
            let unsent = Arc::clone(&self.unsent);
            self.lingering.add(send, recv, unsent, self.shut_down);
        }
    }
}

impl fmt::Debug for Http2Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Stream")
            .field("id", &self.id)
            .field("shut_down", &self.shut_down)
            .finish_non_exhaustive()
    }
}

/// Bytes for which room is asked at once: a few frames.
const MAX_RESERVED: usize = 64 * 1024;
