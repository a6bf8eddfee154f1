//! [`WebSocket`]: an engine, a write queue and a stream, driven together. `recv` and `send` for
//! those who like it simple, [`serve`](WebSocket::serve) for those who count nanoseconds; below
//! them is one driver.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

#[cfg(feature = "deflate")]
use super::codec;
use super::error::Error;
use super::scratch;
use super::write_queue::WriteQueue;
use crate::proto::{
    CloseCode, Connection, Event, Events, Message, MessageRef, Misuse, PeerFault, Sender,
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
    io: S,
    engine: Connection,
    queue: WriteQueue,
    /// How the input ended.
    ending: Option<Ending>,
    /// Whether bytes were written that the stream may still hold back, as TLS does.
    unflushed: bool,
    /// The shortest that the queue has been since the stream took no more.
    blocked_at: Option<usize>,
    /// Whether writing was shut down.
    shut_down: bool,
    close_timeout: Duration,
    /// Runs from the moment a Close frame was sent.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// What the last event was.
enum Ending {
    Closed(Option<Closed>),
    Failed(PeerFault),
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
            io,
            engine,
            queue: WriteQueue::new(),
            ending: None,
            unflushed: false,
            blocked_at: None,
            shut_down: false,
            close_timeout: CLOSE_TIMEOUT,
            deadline: None,
        }
    }

    /// The same with another time that the peer has, once a Close frame was sent, to answer and
    /// to end the connection. The default is 5 s.
    #[must_use]
    pub fn with_close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
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
        self.poll_drive(cx, |message, _, _| Some(message.to_owned()))
    }

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
            self.poll_drive(cx, |message, sender, queue| {
                handler(message, &mut Replies { sender, queue });
                None::<()>
            })
        })
        .await?;
        Ok(self.closed().cloned())
    }

    /// Sends a message, and whatever was queued before it, and waits until it was written.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] when this side has begun to close, [`Error::Io`].
    ///
    /// # Cancel safety
    ///
    /// Dropped at any point, the message stays queued as a whole and leaves with the next flush:
    /// don't send it again.
    pub async fn send(&mut self, message: impl Into<MessageRef<'_>>) -> Result<(), Error> {
        self.queue(message)?;
        self.flush().await
    }

    /// Puts a message where it leaves with the next flush: the next [`recv`](Self::recv) that has
    /// to wait, [`send`](Self::send) or [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// [`Misuse::Closing`] once a Close frame was sent.
    pub fn queue<'m>(&mut self, message: impl Into<MessageRef<'m>>) -> Result<(), Misuse> {
        #[cfg(feature = "deflate")]
        if self.engine.extensions().deflate_agreement().is_some() {
            return codec::with(|codec| {
                let mut sender = self.engine.sender_with(codec);
                send(&mut sender, message.into(), &mut self.queue)
            });
        }
        send(&mut self.engine.sender(), message.into(), &mut self.queue)
    }

    /// Queues a ping with at most 125 bytes of payload. The pong is received and dropped by
    /// [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// [`Misuse::ControlTooLong`]; [`Misuse::Closing`] once a Close frame was sent.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), Misuse> {
        self.engine.ping(payload, &mut self.queue)
    }

    /// Waits until all that was queued is written.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    ///
    /// # Cancel safety
    ///
    /// Safe: what was not written stays queued.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_write(cx)).await
    }

    /// Closes the connection: sends a Close frame with a reason of at most 123 bytes, drops
    /// messages that are still under way, and waits for the peer to answer and to end the
    /// connection. When the peer has begun to close, this only waits for the end.
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
        match self.engine.close(code, reason, &mut self.queue) {
            Ok(()) | Err(Misuse::Closing) => {}
            Err(misuse) => return Err(misuse.into()),
        }
        while poll_fn(|cx| self.poll_drive(cx, |_, _, _| Some(())))
            .await?
            .is_some()
        {}
        Ok(())
    }

    /// What the peer's Close frame said, once it came; `None` also when it said nothing.
    pub fn closed(&self) -> Option<&Closed> {
        match &self.ending {
            Some(Ending::Closed(closed)) => closed.as_ref(),
            _ => None,
        }
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> usize {
        self.queue.len()
    }

    /// The stream.
    pub fn get_ref(&self) -> &S {
        &self.io
    }

    /// The stream, the engine and what waits to be written, for driving them in another way.
    pub fn into_parts(self) -> (S, Connection, WriteQueue) {
        (self.io, self.engine, self.queue)
    }

    /// Reads, writes and closes as need be until `on_message` returns something for a message.
    /// `None` when the connection has ended in order.
    ///
    /// All progress is in `self`, so a call that was pending can be forgotten.
    fn poll_drive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut on_message: impl FnMut(MessageRef<'_>, Sender<'_>, &mut WriteQueue) -> Option<T>,
    ) -> Poll<Result<Option<T>, Error>> {
        for _ in 0..ROUNDS_PER_POLL {
            // While there is input to be handled at once, answers wait for those to come.
            let parse_on = self.engine.has_held_input() && self.queue.len() < FLUSH_FROM;
            if !parse_on && self.poll_write(cx)?.is_pending() && self.has_grown_while_blocked() {
                return self.pending_until_deadline(cx);
            }
            if self.ending.is_some() {
                return self.poll_end(cx).map_ok(|()| None);
            }
            let read = if self.engine.has_held_input() {
                Poll::Ready(Ok(Read::Some(self.handle(&mut [], &mut on_message))))
            } else {
                scratch::with(|buffer| self.poll_read(cx, buffer, &mut on_message))
            };
            match read {
                Poll::Ready(Ok(Read::Some(Some(found)))) => return Poll::Ready(Ok(Some(found))),
                Poll::Ready(Ok(Read::Some(None))) => {}
                Poll::Ready(Ok(Read::End)) => return Poll::Ready(Err(Error::CutOff)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return self.pending_until_deadline(cx),
            }
        }
        // Others want their turn too.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        on_message: &mut impl FnMut(MessageRef<'_>, Sender<'_>, &mut WriteQueue) -> Option<T>,
    ) -> Poll<io::Result<Read<T>>> {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        let len = read.filled().len();
        Poll::Ready(Ok(if len == 0 {
            Read::End
        } else {
            Read::Some(self.handle(&mut buffer[..len], on_message))
        }))
    }

    /// Hands input to the engine and its messages to `on_message`, until that returns something.
    fn handle<T>(
        &mut self,
        input: &mut [u8],
        on_message: &mut impl FnMut(MessageRef<'_>, Sender<'_>, &mut WriteQueue) -> Option<T>,
    ) -> Option<T> {
        #[cfg(feature = "deflate")]
        if self.engine.extensions().deflate_agreement().is_some() {
            return codec::with(|codec| {
                let events = self.engine.receive_with(input, codec);
                take_events(events, &mut self.queue, &mut self.ending, on_message)
            });
        }
        let events = self.engine.receive(input);
        take_events(events, &mut self.queue, &mut self.ending, on_message)
    }

    /// Ready when all that was queued is written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.queue.is_empty() || self.engine.flush_pong(&mut self.queue) {
            self.unflushed = true;
            ready!(self.queue.poll_write(cx, &mut self.io))?;
        }
        self.blocked_at = None;
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether too much was queued since the stream took no more: then no more is read, for the
    /// answers would have to be kept for a peer that doesn't read.
    ///
    /// What was queued before that doesn't count. Were it so, two ends with long messages for each
    /// other would both wait for the other to read.
    fn has_grown_while_blocked(&mut self) -> bool {
        let len = self.queue.len();
        let from = self.blocked_at.map_or(len, |at| at.min(len));
        self.blocked_at = Some(from);
        len - from > MAX_GROWTH
    }

    /// The end, after the last event.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let result = match self.poll_goodbye(cx) {
            Poll::Pending => ready!(self.pending_until_deadline(cx)),
            Poll::Ready(result) => result,
        };
        Poll::Ready(match &self.ending {
            // It was told why. Whether it listened doesn't matter.
            Some(Ending::Failed(fault)) => Err((*fault).into()),
            // Close frames went both ways, so all has been said (§7.1.4). How the stream ends then
            // doesn't matter either.
            _ if self.queue.is_empty() => Ok(()),
            _ => result,
        })
    }

    /// Writes the last bytes, shuts down writing (a client: when the server has), and reads and
    /// drops whatever the peer had under way. Without the latter, its arrival at a closed socket
    /// would have the peer's system throw away the Close frame before the peer has read it.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_write(cx))?;
        if self.engine.should_end_stream() {
            ready!(self.poll_shutdown(cx))?;
        }
        // Bounded in time by the deadline, and in each poll so that others have their turn.
        for _ in 0..ROUNDS_PER_POLL {
            let len = ready!(scratch::with(|buffer| {
                let mut read = ReadBuf::new(buffer);
                Pin::new(&mut self.io)
                    .poll_read(cx, &mut read)
                    .map_ok(|()| read.filled().len())
            }))?;
            if len == 0 {
                return self.poll_shutdown(cx);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.shut_down {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.shut_down = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Pending, unless a Close frame was sent too long ago: then that is the error.
    fn pending_until_deadline<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        if !self.engine.close_expected() {
            return Poll::Pending;
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(self.close_timeout)));
        deadline.as_mut().poll(cx).map(|()| Err(Error::TimedOut))
    }
}

