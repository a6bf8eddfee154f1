//! Where log lines go: standard error, as the configuration says how many.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::{panic, thread};

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use super::error::CliError;
use crate::config::{LogFormat, LogLevel, LogOptions};
use crate::log_queue::{LAST_MOMENT, LogQueue};

/// The process's log. Dropped, it waits for a moment until all lines are written.
pub(super) struct Log {
    queue: LogQueue,
    control: LogControl,
}

/// How many lines there are, and how they are written, while the process runs.
#[derive(Clone)]
pub(super) struct LogControl {
    level: reload::Handle<Targets, Registry>,
    is_json: Arc<AtomicBool>,
}

impl Log {
    /// What says how much is logged, and how.
    pub(super) fn control(&self) -> LogControl {
        self.control.clone()
    }

    /// Where the lines wait.
    pub(super) fn queue(&self) -> LogQueue {
        self.queue.clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.flush(LAST_MOMENT);
    }
}

impl LogControl {
    /// From now on it is logged by these options.
    pub(super) fn set(&self, options: &LogOptions) {
        let is_json = options.format == LogFormat::Json;
        self.is_json.store(is_json, Ordering::Relaxed);
        // Fails where another subscriber is installed, and is nobody's business then.
        let _ = self.level.reload(filter(options.level));
    }
}

/// Installs the process's subscriber, and has panics in the log. Once; another subscriber that is there already stays.
pub(super) fn install(options: &LogOptions) -> Result<Log, CliError> {
    let queue = LogQueue::start(io::stderr());
    let queue = queue.map_err(|error| {
        CliError::Failure(format!("the system gives no thread for the log: {error}"))
    })?;
    let (filter, level) = reload::Layer::new(filter(options.level));
    let is_json = Arc::new(AtomicBool::new(options.format == LogFormat::Json));
    let text = Lines {
        layer: fmt::layer()
            .with_writer(queue.clone())
            .with_ansi(io::stderr().is_terminal()),
        is_json: Arc::clone(&is_json),
        when: false,
    };
    // The fields of an event beside its time and level, where programs look for them.
    let json = Lines {
        layer: fmt::layer()
            .with_writer(queue.clone())
            .json()
            .flatten_event(true),
        is_json: Arc::clone(&is_json),
        when: true,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let _ = registry.with(text).with(json).try_init();
    let panics = queue.clone();
    panic::set_hook(Box::new(move |panic| panics.tell_panic(panic)));
    let control = LogControl { level, is_json };
    Ok(Log { queue, control })
}

/// One of the ways in which lines are written: knows of all spans, and writes events while it is the one that is wanted.
struct Lines<L> {
    layer: L,
    is_json: Arc<AtomicBool>,
    when: bool,
}

impl<S: Subscriber, L: Layer<S>> Layer<S> for Lines<L> {
    fn on_layer(&mut self, subscriber: &mut S) {
        self.layer.on_layer(subscriber);
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.layer.on_new_span(attributes, id, context);
    }

    fn on_record(&self, span: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.layer.on_record(span, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.layer.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.layer.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.layer.on_close(id, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if self.is_json.load(Ordering::Relaxed) == self.when {
            self.layer.on_event(event, context);
        }
    }
}

/// The last word of a process. Nobody who doesn't read it can keep the process from its end.
pub(super) fn say(text: String) {
    let (done, said) = mpsc::channel();
    let saying = thread::Builder::new().spawn(move || {
        // With standard error gone there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{text}");
        let _ = done.send(());
    });
    if saying.is_ok() {
        let _ = said.recv_timeout(LAST_MOMENT);
    }
}

/// What is told at a level. The libraries of HTTP and TLS warn of whatever a peer does wrong, with which strangers could
/// fill the log: that is for those who look for something at the level `debug`, and counted for all.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::None => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let mut targets = Targets::new().with_default(level);
    if level < LevelFilter::DEBUG {
        for library in ["h2", "hyper", "rustls"] {
            targets = targets.with_target(library, level.min(LevelFilter::ERROR));
        }
    }
    targets
}
