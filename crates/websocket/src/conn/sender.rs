//! [`Sender`]: a handle to send on a connection from anywhere.

use std::fmt;
use std::sync::Arc;

use super::inbox::{Goodbye, Inbox, Refused};
use crate::proto::{CloseCode, CloseFrame, Message, Misuse};

/// Sends on a connection that somebody else has: from any task or thread, in and outside of a
/// runtime. Made by [`WebSocket::sender`](super::WebSocket::sender); clones are handles to the
/// same connection.
///
/// Messages go into a bounded queue, from which the connection's own task takes them whenever it
/// is polled, in order, as long as less than 64 KiB wait to be written. So a peer that
/// doesn't read fills the queue, and the sender notices.
///
/// ```
/// use tautline_websocket::conn::{AcceptOptions, Sender, accept};
/// use tokio::net::TcpStream;
///
/// async fn connected(
///     stream: TcpStream,
///     register: impl Fn(Sender),
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let mut ws = accept(stream, &AcceptOptions::default()).await?.websocket;
///     // For those who have something to say to this client.
///     register(ws.sender(64 * 1024));
///     ws.serve(|message, replies| {
///         let _ = replies.send(message);
///     })
///     .await?;
///     Ok(())
/// }
/// ```
///
/// What was queued when the connection ends is lost, like what was written and has not arrived: only an answer
/// of the peer tells that a message was received.
#[derive(Clone)]
pub struct Sender {
    inbox: Arc<Inbox>,
}

impl Sender {
    pub(super) fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox }
    }

    /// Queues a message, if there is room.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] and [`TrySendError::Closed`], with the message in them.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
        self.inbox
            .push(message.into())
            .map_err(|refused| match refused {
                Refused::Full(message) => TrySendError::Full(message),
                Refused::Over(message) => TrySendError::Closed(message),
            })
    }

    /// Queues a message as soon as there is room. Returns when it is queued, which says nothing
    /// about when it is written.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the message in it.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the message was not queued.
    pub async fn send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        let sent = self.inbox.push_when_there_is_room(message.into()).await;
        sent.map_err(SendError)
    }

    /// Has the connection closed, behind the messages that are queued, with a reason of at most
    /// 123 bytes. Nothing more is taken from any sender. The first call counts, later ones do nothing.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnsendableCloseCode`], [`Misuse::CloseReasonTooLong`]; then nothing has happened.
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), Misuse> {
        CloseFrame { code, reason }.check_sendable()?;
        let reason = reason.into();
        self.inbox.close(Goodbye { code, reason });
        Ok(())
    }

    /// Whether nothing is taken any more: the connection is closing, or gone.
    pub fn is_closed(&self) -> bool {
        self.inbox.is_over()
    }

    /// Waits until the connection takes no messages any more, because a Close frame was sent or
    /// the connection is gone.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn closed(&self) {
        self.inbox.ended().await;
    }

    /// Bytes of the messages that the connection has not taken yet, with 64 for each of them.
    pub fn backlog(&self) -> usize {
        self.inbox.backlog()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("backlog", &self.backlog())
            .field("is_closed", &self.is_closed())
            .finish()
    }
}

/// Why a message was not queued by [`Sender::try_send`]. The message is handed back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// As many bytes wait as may: the peer, or the network, is slower than the sender.
    #[error("the connection's queue is full; wait for room, or send less")]
    Full(Message),
    /// The connection is closing, or gone.
    #[error("the connection takes no messages any more")]
    Closed(Message),
}

impl TrySendError {
    /// The message.
    pub fn into_message(self) -> Message {
        match self {
            Self::Full(message) | Self::Closed(message) => message,
        }
    }
}

/// The connection is closing, or gone. The message is handed back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection takes no messages any more")]
pub struct SendError(pub Message);
