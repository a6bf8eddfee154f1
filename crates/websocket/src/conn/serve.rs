//! [`WebSocket::serve`]: a handler that is lent each message, and answers in place.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use super::attached::Attachments;
use super::driver::Driver;
use super::error::Error;
use super::group::{Group, JoinError};
use super::long::{LONG, LongMessages};
use super::stream::{Closed, WebSocket};
use super::write_queue::WriteQueue;
use crate::proto::{CloseCode, MessageRef, Misuse, Sender};

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Calls `handler` with each message as it comes, lent from the read buffer, until the
    /// connection has ended. What the handler sends is gathered, and leaves in one write when the
    /// messages of one read have been handled. Nothing is allocated for a message.
    ///
    /// When the peer doesn't read, no more is read from it once some 64 KiB of answers wait, or
    /// [as many as may](Self::with_max_backlog) if that is less, and the handler isn't called for what
    /// was read before. Where few bytes are answered with many, as with compression, these are at most half a MiB and
    /// the answers to one message.
    ///
    /// Returns what the peer's Close frame said.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection, as it is the owner.
    ///
    /// ```
    /// # use tautline_websocket::{conn::WebSocket, proto::MessageRef};
    /// # use tokio::io::{AsyncRead, AsyncWrite};
    /// # async fn echo<S: AsyncRead + AsyncWrite + Unpin>(ws: WebSocket<S>) {
    /// let ended = ws
    ///     .serve(|message, replies| {
    ///         // Fails once this side has begun to close: then no answer is wanted.
    ///         let _ = replies.send(message);
    ///     })
    ///     .await;
    /// # }
    /// ```
    pub async fn serve<H>(self, mut handler: H) -> Result<Option<Closed>, Error>
    where
        H: FnMut(MessageRef<'_>, &mut Replies<'_>),
    {
        self.serve_with(FromFn(&mut handler)).await
    }

    /// [`serve`](Self::serve) with a handler that is also told of the end, however it comes: by a
    /// closing handshake, an error, or because the future was dropped.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection, as it is the owner; the handler is told, also when the
    /// future was never polled.
    pub fn serve_with<H: Handler>(
        self,
        handler: H,
    ) -> impl Future<Output = Result<Option<Closed>, Error>> {
        // Made before the future is polled: nobody says that it will be.
        let mut serving = Serving {
            ws: self,
            handler,
            ended: false,
        };
        async move {
            let ended = poll_fn(|cx| {
                let Serving { ws, handler, .. } = &mut serving;
                poll_serve(&mut ws.driver, cx, handler)
            })
            .await;
            serving.ended = true;
            let closed = serving.ws.closed().cloned();
            serving.handler.ended(match &ended {
                Ok(()) => Ended::Closed(closed.as_ref()),
                Err(error) => Ended::Failed(error),
            });
            ended.map(|()| closed)
        }
    }
}

/// Goes on with a connection until it has ended.
#[inline]
pub(super) fn poll_serve<S: AsyncRead + AsyncWrite + Unpin>(
    driver: &mut Driver<S>,
    cx: &mut Context<'_>,
    handler: &mut impl Handler,
) -> Poll<Result<(), Error>> {
    let ended = driver.poll_drive(cx, |message, mut replies| {
        handler.message(message, &mut replies);
        None::<()>
    });
    ended.map_ok(|_| ())
}

/// Handles one connection, see [`WebSocket::serve_with`].
///
/// ```
/// use tautline_websocket::conn::{Ended, Handler, Replies};
/// use tautline_websocket::proto::MessageRef;
///
/// struct Session {
///     user: String,
/// }
///
/// impl Handler for Session {
///     fn message(&mut self, message: MessageRef<'_>, replies: &mut Replies<'_>) {
///         let _ = replies.send(message);
///     }
///
///     fn ended(&mut self, how: Ended<'_>) {
///         match how {
///             Ended::Closed(_) => println!("{} is gone", self.user),
///             Ended::Failed(error) => println!("{} is gone: {error}", self.user),
///             Ended::Dropped => println!("{} was dropped", self.user),
///         }
///     }
/// }
/// ```
pub trait Handler {
    /// Called with each message as it comes. It must not block: nothing else goes on in the
    /// meantime, on this connection and those that share its thread.
    fn message(&mut self, message: MessageRef<'_>, replies: &mut Replies<'_>);

