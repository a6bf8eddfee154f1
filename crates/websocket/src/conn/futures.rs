//! [`WebSocket`] as a `Stream` of messages and a `Sink` for them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::stream::{FusedStream, Stream};
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::Error;
use super::stream::WebSocket;
use crate::proto::{CloseCode, Message};

/// The messages of the peer, as [`WebSocket::recv`] gives them. After an error, and when the
/// connection was closed in order, comes `None`.
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for WebSocket<S> {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.driver.is_over {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_recv(cx)).transpose();
        self.driver.is_over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> FusedStream for WebSocket<S> {
    fn is_terminated(&self) -> bool {
        self.driver.is_over
    }
}

/// Sends messages: `feed` is [`WebSocket::queue_owned`], but waits while much is queued; `send` and
/// `flush` return when all is written.
///
/// `close` sends a Close frame with 1000, behind all that was queued, and returns when it is
/// written. The peer's answer, and messages that come before it, are the stream's affair: go on with that until its end,
/// or call [`WebSocket::close`], which drops them.
///
/// The two halves of a connection that was split may be used by two tasks. Pings are answered, and
/// the peer is watched, by the one that receives; one that waits to send watches too.
impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for WebSocket<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.backlog() < FEED_UNTIL {
            return Poll::Ready(Ok(()));
        }
        self.driver.poll_flush(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        Ok(self.queue_owned(message)?)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.driver.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let driver = &mut self.driver;
        driver.close(cx, CloseCode::NORMAL, "")?;
        driver.poll_flush(cx)
    }
}

/// Bytes that wait from which a sink is not ready for more.
const FEED_UNTIL: usize = 16 * 1024;
