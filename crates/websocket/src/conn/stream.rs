//! [`WebSocket`]: a connection to be asked, with `recv`, `send` and their kin.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::driver::Driver;
use super::error::Error;
use super::group::{Group, JoinError};
use super::sender::Sender;
use super::tracker::Tracker;
use super::write_queue::WriteQueue;
use crate::proto::{
    CloseCode, Connection, Extensions, KeepAliveOptions, Message, MessageRef, Misuse,
};

/// A WebSocket connection over any stream of bytes.
///
/// ```
/// # use tautline_websocket::conn::{Error, WebSocket};
/// # use tautline_websocket::proto::Message;
/// # use tokio::io::{AsyncRead, AsyncWrite};
/// async fn greet<S: AsyncRead + AsyncWrite + Unpin>(mut ws: WebSocket<S>) -> Result<(), Error> {
///     while let Some(message) = ws.recv().await? {
///         if let Message::Text(name) = message {
///             ws.queue(&format!("Hello, {name}"))?;
///         }
///     }
///     Ok(())
/// }
/// ```
///
/// # Writing: `send` or `queue`
///
/// [`send`](Self::send) returns when the message was written, [`queue`](Self::queue) only puts it
/// where it leaves with the next flush: [`recv`](Self::recv) flushes before it waits. So for
/// answers `queue` is the better choice: when a read brings sixteen messages, sixteen answers leave
/// in one write. A handler that waits for something slow between two `recv`s should
/// [`flush`](Self::flush) before it does.
///
/// # Closing
///
/// Pings and Close frames are answered from within `recv`, so keep calling it. It returns `None`
/// when the connection was closed in order. When the peer misbehaves, it is told with a Close
/// frame before `recv` returns the error.
///
/// # Runtime
///
/// Closing runs against a deadline, so the Tokio runtime needs its timer enabled.
pub struct WebSocket<S> {
    /// In a box, so that what holds a connection stays small: the future of a task keeps a place for
    /// each variable that it was ever moved through.
    pub(super) driver: Box<Driver<S>>,
}