/// Where a [`serve`](WebSocket::serve) handler puts its answers.
#[derive(Debug)]
pub struct Replies<'a> {
    sender: Sender<'a>,
    queue: &'a mut WriteQueue,
}

impl Replies<'_> {
    /// Sends a message: it leaves when the messages of this read have been handled.
    ///
    /// # Errors
    ///
    /// [`Misuse::Closing`] once a Close frame was sent.
    #[inline]
    pub fn send<'m>(&mut self, message: impl Into<MessageRef<'m>>) -> Result<(), Misuse> {
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
}

impl<S> fmt::Debug for WebSocket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("engine", &self.engine)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// What came of a read.
enum Read<T> {
    /// Bytes, and what the handler made of them.
    Some(Option<T>),
    /// The end of the stream.
    End,
}

/// Hands messages to `on_message` until that returns something.
#[inline]
fn take_events<T>(
    mut events: Events<'_>,
    queue: &mut WriteQueue,
    ending: &mut Option<Ending>,
    on_message: &mut impl FnMut(MessageRef<'_>, Sender<'_>, &mut WriteQueue) -> Option<T>,
) -> Option<T> {
    while let Some((event, sender)) = events.next_with_sender(queue) {
        let message = match event {
            Event::Text(text) => MessageRef::Text(text),
            Event::Binary(bytes) => MessageRef::Binary(bytes),
            Event::Ping(_) | Event::Pong(_) => continue,
            Event::Close(frame) => {
                let closed = frame.map(|frame| Closed {
                    code: frame.code,
                    reason: frame.reason.to_owned(),
                });
                *ending = Some(Ending::Closed(closed));
                continue;
            }
            Event::Failed(fault) => {
                *ending = Some(Ending::Failed(fault));
                continue;
            }
        };
        let found = on_message(message, sender, queue);
        if found.is_some() {
            return found;
        }
    }
    None
}

#[inline]
fn send(
    sender: &mut Sender<'_>,
    message: MessageRef<'_>,
    queue: &mut WriteQueue,
) -> Result<(), Misuse> {
    match message {
        MessageRef::Text(text) => sender.send_text(text, queue),
        MessageRef::Binary(bytes) => sender.send_binary(bytes, queue),
    }
}

/// Bytes that wait to be written at which `recv` writes before it hands out the next message,
/// though there are more to come.
const FLUSH_FROM: usize = 16 * 1024;

/// Bytes that may be queued for a peer that doesn't read before nothing more is read from it.
const MAX_GROWTH: usize = 64 * 1024;

/// Reads in one poll before other tasks have their turn.
const ROUNDS_PER_POLL: usize = 16;

/// How long the peer has to answer a Close and to end the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
