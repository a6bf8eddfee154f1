//! How long something took, as histograms.

use std::time::Duration;

/// How many durations were at most as long as each bound: those of what waits for others.
pub(crate) type Histogram = Durations<false>;

/// The same with finer bounds: those of what happens within the process.
pub(crate) type FineHistogram = Durations<true>;

/// How many durations were at most as long as each bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durations<const FINE: bool> {
    /// By bound, not added up; the last is for what is longer than all.
    pub(super) counts: [u64; BOUNDS.len() + 1],
    pub(super) sum: Duration,
}

impl<const FINE: bool> Durations<FINE> {
    /// In seconds.
    pub(super) const BOUNDS: [f64; BOUNDS.len()] = if FINE { FINE_BOUNDS } else { BOUNDS };

    pub(crate) fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let place = Self::BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[place] += 1;
        self.sum += duration;
    }

    /// Whether nothing was counted yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// How many were counted, and how long they took together.
    #[cfg(test)]
    pub(crate) fn total(&self) -> (u64, Duration) {
        (self.counts.iter().sum(), self.sum)
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }
}

/// Bounds of durations, in seconds.
const BOUNDS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Bounds of durations within the process, in seconds.
const FINE_BOUNDS: [f64; BOUNDS.len()] = [
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.5, 1.0,
];
