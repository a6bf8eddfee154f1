//! Where log lines go: standard error, as the configuration says how many.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::LevelFilter;

use crate::config::{LogFormat, LogLevel, LogOptions};

/// Installs the process's subscriber. Once; another one that is there already stays.
pub(super) fn install(options: &LogOptions) {
    let level = match options.level {
        LogLevel::None => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr);
    let _ = match options.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        // The fields of an event beside its time and level, where programs look for them.
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
