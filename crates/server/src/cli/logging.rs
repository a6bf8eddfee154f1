//! Where log lines go: standard error, as the configuration says how many.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{LogFormat, LogLevel, LogOptions};

/// How many there are, while the process runs.
pub(super) struct LogControl(reload::Handle<Targets, Registry>);

impl LogControl {
    /// From now on that much is logged.
    pub(super) fn set_level(&self, level: LogLevel) {
        // Fails where another subscriber is installed, and is nobody's business then.
        let _ = self.0.reload(filter(level));
    }
}

/// Installs the process's subscriber. Once; another one that is there already stays.
pub(super) fn install(options: &LogOptions) -> LogControl {
    let (filter, handle) = reload::Layer::new(filter(options.level));
    let lines = fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let _ = match options.format {
        LogFormat::Text => {
            let lines = lines.with_ansi(io::stderr().is_terminal());
            registry.with(lines).try_init()
        }
        // The fields of an event beside its time and level, where programs look for them.
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    LogControl(handle)
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