/// What the peer's Close frame said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Why.
    pub code: CloseCode,
    /// The same for people; often empty.
    pub reason: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// A connection over a stream whose opening handshake is done, `engine` being in its initial
    /// state. See [`accept`](super::accept()) for a way that includes the handshake.
    pub fn new(io: S, engine: Connection) -> Self {
        Self {
            driver: Box::new(Driver::new(io, engine)),
        }
    }

    /// The same with another time that the peer has, once a Close frame was sent, to answer and
    /// to end the connection. The default is 5 s.
    #[must_use]
    pub fn with_close_timeout(mut self, timeout: Duration) -> Self {
        self.driver.set_close_timeout(timeout);
        self
    }

    /// The same over a stream that takes a queue in a way of its own.
    #[cfg(feature = "http2")]
    pub(super) fn with_writer(mut self, writer: super::driver::Writer<S>) -> Self {
        self.driver.writer = Some(writer);
        self
    }

    /// The same with another number of bytes that may wait to be written before this side is refused to
    /// add more ([`Misuse::BacklogFull`]). The default is 16 MiB, the most 4 GiB. What waits is looked at before
    /// a message is added, so one of any size goes out when little waits.
    #[must_use]
    pub fn with_max_backlog(mut self, bytes: usize) -> Self {
        self.driver.attachments.set_max_backlog(bytes);
        self
    }

    /// The same with a watch over the peer, off unless asked for: it is pinged when it is silent, given up as dead
    /// ([`Error::PeerSilent`]) when that brings nothing, and the connection is closed (1001) when no message
    /// goes either way for too long, as [`KeepAliveOptions`] says.
    ///
    /// A watched connection has one timer, which is not touched for messages.
    /// It is looked at while the connection is polled: by [`recv`](Self::recv), [`send`](Self::send),
    /// [`flush`](Self::flush), [`close`](Self::close) and [`serve`](Self::serve).
    ///
    /// ```
    /// # use tautline_websocket::conn::WebSocket;
    /// # use tautline_websocket::proto::KeepAliveOptions;
    /// # fn watched<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(ws: WebSocket<S>) -> WebSocket<S> {
    /// ws.with_keep_alive(KeepAliveOptions::default())
    /// # }
    /// ```
    #[must_use]
    pub fn with_keep_alive(mut self, options: KeepAliveOptions) -> Self {
        self.driver.attachments.watch(options);
        self
    }

    /// How long the last ping of [`with_keep_alive`](Self::with_keep_alive) that was answered took,
    /// there and back.
    pub fn round_trip(&self) -> Option<Duration> {
        self.driver.attachments.round_trip()
    }

    /// Waits for the next message, `None` when the connection was closed in order. Flushes before
    /// it waits.
    ///
    /// # Errors
    ///
    /// [`Error::Peer`], [`Error::CutOff`], [`Error::Io`] and [`Error::TimedOut`]; all of them mean
    /// that the connection is at its end.
    ///
    /// # Cancel safety
    ///
    /// Safe: dropped at any point, no message is lost.
    pub async fn recv(&mut self) -> Result<Option<Message>, Error> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The poll function below [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Error>> {
        self.driver
            .poll_receive(cx, |message, _| Some(message.to_owned()))
    }

    /// Sends a message, and whatever was queued before it, and waits until it was written.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] when this side has begun to close or too much waits already, then the
    /// message was not taken; [`Error::Io`]; and where time runs against the connection,
    /// [`Error::PeerSilent`] and [`Error::TimedOut`].
    ///
    /// # Cancel safety
    ///
    /// Dropped at any point, the message stays queued as a whole and leaves with the next flush:
    /// don't send it again.
    pub async fn send(&mut self, message: impl Into<MessageRef<'_>>) -> Result<(), Error> {
        let message = message.into();
        poll_fn(|cx| Poll::Ready(self.driver.send(cx, message))).await?;
        self.flush().await
    }

    /// Puts a message where it leaves with the next flush: the next [`recv`](Self::recv) that has
    /// to wait, [`send`](Self::send) or [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// [`Misuse::Closing`] once a Close frame was sent; [`Misuse::BacklogFull`] when too much waits
    /// already, see [`with_max_backlog`](Self::with_max_backlog).
    pub fn queue<'m>(&mut self, message: impl Into<MessageRef<'m>>) -> Result<(), Misuse> {
        self.driver.queue(message.into())
    }

    /// [`queue`](Self::queue) for a message that is given away, or shared: where it has
    /// [`SHARE_FROM`](super::SHARE_FROM) bytes or more, a server sends it from where it is, without a copy. A client has to
    /// mask what it sends, and what is compressed is another text, so these copy.
    ///
    /// ```
    /// # use tautline_websocket::{conn::WebSocket, proto::{Message, Misuse}};
    /// # use tokio::io::{AsyncRead, AsyncWrite};
    /// # fn send_map<S: AsyncRead + AsyncWrite + Unpin>(ws: &mut WebSocket<S>, map: &bytes::Bytes) -> Result<(), Misuse> {
    /// // Ten megabytes, of which each client gets the same ones.
    /// ws.queue_owned(map.clone())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`queue`](Self::queue).
    pub fn queue_owned(&mut self, message: impl Into<Message>) -> Result<(), Misuse> {
        self.driver.send_owned(&message.into())
    }

    /// Queues a ping with at most 125 bytes of payload. The pong is received and dropped by
    /// [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// [`Misuse::ControlTooLong`]; [`Misuse::Closing`] once a Close frame was sent;
    /// [`Misuse::BacklogFull`].
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), Misuse> {
        self.driver.attachments.check_backlog(&self.driver.queue)?;
        self.driver.engine.ping(payload, &mut self.driver.queue)
    }

    /// Waits until all that was queued is written.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; and where time runs against the connection, [`Error::PeerSilent`] and
    /// [`Error::TimedOut`].
    ///
    /// # Cancel safety
    ///
    /// Safe: what was not written stays queued.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.driver.poll_flush(cx)).await
    }

    /// Closes the connection: sends a Close frame with a reason of at most 123 bytes, drops
    /// messages that are still under way, and waits for the peer to answer. A server ends the stream
    /// then and is done; a client waits for the server to do so (RFC 6455 §7.1.1). When the peer has
    /// begun to close, this only waits for the end.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] when code or reason can't be sent; then nothing has happened. Otherwise
    /// those of [`recv`](Self::recv), and the connection is at its end.
    ///
    /// # Cancel safety
    ///
    /// Safe: call it again, or [`recv`](Self::recv), to go on waiting.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        poll_fn(|cx| Poll::Ready(self.driver.close(cx, code, reason))).await?;
        while poll_fn(|cx| self.driver.poll_receive(cx, |_, _| Some(())))
            .await?
            .is_some()
        {}
        Ok(())
    }

    /// A handle to send on this connection from elsewhere, with a queue of `capacity` bytes: each
    /// message that waits there counts with its payload and 64 bytes more. A message that is larger than
    /// that goes in when no other waits.
    ///
    /// A connection has one such queue, so the capacity of the first call counts; calling again gives
    /// another handle to the same.
    pub fn sender(&mut self, capacity: usize) -> Sender {
        let inbox = self.driver.attachments.get().inbox();
        inbox.set_capacity(capacity);
        Sender::new(Arc::clone(inbox))
    }

    /// Makes the connection a member of a group: what is published there from now on is sent here. If it is
    /// one already, nothing happens. It leaves when it is closed or dropped.
    ///
    /// # Errors
    ///
    /// [`JoinError`].
    pub fn join(&mut self, group: &Group) -> Result<(), JoinError> {
        let can_send = self.driver.engine.can_send();
        self.driver.attachments.join(group, can_send)
    }

    /// Leaves a group, and returns whether the connection was a member. What was published before
    /// and isn't in this connection's queue yet is not sent.
    pub fn leave(&mut self, group: &Group) -> bool {
        self.driver.attachments.leave(group)
    }

    /// Has the connection known to `tracker` until it is dropped. If all of the tracker's connections were
    /// told to close, this one is too.
    pub fn track(&mut self, tracker: &Tracker) {
        self.driver.attachments.get().track(tracker);
    }

    /// What the peer's Close frame said, once it came; `None` also when it said nothing.
    pub fn closed(&self) -> Option<&Closed> {
        self.driver.closed()
    }

    /// The extensions that were agreed on: whether permessage-deflate is in use, and how.
    pub fn extensions(&self) -> Extensions {
        self.driver.engine.extensions()
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> usize {
        self.driver.queue.len()
    }

    /// The stream.
    pub fn get_ref(&self) -> &S {
        &self.driver.io
    }

    /// The stream, the engine and what waits to be written, for driving them in another way.
    pub fn into_parts(self) -> (S, Connection, WriteQueue) {
        let driver = *self.driver;
        (driver.io, driver.engine, driver.queue)
    }
}

impl<S> fmt::Debug for WebSocket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("engine", &self.driver.engine)
            .field("queue", &self.driver.queue)
            .finish_non_exhaustive()
    }
}
