//! Traces for OpenTelemetry: which calls there were, how long they took, and what they belong to.
//!
//! A call of the server API goes on with the trace that its caller names (W3C Trace Context, `traceparent`), and with it the way of
//! what it publishes; so does what a client publishes, in a trace of its own, with what the application's backend is asked about it; any
//! other question to the backend, and a batch of events for it, begins one; it is named to the backend. Spans that are kept go through a bounded queue to a thread which posts them
//! to a collector (OTLP over HTTP, in JSON). Nobody ever waits for it: what has no room is dropped and counted.
//!
//! - `context`: what is passed on of a trace; no I/O;
//! - `delivery`: from the publication to its subscribers; `publication`: which of those of clients;
//! - `otlp`: spans as collectors read them;
//! - `exporter`: the thread.

mod context;
mod delivery;
mod exporter;
mod otlp;
mod publication;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use tautline_hub::watch::TraceParent;
use tokio::sync::{mpsc, oneshot, watch};

use self::context::Context;
pub use self::delivery::Delivery;
pub(crate) use self::delivery::{Followed, MOST_FOLLOWED};
use self::exporter::{Exporter, Order};
pub(crate) use self::publication::{Publication, Sampler};
use crate::config::OtlpOptions;
use crate::proxy::endpoint::Endpoint;

/// Where traces go, checked.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) endpoint: Endpoint,
    pub(crate) service: String,
    /// Of a hundred traces that begin here, so many are kept.
    pub(crate) percent: u32,
    pub(crate) queue: usize,
    /// All of it, as it is written.
    pub(crate) made_of: OtlpOptions,
}

/// The node's spans, from anywhere in the process. The thread ends with this, when it has sent what it has.
pub struct Telemetry {
    percent: u32,
    spans: mpsc::Sender<Finished>,
    orders: mpsc::UnboundedSender<Order>,
    hurry: watch::Sender<Option<Instant>>,
    /// Until the thread is started.
    exporter: Mutex<Option<Exporter>>,
    /// From then on.
    running: OnceLock<Running>,
    made_of: OtlpOptions,
}

/// What there is beside the thread.
struct Running {
    node: String,
    counts: Arc<Counts>,
    /// Whoever comes after this takes what could not be sent.
    heir: Arc<OnceLock<mpsc::Sender<Finished>>>,
    /// Says nothing, and ends when the thread does.
    over: watch::Receiver<()>,
}

/// One that was replaced, or switched off, by a reload, and may have something to send still.
#[derive(Clone)]
pub(crate) struct Former {
    hurry: watch::Sender<Option<Instant>>,
    over: watch::Receiver<()>,
}

/// What was counted of spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpanNumbers {
    pub(crate) exported: u64,
    pub(crate) dropped: u64,
    pub(crate) failed: u64,
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// Which end of a call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Server,
    Client,
    /// Neither: something within the node.
    Internal,
}

/// What somebody else is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nothing that is in a trace: this is where one begins.
    Itself,
    /// A publication of a client; in this trace, if it was chosen to be in one.
    Publication(Option<TraceParent>),
}

/// What a span says beside its name: a key of the semantic conventions, and a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute(pub(crate) &'static str, pub(crate) String);

/// A call that is under way.
pub(crate) struct Span<'a> {
    telemetry: &'a Telemetry,
    context: Context,
    begun: Instant,
    /// `None` for one that isn't kept.
    kept: Option<Finished>,
}

/// One that is over.
#[derive(Clone, Debug)]
struct Finished {
    context: Context,
    parent: Option<[u8; 8]>,
    name: String,
    kind: Kind,
    /// Unix time.
    start: Duration,
    took: Duration,
    attributes: Vec<Attribute>,
    numbers: Vec<(&'static str, u64)>,
    error: Option<String>,
}

impl Telemetry {
    /// Nothing is sent before it is [started](Self::start).
    pub(crate) fn new(settings: Settings) -> Self {
        let (spans, queue) = mpsc::channel(settings.queue);
        let (orders, ordered) = mpsc::unbounded_channel();
        let (hurry, hurried) = watch::channel(None);
        let percent = settings.percent;
        let made_of = settings.made_of.clone();
        let exporter = Exporter::new(settings, queue, ordered, hurried);
        Self {
            percent,
            spans,
            orders,
            hurry,
            exporter: Mutex::new(Some(exporter)),
            running: OnceLock::new(),
            made_of,
        }
    }

    /// Starts the thread, once. `node` is the name of this node among others; what is counted goes on from what another has
    /// counted before this. That sends what it has, and ends when nobody uses it any more.
    ///
    /// # Errors
    ///
    /// When the system gives no thread or no event loop.
    pub(crate) fn start(&self, node: &str, before: Option<&Self>) -> io::Result<()> {
        let exporter = self.exporter.lock();
        let exporter = exporter.unwrap_or_else(PoisonError::into_inner).take();
        let Some(exporter) = exporter else {
            return Ok(());
        };
        let before = before.and_then(|before| before.running.get());
        let (alive, over) = watch::channel(());
        let running = self.running.get_or_init(|| Running {
            node: node.to_owned(),
            counts: before.map_or_else(Arc::default, |before| Arc::clone(&before.counts)),
            heir: Arc::default(),
            over,
        });
        let (counts, heir) = (Arc::clone(&running.counts), Arc::clone(&running.heir));
        exporter.start(node, counts, heir, alive)?;
        if let Some(before) = before {
            // Of several that come after one, the first has it.
            let _ = before.heir.set(self.spans.clone());
        }
        Ok(())
    }

