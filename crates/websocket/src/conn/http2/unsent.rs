//! What was handed to the HTTP/2 library and is still to be sent: counted, so that it is bounded, and
//! seen off when its stream is dropped. The library would throw it away.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::time::{Instant, Sleep};

/// Bytes that were handed over in one piece. It is gone when they are on their way, or will never be.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Bytes,
    /// `None` for what nobody asks about.
    unsent: Option<Arc<Unsent>>,
}

impl Chunk {
    /// A chunk that is not counted.
    pub(super) fn uncounted(bytes: Bytes) -> Self {
        Self {
            bytes,
            unsent: None,
        }
    }

    /// So many bytes of it are on their way.
    fn note(&self, count: usize) {
        if let Some(unsent) = &self.unsent {
            unsent.sent.fetch_add(count as u64, Ordering::Relaxed);
            unsent.bytes.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.note(count);
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.note(len);
        self.bytes.copy_to_bytes(len)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(unsent) = &self.unsent {
            let never = self.bytes.len();
            unsent.bytes.fetch_sub(never, Ordering::Relaxed);
        }
        if let Some(unsent) = &self.unsent
            && matches!(unsent.chunks.fetch_sub(1, Ordering::AcqRel), 1 | MAX_CHUNKS)
            && let Some(waker) = lock(&unsent.waiting).take()
        {
            waker.wake();
        }
    }
}

/// How many chunks of a stream are under way.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    chunks: AtomicUsize,
    /// How many bytes were taken out of them.
    sent: AtomicU64,
    /// How many bytes they still have.
    bytes: AtomicUsize,
    /// Who waits for there to be fewer, or none.
    waiting: Mutex<Option<Waker>>,
}

impl Unsent {
    pub(super) fn chunk(self: &Arc<Self>, bytes: Bytes) -> Chunk {
        self.chunks.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Chunk {
            bytes,
            unsent: Some(Arc::clone(self)),
        }
    }

    /// Ready when there is room for one more chunk.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.chunks.load(Ordering::Acquire) < MAX_CHUNKS {
            return Poll::Ready(());
        }
        *lock(&self.waiting) = Some(cx.waker().clone());
        // One may have gone meanwhile, without anybody to wake.
        if self.chunks.load(Ordering::Acquire) < MAX_CHUNKS {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Ready when there is none.
    pub(super) fn poll_none(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_none() {
            return Poll::Ready(());
        }
        *lock(&self.waiting) = Some(cx.waker().clone());
        // The last may have gone meanwhile, without anybody to wake.
        if self.is_none() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that were handed over and haven't left.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn is_none(&self) -> bool {
        self.chunks.load(Ordering::Acquire) == 0
    }
}

/// Streams of one connection which nobody has any more, and of which something is still to come: bytes
/// to be sent, or, where this side has ended the stream in order, the end of the other. Dropped
/// before, they would be reset.
#[derive(Clone, Debug, Default)]
pub(super) struct Lingering(Arc<Mutex<Streams>>);

#[derive(Debug, Default)]
struct Streams {
    lingering: Vec<Lingerer>,
    /// Of whoever drives the connection.
    driver: Option<Waker>,
}

#[derive(Debug)]
struct Lingerer {
    // Dropping them is what resets the stream.
    send: SendStream<Chunk>,
    /// `None` where nobody waits for the end of the other side.
    recv: Option<RecvStream>,
    unsent: Arc<Unsent>,
    /// Whether this side has ended the stream.
    ended: bool,
    until: Instant,
}

impl Lingerer {
    fn is_done(&mut self) -> bool {
        if !self.unsent.is_none() {
            return false;
        }
        // A reset that came ends the wait too. Nobody is to be woken for it: that is looked at when
        // the connection was driven.
        !self.ended
            || self.recv.as_ref().is_none_or(RecvStream::is_end_stream)
            || self
                .send
                .poll_reset(&mut Context::from_waker(Waker::noop()))
                .is_ready()
    }
}

impl Lingering {
    /// Sees a stream off.
    pub(super) fn add(
        &self,
        send: SendStream<Chunk>,
        recv: Option<RecvStream>,
        unsent: Arc<Unsent>,
        ended: bool,
    ) {
        let mut stream = Lingerer {
            send,
            recv,
            unsent,
            ended,
            until: Instant::now() + LINGER,
        };
        if stream.is_done() {
            return;
        }
        let mut streams = lock(&self.0);
        if streams.lingering.len() >= MAX_LINGERING {
            drop(streams);
            return;
        }
        streams.lingering.push(stream);
        let driver = streams.driver.take();
        drop(streams);
        // What it waits for may have come meanwhile; and there is a deadline to be looked after.
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Lets those go of which all was sent, and those for which it is too late. To be called by whoever
    /// drives the connection, after it was driven, with a timer of its own.
    pub(super) fn poll(&self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) {
        let mut streams = lock(&self.0);
        if !streams
            .driver
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            streams.driver = Some(cx.waker().clone());
        }
        drop(streams);
        self.sweep(None);
        while let Some(deadline) = self.deadline() {
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.sweep(Some(Instant::now()));
        }
    }

    fn sweep(&self, now: Option<Instant>) {
        let mut streams = lock(&self.0);
        if streams.lingering.is_empty() {
            return;
        }
        let is_late = |stream: &Lingerer| now.is_some_and(|now| now >= stream.until);
        let gone: Vec<_> = streams
            .lingering
            .extract_if(.., |stream| is_late(stream) || stream.is_done())
            .collect();
        drop(streams);
        // Takes the lock of the library.
        drop(gone);
    }

    /// When the next of them is too late.
    fn deadline(&self) -> Option<Instant> {
        let streams = lock(&self.0);
        streams.lingering.iter().map(|stream| stream.until).min()
    }
}

/// Nothing panics while it has one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Chunks of one stream that may be under way: each takes some memory of its own, however short it
/// is.
const MAX_CHUNKS: usize = 64;

/// Streams of a connection that may linger; beyond it they are reset at once.
const MAX_LINGERING: usize = 1024;

/// How long a dropped stream may take to send what is left, and the peer to end it.
const LINGER: Duration = Duration::from_secs(5);
