//! What a connection has still to write.
//!
//! Small writes are copied into one buffer, the *cork*, and leave in one system call; large shared
//! ones are queued by reference. An empty queue holds no memory: the cork comes from a pool of the
//! thread at the first write and goes back when all is written.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::proto::Output;

/// Bytes on their way to one peer, in order.
///
/// It has no limit of its own: whoever fills it looks at [`len`](Self::len).
///
/// ```
/// # use tautline_websocket::{conn::WriteQueue, proto::Output};
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (mut near, mut far) = tokio::io::duplex(64);
/// let mut queue = WriteQueue::new();
/// queue.put(b"hello ");
/// queue.put(b"there");
/// std::future::poll_fn(|cx| queue.poll_write(cx, &mut near)).await?;
/// assert!(queue.is_empty());
/// # use tokio::io::AsyncReadExt;
/// let mut read = [0; 11];
/// far.read_exact(&mut read).await?;
/// assert_eq!(&read, b"hello there");
/// # std::io::Result::Ok(()) })?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// In this order in memory: a fan-out needs the first two only, of thousands of queues of which none is in a cache.
#[derive(Default)]
#[repr(C)]
pub struct WriteQueue {
    /// A shared write that comes before all else. For a subscriber that is waiting, a publication
    /// is just this: no buffer and no copy. While nothing else waits, the other buffers have no memory.
    front: Bytes,
    len: usize,
    written: usize,
    /// All that was copied. The first `written` bytes are done with.
    cork: Vec<u8>,
    /// The other shared writes, in order, each with the place in `cork` where it comes in.
    shared: VecDeque<(usize, Bytes)>,
}

