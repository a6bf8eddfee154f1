//! `[revocation]`: tokens that count no more although their time is not over.

use std::ops::RangeInclusive;

use serde::Deserialize;

use super::file::Unusable;

/// `[revocation]`: tokens that were revoked by the server API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RevocationOptions {
    /// Directory in which they are kept, of this server alone; it is made if it isn't there. Needs a restart. Default: empty,
    /// for none: the server then forgets them when it ends.
    pub directory: String,
    /// How many may be known at a time, between 1 and 10,000,000; a further one is refused. Default: 100,000.
    pub max_entries: usize,
}

impl Default for RevocationOptions {
    fn default() -> Self {
        Self {
            directory: String::new(),
            max_entries: 100_000,
        }
    }
}

/// Checks them.
pub(super) fn check(options: &RevocationOptions) -> Result<(), Unusable> {
    if !ENTRIES.contains(&options.max_entries) {
        let problem = "must be between 1 and 10,000,000";
        return Err(Unusable::new("revocation.max_entries", problem));
    }
    Ok(())
}

const ENTRIES: RangeInclusive<usize> = 1..=10_000_000;
