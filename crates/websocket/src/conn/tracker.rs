//! [`Tracker`]: all connections of a server, to close them when it is to end.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::inbox::{Goodbye, Inbox};
use crate::proto::{CloseCode, CloseFrame, Misuse};

/// Knows connections, to close them all and to wait until they are gone. Clones are handles to the
/// same tracker, on any thread.
///
/// ```
/// # use std::time::Duration;
/// # use tautline_websocket::conn::{Tracker, WebSocket};
/// # use tautline_websocket::proto::CloseCode;
/// # use tokio::io::{AsyncRead, AsyncWrite};
/// # async fn one<S: AsyncRead + AsyncWrite + Unpin>(mut ws: WebSocket<S>, tracker: &Tracker) {
/// // For each connection:
/// ws.track(tracker);
/// # }
/// # async fn end(tracker: Tracker) -> Result<(), Box<dyn std::error::Error>> {
/// // At the end of the server, when nothing is accepted any more:
/// let patience = Duration::from_secs(10);
/// if let Err(left) = tracker.shutdown(CloseCode::GOING_AWAY, "restarting", patience).await? {
///     eprintln!("{left}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Tracker {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Tells all who wait that no connection is left.
    none_left: Notify,
}

#[derive(Default)]
struct State {
    inboxes: Vec<Option<Arc<Inbox>>>,
    /// Indices of the `None`s.
    vacant: Vec<usize>,
    /// What connections are told that come after all were closed.
    closing: Option<Goodbye>,
}

/// Connections that were not gone in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} connection(s) had not finished closing in time")]
pub struct StillOpen(
    /// How many.
    pub usize,
);

impl Tracker {
    /// A tracker that knows no connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections are tracked.
    pub fn len(&self) -> usize {
        self.shared.lock().len()
    }

    /// Whether no connection is tracked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has all connections closed with this code and reason, and those too that come later. Returns
    /// at once. Each sends what it has queued, then the Close frame, and gives its peer the
    /// usual time to answer. The first call counts.
    ///
    /// # Errors
    ///
    /// [`Misuse::UnsendableCloseCode`], [`Misuse::CloseReasonTooLong`]; then nothing has happened.
    pub fn close_all(&self, code: CloseCode, reason: &str) -> Result<(), Misuse> {
        CloseFrame { code, reason }.check_sendable()?;
        let reason = reason.into();
        let goodbye = Goodbye { code, reason };
        let inboxes: Vec<_> = {
            let mut state = self.shared.lock();
            if state.closing.is_some() {
                return Ok(());
            }
            state.closing = Some(goodbye.clone());
            state.inboxes.iter().flatten().cloned().collect()
        };
        for inbox in inboxes {
            inbox.close(goodbye.clone());
        }
        Ok(())
    }

    /// Waits until no connection is left: each was dropped.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait(&self) {
        loop {
            let none_left = self.shared.none_left.notified();
            if self.is_empty() {
                return;
            }
            none_left.await;
        }
    }

    /// [`close_all`](Self::close_all), then [`wait`](Self::wait), but no longer than `patience`.
    /// The inner error says that some were left then; drop their tasks.
    ///
    /// # Errors
    ///
    /// Those of [`close_all`](Self::close_all).
    ///
    /// # Cancel safety
    ///
    /// Safe: call it again, or [`wait`](Self::wait), to go on waiting.
    pub async fn shutdown(
        &self,
        code: CloseCode,
        reason: &str,
        patience: Duration,
    ) -> Result<Result<(), StillOpen>, Misuse> {
        self.close_all(code, reason)?;
        let waited = timeout(patience, self.wait()).await;
        Ok(waited.map_err(|_| StillOpen(self.len())))
    }

    /// Keeps a connection's inbox for as long as what is returned lives.
    pub(super) fn track(&self, inbox: &Arc<Inbox>) -> Tracked {
        let mut state = self.shared.lock();
        let slot = match state.vacant.pop() {
            Some(slot) => {
                state.inboxes[slot] = Some(Arc::clone(inbox));
                slot
            }
            None => {
                state.inboxes.push(Some(Arc::clone(inbox)));
                state.inboxes.len() - 1
            }
        };
        let closing = state.closing.clone();
        drop(state);
        if let Some(goodbye) = closing {
            inbox.close(goodbye);
        }
        Tracked {
            shared: Arc::clone(&self.shared),
            slot,
        }
    }
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker").field("len", &self.len()).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics with the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn len(&self) -> usize {
        self.inboxes.len() - self.vacant.len()
    }
}

/// A connection's place in a tracker. Dropping it says that the connection is gone.
pub(super) struct Tracked {
    shared: Arc<Shared>,
    slot: usize,
}

impl Tracked {
    /// Whether it is one in this tracker.
    pub(super) fn is_in(&self, tracker: &Tracker) -> bool {
        Arc::ptr_eq(&self.shared, &tracker.shared)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.inboxes[self.slot] = None;
        state.vacant.push(self.slot);
        if state.len() == 0 {
            state.inboxes = Vec::new();
            state.vacant = Vec::new();
            drop(state);
            self.shared.none_left.notify_waiters();
        }
    }
}
