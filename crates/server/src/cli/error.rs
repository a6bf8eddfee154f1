//! Why a command failed, in words for the person at the terminal.

use std::io;
use std::process::ExitCode;

use thiserror::Error;

use crate::config::ConfigError;
use crate::node::NodeError;

/// A failure, with the exit status that goes with it.
#[derive(Debug, Error)]
pub(super) enum CliError {
    /// The command line or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// The work could not be done.
    #[error("{0}")]
    Failure(String),
    /// Whoever read the output has gone, which is no failure.
    #[error("nobody reads the output any more")]
    NobodyReads,
}

impl CliError {
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failure(_) => ExitCode::FAILURE,
            Self::NobodyReads => ExitCode::SUCCESS,
        }
    }

    /// The server could not start or had to stop. `option` is what the address was set by.
    pub(super) fn run(error: &NodeError, option: &str) -> Self {
        Self::Failure(match error {
            NodeError::Listen { address, source } => {
                let hint = match source.kind() {
                    io::ErrorKind::AddrInUse => format!(
                        "another program listens on port {} already, maybe another Tautline; stop \
                         it, or choose another port with {option}",
                        address.port()
                    ),
                    io::ErrorKind::AddrNotAvailable => format!(
                        "this machine has no interface with the address {}; choose one that it has",
                        address.ip()
                    ),
                    io::ErrorKind::PermissionDenied => format!(
                        "ports below 1024 need special rights; choose a higher port with {option}, \
                         or give the program CAP_NET_BIND_SERVICE"
                    ),
                    _ => source.to_string(),
                };
                format!("can't listen on {address}: {hint}")
            }
            other => other.to_string(),
        })
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.all())
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Failure(format!("can't write the output: {error}"))
    }
}
