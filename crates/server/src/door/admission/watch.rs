//! Those who follow refusals live, and are told of each one. While nobody does, it costs a comparison for each refusal.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Admission;

/// Somebody was refused, or would have been.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnedAway {
    /// From where, if that is known and counts.
    pub(crate) address: Option<IpAddr>,
    /// The option.
    pub(crate) limit: &'static str,
    /// It is only tried out: nobody was refused.
    pub(crate) dry_run: bool,
}

/// Whom to tell. It is called in the middle of things, and only writes down what it is told.
type Sink = Box<dyn FnMut(&TurnedAway) + Send>;

/// All who follow.
#[derive(Default)]
pub(super) struct Watchers {
    count: AtomicUsize,
    all: Mutex<Vec<(u64, Sink)>>,
}

impl Watchers {
    #[inline]
    pub(super) fn tell(&self, event: &TurnedAway) {
        if self.count.load(Ordering::Relaxed) > 0 {
            for (_, sink) in &mut *self.all() {
                sink(event);
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<(u64, Sink)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watchers").field(&self.count).finish()
    }
}

impl Admission {
    /// Tells `sink` of each refusal from now on, until [`unwatch`](Self::unwatch) with the same number.
    pub(crate) fn watch(&self, number: u64, sink: impl FnMut(&TurnedAway) + Send + 'static) {
        let watchers = self.watchers();
        let mut all = watchers.all();
        all.push((number, Box::new(sink)));
        watchers.count.store(all.len(), Ordering::Relaxed);
    }

    /// Ends that. A number that nobody watches by is ignored.
    pub(crate) fn unwatch(&self, number: u64) {
        let watchers = self.watchers();
        let mut all = watchers.all();
        all.retain(|(other, _)| *other != number);
        watchers.count.store(all.len(), Ordering::Relaxed);
    }

    fn watchers(&self) -> &Watchers {
        &self.refusals.watchers
    }
}
