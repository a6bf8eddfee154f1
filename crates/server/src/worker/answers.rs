//! Answers to requests of plain HTTP that their clients have yet to take, on one worker: how much memory they hold, and
//! which to give up first where that is too much.
//!
//! What an answer holds is known by its bytes themselves: wherever they are on their way, in a buffer of the HTTP library or
//! in one of a stream of HTTP/2, they count until nobody has them any more.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::http::line::HttpLine;

/// All of a worker's.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Bytes of memory that they hold.
    held: Arc<AtomicUsize>,
    all: RefCell<Vec<Entry>>,
}

/// One of them.
#[derive(Debug)]
struct Entry {
    /// What it holds; 0 when it has been taken.
    held: Arc<AtomicUsize>,
    since: Duration,
    /// What has to end where it is given up.
    line: Weak<HttpLine>,
    /// It was told that it would have been given up.
    is_counted: bool,
}

impl Entry {
    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Answers {
    /// Bytes of memory that all of them hold.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// The same bytes, which count from now on. Ending `line` gives them up.
    pub(crate) fn hold(&self, now: Duration, bytes: Bytes, line: &Rc<HttpLine>) -> Bytes {
        let one = Arc::new(AtomicUsize::new(0));
        let mut all = self.all.borrow_mut();
        if all.len() == all.capacity() {
            // Whoever has been answered makes room for others.
            all.retain(|entry| entry.held() > 0);
        }
        all.push(Entry {
            held: Arc::clone(&one),
            since: now,
            line: Rc::downgrade(line),
            is_counted: false,
        });
        Bytes::from_owner(Held::new(bytes, one, &self.held))
    }

    /// Ends some of them so that they hold `much` less: the longest first, and each counts for longer with each second that it
    /// takes; only those that have taken as long as `patience`. Returns how many they were; with `dry_run` none ends, and each
    /// counts once.
    pub(crate) fn let_go(
        &self,
        now: Duration,
        much: usize,
        patience: Duration,
        dry_run: bool,
    ) -> u64 {
        let mut all = self.all.borrow_mut();
        all.retain(|entry| entry.held() > 0);
        let room = 2 * all.len();
        all.shrink_to(room);
        let age = |entry: &Entry| now.saturating_sub(entry.since);
        all.sort_by_cached_key(|entry| {
            let seconds = usize::try_from(age(entry).as_secs()).unwrap_or(usize::MAX);
            Reverse(entry.held().saturating_mul(seconds.saturating_add(1)))
        });
        let (mut left, mut count) = (much, 0);
        for entry in all.iter_mut().filter(|entry| age(entry) >= patience) {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(entry.held());
            if dry_run {
                count += u64::from(!std::mem::replace(&mut entry.is_counted, true));
                continue;
            }
            // From now on it is nothing that one could be rid of.
            let held = entry.held.swap(0, Ordering::Relaxed);
            self.held.fetch_sub(held, Ordering::Relaxed);
            if let Some(line) = entry.line.upgrade() {
                line.end(false);
                count += 1;
            }
        }
        count
    }
}

/// The bytes of an answer, which count until they are dropped.
#[derive(Debug)]
struct Held {
    bytes: Bytes,
    one: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

impl Held {
    fn new(bytes: Bytes, one: Arc<AtomicUsize>, all: &Arc<AtomicUsize>) -> Self {
        one.store(bytes.len(), Ordering::Relaxed);
        all.fetch_add(bytes.len(), Ordering::Relaxed);
        Self {
            bytes,
            one,
            all: Arc::clone(all),
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let held = self.one.swap(0, Ordering::Relaxed);
        self.all.fetch_sub(held, Ordering::Relaxed);
    }
}

/// Shorter ones are not what memory is short of.
pub(crate) const WORTH_IT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Whether it was told to end.
    async fn is_over(line: &HttpLine) -> bool {
        let ended = line.ended(Duration::from_secs(3600));
        tokio::time::timeout(Duration::from_millis(1), ended)
            .await
            .is_ok()
    }

    #[test]
    fn bytes_count_until_nobody_has_any_of_them() {
        let (answers, line) = (Answers::default(), Rc::default());
        let mut bytes = answers.hold(NOW, Bytes::from(vec![1; 1000]), &line);
        let part = bytes.split_to(10);
        assert_eq!(answers.held(), 1000);
        drop(bytes);
        assert_eq!((answers.held(), part.len()), (1000, 10));
        drop(part);
        assert_eq!(answers.held(), 0);
        // Those that are over take no room.
        for _ in 0..10_000 {
            answers.hold(NOW, Bytes::from_static(b"x"), &line);
        }
        assert!(answers.all.borrow().capacity() < 16);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_and_oldest_are_given_up_first() {
        let answers = Answers::default();
        let lines: [Rc<HttpLine>; 4] = Default::default();
        let hold = |line: usize, seconds, len: usize| {
            answers.hold(at(seconds), Bytes::from(vec![0; len]), &lines[line])
        };
        let _old = hold(0, 0, 1000);
        let _long = hold(1, 9, 5000);
        let _new = hold(2, 10, 2000);
        drop(hold(3, 0, 100_000));
        // Nothing ends of what can be tried out, and counts once.
        assert_eq!(answers.let_go(at(10), 1, NOW, true), 1);
        assert_eq!(answers.let_go(at(10), 1, NOW, true), 0);
        assert_eq!(answers.let_go(at(10), 10_001, NOW, true), 2);
        for line in &lines {
            assert!(!is_over(line).await);
        }
        assert_eq!(answers.let_go(at(10), 1, NOW, false), 1);
        assert!(is_over(&lines[0]).await && !is_over(&lines[1]).await);
        assert_eq!(answers.held(), 7000, "it is on its way out");
        assert_eq!(answers.let_go(at(10), 1, at(2), false), 0, "none is so old");
        assert_eq!(answers.let_go(at(10), 5001, NOW, false), 2);
        assert!(is_over(&lines[1]).await && is_over(&lines[2]).await);
        assert_eq!(answers.held(), 0);
    }
}
