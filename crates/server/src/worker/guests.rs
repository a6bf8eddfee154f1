//! How many connections a worker serves, so that it knows when it may end.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// Counts the connections that are being served.
#[derive(Default)]
pub(crate) struct Guests {
    count: Cell<usize>,
    gone: Notify,
}

/// A connection that is being served, until it is dropped.
pub(crate) struct Guest(Rc<Guests>);

impl Guests {
    /// One more, until the guest is dropped.
    pub(crate) fn enter(self: &Rc<Self>) -> Guest {
        self.count.set(self.count.get() + 1);
        Guest(Rc::clone(self))
    }

    /// Resolves when there are none.
    pub(crate) async fn gone(&self) {
        while self.count.get() > 0 {
            self.gone.notified().await;
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let count = self.0.count.get() - 1;
        self.0.count.set(count);
        if count == 0 {
            self.0.gone.notify_one();
        }
    }
}
