//! One task a thread that writes what groups have to the connections of that thread.
//!
//! To wake a thousand tasks, and to have each look at its connection and write, costs a good part of
//! what the system's thousand writes cost, and spreads these over time. Where connections can be
//! written without their tasks, this one does it for all of them, in a tight burst, at the end of the
//! turn: what several have published in the meantime leaves together.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Handle, Id};
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;

use super::Shared;

/// A connection that can be written without its task.
pub(in crate::conn) trait Recipient: Send + Sync {
    /// Writes what there is for it, as long as its task rests; else has the task do so.
    fn deliver(&self);

    /// Wakes its task.
    fn wake(&self);
}

/// A thread's task, as groups and recipients see it.
pub(in crate::conn) struct Flusher {
    runtime: Id,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Groups that have something for recipients of this task.
    groups: Vec<Arc<Shared>>,
    /// Wakes the task, while it waits.
    waker: Option<Waker>,
    /// How many rely on the task.
    recipients: usize,
    /// The task is gone.
    ended: bool,
}

/// A recipient's hold on its thread's task, which ends when there are none.
#[derive(Debug)]
pub(in crate::conn) struct Enlisted {
    flusher: Arc<Flusher>,
}

impl Enlisted {
    /// Relies on the task of this thread, which is started if there is none. `None` outside of a
    /// runtime.
    pub(in crate::conn) fn on_this_thread() -> Option<Self> {
        let runtime = Handle::try_current().ok()?;
        // Fails only while the thread is being torn down.
        FLUSHER
            .try_with(|place| {
                let mut place = place.borrow_mut();
                if let Some(flusher) = &*place
                    && flusher.runtime == runtime.id()
                    && let Some(enlisted) = flusher.enlist()
                {
                    return enlisted;
                }
                let flusher = Arc::new(Flusher {
                    runtime: runtime.id(),
                    state: Mutex::default(),
                });
                *place = Some(Arc::clone(&flusher));
                flusher.lock().recipients = 1;
                // Tokio lets a task do so many operations and then has it wait for its next turn, though
                // the socket is ready. Here each is on another connection, and they are counted below.
                runtime.spawn(unconstrained(Running::new(&flusher).run()));
                Self { flusher }
            })
            .ok()
    }

    /// The task.
    pub(super) fn flusher(&self) -> &Arc<Flusher> {
        &self.flusher
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        let mut state = self.flusher.lock();
        state.recipients -= 1;
        if state.recipients == 0 {
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Flusher {
    fn enlist(self: &Arc<Self>) -> Option<Enlisted> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        state.recipients += 1;
        let flusher = Arc::clone(self);
        Some(Enlisted { flusher })
    }

    /// Has the task deliver what `group` has. Returns false when it is gone.
    pub(super) fn mark(&self, group: &Arc<Shared>) -> bool {
        let waker = {
            let mut state = self.lock();
            if state.ended {
                return false;
            }
            state.groups.push(Arc::clone(group));
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Ready when there is something in `groups`, which is empty before, or nobody relies on the task any more.
    fn poll_groups(&self, cx: &Context<'_>, groups: &mut Vec<Arc<Shared>>) -> Poll<bool> {
        let mut state = self.lock();
        if !state.groups.is_empty() {
            mem::swap(&mut state.groups, groups);
            return Poll::Ready(true);
        }
        if state.recipients == 0 {
            state.ended = true;
            return Poll::Ready(false);
        }
        // Only this task is woken by it, so dropping the old one runs nobody's code.
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics with the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task, with all that it has still to do: should it end early, the recipients' own tasks do that.
struct Running {
    flusher: Arc<Flusher>,
    groups: Vec<Arc<Shared>>,
    recipients: Vec<Option<Arc<dyn Recipient>>>,
    current: Option<Arc<dyn Recipient>>,
}

impl Running {
    fn new(flusher: &Arc<Flusher>) -> Self {
        Self {
            flusher: Arc::clone(flusher),
            groups: Vec::new(),
            recipients: Vec::new(),
            current: None,
        }
    }

    async fn run(mut self) {
        let mut written = 0;
        while poll_fn(|cx| self.flusher.poll_groups(cx, &mut self.groups)).await {
            while let Some(group) = self.groups.pop() {
                self.recipients = group.take_recipients(&self.flusher);
                while let Some(recipient) = self.recipients.pop() {
                    self.current = recipient;
                    if let Some(recipient) = &self.current {
                        recipient.deliver();
                        written += 1;
                    }
                    if written == AT_ONCE {
                        written = 0;
                        // Others want their turn too.
                        yield_now().await;
                    }
                }
                self.current = None;
                group.keep_recipients(&self.flusher, mem::take(&mut self.recipients));
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut groups = mem::take(&mut self.groups);
        {
            let mut state = self.flusher.lock();
            state.ended = true;
            state.waker = None;
            groups.append(&mut state.groups);
        }
        let mut left = mem::take(&mut self.recipients);
        left.push(self.current.take());
        for group in groups {
            left.append(&mut group.take_recipients(&self.flusher));
        }
        for recipient in left.into_iter().flatten() {
            recipient.wake();
        }
    }
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher")
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}

/// Connections that are written before other tasks of the thread have their turn: about a
/// millisecond.
const AT_ONCE: u32 = 256;

thread_local! {
    static FLUSHER: RefCell<Option<Arc<Flusher>>> = const { RefCell::new(None) };
}
