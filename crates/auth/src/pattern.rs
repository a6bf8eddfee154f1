//! Regular expressions that operators and tokens bring along.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};

/// A regular expression that is searched for in short texts, in time that grows with both their
/// lengths and nothing else. Takes little memory, so that a token may bring one for each connection.
///
/// The syntax is the usual one of Perl, RE2 and Rust, without look-around, back-references and classes
/// of Unicode (`\p{...}`); `\d`, `\w` and `\s` are about ASCII. What it has to match as a whole begins
/// with `^` and ends with `$`.
///
/// ```
/// use tautline_auth::Pattern;
///
/// let pattern = Pattern::new(r"^posts_\d+$")?;
/// assert!(pattern.is_match("posts_42"));
/// assert!(!pattern.is_match("posts_42x"));
/// assert!(Pattern::new("(").is_err());
/// # Ok::<(), tautline_auth::PatternError>(())
/// ```
#[derive(Clone)]
pub struct Pattern(regex_lite::Regex);

/// A text that can't be used as a regular expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` can't be used as a regular expression: {problem}")]
pub struct PatternError {
    /// The beginning of the text.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Pattern {
    /// Makes one of a text of at most [`MAX_PATTERN_LEN`] bytes.
    ///
    /// # Errors
    ///
    /// If it is longer, no regular expression, or one that would take much memory, such as `(a{99}){99}`.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let error = |problem: String| PatternError {
            pattern: pattern.chars().take(MAX_SHOWN).collect(),
            problem,
        };
        if pattern.len() > MAX_PATTERN_LEN {
            let problem = format!(
                "it is {} bytes long, at most {MAX_PATTERN_LEN} are accepted",
                pattern.len()
            );
            return Err(error(problem));
        }
        let regex = regex_lite::RegexBuilder::new(pattern)
            .size_limit(MAX_PROGRAM)
            .nest_limit(MAX_NESTING)
            .build();
        regex.map(Self).map_err(|cause| error(cause.to_string()))
    }

    /// Whether it is found in a text.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// Whether it has a group of that name, such as `(?<tenant>[a-z]+)`.
    pub(crate) fn has_group(&self, name: &str) -> bool {
        self.0.capture_names().flatten().any(|group| group == name)
    }

    /// What its groups found in a text that it is found in.
    pub(crate) fn groups<'t>(&self, text: &'t str) -> Option<Groups<'t>> {
        self.0.captures(text).map(Groups)
    }

    /// The text that it was made of.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// What the groups of a [`Pattern`] found in a text.
pub(crate) struct Groups<'t>(regex_lite::Captures<'t>);

impl<'t> Groups<'t> {
    /// What the group of that name found, if anything.
    pub(crate) fn get(&self, name: &str) -> Option<&'t str> {
        self.0.name(name).map(|found| found.as_str())
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(D::Error::custom)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.as_str()).finish()
    }
}

/// Longest text of a regular expression, in bytes.
pub const MAX_PATTERN_LEN: usize = 256;
/// Bytes of the program that it becomes: what a match costs for each character, at the worst.
const MAX_PROGRAM: usize = 16 * 1024;
const MAX_NESTING: u32 = 32;
const MAX_SHOWN: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_take_much_is_refused() {
        for pattern in [
            "(a{99}){99}".to_owned(),
            "x{100000}".to_owned(),
            "(".repeat(100) + &")".repeat(100),
            "x".repeat(MAX_PATTERN_LEN + 1),
            "a(?=b)".to_owned(),
            r"(a)\1".to_owned(),
        ] {
            let error = Pattern::new(&pattern).unwrap_err().to_string();
            assert!(error.contains("regular expression: "), "{error}");
            assert!(error.len() < 300, "{error}");
        }
    }

    #[test]
    fn a_regex_for_catastrophes_ends() {
        let pattern = Pattern::new("^(a*)*(a|aa)+$").unwrap();
        assert!(!pattern.is_match(&("a".repeat(255) + "b")));
    }
}
