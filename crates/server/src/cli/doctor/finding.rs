//! What the doctor found.

use serde_json::json;

use crate::cli::client::show::{clean, print};
use crate::cli::error::CliError;

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grade {
    Good,
    /// It works, but not for everybody or not for long.
    Doubtful,
    /// It doesn't work.
    Bad,
}

impl Grade {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Doubtful => "warn",
            Self::Bad => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) grade: Grade,
    /// What was looked at, in a few words.
    pub(super) subject: &'static str,
    /// What was found.
    pub(super) text: String,
    /// The line to change, where there is one.
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn good(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(Grade::Good, subject, text)
    }

    pub(super) fn doubtful(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(Grade::Doubtful, subject, text)
    }

    pub(super) fn bad(subject: &'static str, text: impl Into<String>) -> Self {
        Self::new(Grade::Bad, subject, text)
    }

    fn new(grade: Grade, subject: &'static str, text: impl Into<String>) -> Self {
        Self {
            grade,
            subject,
            text: text.into(),
            remedy: None,
        }
    }

    #[must_use]
    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// Prints a finding.
pub(super) fn show(finding: &Finding, as_json: bool) -> Result<(), CliError> {
    let Finding {
        grade,
        subject,
        text,
        remedy,
    } = finding;
    if as_json {
        let line = json!({
            "grade": grade.word().to_lowercase(), "subject": subject, "text": text, "remedy": remedy,
        });
        return print(&format!("{line}\n"));
    }
    let mut lines = format!("{:<5} {subject}: {}\n", grade.word(), clean(text));
    for line in remedy.iter().flat_map(|remedy| remedy.lines()) {
        lines.push_str("        ");
        lines.push_str(&clean(line));
        lines.push('\n');
    }
    print(&lines)
}
