//! The driver: an engine, a write queue and a stream that go on together. Every way to use a
//! connection is a thin layer over it; what they share in behaviour is decided here.

use std::fmt;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::attached::{Attachments, MAX_DELIVERED};
#[cfg(feature = "deflate")]
use super::codec;
use super::error::Error;
use super::halves::Halves;
use super::long::{LONG, LongMessages, Stream};
use super::owned::Owned;
use super::scratch;
use super::serve::Replies;
use super::stream::Closed;
use super::timer::Timer;
use super::write_queue::WriteQueue;
use crate::proto::{
    CloseCode, Connection, Event, Events, KeepAliveDue, Message, MessageRef, Misuse, PeerFault,
    Sender,
};

/// A connection, with all that is remembered between two polls.
pub(super) struct Driver<S> {
    pub(super) io: S,
    pub(super) engine: Connection,
    pub(super) queue: WriteQueue,
    /// What others may have for this connection.
    pub(super) attachments: Attachments,
    /// How the input ended.
    ending: Option<Box<Ending>>,
    /// Whether bytes were written that the stream may still hold back, as TLS does.
    unflushed: bool,
    /// The shortest that the queue has been since the stream took no more; all ones when it did.
    blocked_at: u32,
    /// Whether writing was shut down.
    shut_down: bool,
    /// In milliseconds.
    close_timeout: u32,
    /// How a stream is written that takes a queue in a way of its own.
    #[cfg(feature = "http2")]
    pub(super) writer: Option<Writer<S>>,
    timer: Timer,
    pub(super) halves: Halves,
    /// Whether the last message was received.
    pub(super) is_over: bool,
    /// Whether something came from the peer since keep-alive looked last, or the peer has made
    /// room for more.
    heard: bool,
    /// Whether a message went either way since keep-alive looked last.
    active: bool,
}