    /// Called once, at the end of the connection. Nothing can be sent any more.
    fn ended(&mut self, how: Ended<'_>) {
        let _ = how;
    }
}

/// How a connection has ended.
#[derive(Clone, Copy, Debug)]
pub enum Ended<'a> {
    /// It was closed in order; what the peer's Close frame said.
    Closed(Option<&'a Closed>),
    /// With this error, which the future returns too.
    Failed(&'a Error),
    /// The future was dropped: its task was aborted, say, or the runtime has ended.
    Dropped,
}

/// A closure as a handler.
pub(super) struct FromFn<H>(pub(super) H);

impl<H: FnMut(MessageRef<'_>, &mut Replies<'_>)> Handler for FromFn<H> {
    #[inline]
    fn message(&mut self, message: MessageRef<'_>, replies: &mut Replies<'_>) {
        (self.0)(message, replies);
    }
}

/// A connection and its handler, which is told of the end.
struct Serving<S, H: Handler> {
    ws: WebSocket<S>,
    handler: H,
    ended: bool,
}

impl<S, H: Handler> Drop for Serving<S, H> {
    fn drop(&mut self) {
        if !self.ended {
            self.handler.ended(Ended::Dropped);
        }
    }
}

/// Where a [`serve`](WebSocket::serve) handler puts its answers.
pub struct Replies<'a> {
    pub(super) sender: Sender<'a>,
    pub(super) queue: &'a mut WriteQueue,
    pub(super) attachments: &'a mut Attachments,
    pub(super) stream: &'a mut dyn LongMessages,
}

impl Replies<'_> {
    /// Sends a message: it leaves when the messages of this read have been handled. One of 64 KiB or
    /// more is written at once, behind what waits, as far as the stream takes it; only the rest is copied.
    ///
    /// # Errors
    ///
    /// [`Misuse::Closing`] once a Close frame was sent; [`Misuse::BacklogFull`] when the answers to
    /// one message are more than [may wait](WebSocket::with_max_backlog), or so much waited before this
    /// side began to serve. (For a peer that is merely slow the handler isn't called.)
    #[inline]
    pub fn send<'m>(&mut self, message: impl Into<MessageRef<'m>>) -> Result<(), Misuse> {
        self.attachments.check_backlog(self.queue)?;
        let message = message.into().parts();
        if message.1.len() >= LONG {
            return self.stream.send_long(&mut self.sender, message, self.queue);
        }
        self.sender.send(message, self.queue)
    }

    /// Begins to close, with a reason of at most 123 bytes. Messages that are under way are still
    /// handled.
    ///
    /// # Errors
    ///
    /// When code or reason can't be sent; [`Misuse::Closing`] once a Close frame was sent.
    pub fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Misuse> {
        self.sender.close(code, reason, self.queue)
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> usize {
        self.queue.len()
    }

    /// Makes the connection a member of a group, from the next publication on. If it is one, nothing happens.
    ///
    /// # Errors
    ///
    /// [`JoinError`].
    pub fn join(&mut self, group: &Group) -> Result<(), JoinError> {
        self.attachments.join(group, self.sender.can_send())
    }

    /// Leaves a group, and returns whether the connection was a member.
    pub fn leave(&mut self, group: &Group) -> bool {
        self.attachments.leave(group)
    }
}

impl fmt::Debug for Replies<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies")
            .field("backlog", &self.backlog())
            .finish_non_exhaustive()
    }
}
