//! [`WebSocket::serve`]: a handler that is lent each message, and answers in place.

use std::fmt;
use std::future::poll_fn;

use tokio::io::{AsyncRead, AsyncWrite};

use super::attached::Attachments;
use super::driver::send;
use super::error::Error;
use super::group::{Group, JoinError};
use super::stream::{Closed, WebSocket};
use super::write_queue::WriteQueue;
use crate::proto::{CloseCode, MessageRef, Misuse, Sender};

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Calls `handler` with each message as it comes, lent from the read buffer, until the
    /// connection has ended. What the handler sends is gathered, and leaves in one write when the
    /// messages of one read have been handled. Nothing is allocated for a message.
    ///
    /// When the peer doesn't read, no more is read from it once some 64 KiB of answers wait.
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
    pub async fn serve<H>(mut self, mut handler: H) -> Result<Option<Closed>, Error>
    where
        H: FnMut(MessageRef<'_>, &mut Replies<'_>),
    {
        poll_fn(|cx| {
            self.driver
                .poll_drive(cx, |message, sender, queue, attachments| {
                    handler(
                        message,
                        &mut Replies {
                            sender,
                            queue,
                            attachments,
                        },
                    );
                    None::<()>
                })
        })
        .await?;
        Ok(self.closed().cloned())
    }
}

/// Where a [`serve`](WebSocket::serve) handler puts its answers.
pub struct Replies<'a> {
    sender: Sender<'a>,
    queue: &'a mut WriteQueue,
    attachments: &'a mut Attachments,
}

impl Replies<'_> {
    /// Sends a message: it leaves when the messages of this read have been handled.
    ///
    /// # Errors
    ///
    /// [`Misuse::Closing`] once a Close frame was sent; [`Misuse::BacklogFull`] when the peer is
    /// too slow for what it is sent.
    #[inline]
    pub fn send<'m>(&mut self, message: impl Into<MessageRef<'m>>) -> Result<(), Misuse> {
        self.attachments.check_backlog(self.queue)?;
        send(&mut self.sender, message.into(), self.queue)
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