impl WriteQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues bytes that many connections share. They are not copied when they are
    /// [`SHARE_FROM`] or more, or have the queue for themselves.
    #[inline]
    pub fn push_shared(&mut self, bytes: &Bytes) {
        if self.len == 0 {
            self.front = bytes.clone();
            self.len = bytes.len();
        } else if bytes.len() < SHARE_FROM {
            self.put(bytes);
        } else {
            self.shared.push_back((self.cork.len(), bytes.clone()));
            self.len += bytes.len();
        }
    }

    /// Writes as much as `io` takes, vectored where `io` is good at that.
    ///
    /// Ready when nothing is left. Pending when `io` took no more; then the task of `cx` is
    /// woken when it does, and what was not written stays queued.
    ///
    /// # Errors
    ///
    /// Those of `io`, and [`WriteZero`](io::ErrorKind::WriteZero) when it takes nothing and
    /// doesn't say why. What was not written stays queued, but the connection is done for.
    #[inline]
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin + ?Sized),
    ) -> Poll<io::Result<()>> {
        while self.len > 0 {
            let mut io = Pin::new(&mut *io);
            let written = if self.is_one_slice() || !io.is_write_vectored() {
                ready!(io.as_mut().poll_write(cx, self.first_slice()))?
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let mut count = 0;
                for (place, slice) in slices.iter_mut().zip(self.slices()) {
                    *place = IoSlice::new(slice);
                    count += 1;
                }
                ready!(io.as_mut().poll_write_vectored(cx, &slices[..count]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what waits, and `bytes` behind it, as far as `io` takes it at once; only what is left of
    /// `bytes` is copied. How writing fails shows at the next [`poll_write`](Self::poll_write).
    pub(super) fn write_through(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin + ?Sized),
        mut bytes: &[u8],
    ) {
        if !io.is_write_vectored() && !self.poll_write(cx, io).is_ready() {
            return self.put(bytes);
        }
        while !bytes.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            // Where too many wait, those alone are written.
            let all = self.slices().chain(std::iter::once(bytes));
            for (place, slice) in slices.iter_mut().zip(all) {
                *place = IoSlice::new(slice);
                count += 1;
            }
            let io = Pin::new(&mut *io);
            let written = match &slices[..count] {
                [one] => io.poll_write(cx, one),
                several => io.poll_write_vectored(cx, several),
            };
            let Poll::Ready(Ok(written @ 1..)) = written else {
                break;
            };
            let waited = written.min(self.len);
            if waited > 0 {
                self.advance(waited);
            }
            bytes = &bytes[written - waited..];
        }
        if !bytes.is_empty() {
            self.put(bytes);
        }
    }

    /// Takes bytes out to hand them on to somebody who wants to own them: `max` at the most, and none
    /// only when nothing waits. What is shared is not copied, nor what is long if all of it is taken out; all else is copied to
    /// just its length, so that what is taken out holds no more memory than it has bytes.
    pub fn take(&mut self, max: usize) -> Bytes {
        let copied = &self.cork[self.written..];
        let is_worth_it = (SHARE_FROM..=max).contains(&copied.len());
        if self.front.is_empty() && self.shared.is_empty() && is_worth_it {
            self.front = Bytes::from(mem::take(&mut self.cork)).split_off(self.written);
            self.written = 0;
            self.shared = VecDeque::new();
        }
        let len = |bytes: &[u8]| bytes.len().min(max);
        let taken = if !self.front.is_empty() {
            self.front.slice(..len(&self.front))
        } else if let Some((at, bytes)) = self.shared.front()
            && *at == self.written
        {
            bytes.slice(..len(bytes))
        } else {
            let next = self.slices().next().unwrap_or_default();
            Bytes::copy_from_slice(&next[..len(next)])
        };
        self.advance(taken.len());
        taken
    }

    /// Bytes that wait to be written.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory that the queue holds by itself: what was copied, with the room for more, and what it takes
    /// to manage the rest. What is shared with others is not among them.
    pub fn held(&self) -> usize {
        self.cork.capacity() + self.shared.capacity() * size_of::<(usize, Bytes)>()
    }

    /// Whether nothing waits. Then the queue holds no memory either.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether all that waits lies in one piece.
    #[inline]
    fn is_one_slice(&self) -> bool {
        self.front.len() == self.len || (self.front.is_empty() && self.shared.is_empty())
    }

    /// What waits first.
    #[inline]
    fn first_slice(&self) -> &[u8] {
        if self.front.is_empty() {
            return self.slices().next().unwrap_or_default();
        }
        &self.front
    }

    /// What waits, in order; no slice is empty.
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = self.written;
        let mut shared = self.shared.iter();
        let mut pending_shared = None;
        let behind = std::iter::from_fn(move || {
            if let Some(bytes) = pending_shared.take() {
                return Some(bytes);
            }
            match shared.next() {
                Some((at, bytes)) => {
                    let copied = &self.cork[mem::replace(&mut from, *at)..*at];
                    pending_shared = Some(&bytes[..]);
                    Some(copied)
                }
                None if from < self.cork.len() => {
                    let copied = &self.cork[from..];
                    from = self.cork.len();
                    Some(copied)
                }
                None => None,
            }
        });
        std::iter::once(&self.front[..])
            .chain(behind)
            .filter(|slice| !slice.is_empty())
    }

    /// Forgets the first `n` bytes, which were written.
    #[inline]
    fn advance(&mut self, mut n: usize) {
        if n == self.len && n == self.front.len() {
            debug_assert!(self.cork.capacity() == 0 && self.written == 0);
            debug_assert!(self.shared.capacity() == 0);
            self.front = Bytes::new();
            self.len = 0;
            return;
        }
        self.len -= n;
        if self.len == 0 {
            self.release();
            return;
        }
        let front = n.min(self.front.len());
        self.front.advance(front);
        n -= front;
        while n > 0 {
            let until = self.shared.front().map_or(self.cork.len(), |(at, _)| *at);
            let copied = n.min(until - self.written);
            self.written += copied;
            n -= copied;
            if n > 0
                && let Some((_, bytes)) = self.shared.front_mut()
            {
                let shared = n.min(bytes.len());
                bytes.advance(shared);
                n -= shared;
                if bytes.is_empty() {
                    self.shared.pop_front();
                }
            }
        }
    }

    /// Gives all memory back.
    fn release(&mut self) {
        self.front = Bytes::new();
        self.written = 0;
        self.shared = VecDeque::new();
        if self.cork.capacity() > 0 {
            pool::give(mem::take(&mut self.cork));
        }
    }

    /// Makes room in the cork for `additional` bytes.
    #[cold]
    fn grow(&mut self, additional: usize) {
        if self.cork.capacity() == 0 {
            self.cork = pool::take();
        }
        // What was written makes room, once moving the rest is cheaper than it was to write that.
        if self.written > self.cork.len() / 2 {
            self.cork.drain(..self.written);
            for (at, _) in &mut self.shared {
                *at -= self.written;
            }
            self.written = 0;
        }
        self.cork.reserve(additional);
    }

    /// Gets ready to copy `additional` bytes behind all that waits.
    #[inline]
    fn reserve(&mut self, additional: usize) {
        if self.cork.capacity() - self.cork.len() < additional {
            self.grow(additional);
        }
        // Two small copies in one buffer cost less than two slices of a vectored write.
        if !self.front.is_empty() && self.front.len() == self.len && self.len < SHARE_FROM {
            self.copy_front();
        }
    }

    fn copy_front(&mut self) {
        let front = mem::take(&mut self.front);
        self.cork.extend_from_slice(&front);
    }
}

impl Output for WriteQueue {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.cork.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    #[inline]
    fn put_parts(&mut self, head: &[u8], body: &[u8]) {
        self.reserve(head.len() + body.len());
        self.cork.extend_from_slice(head);
        self.cork.extend_from_slice(body);
        self.len += head.len() + body.len();
    }

    #[inline]
    fn backlog(&self) -> usize {
        self.len
    }
}

impl Drop for WriteQueue {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for WriteQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteQueue")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Shared writes of so many bytes are queued by reference; shorter ones are copied, for a slice of
/// its own costs a vectored write more than copying this much.
pub const SHARE_FROM: usize = 8 * 1024;

/// Slices in one vectored write.
const MAX_SLICES: usize = 32;

/// Corks between two uses. A connection has one only while it has something to write, which is
/// mostly within one poll, so a few serve a thread of connections that answer. A broadcast fills
/// one for each of its receivers before the first is written, so as many are kept as fit into the
/// bound.
mod pool {
    use std::cell::RefCell;

    /// A cork, empty, with some capacity.
    pub(super) fn take() -> Vec<u8> {
        POOL.try_with(|pool| pool.borrow_mut().take())
            .ok()
            .flatten()
            .unwrap_or_else(|| Vec::with_capacity(FRESH))
    }

    /// Keeps a cork for the next one who needs one, unless it or the pool has grown too large.
    pub(super) fn give(mut cork: Vec<u8>) {
        if cork.capacity() > MAX_CAPACITY {
            return;
        }
        cork.clear();
        // Not reachable while the thread is torn down; the cork is dropped then.
        let _ = POOL.try_with(|pool| pool.borrow_mut().give(cork));
    }

    struct Pool {
        corks: Vec<Vec<u8>>,
        /// Capacities of all of them together.
        bytes: usize,
    }

    impl Pool {
        const fn new() -> Self {
            Self {
                corks: Vec::new(),
                bytes: 0,
            }
        }

        fn take(&mut self) -> Option<Vec<u8>> {
            let cork = self.corks.pop()?;
            self.bytes -= cork.capacity();
            Some(cork)
        }

        fn give(&mut self, cork: Vec<u8>) {
            if self.bytes + cork.capacity() <= MAX_BYTES {
                self.bytes += cork.capacity();
                self.corks.push(cork);
            }
        }
    }

    /// Bytes of a cork that wasn't in the pool: a reply or two.
    const FRESH: usize = 2 * 1024;

    /// The largest cork that is kept.
    const MAX_CAPACITY: usize = 128 * 1024;

    /// Bytes that a thread's pool keeps at the most.
    const MAX_BYTES: usize = 4 * 1024 * 1024;

    thread_local! {
        static POOL: RefCell<Pool> = const { RefCell::new(Pool::new()) };
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_pool_keeps_no_more_than_its_bound() {
            let mut pool = Pool::new();
            for _ in 0..100 {
                pool.give(Vec::with_capacity(MAX_CAPACITY));
            }
            assert_eq!(pool.corks.len(), MAX_BYTES / MAX_CAPACITY);
            while pool.take().is_some() {}
            assert_eq!(pool.bytes, 0);
        }
    }
}
