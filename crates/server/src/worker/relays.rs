//! What tunnels hold of messages that their clients, or the servers behind, have yet to take, on one worker, and what TLS keeps
//! of answers of plain HTTP; and which to cut off first where that is too much.
//!
//! Each tunnel writes down what its two ends hold whenever it has carried something. Nobody else knows: its messages are in
//! queues of its own connections. So it is with the bytes that TLS has encrypted: the answer that they were is gone by then.
//!
//! All of that is of one thread. The numbers are atomics as a connection that an HTTP library serves has to be `Send`.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::io::Unsent;

/// All of a worker's.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    sum: Arc<AtomicUsize>,
    all: RefCell<Vec<Weak<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    held: AtomicUsize,
    /// Since when it holds something, without a moment in which it held nothing.
    since: Mutex<Instant>,
    sum: Arc<AtomicUsize>,
    is_cut: AtomicBool,
    cut: Notify,
    /// It was told that it would have been cut off.
    is_counted: AtomicBool,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Relayed(Arc<Entry>);

impl Relays {
    /// Bytes of memory that all of them hold.
    pub(crate) fn held(&self) -> usize {
        self.sum.load(Ordering::Relaxed)
    }

    /// One more, which holds nothing yet.
    pub(crate) fn begin(&self) -> Relayed {
        let entry = Arc::new(Entry {
            held: AtomicUsize::new(0),
            since: Mutex::new(Instant::now()),
            sum: Arc::clone(&self.sum),
            is_cut: AtomicBool::new(false),
            cut: Notify::new(),
            is_counted: AtomicBool::new(false),
        });
        let mut all = self.all.borrow_mut();
        if all.len() == all.capacity() {
            // Those that are over make room for others.
            all.retain(|entry| entry.strong_count() > 0);
        }
        all.push(Arc::downgrade(&entry));
        Relayed(entry)
    }

    /// Cuts some of them off so that they hold `much` less: the longest first, and each counts for longer with each second that
    /// it holds something; only those that have done so for as long as `patience`. Returns how many they were; with `dry_run`
    /// none is cut off, and each counts once.
    pub(crate) fn let_go(
        &self,
        now: Instant,
        much: usize,
        patience: Duration,
        dry_run: bool,
    ) -> u64 {
        if much == 0 {
            return 0;
        }
        let all = self.all.borrow();
        let all = all.iter().filter_map(Weak::upgrade);
        let age = |entry: &Entry| now.saturating_duration_since(entry.since());
        let mut all: Vec<_> = all
            .filter(|entry| entry.held() > 0 && age(entry) >= patience)
            .collect();
        all.sort_by_cached_key(|entry| {
            let seconds = usize::try_from(age(entry).as_secs()).unwrap_or(usize::MAX);
            Reverse(entry.held().saturating_mul(seconds.saturating_add(1)))
        });
        let (mut left, mut count) = (much, 0);
        for entry in all {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(entry.held());
            if dry_run {
                count += u64::from(!entry.is_counted.swap(true, Ordering::Relaxed));
                continue;
            }
            count += 1;
            entry.is_cut.store(true, Ordering::Relaxed);
            entry.hold(0);
            entry.cut.notify_one();
        }
        count
    }
}

impl Entry {
    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, held: usize) {
        let before = self.held.swap(held, Ordering::Relaxed);
        // Added first: it is never less than nothing.
        self.sum.fetch_add(held, Ordering::Relaxed);
        self.sum.fetch_sub(before, Ordering::Relaxed);
    }
}

impl Relayed {
    /// What it holds now.
    pub(crate) fn hold(&self, held: usize) {
        let Self(entry) = self;
        let before = entry.held();
        if before == held || entry.is_cut.load(Ordering::Relaxed) {
            return;
        }
        if before == 0 {
            let mut since = entry.since.lock().unwrap_or_else(PoisonError::into_inner);
            *since = Instant::now();
        }
        entry.hold(held);
    }

    /// Resolves when it is cut off.
    pub(crate) async fn cut(&self) {
        self.0.cut.notified().await;
    }
}

impl Unsent for Relayed {
    fn note(&self, bytes: usize) {
        self.hold(bytes);
    }
}

/// Serves a connection until that is done, or it is cut off for what it holds.
///
/// # Cancel safety
///
/// That of serving it.
pub(crate) async fn until_cut(held: Arc<Relayed>, served: impl Future<Output = ()>) {
    tokio::select! {
        () = served => {}
        () = held.cut() => {}
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.hold(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_cut(relayed: &Relayed) -> bool {
        relayed.0.is_cut.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_go_first_and_those_who_take_nothing_before_others() {
        let relays = Relays::default();
        let all = [300, 200, 100].map(|held| {
            let relayed = relays.begin();
            relayed.hold(held);
            relayed
        });
        assert_eq!(relays.held(), 600);
        let let_go = |much, patience, dry_run| {
            relays.let_go(Instant::now(), much, Duration::from_secs(patience), dry_run)
        };
        assert_eq!(let_go(1, 5, false), 0, "none has held anything for so long");
        assert_eq!((let_go(600, 0, true), let_go(600, 0, true)), (3, 0));
        assert_eq!(let_go(0, 0, false), 0);
        tokio::time::advance(Duration::from_secs(5)).await;
        // Whoever has taken all of it begins anew.
        all[0].hold(0);
        all[0].hold(300);
        assert_eq!(let_go(1, 0, false), 1);
        assert_eq!(all.each_ref().map(is_cut), [false, true, false]);
        all[1].cut().await;
        assert_eq!(relays.held(), 400);
        // What it does until it has noticed is not counted.
        all[1].hold(1000);
        assert_eq!(relays.held(), 400);
        assert_eq!(let_go(usize::MAX, 5, false), 1);
        assert_eq!(all.each_ref().map(is_cut), [false, true, true]);
        drop(all);
        assert_eq!(relays.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_cut_off_is_served_no_more() {
        let relays = Relays::default();
        let held = Arc::new(relays.begin());
        held.hold(100);
        let served = until_cut(Arc::clone(&held), std::future::pending());
        assert_eq!(relays.let_go(Instant::now(), 1, Duration::ZERO, false), 1);
        let limit = Duration::from_secs(1);
        assert!(tokio::time::timeout(limit, served).await.is_ok());
        // Who is done needn't be cut off.
        until_cut(Arc::new(relays.begin()), std::future::ready(())).await;
    }
}
