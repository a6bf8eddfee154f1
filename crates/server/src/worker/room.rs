//! Room in a worker's mailbox, and those who wait for some.
//!
//! What is published on one worker goes into the mailboxes of all that have subscribers, without waiting for anybody. A
//! worker that has much to write takes it out more slowly than others may put it in. So who published what a mailbox had no room for waits
//! until it has: a client's commands behind that one are not looked at, nor is its connection read, and a
//! call of the API is answered only then.
//!
//! No worker ever waits for another: it has its turns, in which it takes what is in its own mailbox, whatever those wait for who
//! are connected to it. And nobody waits who published nothing for the worker that is behind.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Whether a mailbox takes more.
#[derive(Default)]
pub(crate) struct Room {
    crowd: Mutex<Crowd>,
    /// There is so much that nobody of the API puts anything more into any mailbox.
    is_overrun: AtomicBool,
    /// Calls of the API that had to wait.
    calls: AtomicU64,
}

#[derive(Default)]
struct Crowd {
    /// There is no room.
    is_full: bool,
    waiters: Vec<Waiter>,
}

/// Is called once there is room.
pub(super) type Waiter = Box<dyn FnOnce() + Send>;

thread_local! {
    /// Whether there is one in [`FULL`]: looked at for every command.
    static IS_ANY: Cell<bool> = const { Cell::new(false) };
    /// The first mailbox that this thread has put something into for which it had no room.
    static FULL: RefCell<Option<Arc<Room>>> = const { RefCell::new(None) };
}

impl Room {
    /// There is none any more.
    pub(super) fn fill(&self) {
        self.lock().is_full = true;
    }

    /// There is far too little.
    pub(super) fn overrun(&self) {
        self.is_overrun.store(true, Ordering::Relaxed);
    }

    /// There is some again. Those are to be called who have waited for it.
    #[must_use]
    pub(super) fn free(&self) -> Vec<Waiter> {
        let mut crowd = self.lock();
        crowd.is_full = false;
        self.is_overrun.store(false, Ordering::Relaxed);
        std::mem::take(&mut crowd.waiters)
    }

    pub(crate) fn is_overrun(&self) -> bool {
        self.is_overrun.load(Ordering::Relaxed)
    }

    /// Has `waiter` called once there is room: now, if there is.
    pub(super) fn when_free(&self, waiter: Waiter) {
        let mut crowd = self.lock();
        if crowd.is_full {
            crowd.waiters.push(waiter);
        } else {
            drop(crowd);
            waiter();
        }
    }

    /// Resolves once there is room. Dropping it changes nothing.
    pub(crate) async fn freed(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel::<()>();
        self.when_free(Box::new(move || drop(tell)));
        // It is never told anything but that it is over.
        let _ = told.await;
    }

    /// How many calls of the API had to wait.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This thread has put something into a mailbox that has no room for it.
pub(super) fn note(room: &Arc<Room>) {
    if !IS_ANY.replace(true) {
        FULL.set(Some(Arc::clone(room)));
    }
}

/// The mailbox for which whoever did the last thing on this thread has to wait, if he has.
pub(super) fn take() -> Option<Arc<Room>> {
    if IS_ANY.replace(false) {
        FULL.take()
    } else {
        None
    }
}

/// Answers somebody who publishes by the API: when what he has published is taken as fast as he publishes it. To be called
/// right behind that.
pub(crate) fn when_taken<T: Send + 'static>(
    answer: impl FnOnce(T) + Send + 'static,
) -> impl FnOnce(T) + Send + 'static {
    move |outcome| match take() {
        None => answer(outcome),
        Some(room) => {
            room.calls.fetch_add(1, Ordering::Relaxed);
            room.when_free(Box::new(move || answer(outcome)));
        }
    }
}
