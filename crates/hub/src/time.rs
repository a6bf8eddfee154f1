//! Time as an argument.

use std::time::Duration;

/// A reading of the caller's clocks.
///
/// Everything that waits is measured on `monotonic`; `unix` is only compared with the times that
/// tokens carry. A test owns both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since some fixed point of the process; never goes back.
    pub monotonic: Duration,
    /// Time since 1970-01-01 UTC; may jump.
    pub unix: Duration,
}
