//! Waking other workers once a turn.
//!
//! A worker that reads sixteen publications puts each into the mailboxes of the others as it comes to
//! it. Woken by the first, another worker would write that one to its subscribers while the rest
//! arrives, and then all of them once more: twice the system calls. So who is to be woken by what a
//! turn works on is written down, and woken when that is done, before anything is written; which also
//! keeps system calls out of the engine's locks.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use tokio::sync::Notify;

thread_local! {
    /// Whether wakes are put off.
    static PUT_OFF: Cell<bool> = const { Cell::new(false) };
    /// Whom to wake then.
    static LATER: RefCell<Vec<Arc<Notify>>> = const { RefCell::new(Vec::new()) };
}

/// As long as it lives, whoever this thread [wakes](wake) is woken when it is dropped.
pub(super) struct Wakes(());

impl Wakes {
    /// Begins to put wakes off.
    pub(super) fn later() -> Self {
        PUT_OFF.set(true);
        Self(())
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        PUT_OFF.set(false);
        LATER.with_borrow_mut(|later| {
            for sleeper in later.drain(..) {
                sleeper.notify_one();
            }
        });
    }
}

/// Wakes who waits for `sleeper`, now or when this thread's turn has done its work.
pub(super) fn wake(sleeper: &Arc<Notify>) {
    if PUT_OFF.get() {
        LATER.with_borrow_mut(|later| later.push(Arc::clone(sleeper)));
    } else {
        sleeper.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_woken(sleeper: &Notify) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(sleeper.notified()).poll(&mut cx).is_ready()
    }

    #[test]
    fn who_is_woken_in_a_turn_is_woken_at_its_end() {
        let sleeper = Arc::default();
        wake(&sleeper);
        assert!(is_woken(&sleeper), "outside of a turn");
        let wakes = Wakes::later();
        wake(&sleeper);
        assert!(!is_woken(&sleeper), "in a turn");
        drop(wakes);
        assert!(is_woken(&sleeper), "at its end");
        wake(&sleeper);
        assert!(is_woken(&sleeper), "after it");
    }

    #[test]
    fn a_turn_that_panics_wakes_them_too() {
        let sleeper: Arc<Notify> = Arc::default();
        let turn = std::thread::spawn({
            let sleeper = sleeper.clone();
            move || {
                let _wakes = Wakes::later();
                wake(&sleeper);
                panic!("on purpose");
            }
        });
        assert!(turn.join().is_err());
        assert!(is_woken(&sleeper));
    }
}