    /// What to wait for when this is used no more; `None` if it was never started.
    pub(crate) fn former(&self) -> Option<Former> {
        self.running.get().map(|running| Former {
            hurry: self.hurry.clone(),
            over: running.over.clone(),
        })
    }

    /// Whether one that runs, on a node that is to have that name, does the same. With certificates it never does: they may
    /// be in files, and others by now.
    pub(crate) fn is_like(&self, running: &Self, node: &str) -> bool {
        let is_there = running.running.get().is_some_and(|one| one.node == node);
        is_there && self.made_of == running.made_of && self.made_of.server_ca_pem.is_none()
    }

    /// Sends what waits, until then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing about what was begun.
    pub(crate) async fn flush(&self, deadline: Instant) {
        let (done, flushed) = oneshot::channel();
        if self.orders.send(Order { deadline, done }).is_ok() {
            let _ = tokio::time::timeout_at(deadline.into(), flushed).await;
        }
    }

    /// A call that came with these header fields: it belongs to what its caller says.
    pub(crate) fn server(&self, headers: &HeaderMap, name: impl FnOnce() -> String) -> Span<'_> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next().filter(|_| parents.next().is_none());
        let parent = parent.and_then(|value| Context::parse(value.as_bytes()));
        self.begin(parent, Kind::Server, name)
    }

    /// A call of somebody else.
    pub(crate) fn client(&self, cause: Cause, name: impl FnOnce() -> String) -> Span<'_> {
        match cause {
            Cause::Itself => self.begin(None, Kind::Client, name),
            Cause::Publication(Some(parent)) => self.begin(Some(parent.into()), Kind::Client, name),
            // It was decided where that began.
            Cause::Publication(None) => self.begin_of(0, None, Kind::Client, name),
        }
    }

    fn begin(
        &self,
        parent: Option<Context>,
        kind: Kind,
        name: impl FnOnce() -> String,
    ) -> Span<'_> {
        self.begin_of(self.percent, parent, kind, name)
    }

    /// Of a hundred that belong to nothing, so many are kept.
    fn begin_of(
        &self,
        percent: u32,
        parent: Option<Context>,
        kind: Kind,
        name: impl FnOnce() -> String,
    ) -> Span<'_> {
        let mut random = [0; 24];
        let is_random = getrandom::fill(&mut random).is_ok();
        let context = match &parent {
            Some(parent) => parent.child(random),
            None => Context::root(random, percent),
        };
        let kept = (is_random && context.is_sampled()).then(|| Finished {
            context,
            parent: parent.map(|parent| parent.span()),
            name: name(),
            kind,
            start: unix_time(),
            took: Duration::ZERO,
            attributes: Vec::new(),
            numbers: Vec::new(),
            error: None,
        });
        Span {
            telemetry: self,
            context,
            begun: Instant::now(),
            kept,
        }
    }

    /// A further span of a trace; `None` without randomness.
    fn child(&self, parent: &Context) -> Option<Context> {
        let mut random = [0; 24];
        getrandom::fill(&mut random).ok()?;
        Some(parent.child(random))
    }

    /// Sends a span that is over, if there is room.
    fn finish(&self, span: Finished) {
        if self.spans.try_send(span).is_err()
            && let Some(Running { counts, .. }) = self.running.get()
        {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    pub(crate) fn numbers(&self) -> SpanNumbers {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Some(Running { counts, .. }) = self.running.get() else {
            return SpanNumbers::default();
        };
        SpanNumbers {
            exported: read(&counts.exported),
            dropped: read(&counts.dropped),
            failed: read(&counts.failed),
        }
    }
}

impl Span<'_> {
    /// Names the trace to whoever is called.
    pub(crate) fn pass_on(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.context.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
    }

    /// Says more about it. Not asked for where it isn't kept.
    pub(crate) fn say<const N: usize>(&mut self, attributes: impl FnOnce() -> [Attribute; N]) {
        if let Some(kept) = &mut self.kept {
            kept.attributes.extend(attributes());
        }
    }

    /// Says a number about it, if it is kept.
    pub(crate) fn count(&mut self, key: &'static str, number: u64) {
        if let Some(kept) = &mut self.kept {
            kept.numbers.push((key, number));
        }
    }

    /// What is published within it is followed, if it is kept.
    pub(crate) fn follow(&self, telemetry: &Arc<Telemetry>) -> Option<Followed> {
        let is_kept = self.kept.is_some();
        is_kept.then(|| Followed::new(Arc::clone(telemetry), self.context))
    }

    /// It came to nothing.
    pub(crate) fn fail(&mut self, why: impl FnOnce() -> String) {
        if let Some(kept) = &mut self.kept {
            kept.error = Some(why());
        }
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        let Some(mut kept) = self.kept.take() else {
            return;
        };
        kept.took = self.begun.elapsed();
        self.telemetry.finish(kept);
    }
}

impl Former {
    /// Whether it has nothing to send any more.
    pub(crate) fn is_over(&self) -> bool {
        self.over.has_changed().is_err()
    }

    /// Has it send what waits, until then, and end; what it can't send is with whoever came after it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing about what was begun.
    pub(crate) async fn end(mut self, deadline: Instant) {
        self.hurry.send_replace(Some(deadline));
        // It says nothing, and is gone when the thread is. That has to hand over what it has at the deadline.
        while self.over.changed().await.is_ok() {}
    }
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

fn unix_time() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// W3C Trace Context, section 3.2.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
