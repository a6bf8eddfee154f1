//! Where log lines go: standard error, as the configuration says how many.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc;
use std::{panic, thread};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use super::error::CliError;
use crate::config::{LogFormat, LogLevel, LogOptions};
use crate::log_queue::{LAST_MOMENT, LogQueue};

/// The process's log. Dropped, it waits for a moment until all lines are written.
pub(super) struct Log {
    queue: LogQueue,
    level: reload::Handle<Targets, Registry>,
}

/// How many lines there are, while the process runs.
pub(super) struct LogControl(reload::Handle<Targets, Registry>);

impl Log {
    /// What says how much is logged.
    pub(super) fn control(&self) -> LogControl {
        LogControl(self.level.clone())
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
    /// From now on that much is logged.
    pub(super) fn set_level(&self, level: LogLevel) {
        // Fails where another subscriber is installed, and is nobody's business then.
        let _ = self.0.reload(filter(level));
    }
}

/// Installs the process's subscriber, and has panics in the log. Once; another subscriber that is there already stays.
pub(super) fn install(options: &LogOptions) -> Result<Log, CliError> {
    let queue = LogQueue::start(io::stderr());
    let queue = queue.map_err(|error| {
        CliError::Failure(format!("the system gives no thread for the log: {error}"))
    })?;
    let (filter, level) = reload::Layer::new(filter(options.level));
    let lines = fmt::layer().with_writer(queue.clone());
    let registry = tracing_subscriber::registry().with(filter);
    let _ = match options.format {
        LogFormat::Text => {
            let lines = lines.with_ansi(io::stderr().is_terminal());
            registry.with(lines).try_init()
        }
        // The fields of an event beside its time and level, where programs look for them.
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    let panics = queue.clone();
    panic::set_hook(Box::new(move |panic| panics.tell_panic(panic)));
    Ok(Log { queue, level })
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
