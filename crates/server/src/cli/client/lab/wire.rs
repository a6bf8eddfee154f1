//! Connections whose bytes are counted, and requests over them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tautline_websocket::conn::tls_config;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::tally::Tally;
use crate::cli::client::call::Server;

/// A connection to a server, encrypted or not.
pub(super) type Line = Box<dyn Stream>;

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects to `server`. What TLS takes is counted, what TCP takes isn't.
pub(super) async fn dial(server: &Server, tally: Arc<Tally>) -> io::Result<Line> {
    let stream = TcpStream::connect((server.host(), server.port())).await?;
    stream.set_nodelay(true)?;
    let stream = Counted { stream, tally };
    if !server.is_https() {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(server.host().to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(tls_config()?);
    Ok(Box::new(connector.connect(name, stream).await?))
}

/// A connection of HTTP/1.1 that is kept between requests.
#[derive(Default)]
pub(super) struct Http {
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl Http {
    /// One request. A connection that was kept may turn out to have ended: then it is made on a new one.
    pub(super) async fn get(
        &mut self,
        server: &Server,
        tally: &Arc<Tally>,
        path: &str,
        token: Option<&str>,
    ) -> io::Result<Response<Incoming>> {
        loop {
            let kept = self.sender.take();
            let was_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => connect(server, tally).await?,
            };
            let mut request = Request::get(server.path(path))
                .header(header::HOST, server.authority())
                .header(header::ACCEPT, "*/*");
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let request = request.body(Empty::new()).map_err(io::Error::other)?;
            if sender.ready().await.is_err() && was_kept {
                continue;
            }
            tally.asked();
            match sender.send_request(request).await {
                Ok(response) => {
                    self.sender = Some(sender);
                    return Ok(response);
                }
                Err(_) if was_kept => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

async fn connect(server: &Server, tally: &Arc<Tally>) -> io::Result<SendRequest<Empty<Bytes>>> {
    let line = dial(server, Arc::clone(tally)).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(line))
        .await
        .map_err(io::Error::other)?;
    // It ends with the sender and the answer's body; what went wrong, they say.
    tokio::spawn(connection);
    Ok(sender)
}

/// A stream whose bytes are counted.
struct Counted<S> {
    stream: S,
    tally: Arc<Tally>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.tally.received(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.tally.sent(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.tally.sent(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
