//! How long something took, as histograms.

use std::time::Duration;

/// How many durations were at most as long as each bound: those of what waits for others.
pub type Histogram = Durations<false>;

/// The same with finer bounds: those of what happens within the process.
pub type FineHistogram = Durations<true>;

/// How many durations were at most as long as each bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations<const FINE: bool> {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl<const FINE: bool> Durations<FINE> {
    /// In seconds.
    pub const BOUNDS: [f64; BOUNDS.len()] = if FINE { FINE_BOUNDS } else { BOUNDS };

    /// Counts one.
    pub fn add(&mut self, duration: Duration) {
        if duration.is_zero() {
            // The usual one, which is to cost nothing.
            self.counts[0] += 1;
            return;
        }
        let seconds = duration.as_secs_f64();
        let place = Self::BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[place] += 1;
        self.sum += duration;
    }

    /// Whether nothing was counted yet.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// How many were counted, and how long they took together.
    pub fn total(&self) -> (u64, Duration) {
        (self.counts.iter().sum(), self.sum)
    }

    /// How many there were by bound, not added up; the last is for what is longer than all.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_below_the_bound_that_it_does_not_exceed() {
        let mut some = Histogram::default();
        assert!(some.is_empty());
        for micros in [0, 100, 101, 20_000_000] {
            some.add(Duration::from_micros(micros));
        }
        let mut both = some;
        both.merge(&some);
        assert_eq!(both.counts()[..3], [4, 2, 0]);
        assert_eq!(both.counts().last(), Some(&2));
        assert_eq!(both.total(), (8, Duration::from_micros(40_000_402)));
    }
}
