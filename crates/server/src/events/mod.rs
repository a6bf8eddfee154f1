//! Events to the application's backend: who came and went, and which channels are in use.
//!
//! Workers enter facts in the [`ledger`], which makes events of what is different from what the backend was told. One thread
//! beside the workers writes them to disk and delivers them, in order and at least once; what it was told is written down, too,
//! so that after any end of the process the next one knows what must be put right. `docs/events.md` is the chapter.
//!
//! - `ledger`: what is beside what was told; debounce; no clock, no files;
//! - `interest`: what of all that happens is entered, by each worker;
//! - `event`: an event, as it is stored and sent;
//! - `disk`: writing; `journal`: records in a file; `queue`: those to be delivered, `books`: what the backend believes, `dead`: what it
//!   would not have;
//! - `delivery`: again, when, and how much of it; no clock, no sockets; `sender`: one attempt, `receiver`: one in code;
//! - `writer`: the thread;
//! - `settings`: options, checked.
//!
//! What is on disk is never younger than what was sent, and never older by more than one write: the queue is written before
//! the books, and what the books lack is read from the queue.

mod books;
mod dead;
mod delivery;
mod disk;
mod event;
mod interest;
pub(crate) mod journal;
mod ledger;
mod queue;
mod receiver;
#[cfg(test)]
pub(crate) mod scratch;
mod sender;
pub(crate) mod settings;
#[cfg(test)]
mod truth;
mod writer;

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tautline_hub::Entropy;
use tautline_hub::config::HubConfig;
use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc, oneshot};

pub(crate) use self::dead::DeadPage;
pub use self::dead::{DeadEvent, DeadEvents};
pub(crate) use self::delivery::Patience;
pub(crate) use self::event::Kind;
pub use self::event::{Event, Kind as EventKind};
use self::interest::Interest;
pub(crate) use self::interest::Tap;
use self::ledger::Ledger;
pub(crate) use self::receiver::InCode;
pub use self::receiver::{EventHandler, NotTaken};
use self::settings::Settings;
use self::writer::{Command, Writer};

