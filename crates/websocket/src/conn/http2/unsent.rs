//! What was handed to the HTTP/2 library and is still to be sent: counted, so that it is bounded, and
//! seen off when its stream is dropped. The library would throw it away.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
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
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.bytes.copy_to_bytes(len)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(unsent) = &self.unsent
            && unsent.chunks.fetch_sub(1, Ordering::AcqRel) == MAX_CHUNKS
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
    /// Who waits for there to be fewer.
    waiting: Mutex<Option<Waker>>,
}

impl Unsent {
    pub(super) fn chunk(self: &Arc<Self>, bytes: Bytes) -> Chunk {
        self.chunks.fetch_add(1, Ordering::AcqRel);
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

    fn is_none(&self) -> bool {
        self.chunks.load(Ordering::Acquire) == 0
    }
}

/// Streams of one connection which nobody has any more, and of which something is still to be sent.
/// They are reset when it was.
#[derive(Clone, Debug, Default)]
pub(super) struct Lingering(Arc<Mutex<Vec<Lingerer>>>);

#[derive(Debug)]
struct Lingerer {
    // Dropping them is what resets the stream.
    _send: SendStream<Chunk>,
    _recv: RecvStream,
    unsent: Arc<Unsent>,
    until: Instant,
}

impl Lingering {
    /// Sees a stream off.
    pub(super) fn add(&self, send: SendStream<Chunk>, recv: RecvStream, unsent: Arc<Unsent>) {
        if unsent.is_none() {
            return;
        }
        lock(&self.0).push(Lingerer {
            _send: send,
            _recv: recv,
            unsent,
            until: Instant::now() + LINGER,
        });
        // All may have gone meanwhile, and the connection's task sleep.
        self.sweep(None);
    }

    /// Lets those go of which all was sent, and those for which it is too late. To be called by whoever
    /// drives the connection, after it was driven, with a timer of its own.
    pub(super) fn poll(&self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) {
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
        if streams.is_empty() {
            return;
        }
        let stays = |stream: &mut Lingerer| {
            !stream.unsent.is_none() && now.is_none_or(|now| now < stream.until)
        };
        let gone: Vec<_> = streams.extract_if(.., |stream| !stays(stream)).collect();
        drop(streams);
        // Takes the lock of the library.
        drop(gone);
    }

    /// When the next of them is too late.
    fn deadline(&self) -> Option<Instant> {
        lock(&self.0).iter().map(|stream| stream.until).min()
    }
}

/// Nothing panics while it has one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Chunks of one stream that may be under way: each takes some memory of its own, however short it
/// is.
const MAX_CHUNKS: usize = 64;

/// How long a dropped stream may take to send what is left.
const LINGER: Duration = Duration::from_secs(5);
