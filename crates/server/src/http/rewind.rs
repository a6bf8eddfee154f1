//! A stream whose first bytes were read already.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tautline_websocket::conn::scratch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::patience::Patience;
use crate::io::{Io, Unsent};

/// Yields `read` again, then what `inner` has. Writing goes straight to `inner`.
pub(crate) struct Rewind<S> {
    read: Vec<u8>,
    /// How much of `read` was yielded again.
    yielded: usize,
    inner: S,
    /// Where it is told whether all that was to be written last was.
    is_written: Option<Arc<AtomicBool>>,
    writing: Option<Writing<S>>,
}

/// What is known of a client who has to take what is written.
struct Writing<S> {
    patience: Patience,
    /// How much of what was written and not flushed it has taken so far.
    taken: fn(&S) -> u64,
    /// A write waits, not only a flush.
    is_held: bool,
}

impl<S> Rewind<S> {
    pub(crate) fn new(read: Vec<u8>, inner: S) -> Self {
        Self {
            read,
            yielded: 0,
            inner,
            is_written: None,
            writing: None,
        }
    }

    /// The same for a client that must take something of what is written within `limit`, if there is one, or writing fails with
    /// [`TimedOut`](io::ErrorKind::TimedOut). `taken` says how much it has taken of what `inner` keeps to itself, where it
    /// does.
    pub(crate) fn patient(mut self, limit: Option<Duration>, taken: fn(&S) -> u64) -> Self {
        self.writing = limit.map(|limit| Writing {
            patience: Patience::new(limit),
            taken,
            is_held: false,
        });
        self
    }

    /// Passes on what came of a write, or of a flush, if it wasn't waited for too long.
    fn patiently<T>(
        &mut self,
        cx: &mut Context<'_>,
        is_write: bool,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(writing) = &mut self.writing else {
            return polled;
        };
        if polled.is_ready() {
            // Where there is nothing to flush a write may wait still.
            writing.is_held &= !is_write;
            if !writing.is_held {
                writing.patience.rest();
            }
            return polled;
        }
        writing.is_held |= is_write;
        let taken = (writing.taken)(&self.inner);
        Poll::Ready(Err(ready!(writing.patience.poll_stalled(cx, taken))))
    }

    /// The same, and where it tells whether the last write took all that was to be written.
    pub(crate) fn watched(mut self) -> (Self, Arc<AtomicBool>) {
        let is_written = Arc::new(AtomicBool::new(true));
        self.is_written = Some(Arc::clone(&is_written));
        (self, is_written)
    }

    /// Has `bytes` yielded once more, before all else.
    pub(crate) fn unread(&mut self, bytes: &[u8]) {
        self.read.splice(..self.yielded, bytes.iter().copied());
        self.yielded = 0;
    }

    fn note(&self, wanted: usize, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Some(is_written) = &self.is_written {
            let is_all = matches!(written, Poll::Ready(Ok(count)) if count == wanted);
            is_written.store(is_all, Ordering::Relaxed);
        }
        written
    }

    /// The stream, and what of the first bytes was not yielded again.
    pub(crate) fn into_parts(mut self) -> (Vec<u8>, S) {
        (self.read.split_off(self.yielded), self.inner)
    }
}

impl Rewind<Io> {
    /// As [`Io::count_unsent`].
    pub(crate) fn count_unsent<U: Unsent + 'static>(
        &mut self,
        begin: impl FnOnce() -> U,
    ) -> Option<Arc<U>> {
        self.inner.count_unsent(begin)
    }

    /// The same for a client of HTTP: what waits for it in the system counts as well. So whoever has vanished without a word is gone
    /// so long after something was written, even where nobody expects an answer.
    pub(crate) fn patient_with_client(self, limit: Option<Duration>) -> Self {
        self.inner.give_up_after(limit);
        self.patient(limit, Io::taken)
    }
}

impl<S: AsyncRead + Unpin> Rewind<S> {
    /// Reads on, for what is read to be yielded later, until so many bytes wait for that: pending then, and nobody is
    /// woken. Ready with 0 at the end.
    pub(crate) fn poll_ahead(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        let room = max.saturating_sub(self.read.len() - self.yielded);
        if room == 0 {
            return Poll::Pending;
        }
        scratch::with(|buffer| {
            let room = room.min(buffer.len());
            let mut buffer = ReadBuf::new(&mut buffer[..room]);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
            self.read.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.read[self.yielded..];
        if rest.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.yielded += count;
        if self.yielded == self.read.len() {
            self.read = Vec::new();
            self.yielded = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        let written = self.patiently(cx, true, written);
        self.note(buf.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        let written = self.patiently(cx, true, written);
        self.note(bufs.iter().map(|buf| buf.len()).sum(), written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.patiently(cx, false, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.patiently(cx, false, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_was_read_comes_first() {
        let mut stream = Rewind::new(b"GET / ".to_vec(), &b"HTTP/1.1"[..]);
        let mut start = [0; 2];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"GE");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "T / HTTP/1.1");
    }

    /// Takes writes, and of what is to be flushed a byte every 20 s, until so many are left.
    struct Slow {
        left: u64,
        stuck_at: u64,
        timer: Pin<Box<tokio::time::Sleep>>,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            while self.left > self.stuck_at {
                ready!(self.timer.as_mut().poll(cx));
                self.left -= 1;
                self.timer = Box::pin(tokio::time::sleep(STEP));
            }
            if self.left == 0 {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(cx)
        }
    }

    const STEP: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_flush_is_waited_for_while_something_is_taken() {
        let flush = async |stuck_at| {
            let slow = Slow {
                left: 10,
                stuck_at,
                timer: Box::pin(tokio::time::sleep(STEP)),
            };
            let start = tokio::time::Instant::now();
            let stream = Rewind::new(Vec::new(), slow);
            let mut stream = stream.patient(Some(STEP + STEP / 2), |slow| 10 - slow.left);
            stream.write_all(b"x").await.unwrap();
            (
                stream.flush().await.map_err(|error| error.kind()),
                start.elapsed(),
            )
        };
        assert_eq!(flush(0).await, (Ok(()), STEP * 10));
        let cut = Err(io::ErrorKind::TimedOut);
        assert_eq!(flush(8).await, (cut, STEP * 2 + STEP + STEP / 2));
    }

    #[tokio::test]
    async fn what_was_not_yielded_is_not_lost() {
        let mut stream = Rewind::new(b"GET / ".to_vec(), &b"HTTP/1.1"[..]);
        stream.read_exact(&mut [0; 2]).await.unwrap();
        assert_eq!(stream.into_parts().0, b"T / ");
        let mut stream = Rewind::new(b"GET / ".to_vec(), &b"HTTP/1.1"[..]);
        stream.read_exact(&mut [0; 7]).await.unwrap();
        assert!(stream.into_parts().0.is_empty());
    }
}
