//! The stream below a connection that [`connect`](super::connect) has made.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// TCP, or TLS over it.
#[derive(Debug)]
pub struct ClientStream(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    #[cfg(feature = "rustls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl ClientStream {
    pub(super) fn tcp(stream: TcpStream) -> Self {
        Self(Kind::Tcp(stream))
    }

    #[cfg(feature = "rustls")]
    pub(super) fn tls(stream: tokio_rustls::client::TlsStream<TcpStream>) -> Self {
        Self(Kind::Tls(Box::new(stream)))
    }

    /// The TCP socket, to ask for its addresses or to set its options.
    pub fn tcp_stream(&self) -> &TcpStream {
        match &self.0 {
            Kind::Tcp(stream) => stream,
            #[cfg(feature = "rustls")]
            Kind::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        !matches!(self.0, Kind::Tcp(_))
    }
}

/// Calls a poll function of whichever stream it is.
macro_rules! delegate {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match &mut $self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            #[cfg(feature = "rustls")]
            Kind::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, poll_read(cx, buffer))
    }
}

impl AsyncWrite for ClientStream {
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
        match &self.0 {
            Kind::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(feature = "rustls")]
            Kind::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_shutdown(cx))
    }
}
