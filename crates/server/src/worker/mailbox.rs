//! A worker's mailbox: what other threads have for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tautline_hub::Now;
use tautline_hub::engine::{Delivery, Mailbox};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{State, wakes};

/// Something that another thread wants done on a worker, in a turn of its own.
pub(crate) type Call = Box<dyn FnOnce(Now, &mut State) + Send>;

/// One in so many publications is timed: reading the clock for each would be felt.
const TIMED_OF: u32 = 64;

/// What waits for a worker, in the order in which it was pushed.
#[derive(Default)]
pub(crate) struct Batch {
    /// From the engine.
    pub(crate) deliveries: VecDeque<Delivery>,
    /// From other workers.
    pub(crate) calls: Vec<Call>,
    /// How many bytes of publications were put here since it was last taken.
    bytes: usize,
    /// How many publications were put here, of which some are timed.
    count: u32,
    /// When the first of these came that is timed, if one is.
    pub(super) timed: Option<Instant>,
    /// The worker has ended, and nothing is kept for it any more.
    closed: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.calls.is_empty()
    }

    /// How many of the deliveries have so many bytes together, but one in any case.
    pub(super) fn first(&self, bytes: usize) -> usize {
        if self.bytes <= bytes {
            return self.deliveries.len();
        }
        let mut sum = 0;
        let fitting = self.deliveries.iter().take_while(|delivery| {
            sum += weight(delivery);
            sum <= bytes
        });
        fitting.count().max(1).min(self.deliveries.len())
    }
}

/// What a delivery counts for where bytes are bounded.
fn weight(delivery: &Delivery) -> usize {
    match delivery {
        Delivery::Publication { publication, .. } => publication.data.len() + LABELS,
        _ => LABELS,
    }
}

/// What is around the data of a publication.
const LABELS: usize = 64;

/// The way into a worker from outside.
///
/// The worker is woken once a batch, not once a delivery: a push into a mailbox which the worker is
/// about to look into costs a lock and nothing more. That is so from the wake until the mailbox is
/// found empty, which includes every [turn](super::Worker::turn): what a worker publishes reaches
/// its own subscribers without a wake.
#[derive(Default)]
pub(crate) struct WorkerMailbox {
    waiting: Mutex<Batch>,
    /// Whether the worker will look in without being woken.
    attended: AtomicBool,
    notify: Arc<Notify>,
}

impl WorkerMailbox {
    /// Has `call` run by the worker.
    ///
    /// A worker that has ended runs nothing any more: the call is dropped.
    pub(crate) fn call(&self, call: Call) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        waiting.calls.push(call);
        drop(waiting);
        self.wake();
    }

    /// Drops what waits, and what will come: the worker has ended.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let left = (
            std::mem::take(&mut waiting.calls),
            std::mem::take(&mut waiting.deliveries),
        );
        // What is dropped may call again.
        drop(waiting);
        drop(left);
    }

    /// Says that the worker begins a turn, at whose end it will look in.
    pub(super) fn attend(&self) {
        self.attended.store(true, Ordering::SeqCst);
    }

    /// Swaps what waits into `batch`, which must be empty, and returns whether that was anything.
    /// If it wasn't, the next push wakes the worker.
    pub(super) fn drain(&self, batch: &mut Batch) -> bool {
        debug_assert!(batch.is_empty());
        let mut waiting = self.lock();
        if waiting.is_empty() {
            // Under the lock: whoever pushes next finds the flag down.
            self.attended.store(false, Ordering::SeqCst);
            return false;
        }
        batch.bytes = 0;
        std::mem::swap(&mut *waiting, batch);
        true
    }

    /// How many bytes of publications wait.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Ends a turn although more waits: the worker is woken once others had theirs.
    pub(super) fn resume_later(&self) {
        self.notify.notify_one();
    }

    /// Resolves when something was pushed while nobody attended.
    pub(super) async fn pushed(&self) {
        self.notify.notified().await;
    }

    fn wake(&self) {
        if !self.attended.swap(true, Ordering::SeqCst) {
            wakes::wake(&self.notify);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        // A panic between two pushes leaves whole vectors behind.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox for WorkerMailbox {
    fn push(&self, delivery: Delivery) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        if matches!(delivery, Delivery::Publication { .. }) {
            if waiting.count.is_multiple_of(TIMED_OF) && waiting.timed.is_none() {
                waiting.timed = Some(Instant::now());
            }
            waiting.count = waiting.count.wrapping_add(1);
        }
        waiting.bytes += weight(&delivery);
        waiting.deliveries.push_back(delivery);
        drop(waiting);
        self.wake();
    }
}
