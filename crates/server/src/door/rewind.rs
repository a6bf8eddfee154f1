//! A stream whose first bytes were read already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Yields `read` again, then what `inner` has. Writing goes straight to `inner`.
pub(crate) struct Rewind<S> {
    read: Vec<u8>,
    /// How much of `read` was yielded again.
    yielded: usize,
    inner: S,
}

impl<S> Rewind<S> {
    pub(crate) fn new(read: Vec<u8>, inner: S) -> Self {
        Self {
            read,
            yielded: 0,
            inner,
        }
    }

    /// The stream, and what of the first bytes was not yielded again.
    pub(crate) fn into_parts(mut self) -> (Vec<u8>, S) {
        (self.read.split_off(self.yielded), self.inner)
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
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

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
