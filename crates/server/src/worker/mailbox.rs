//! A worker's mailbox: what other threads have for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tautline_hub::Now;
use tautline_hub::engine::{self, Delivery, Mailbox};
use tautline_protocol::Publication;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::room::{self, Room, Waiter};
use super::{BYTES_AT_ONCE, State, wakes};

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
    /// How much memory all of it takes.
    memory: usize,
    /// The mailbox is to be told what of it is delivered.
    pub(super) is_counted: bool,
    /// How many publications were put here, of which some are timed.
    count: u32,
    /// When the first of these came that is timed, if one is.
    pub(super) timed: Option<Instant>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.calls.is_empty()
    }

    /// How many of the deliveries have so many bytes together, but one in any case; and how much memory those take.
    pub(super) fn first(&self, bytes: usize) -> (usize, usize) {
        if self.bytes <= bytes {
            return (self.deliveries.len(), self.memory);
        }
        let (mut count, mut sum, mut memory) = (0, 0, 0);
        for delivery in &self.deliveries {
            sum += weight(delivery);
            if count > 0 && sum > bytes {
                break;
            }
            memory += memory_of(delivery);
            count += 1;
        }
        (count, memory)
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

/// How much memory a delivery takes, or a little more where it shares some with others.
fn memory_of(delivery: &Delivery) -> usize {
    let what = match delivery {
        Delivery::Publication { publication, .. } => {
            engine::weight(publication) + size_of::<Publication>()
        }
        Delivery::Join { info, .. } | Delivery::Leave { info, .. } => engine::info_weight(info),
        _ => 0,
    };
    what + size_of::<Delivery>()
}

/// How much may wait for a worker before those wait who publish for it.
pub(super) const MAX_WAITING: usize = 1024 * 1024;

/// With so much left there is room again.
const ROOM_AGAIN: usize = MAX_WAITING / 2;

/// With so much, nobody of the API publishes anything for anybody: those who didn't wait for their answers have come again.
const OVERRUN: usize = 4 * MAX_WAITING;

#[derive(Default)]
struct Waiting {
    batch: Batch,
    /// Memory of what the worker has taken and not delivered yet.
    held: usize,
    /// There is no room until some of all that is gone.
    is_full: bool,
    /// The worker has ended, and nothing is kept for it any more.
    closed: bool,
}

impl Waiting {
    fn memory(&self) -> usize {
        self.batch.memory + self.held
    }
}

/// The way into a worker from outside.
///
/// The worker is woken once a batch, not once a delivery: a push into a mailbox which the worker is
/// about to look into costs a lock and nothing more. That is so from the wake until the mailbox is
/// found empty, which includes every [turn](super::Worker::turn): what a worker publishes reaches
/// its own subscribers without a wake.
#[derive(Default)]
pub(crate) struct WorkerMailbox {
    waiting: Mutex<Waiting>,
    /// For those who wait until there is some.
    room: Arc<Room>,
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
        waiting.batch.calls.push(call);
        drop(waiting);
        self.wake();
    }

    /// Drops what waits, and what will come: the worker has ended. Nobody waits for it any more.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let left = std::mem::take(&mut waiting.batch);
        waiting.held = 0;
        let freed = self.look_for_room(&mut waiting);
        // What is dropped may call again.
        drop(waiting);
        drop(left);
        call_all(freed);
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
        waiting.held = 0;
        let any = !waiting.batch.is_empty();
        if any {
            (batch.bytes, batch.memory) = (0, 0);
            std::mem::swap(&mut waiting.batch, batch);
            batch.is_counted = batch.memory > BYTES_AT_ONCE;
            if batch.is_counted {
                waiting.held = batch.memory;
            }
        } else {
            // Under the lock: whoever pushes next finds the flag down.
            self.attended.store(false, Ordering::SeqCst);
        }
        let freed = self.look_for_room(&mut waiting);
        drop(waiting);
        call_all(freed);
        any
    }

    /// So much is delivered of a batch that [counts](Batch::is_counted).
    pub(super) fn note_delivered(&self, memory: usize) {
        let mut waiting = self.lock();
        waiting.held = waiting.held.saturating_sub(memory);
        let freed = self.look_for_room(&mut waiting);
        drop(waiting);
        call_all(freed);
    }

    /// Those who have waited for room, if there is some again.
    fn look_for_room(&self, waiting: &mut Waiting) -> Vec<Waiter> {
        if !waiting.is_full || waiting.memory() > ROOM_AGAIN {
            return Vec::new();
        }
        waiting.is_full = false;
        self.room.free()
    }

    /// How much memory what waits takes, and what the worker has taken of it and not delivered yet.
    pub(crate) fn memory(&self) -> usize {
        self.lock().memory()
    }

    /// Room in here.
    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// How many bytes of publications wait.
    pub(super) fn bytes(&self) -> usize {
        self.lock().batch.bytes
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

    fn lock(&self) -> MutexGuard<'_, Waiting> {
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
        let batch = &mut waiting.batch;
        if matches!(delivery, Delivery::Publication { .. }) {
            if batch.count.is_multiple_of(TIMED_OF) && batch.timed.is_none() {
                batch.timed = Some(Instant::now());
            }
            batch.count = batch.count.wrapping_add(1);
        }
        batch.bytes += weight(&delivery);
        batch.memory += memory_of(&delivery);
        batch.deliveries.push_back(delivery);
        let is_full = waiting.memory() > MAX_WAITING;
        if is_full {
            if !std::mem::replace(&mut waiting.is_full, true) {
                self.room.fill();
            }
            if waiting.memory() > OVERRUN {
                self.room.overrun();
            }
        }
        drop(waiting);
        if is_full {
            room::note(&self.room);
        }
        self.wake();
    }
}

fn call_all(waiters: Vec<Waiter>) {
    for waiter in waiters {
        waiter();
    }
}
