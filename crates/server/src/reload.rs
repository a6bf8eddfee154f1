//! Reloading: another configuration for a node that runs.
//!
//! It is read and checked whole, as at a start, before anything changes; a bad one changes nothing. What
//! differs is told. Workers then take it over, each between two of its turns (`worker/live.rs`).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::config::{Change, Config, ConfigError, ConfigFile, Values};
use crate::events::EventsError;
use crate::http::metrics::ReloadNumbers;
use crate::worker::thread::Shared;

/// What a reload has come to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Reloaded {
    /// What has changed, and what would after a restart.
    pub changes: Vec<Change>,
    /// What can be as it is, but may not be what was meant.
    pub warnings: Vec<String>,
}

/// Why a configuration isn't reloaded. The one from before goes on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// There is nothing to read it from.
    #[error("this server has no configuration file that could be read again")]
    NoFile,
    /// It can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Two were to decide the same.
    #[error(
        "there is a handler in code, and the configuration has proxies to a backend, which decide the same: \
         leave one of them out"
    )]
    HandlerAndProxies,
    /// There can be no events to the backend.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// The system doesn't give what it needs.
    #[error("the system gives no thread for it: {0}")]
    System(#[source] io::Error),
    /// It was given up half-way.
    #[error("it was given up; this is a bug in Tautline, please report it with the log")]
    GivenUp,
}

/// What is done with a configuration that was applied, beside what a node does.
pub(crate) type Applied = Box<dyn Fn(&Config) + Send + Sync>;

/// What a node knows of its reloads.
pub(crate) struct Reloads {
    file: Option<ConfigFile>,
    /// What each option is set to that runs. Held for the length of a reload: there is one at a time.
    running: Mutex<Values>,
    applied: Option<Applied>,
    count_applied: AtomicU64,
    count_refused: AtomicU64,
    last_success: AtomicU64,
}

impl Reloads {
    pub(crate) fn new(file: Option<ConfigFile>, values: Values, applied: Option<Applied>) -> Self {
        Self {
            file,
            running: Mutex::new(values),
            applied,
            count_applied: AtomicU64::new(0),
            count_refused: AtomicU64::new(0),
            last_success: AtomicU64::new(unix_time()),
        }
    }

    pub(crate) fn numbers(&self) -> ReloadNumbers {
        ReloadNumbers {
            applied: self.count_applied.load(Ordering::Relaxed),
            refused: self.count_refused.load(Ordering::Relaxed),
            last_success: self.last_success.load(Ordering::Relaxed),
        }
    }

    fn count(&self, outcome: &Result<Reloaded, ReloadError>) {
        match outcome {
            Ok(Reloaded { changes, warnings }) => {
                self.count_applied.fetch_add(1, Ordering::Relaxed);
                self.last_success.store(unix_time(), Ordering::Relaxed);
                tracing::info!(changes = changes.len(), "the configuration was reloaded");
                for change in changes {
                    tracing::info!("{change}");
                }
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
            }
            Err(error) => {
                self.count_refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    "the configuration was not reloaded, and the one from before goes on: {error}"
                );
            }
        }
    }
}

/// Reloads, from the file unless there is a configuration already. On a thread of its own, as files are read
/// and certificates are checked: no worker waits for that.
pub(crate) fn reload(
    shared: &Arc<Shared>,
    config: Option<Config>,
) -> impl Future<Output = Result<Reloaded, ReloadError>> + Send + use<> {
    let (answer, answered) = oneshot::channel();
    let shared = Arc::clone(shared);
    let thread = thread::Builder::new().name("reload".into());
    let started = thread.spawn(move || {
        // Nobody to tell any more is nothing to tell.
        drop(answer.send(reload_now(&shared, config)));
    });
    async move {
        started.map_err(ReloadError::System)?;
        answered.await.unwrap_or(Err(ReloadError::GivenUp))
    }
}

fn reload_now(shared: &Arc<Shared>, config: Option<Config>) -> Result<Reloaded, ReloadError> {
    let reloads = &shared.reloads;
    // What a reload that was given up has left is whole.
    let running = reloads.running.lock();
    let mut running = running.unwrap_or_else(PoisonError::into_inner);
    let config = config.map_or_else(|| read(reloads.file.as_ref(), &running), Ok);
    let outcome = config.and_then(|config| apply(shared, config, &mut running));
    reloads.count(&outcome);
    outcome
}

fn read(file: Option<&ConfigFile>, running: &Values) -> Result<Config, ReloadError> {
    Ok(file.ok_or(ReloadError::NoFile)?.load_again(running)?)
}

fn apply(
    shared: &Arc<Shared>,
    config: Config,
    running: &mut Values,
) -> Result<Reloaded, ReloadError> {
    let changes = running.changes(&config.values);
    let reloaded = Reloaded {
        warnings: config.warnings.clone(),
        changes,
    };
    let values = config.values.holding(running);
    let before = Arc::clone(&shared.live.borrow());
    let name = shared.identity.name_by(&config.node.name);
    let (live, events) = before.succeed(config, shared, &name)?;
    let config = Arc::clone(&live.config);
    let new_certificates = match (&before.tls, &live.tls) {
        (Some(before), Some(now)) => !Arc::ptr_eq(before, now) && !before.shows_the_same_as(now),
        _ => false,
    };
    shared.take_over(live, events);
    if new_certificates {
        tracing::info!("new certificates are in use");
    }
    if let Some(applied) = &shared.reloads.applied {
        applied(&config);
    }
    *running = values;
    Ok(reloaded)
}

fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
