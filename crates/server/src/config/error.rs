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
    #[error("{path}:{problem}{}", more(others), path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What and where: the first in the file.
        problem: Problem,
        /// What else, in the order of the file.
        others: Vec<Problem>,
    },
    /// A file that had options has none any more, as one that is just being written.
    #[error(
        "{path}: there is no option in it any more, as in a file that is just being written: write the new one beside it \
         and move it there; to do without a file's options, start the server anew",
        path = path.display()
    )]
    Emptied {
        /// The file.
        path: PathBuf,
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

impl ConfigError {
    /// All that is wrong, a line for each.
    pub fn all(&self) -> String {
        let Self::Invalid {
            path,
            problem,
            others,
        } = self
        else {
            return self.to_string();
        };
        let problems = std::iter::once(problem).chain(others);
        let lines = problems.map(|problem| format!("{}:{problem}", path.display()));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn more(others: &[Problem]) -> String {
    match others.len() {
        0 => String::new(),
        count => format!(" (and {count} more; `tautline config check` tells all)"),
    }
}

/// All that is wrong with a file: there is something.
pub(super) struct Problems {
    pub(super) first: Problem,
    pub(super) others: Vec<Problem>,
}

impl Problems {
    pub(super) fn in_file(self, path: PathBuf) -> ConfigError {
        ConfigError::Invalid {
            path,
            problem: self.first,
            others: self.others,
        }
    }
}

impl From<Problem> for Problems {
    fn from(first: Problem) -> Self {
        Self {
            first,
            others: Vec::new(),
        }
    }
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
