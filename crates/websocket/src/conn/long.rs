//! Long messages, which are written where they lie: to copy a megabyte into a buffer costs more than the
//! system call that this could save.

use std::task::Context;

use tokio::io::AsyncWrite;

use super::write_queue::WriteQueue;
use crate::proto::frame::OpCode;
use crate::proto::{Misuse, Output, Sender};

/// Sends messages that are better not copied.
pub(super) trait LongMessages {
    /// Sends one, behind what waits in `queue`: what the stream takes at once is written, the rest is
    /// queued. How writing fails shows when the queue is written next.
    fn send_long(
        &mut self,
        sender: &mut Sender<'_>,
        message: (OpCode, &[u8]),
        queue: &mut WriteQueue,
    ) -> Result<(), Misuse>;
}

/// A connection's stream, in a turn of its task.
pub(super) struct Stream<'a, 'c, S> {
    io: &'a mut S,
    cx: &'a mut Context<'c>,
    unflushed: &'a mut bool,
    only_queue: bool,
}

impl<'a, 'c, S> Stream<'a, 'c, S> {
    /// `unflushed` is set when something was written.
    #[inline]
    pub(super) fn of(io: &'a mut S, cx: &'a mut Context<'c>, unflushed: &'a mut bool) -> Self {
        Self {
            io,
            cx,
            unflushed,
            only_queue: false,
        }
    }

    /// For streams that take a queue in a way of their own.
    #[cfg(feature = "http2")]
    #[inline]
    pub(super) fn only_queue_if(&mut self, only_queue: bool) {
        self.only_queue = only_queue;
    }
}

impl<S: AsyncWrite + Unpin> LongMessages for Stream<'_, '_, S> {
    fn send_long(
        &mut self,
        sender: &mut Sender<'_>,
        message: (OpCode, &[u8]),
        queue: &mut WriteQueue,
    ) -> Result<(), Misuse> {
        if self.only_queue {
            return sender.send(message, queue);
        }
        let stream = self;
        sender.send(message, &mut Through { stream, queue })
    }
}

/// An output that writes what is long, and queues the rest.
struct Through<'t, 'a, 'c, S> {
    stream: &'t mut Stream<'a, 'c, S>,
    queue: &'t mut WriteQueue,
}

impl<S: AsyncWrite + Unpin> Output for Through<'_, '_, '_, S> {
    fn put(&mut self, bytes: &[u8]) {
        self.queue.put(bytes);
    }

    fn put_parts(&mut self, head: &[u8], body: &[u8]) {
        // It may have become a short one, compressed.
        if body.len() < LONG {
            return self.queue.put_parts(head, body);
        }
        self.queue.put(head);
        let Stream {
            io, cx, unflushed, ..
        } = self.stream;
        **unflushed = true;
        self.queue.write_through(cx, *io, body);
    }

    fn backlog(&self) -> usize {
        self.queue.len()
    }
}

/// The length of a long message, in bytes.
pub(super) const LONG: usize = 64 * 1024;
