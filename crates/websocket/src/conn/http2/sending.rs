//! What this side sends on one stream of an HTTP/2 connection, within the room that the other side gives.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::error::Http2Error;
use super::unsent::{Chunk, Lingering, Unsent};
use crate::conn::write_queue::WriteQueue;

/// The body of a response, being sent.
///
/// It takes what there is room for at the client's, and no more than
/// [`send_buffer`](super::Http2Options::send_buffer) bytes ahead of that. Say that it is whole with
/// [`finish`](Self::finish). When it is dropped before, what was taken is still sent, within 5 s, and then
/// the stream is reset with the code `CANCEL`.
pub struct Http2Reply {
    /// `None` only while it is dropped.
    send: Option<SendStream<Chunk>>,
    unsent: Arc<Unsent>,
    lingering: Lingering,
    /// Whether room was asked for and not used.
    reserved: bool,
    ended: bool,
}

impl Http2Reply {
    pub(super) fn new(send: SendStream<Chunk>, lingering: &Lingering, ended: bool) -> Self {
        Self {
            send: Some(send),
            unsent: Arc::default(),
            lingering: lingering.clone(),
            reserved: false,
            ended,
        }
    }

    /// Ready when there is room for a byte; then asks for no more of it.
    ///
    /// # Errors
    ///
    /// How the stream has ended, [`Http2Error`] inside.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_room(cx, 1))?;
        self.release();
        Poll::Ready(Ok(()))
    }

    /// Sends `bytes`, as far as there is room, and leaves the rest in them. Ready when nothing is left.
    ///
    /// # Errors
    ///
    /// As [`poll_ready`](Self::poll_ready).
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            let room = ready!(self.poll_room(cx, bytes.len()))?;
            let next = bytes.split_to(room.min(bytes.len()));
            self.send(next, false)?;
        }
        self.release();
        Poll::Ready(Ok(()))
    }

    /// Says that the body is whole.
    ///
    /// # Errors
    ///
    /// As [`poll_ready`](Self::poll_ready).
    pub fn finish(&mut self) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        self.release();
        let sent = self.send(Bytes::new(), true);
        self.ended = true;
        sent
    }

    /// Ready when all that was taken has left, or never will.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unsent.poll_none(cx).is_ready() || self.poll_gone(cx).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// How many bytes of what was given have left for the client. While it doesn't grow, the client takes nothing.
    pub fn sent(&self) -> u64 {
        self.unsent.sent()
    }

    /// Whether something that was given hasn't left yet.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_none()
    }

    /// How many bytes were given that haven't left yet.
    pub fn unsent(&self) -> usize {
        self.unsent.bytes()
    }

    /// Ready when the client doesn't want the rest any more: it has reset the stream, or the connection
    /// has ended.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Http2Error> {
        let Some(send) = &mut self.send else {
            return Poll::Pending;
        };
        send.poll_reset(cx).map(|reset| match reset {
            Ok(code) => Http2Error::reset_by_peer(code),
            Err(error) => error.into(),
        })
    }

    /// Gives the stream up: it is reset with the code `CANCEL`, and what has not left is thrown away.
    pub fn abort(mut self) {
        self.reset();
    }

    pub(super) fn reset(&mut self) {
        if let Some(mut send) = self.send.take() {
            send.send_reset(h2::Reason::CANCEL);
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    fn sending(&mut self) -> io::Result<&mut SendStream<Chunk>> {
        let ended = self.ended;
        let send = self.send.as_mut().filter(|_| !ended);
        send.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Waits for room to send up to `wanted` bytes, more than none; gives how much there is.
    pub(super) fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<io::Result<usize>> {
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

    pub(super) fn send(&mut self, bytes: Bytes, end: bool) -> io::Result<()> {
        let chunk = self.unsent.chunk(bytes);
        let sent = self.sending()?.send_data(chunk, end);
        sent.map_err(|error| Http2Error::from(error).into())
    }

    /// Gives back room that was asked for.
    pub(super) fn release(&mut self) {
        if self.reserved
            && let Ok(send) = self.sending()
        {
            send.reserve_capacity(0);
            self.reserved = false;
        }
    }

    /// Writes a queue without a copy of what is long.
    pub(super) fn poll_write_queue(
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

    /// Lets go of the stream, together with its other half.
    pub(super) fn let_go(&mut self, recv: Option<RecvStream>) {
        self.release();
        if let Some(send) = self.send.take() {
            let unsent = Arc::clone(&self.unsent);
            self.lingering.add(send, recv, unsent, self.ended);
        }
    }
}

//= rfc8441 5-10
impl Drop for Http2Reply {
    fn drop(&mut self) {
        self.let_go(None);
    }
}

impl fmt::Debug for Http2Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Reply")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// Bytes for which room is asked at once: a few frames.
const MAX_RESERVED: usize = 64 * 1024;
