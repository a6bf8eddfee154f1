//! The stream below a connection that [`connect`](super::connect) has made.

use tokio::net::TcpStream;

use crate::conn::delegate::{delegate_read, delegate_write};

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

delegate_read!({} ClientStream, this => this.0, stream in {
    Kind::Tcp(stream),
    #[cfg(feature = "rustls")] Kind::Tls(stream)
});

delegate_write!({} ClientStream, this => this.0, stream in {
    Kind::Tcp(stream),
    #[cfg(feature = "rustls")] Kind::Tls(stream)
});