/// The node's events, from anywhere in the process. The thread ends when all of these are gone, those with
/// workers, too.
#[derive(Clone)]
pub(crate) struct Events {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

/// Why there are no events.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// A file or directory of the queue can't be used.
    #[error("{path}: {source} (events.directory must be a directory that the server may write to)", path = .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Nobody takes them.
    #[error(
        "events.enabled is set, and there is neither events.endpoint nor an event handler in code: set one of them"
    )]
    NobodyToTell,
    /// Two would take them.
    #[error(
        "there is an event handler in code, and events.endpoint is set, too: leave one of them out"
    )]
    HandlerAndEndpoint,
    /// There is a handler, and nothing to tell it.
    #[error(
        "there is an event handler in code, and events.enabled is not set: set it, and events.directory"
    )]
    NotEnabled,
    /// Two processes would deliver the same.
    #[error(
        "{path} is in use by another process: each server needs a directory of its own (events.directory)",
        path = .0.display()
    )]
    InUse(PathBuf),
    /// The system gives no thread, or none of what it needs.
    #[error("the system gives no thread for events: {0}")]
    System(#[source] io::Error),
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventNumbers {
    /// On disk, to be delivered.
    pub(crate) queued: u64,
    pub(crate) bytes: u64,
    pub(crate) delivered: u64,
    /// Attempts that came to nothing.
    pub(crate) failed: u64,
    /// Events that became dead letters.
    pub(crate) buried: u64,
    pub(crate) dead: u64,
    /// Not told, or not kept.
    pub(crate) dropped: u64,
    /// Attempts to write that came to nothing.
    pub(crate) write_failures: u64,
    /// Times that what was written was synced.
    pub(crate) syncs: u64,
    /// Nothing can be written at the moment.
    pub(crate) blocked: bool,
    /// Age of the oldest that is to be delivered.
    pub(crate) lag: Duration,
}

/// What workers and the thread have in common.
struct Shared {
    /// Zero of the clock that everything here goes by.
    start: Instant,
    /// What counts for workers that begin, or take over, from now on.
    interest: Mutex<Arc<Interest>>,
    /// What is told of what is entered from now on: set before workers enter more, and looked at behind what they entered.
    kinds: Mutex<Arc<HashSet<Kind>>>,
    keep_on_shutdown: AtomicBool,
    ledger: Mutex<Ledger>,
    /// The thread has seen all there is, and wants to be woken.
    asleep: AtomicBool,
    notify: Notify,
    numbers: Mutex<EventNumbers>,
}

impl Events {
    /// Reads what an earlier process has left, and starts the thread.
    ///
    /// # Errors
    ///
    /// [`EventsError`].
    pub(crate) fn start(
        settings: Settings,
        hub: Arc<HubConfig>,
        node: String,
        entropy: Box<dyn Entropy + Send>,
    ) -> Result<Self, EventsError> {
        let mut ledger = Ledger::new(settings.terms());
        let interest = Mutex::new(Arc::new(Interest::new(&settings, hub)));
        let kinds = Mutex::new(Arc::new(settings.kinds.clone()));
        let keep_on_shutdown = AtomicBool::new(settings.keep_on_shutdown);
        let start = Instant::now();
        let writer = Writer::open(settings, node, entropy, &mut ledger)?;
        let shared = Arc::new(Shared {
            start,
            interest,
            kinds,
            keep_on_shutdown,
            ledger: Mutex::new(ledger),
            asleep: AtomicBool::new(false),
            notify: Notify::new(),
            numbers: Mutex::default(),
        });
        let (commands, receiver) = mpsc::unbounded_channel();
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(EventsError::System)?;
        let run = writer.run(Arc::clone(&shared), receiver);
        thread::Builder::new()
            .name("events".into())
            .spawn(move || runtime.block_on(run))
            .map_err(EventsError::System)?;
        Ok(Self { shared, commands })
    }

    /// What a worker's hub tells the facts to.
    pub(crate) fn tap(&self) -> Tap {
        Tap::new(self.clone(), Arc::clone(&lock(&self.shared.interest)))
    }

    /// Goes by other options, but for the directory, as a node of that name. Before the workers do, each of which then gets
    /// another [`tap`](Self::tap).
    pub(crate) fn reconfigure(&self, settings: Settings, hub: Arc<HubConfig>, node: String) {
        let shared = &self.shared;
        *lock(&shared.kinds) = Arc::new(settings.kinds.clone());
        *lock(&shared.interest) = Arc::new(Interest::new(&settings, hub));
        shared
            .keep_on_shutdown
            .store(settings.keep_on_shutdown, Ordering::Relaxed);
        lock(&shared.ledger).set_terms(settings.terms());
        // If the thread has ended, the node is about to, too.
        let _ = self
            .commands
            .send(Command::Reconfigure(Box::new(settings), node));
    }

    /// Ends it, and waits for that: the directory is free then, and has what was not delivered. For threads that may block.
    pub(crate) fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).is_ok() {
            let _ = closed.blocking_recv();
        }
    }

    /// The node is about to be stopped: who goes from now on is expected back after a restart, if the options say so.
    pub(crate) fn stopping(&self) {
        if self.shared.keep_on_shutdown.load(Ordering::Relaxed) {
            lock(&self.shared.ledger).expect_restart();
        }
    }

    /// Writes down all that has happened, and tries to deliver it: nobody who has gone is waited for any longer, unless
    /// they are expected back after a restart. Returns whether all was delivered by then; what wasn't is on
    /// disk, for the next process.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing about what was begun.
    pub(crate) async fn flush(&self, deadline: Instant) -> bool {
        let (done, flushed) = oneshot::channel();
        let flush = Command::Flush { deadline, done };
        self.commands.send(flush).is_ok() && flushed.await.unwrap_or(false)
    }

    /// Some of the dead letters, the oldest first: `most` at the most, from the place on that the page before named.
    ///
    /// # Errors
    ///
    /// When the thread has ended.
    pub(crate) async fn dead(
        &self,
        which: DeadEvents,
        from: u64,
        most: usize,
    ) -> io::Result<DeadPage> {
        let (done, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Dead {
            which,
            from,
            most,
            done,
        });
        answer.await.map_err(io::Error::other)
    }

    /// Queues dead letters again, or throws them away. Returns how many.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` when the queue has no room for them, others when the disk hasn't, or the thread has ended.
    pub(crate) async fn settle_dead(&self, which: DeadEvents, again: bool) -> io::Result<usize> {
        let (done, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Settle { which, again, done });
        answer.await.map_err(io::Error::other)?
    }

    /// What was counted so far.
    pub(crate) fn numbers(&self) -> EventNumbers {
        *lock(&self.shared.numbers)
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// What a panic leaves behind is no worse than what it found.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
