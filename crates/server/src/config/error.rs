//! What is wrong with a configuration.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A configuration that can't be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file has something in it that can't be used.
    #[error("{path}:{problem}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What and where.
        problem: Problem,
    },
    /// Something that the environment or the command line says can't be used.
    #[error("{from}: {problem}")]
    Override {
        /// The variable, or the argument.
        from: String,
        /// What was expected, what came, what to do.
        problem: String,
    },
    /// The development server can't be set up.
    #[error("{0}")]
    Dev(String),
}

/// What can't be used, and where it stands: `3:1: unknown key …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; `None` if it is about something that is not there.
    pub line: Option<usize>,
    /// Character in the line, from 1.
    pub column: usize,
    /// What was expected, what came, what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "{line}:{}:", self.column)?;
        }
        write!(f, " {}", self.message)
    }
}
