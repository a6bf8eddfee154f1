//! `[log]`: what is told on standard error.

use serde::Deserialize;

use super::Share;

/// `[log]`: what is told on standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// How much. Default: `info`.
    pub level: LogLevel,
    /// As text for people, or as a JSON object a line for programs. Default: `text`.
    pub format: LogFormat,
    /// Which connections are logged, with a line when they come in and one when they end (level `info`, target
    /// `tautline::connections`): `off`, `all`, or a percentage of them such as `1%`. Default: `off`.
    pub connections: Share,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How much is logged; each level has those above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogLevel {
    /// Nothing.
    None,
    /// What an operator has to look after.
    Error,
    /// What may become that.
    Warn,
    /// Start, stop, changes.
    #[default]
    Info,
    /// What connections do.
    Debug,
    /// Everything.
    Trace,
}