/// Writes a queue to a stream; ready when nothing is left.
#[cfg(feature = "http2")]
pub(super) type Writer<S> = fn(&mut S, &mut Context<'_>, &mut WriteQueue) -> Poll<io::Result<()>>;

/// What the last event was.
enum Ending {
    Closed(Option<Closed>),
    Failed(PeerFault),
}

impl<S> Driver<S> {
    /// A driver for a stream whose opening handshake is done, `engine` being in its initial state.
    pub(super) fn new(io: S, engine: Connection) -> Self {
        let attachments = Attachments::new(&engine);
        Self {
            io,
            engine,
            queue: WriteQueue::new(),
            attachments,
            ending: None,
            unflushed: false,
            blocked_at: NOT_BLOCKED,
            shut_down: false,
            #[cfg(feature = "http2")]
            writer: None,
            close_timeout: CLOSE_TIMEOUT,
            timer: Timer::default(),
            halves: Halves::default(),
            is_over: false,
            heard: false,
            active: false,
        }
    }

    /// Sets how long the peer has to answer a Close and to end the connection.
    pub(super) fn set_close_timeout(&mut self, timeout: Duration) {
        self.close_timeout = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    }

    /// What the peer's Close frame said.
    pub(super) fn closed(&self) -> Option<&Closed> {
        match self.ending.as_deref() {
            Some(Ending::Closed(closed)) => closed.as_ref(),
            _ => None,
        }
    }

    /// Queues a message.
    #[inline]
    pub(super) fn queue(&mut self, message: MessageRef<'_>) -> Result<(), Misuse> {
        self.attachments.check_backlog(&self.queue)?;
        self.active = true;
        #[cfg(feature = "deflate")]
        if self.engine.extensions().deflate_agreement().is_some() {
            return codec::with(|codec| {
                let mut sender = self.engine.sender_with(codec);
                send(&mut sender, message, &mut self.queue)
            });
        }
        send(&mut self.engine.sender(), message, &mut self.queue)
    }

    /// Queues a message that somebody owns.
    pub(super) fn send_owned(&mut self, message: &Message) -> Result<(), Misuse> {
        self.attachments.check_backlog(&self.queue)?;
        self.active = true;
        send_owned(&mut self.engine, message, &mut self.queue)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Sends a message: a long one is written as far as the stream takes it at once, all else is queued.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        message: MessageRef<'_>,
    ) -> Result<(), Misuse> {
        if message.len() < LONG {
            return self.queue(message);
        }
        self.attachments.check_backlog(&self.queue)?;
        self.active = true;
        let mut stream = Stream::of(&mut self.io, cx, &mut self.unflushed);
        #[cfg(feature = "http2")]
        stream.only_queue_if(self.writer.is_some());
        #[cfg(feature = "deflate")]
        if self.engine.extensions().deflate_agreement().is_some() {
            return codec::with(|codec| {
                let mut sender = self.engine.sender_with(codec);
                stream.send_long(&mut sender, message.parts(), &mut self.queue)
            });
        }
        stream.send_long(&mut self.engine.sender(), message.parts(), &mut self.queue)
    }

    /// [`poll_drive`](Self::poll_drive) for a task beside which another one may flush.
    pub(super) fn poll_receive<T>(
        &mut self,
        cx: &mut Context<'_>,
        on_message: impl OnMessage<T>,
    ) -> Poll<Result<Option<T>, Error>> {
        let both = self.halves.receiving(cx);
        let mut cx = Context::from_waker(both.as_ref().unwrap_or(cx.waker()));
        self.poll_drive(&mut cx, on_message)
    }

    /// Begins to close behind all that was queued, unless that has been done. Who receives has to
    /// know, for time runs from here on.
    pub(super) fn close(
        &mut self,
        cx: &Context<'_>,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), Misuse> {
        match self.engine.close(code, reason, &mut self.queue) {
            Ok(()) => self.halves.wake_receiver(cx),
            Err(Misuse::Closing) => {}
            Err(misuse) => return Err(misuse),
        }
        Ok(())
    }

    /// Reads, writes and closes as need be until `on_message` returns something for a message.
    /// `None` when the connection has ended in order.
    ///
    /// All progress is in `self`, so a call that was pending can be forgotten.
    pub(super) fn poll_drive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut on_message: impl OnMessage<T>,
    ) -> Poll<Result<Option<T>, Error>> {
        let result = ready!(self.poll_messages(cx, &mut on_message));
        Poll::Ready(match result {
            Ok(Some(found)) => Ok(Some(found)),
            end => {
                self.halves.wake_sender();
                self.attachments.end(end)
            }
        })
    }

    fn poll_messages<T>(
        &mut self,
        cx: &mut Context<'_>,
        on_message: &mut impl OnMessage<T>,
    ) -> Poll<Result<Option<T>, Error>> {
        for _ in 0..ROUNDS_PER_POLL {
            if let Some(attached) = &mut self.attachments.attached {
                self.active |= attached.deliver(cx, &mut self.engine, &mut self.queue);
            }
            // While there is input to be handled at once, answers wait for those to come.
            //= rfc6455 2.1-1
            let parse_on = self.engine.has_held_input() && self.queue.len() < FLUSH_FROM;
            if !parse_on && self.poll_write(cx)?.is_pending() && self.has_grown_while_blocked() {
                return self.pending_until_deadline(cx);
            }
            if self.ending.is_some() {
                return self.poll_end(cx).map_ok(|()| None);
            }
            let read = if self.engine.has_held_input() {
                Poll::Ready(Ok(Read::Some(self.handle(cx, &mut [], on_message))))
            } else {
                scratch::with(|buffer| self.poll_read(cx, buffer, on_message))
            };
            match read {
                Poll::Ready(Ok(Read::Some(Some(found)))) => return Poll::Ready(Ok(Some(found))),
                Poll::Ready(Ok(Read::Some(None))) => {}
                //= rfc6455 7.2.1-2
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
        on_message: &mut impl OnMessage<T>,
    ) -> Poll<io::Result<Read<T>>> {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        let len = read.filled().len();
        Poll::Ready(Ok(if len == 0 {
            Read::End
        } else {
            self.heard = true;
            Read::Some(self.handle(cx, &mut buffer[..len], on_message))
        }))
    }

    /// Hands input to the engine and its messages to `on_message`, until that returns something.
    fn handle<T>(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut [u8],
        on_message: &mut impl OnMessage<T>,
    ) -> Option<T> {
        self.tell_time();
        let before = self.waiting();
        let found = self.receive(cx, input, on_message);
        self.tell_time();
        if found.is_none() && self.queue.len() > self.attachments.max_backlog() {
            // A handler's answers, which it must not be asked to add to.
            self.blocked_at = self.blocked_at.min(before);
        }
        found
    }

    /// Tells the engine the time, if it counts control frames.
    #[inline]
    fn tell_time(&mut self) {
        if self.engine.wants_time() {
            self.engine.set_time(Instant::now().into_std());
        }
    }

    #[inline]
    fn receive<T>(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut [u8],
        on_message: &mut impl OnMessage<T>,
    ) -> Option<T> {
        let mut stream = Stream::of(&mut self.io, cx, &mut self.unflushed);
        #[cfg(feature = "http2")]
        stream.only_queue_if(self.writer.is_some());
        let taking = Taking {
            queue: &mut self.queue,
            attachments: &mut self.attachments,
            stream: &mut stream,
            ending: &mut self.ending,
            active: &mut self.active,
        };
        #[cfg(feature = "deflate")]
        if self.engine.extensions().deflate_agreement().is_some() {
            return codec::with(|codec| {
                let events = self.engine.receive_with(input, codec);
                taking.take(events, on_message)
            });
        }
        taking.take(self.engine.receive(input), on_message)
    }

    /// Ready when all that was queued is written.
    //= rfc6455 6.1-7
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.queue.is_empty() || self.engine.flush_pong(&mut self.queue) {
            self.unflushed = true;
            ready!(self.poll_write_queue(cx))?;
        }
        // Whoever was blocked and makes room is alive, though it may have nothing to say.
        self.heard |= self.blocked_at != NOT_BLOCKED;
        self.blocked_at = NOT_BLOCKED;
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
            self.halves.wake_sender();
        }
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn poll_write_queue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        #[cfg(feature = "http2")]
        if let Some(write) = self.writer {
            return write(&mut self.io, cx, &mut self.queue);
        }
        self.queue.poll_write(cx, &mut self.io)
    }

    /// Writes what others have for this connection, as long as its task rests, which is what `cx`
    /// wakes. Returns whether it can rest on.
    pub(super) fn deliver_for_task(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        if !self.queue.is_empty() || self.unflushed || self.ending.is_some() {
            return Ok(false);
        }
        for _ in 0..ROUNDS_PER_POLL {
            let Some(attached) = &mut self.attachments.attached else {
                return Ok(true);
            };
            self.active |= attached.deliver(cx, &mut self.engine, &mut self.queue);
            let all_taken = self.queue.len() < MAX_DELIVERED;
            match self.poll_write(cx) {
                Poll::Ready(result) => result?,
                // The stream will wake the task when it takes more.
                Poll::Pending => {
                    self.has_grown_while_blocked();
                    return Ok(self.engine.can_send());
                }
            }
            // Closing runs against time, which the task has to see to.
            if all_taken || !self.engine.can_send() {
                return Ok(self.engine.can_send());
            }
        }
        Ok(false)
    }

    /// Ready when all that was queued is written, or time has run out.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.halves.forget_sender();
        let was_blocked = self.blocked_at != NOT_BLOCKED;
        let both = self.halves.sending(cx);
        let mut with_both = Context::from_waker(both.as_ref().unwrap_or(cx.waker()));
        let flushed = match self.poll_write(&mut with_both) {
            Poll::Ready(written) => Poll::Ready(written),
            Poll::Pending => {
                // Sees whether the peer makes room at all.
                self.has_grown_while_blocked();
                self.pending_until_deadline(&mut with_both)
            }
        };
        match flushed {
            Poll::Pending => self.halves.wait_to_send(cx),
            // Who receives may have waited for just this, or wants to know.
            Poll::Ready(_) if was_blocked => self.halves.wake_receiver(cx),
            Poll::Ready(_) => {}
        }
        flushed
    }

    /// Whether too much was queued since the stream took no more: then no more is read, for the
    /// answers would have to be kept for a peer that doesn't read.
    ///
    /// What was queued before that doesn't count. Were it so, two ends with long messages for each
    /// other would both wait for the other to read.
    fn has_grown_while_blocked(&mut self) -> bool {
        let len = self.waiting();
        self.heard |= len < self.blocked_at && self.blocked_at != NOT_BLOCKED;
        let from = self.blocked_at.min(len);
        self.blocked_at = from;
        len > from && (len - from > MAX_GROWTH || self.queue.len() > self.attachments.max_backlog())
    }

    /// Bytes that wait to be written, for [`blocked_at`](Self::blocked_at). Kept short, as there are many
    /// connections; beyond 4 GiB they are not told apart.
    fn waiting(&self) -> u32 {
        u32::try_from(self.queue.len()).map_or(NOT_BLOCKED - 1, |len| len.min(NOT_BLOCKED - 1))
    }

    /// The end, after the last event.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let result = match self.poll_goodbye(cx) {
            Poll::Pending => ready!(self.pending_until_deadline(cx)),
            Poll::Ready(result) => result,
        };
        Poll::Ready(match self.ending.as_deref() {
            // It was told why. Whether it listened doesn't matter.
            //= rfc6455 7.1.7-1, 7.1.7-2, 7.1.7-3, 7.1.7-4
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
    //= rfc6455 5.5.1-10, 7.1.1-1, 7.1.7-8, 7.2.1-3, 7.3-2
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_write(cx))?;
        if self.engine.should_end_stream() {
            ready!(self.poll_shutdown(cx))?;
            // Close frames went both ways, and the peer sends nothing behind its own: there is
            // nothing that could come and spoil the end. Its own end is not worth waiting for.
            if self.engine.is_closed_cleanly() {
                return Poll::Ready(Ok(()));
            }
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

    /// Pending, unless time has run out: for the peer to finish closing, or to show that it lives.
    #[inline]
    pub(super) fn pending_until_deadline<T>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Error>> {
        if !self.engine.close_expected() && !self.attachments.is_watched() {
            return Poll::Pending;
        }
        self.poll_timer(cx).map(Err)
    }

    #[inline(never)]
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        loop {
            if self.engine.close_expected() {
                let timeout = Duration::from_millis(self.close_timeout.into());
                return self
                    .timer
                    .poll_closing(cx, timeout)
                    .map(|()| Error::TimedOut);
            }
            let Some(keep_alive) = self.attachments.keep_alive() else {
                return Poll::Pending;
            };
            if mem::take(&mut self.heard) {
                keep_alive.heard();
            }
            if mem::take(&mut self.active) {
                keep_alive.active();
            }
            let Some(deadline) = keep_alive.next_deadline() else {
                return Poll::Pending;
            };
            ready!(self.timer.poll(cx, deadline.into()));
            match keep_alive.on_deadline(Instant::now().into_std()) {
                KeepAliveDue::Ping(payload) => {
                    // Can't fail: it is short, and nothing was closed.
                    let _ = self.engine.ping(&payload, &mut self.queue);
                }
                KeepAliveDue::Idle => {
                    let _ = self
                        .engine
                        .close(CloseCode::GOING_AWAY, IDLE, &mut self.queue);
                }
                KeepAliveDue::Dead => return Poll::Ready(Error::PeerSilent),
                _ => continue,
            }
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(error);
            }
        }
    }
}

