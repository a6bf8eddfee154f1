//! Tags filters: which of a channel's publications a subscriber wants.

/// A filter as it came in a subscribe request, not looked into yet: most servers refuse it, or know
/// it already.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawFilter<'a> {
    /// The text of a JSON value.
    Json(&'a str),
}
