//! What a connection is made of: a TCP socket, TLS on one, or a stream of an HTTP/2 connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tautline_websocket::conn::WriteQueue;
use tautline_websocket::conn::http2::Http2Stream;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::worker::listener;

/// A connection's bytes.
pub(crate) enum Io {
    /// As they are.
    Plain(TcpStream),
    /// Encrypted. In a box: those that are not, which are most where a proxy does that, have no room
    /// reserved for it.
    Tls(Box<TlsStream<Counted>>),
    /// One of many on a connection, which a task of its own drives. Also in a box.
    Http2(Box<Http2Io>),
    /// Of a test that moves its time on by itself.
    #[cfg(test)]
    Memory(Box<tokio::io::DuplexStream>),
}

/// Who writes down what waits in TLS: whoever counts that is above, and isn't known here.
pub(crate) trait Unsent: Send + Sync {
    /// So many bytes do now.
    fn note(&self, bytes: usize);
}

/// A socket, and how many bytes it has taken: what is behind it, and has more to write, doesn't say.
pub(crate) struct Counted {
    io: TcpStream,
    taken: u64,
    /// Encrypted bytes that it has yet to take, after the last write.
    unsent: usize,
    /// Where that is written down, if somebody has to be told.
    told: Option<Arc<dyn Unsent>>,
}

impl Counted {
    pub(crate) fn new(io: TcpStream) -> Self {
        Self {
            io,
            taken: 0,
            unsent: 0,
            told: None,
        }
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &written {
            self.taken += *count as u64;
        }
        written
    }
}

/// A stream of an HTTP/2 connection, and whom that is with.
pub(crate) struct Http2Io {
    pub(crate) stream: Http2Stream,
    pub(crate) remote: Option<SocketAddr>,
}

impl Io {
    /// Whom it is a connection with.
    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(io) => io.peer_addr(),
            Self::Tls(io) => io.get_ref().0.io.peer_addr(),
            Self::Http2(io) => io.remote.ok_or_else(|| io::ErrorKind::NotConnected.into()),
            #[cfg(test)]
            Self::Memory(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// As [`listener::give_up_after`]; a stream has nothing of its own to be given up by.
    pub(crate) fn give_up_after(&self, limit: Option<Duration>) {
        let done = match self {
            Self::Plain(io) => listener::give_up_after(io, limit),
            Self::Tls(io) => listener::give_up_after(&io.get_ref().0.io, limit),
            Self::Http2(_) => Ok(()),
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        };
        // One that can't be set up is served as it is.
        if let Err(error) = done {
            tracing::debug!(%error, "the system won't say when a client is gone");
        }
    }

    /// Writes as much of a queue as there is room for: of a stream, what its client's window and the
    /// connection take. Pending when some is left.
    pub(crate) fn poll_write_queue(
        &mut self,
        cx: &mut Context<'_>,
        queue: &mut WriteQueue,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(io) => queue.poll_write(cx, io),
            Self::Tls(io) => {
                let written = queue.poll_write(cx, io);
                note_unsent(io);
                written
            }
            Self::Http2(io) => io.stream.poll_write_queue(cx, queue),
            #[cfg(test)]
            Self::Memory(io) => queue.poll_write(cx, io),
        }
    }

    /// How many bytes were taken of what was written and may wait here; 0 where nothing does.
    pub(crate) fn taken(&self) -> u64 {
        match self {
            Self::Tls(io) => io.get_ref().0.taken,
            Self::Plain(_) | Self::Http2(_) => 0,
            #[cfg(test)]
            Self::Memory(_) => 0,
        }
    }

    /// How far its client has come with what was written, of which there were `written` bytes in all: a number that grows
    /// with what it takes, and with nothing else.
    pub(crate) fn progress(&self, written: u64) -> u64 {
        match self {
            // Encrypted, there are more of them.
            Self::Tls(io) => io.get_ref().0.taken,
            _ => written.saturating_sub(self.unsent() as u64),
        }
    }

    /// Bytes that were written and wait here, in memory of their own.
    pub(crate) fn unsent(&self) -> usize {
        match self {
            Self::Http2(io) => io.stream.unsent(),
            Self::Tls(io) => io.get_ref().0.unsent,
            Self::Plain(_) => 0,
            #[cfg(test)]
            Self::Memory(_) => 0,
        }
    }

    /// Has what waits in TLS written down from now on, by what `begin` makes for it. `None` without TLS.
    pub(crate) fn count_unsent<U: Unsent + 'static>(
        &mut self,
        begin: impl FnOnce() -> U,
    ) -> Option<Arc<U>> {
        let Self::Tls(io) = self else {
            return None;
        };
        let told = Arc::new(begin());
        let socket = io.get_mut().0;
        told.note(socket.unsent);
        socket.told = Some(Arc::clone(&told) as _);
        Some(told)
    }

    /// Throws away what was written and waits here, where that is possible. Nothing else can be written then.
    pub(crate) fn abort(&mut self) {
        if let Self::Http2(io) = self {
            io.stream.abort();
        }
    }

    /// Whether a write would be tried now, as far as that is known without asking the system. Of a socket only; of
    /// all else nothing is known.
    pub(crate) fn is_writable(&self) -> bool {
        match self {
            Self::Plain(io) => io.try_io(Interest::WRITABLE, || Ok(())).is_ok(),
            Self::Tls(_) | Self::Http2(_) => false,
            #[cfg(test)]
            Self::Memory(_) => false,
        }
    }

    /// Whether what was written may wait here for [`poll_flush`](AsyncWrite::poll_flush).
    pub(crate) fn holds_back(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// Writes down how much waits in TLS, which tells it only to who may change it.
fn note_unsent(io: &mut TlsStream<Counted>) {
    let (socket, session) = io.get_mut();
    socket.unsent = if session.wants_write() {
        // Whatever came was processed when it was read: this only looks.
        let state = session.process_new_packets();
        state.map_or(0, |state| state.tls_bytes_to_write())
    } else {
        0
    };
    if let Some(told) = &socket.told {
        told.note(socket.unsent);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.count(written)
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

impl From<TcpStream> for Io {
    fn from(io: TcpStream) -> Self {
        Self::Plain(io)
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Self::Http2(io) => Pin::new(&mut io.stream).poll_read(cx, buf),
            #[cfg(test)]
            Self::Memory(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => {
                let written = Pin::new(&mut **io).poll_write(cx, buf);
                note_unsent(io);
                written
            }
            Self::Http2(io) => Pin::new(&mut io.stream).poll_write(cx, buf),
            #[cfg(test)]
            Self::Memory(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => {
                let written = Pin::new(&mut **io).poll_write_vectored(cx, bufs);
                note_unsent(io);
                written
            }
            Self::Http2(io) => Pin::new(&mut io.stream).poll_write_vectored(cx, bufs),
            #[cfg(test)]
            Self::Memory(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
            Self::Http2(io) => io.stream.is_write_vectored(),
            #[cfg(test)]
            Self::Memory(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => {
                let written = Pin::new(&mut **io).poll_flush(cx);
                note_unsent(io);
                written
            }
            Self::Http2(io) => Pin::new(&mut io.stream).poll_flush(cx),
            #[cfg(test)]
            Self::Memory(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Self::Http2(io) => Pin::new(&mut io.stream).poll_shutdown(cx),
            #[cfg(test)]
            Self::Memory(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