impl<S> fmt::Debug for Driver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("engine", &self.engine)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// Something to call with each message; when it returns something, that's it for now.
pub(super) trait OnMessage<T>: FnMut(MessageRef<'_>, Replies<'_>) -> Option<T> {}

impl<T, F> OnMessage<T> for F where F: FnMut(MessageRef<'_>, Replies<'_>) -> Option<T> {}

/// What came of a read.
enum Read<T> {
    /// Bytes, and what the handler made of them.
    Some(Option<T>),
    /// The end of the stream.
    End,
}

/// What it takes to deal with events.
struct Taking<'a> {
    queue: &'a mut WriteQueue,
    attachments: &'a mut Attachments,
    stream: &'a mut dyn LongMessages,
    ending: &'a mut Option<Box<Ending>>,
    active: &'a mut bool,
}

impl Taking<'_> {
    /// Hands messages to `on_message` until that returns something.
    #[inline]
    fn take<T>(self, mut events: Events<'_>, on_message: &mut impl OnMessage<T>) -> Option<T> {
        let Self {
            queue,
            attachments,
            stream,
            ending,
            active,
        } = self;
        // What one read brings is mostly answered in one write. Where a few bytes were answered with
        // many, as those of a compressed message may be, the rest of them is kept until that is written.
        let waiting = queue.len();
        let until = (waiting + MAX_ANSWERS)
            .min(attachments.max_backlog())
            .max(waiting);
        while queue.len() <= until
            && let Some((event, sender)) = events.next_with_sender(queue)
        {
            let message = match event {
                Event::Text(text) => MessageRef::Text(text),
                Event::Binary(bytes) => MessageRef::Binary(bytes),
                Event::Ping(_) => continue,
                Event::Pong(payload) => {
                    attachments.pong(payload);
                    continue;
                }
                Event::Close(frame) => {
                    let closed = frame.map(|frame| Closed {
                        code: frame.code,
                        reason: frame.reason.to_owned(),
                    });
                    *ending = Some(Box::new(Ending::Closed(closed)));
                    continue;
                }
                Event::Failed(fault) => {
                    *ending = Some(Box::new(Ending::Failed(fault)));
                    continue;
                }
            };
            *active = true;
            let replies = Replies {
                sender,
                queue,
                attachments,
                stream,
            };
            let found = on_message(message, replies);
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// Sends a message of either kind.
#[inline]
pub(super) fn send(
    sender: &mut Sender<'_>,
    message: MessageRef<'_>,
    queue: &mut WriteQueue,
) -> Result<(), Misuse> {
    sender.send(message.parts(), queue)
}

/// Sends a message that somebody owns: without a copy where it is long and leaves as it is.
pub(super) fn send_owned(
    engine: &mut Connection,
    message: &Message,
    queue: &mut WriteQueue,
) -> Result<(), Misuse> {
    let out = &mut Owned::new(queue, message);
    #[cfg(feature = "deflate")]
    if engine.extensions().deflate_agreement().is_some() {
        return codec::with(|codec| {
            engine
                .sender_with(codec)
                .send(message.as_ref().parts(), out)
        });
    }
    engine.sender().send(message.as_ref().parts(), out)
}

/// Bytes that wait to be written at which `recv` writes before it hands out the next message,
/// though there are more to come.
const FLUSH_FROM: usize = 16 * 1024;

/// Bytes that may be queued for a peer that doesn't read before nothing more is read from it.
const MAX_GROWTH: u32 = 64 * 1024;

/// Bytes of answers to what one read has brought before they are written, though there is more to be
/// answered: as many as a read has.
const MAX_ANSWERS: usize = scratch::SIZE;

/// Reads in one poll before other tasks have their turn.
const ROUNDS_PER_POLL: usize = 16;

/// How long the peer has to answer a Close and to end the connection.
const CLOSE_TIMEOUT: u32 = 5000;

/// What a peer is told with whom no message was exchanged for too long.
const IDLE: &str = "idle for too long";

/// The stream has taken all that there was.
const NOT_BLOCKED: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    /// What most of an idle connection is. An allocator gives 16 bytes more for each one beyond this. With
    /// 64-bit pointers.
    #[test]
    fn a_driver_is_small() {
        let writer = if cfg!(feature = "http2") { 8 } else { 0 };
        let size = size_of::<Driver<tokio::net::TcpStream>>();
        assert!(size <= 344 + writer, "{size} bytes");
    }
}
