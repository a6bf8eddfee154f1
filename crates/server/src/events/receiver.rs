//! Who is told of events in code, instead of a backend over HTTP.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::delivery::Outcome;
use super::event::Event;

/// The application's code, which is told who comes and goes, and which channels are in use.
///
/// It stands in the place of `events.endpoint`: everything else of `[events]` is as for a backend, and so are the
/// promises. Each event is told at least once, those of a key in order, also across restarts and after a crash; a
/// batch that was not taken comes again. `docs/events.md` has what the events mean.
///
/// ```no_run
/// use tautline::{Config, Event, EventHandler, EventKind, Node, NotTaken};
///
/// struct Online;
///
/// impl EventHandler for Online {
///     async fn on_events(&self, events: Vec<Event>) -> Result<(), NotTaken> {
///         for event in events {
///             match event.kind {
///                 EventKind::Connected => println!("{:?} is here", event.user),
///                 EventKind::Disconnected => println!("{:?} has gone", event.user),
///                 _ => {}
///             }
///         }
///         Ok(())
///     }
/// }
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::from_toml(
///     r#"
///     [events]
///     enabled = true
///     directory = "/var/lib/app/events"
///     "#,
/// )?;
/// let node = Node::builder(config).event_handler(Online).start()?;
/// # Ok(())
/// # }
/// ```
pub trait EventHandler: Send + Sync + 'static {
    /// Takes a batch: the next one comes when this has returned. On a thread of its own, for all workers; what
    /// blocks there delays events and nothing else.
    ///
    /// # Errors
    ///
    /// [`NotTaken`] has the batch come again, or become dead letters. So does a panic, as
    /// [`NotTaken::Later`].
    ///
    /// # Cancel safety
    ///
    /// After `events.timeout` the future is dropped where it waits, and the batch comes again.
    fn on_events(&self, events: Vec<Event>) -> impl Future<Output = Result<(), NotTaken>> + Send;
}

/// Why events were not taken, for dead letters and the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotTaken {
    /// Not now: the batch comes again, after `events.retry_min` and then ever later.
    #[error("{0}")]
    Later(String),
    /// Not at all: halves of the batch are tried until the event at fault is found, which becomes a dead letter.
    #[error("{0}")]
    Never(String),
}

/// Any of them.
pub(crate) trait AnyEventHandler: Send + Sync {
    fn take(
        self: Arc<Self>,
        events: Vec<Event>,
    ) -> Pin<Box<dyn Future<Output = Result<(), NotTaken>> + Send>>;
}

impl<H: EventHandler> AnyEventHandler for H {
    fn take(
        self: Arc<Self>,
        events: Vec<Event>,
    ) -> Pin<Box<dyn Future<Output = Result<(), NotTaken>> + Send>> {
        Box::pin(async move { self.on_events(events).await })
    }
}

/// One that is there.
#[derive(Clone)]
pub(crate) struct InCode(pub(crate) Arc<dyn AnyEventHandler>);

impl InCode {
    /// Hands a batch over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the attempt; the handler may have seen it.
    pub(super) async fn hand_over(self, events: Vec<Event>, patience: Duration) -> Outcome {
        // A task of its own, so that a panic is the handler's business.
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(self.0.take(events));
        let taken = match tokio::time::timeout(patience, tasks.join_next()).await {
            Ok(Some(Ok(taken))) => taken,
            Ok(Some(Err(_)) | None) => Err(NotTaken::Later("the event handler panicked".into())),
            Err(_elapsed) => {
                let text = format!("the event handler did not return within {patience:?}");
                Err(NotTaken::Later(text))
            }
        };
        match taken {
            Ok(()) => Outcome::Delivered,
            Err(NotTaken::Later(why)) => Outcome::Failed(shortened(why)),
            Err(NotTaken::Never(why)) => Outcome::Refused(shortened(why)),
        }
    }
}

impl fmt::Debug for InCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InCode")
    }
}

/// It is kept with each event.
fn shortened(mut why: String) -> String {
    why.truncate(why.floor_char_boundary(MAX_REASON));
    why
}

const MAX_REASON: usize = 500;
