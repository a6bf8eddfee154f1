//! The tasks that wait for one connection: mostly it is one, but the halves of a connection that was
//! split may be in two. A stream wakes the one that has polled it last, and so does a timer, so
//! where there are two, what they are given wakes both.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// Who waits for a connection.
#[derive(Default)]
pub(super) struct Halves {
    /// The task that has received last.
    receiver: Option<Waker>,
    /// There once something has waited in a flush, which not many do.
    flushing: Option<Box<Flushing>>,
}

#[derive(Default)]
struct Flushing {
    /// The task that waits: another one than the receiver, or the same.
    sender: Option<Waker>,
    both: Option<Arc<Both>>,
}

impl Halves {
    /// Takes note that the task of `cx` receives. What is to be woken in its place, where another one waits too.
    pub(super) fn receiving(&mut self, cx: &Context<'_>) -> Option<Waker> {
        note(&mut self.receiver, cx.waker());
        let Flushing { sender, both } = self.flushing.as_deref_mut()?;
        match sender {
            Some(sender) if !sender.will_wake(cx.waker()) => {
                Some(wake_both(both, cx.waker(), sender))
            }
            _ => None,
        }
    }

    /// The same for the task that flushes, which waits from [`wait_to_send`](Self::wait_to_send) on.
    pub(super) fn sending(&mut self, cx: &Context<'_>) -> Option<Waker> {
        match &self.receiver {
            Some(receiver) if !receiver.will_wake(cx.waker()) => {
                let both = &mut self.flushing.get_or_insert_default().both;
                Some(wake_both(both, receiver, cx.waker()))
            }
            _ => None,
        }
    }

    /// Has the task of `cx` woken when all is written.
    pub(super) fn wait_to_send(&mut self, cx: &Context<'_>) {
        note(
            &mut self.flushing.get_or_insert_default().sender,
            cx.waker(),
        );
    }

    /// Nobody waits in a flush any more.
    pub(super) fn forget_sender(&mut self) {
        if let Some(flushing) = &mut self.flushing {
            flushing.sender = None;
        }
    }

    /// Wakes who waits in a flush.
    #[inline]
    pub(super) fn wake_sender(&mut self) {
        if let Some(flushing) = &mut self.flushing
            && let Some(sender) = flushing.sender.take()
        {
            sender.wake();
        }
    }

    /// Wakes who receives, unless that is the task of `cx`.
    pub(super) fn wake_receiver(&self, cx: &Context<'_>) {
        if let Some(receiver) = &self.receiver
            && !receiver.will_wake(cx.waker())
        {
            receiver.wake_by_ref();
        }
    }
}

#[inline]
fn note(place: &mut Option<Waker>, waker: &Waker) {
    if !matches!(place, Some(known) if known.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}

#[cold]
fn wake_both(place: &mut Option<Arc<Both>>, receiver: &Waker, sender: &Waker) -> Waker {
    let both = place.get_or_insert_default();
    let wakers = [receiver, sender].map(|waker| Some(waker.clone()));
    // Dropped outside of the lock, for it may run code of others.
    let _old = mem::replace(&mut *both.lock(), wakers);
    Waker::from(Arc::clone(both))
}

/// Wakes two.
#[derive(Default)]
struct Both(Mutex<[Option<Waker>; 2]>);

impl Both {
    fn lock(&self) -> std::sync::MutexGuard<'_, [Option<Waker>; 2]> {
        // Nothing in here panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let wakers = self.lock().clone();
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }
}
