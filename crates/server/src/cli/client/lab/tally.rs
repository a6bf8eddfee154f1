//! What is counted of one way, by all its clients.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Shared by a way's clients, which are on one thread, and by who shows it.
#[derive(Default)]
pub(super) struct Tally {
    requests: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    heard: AtomicU64,
    latencies: Mutex<Latencies>,
}

impl Tally {
    pub(super) fn asked(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn heard(&self, latency: Duration) {
        self.heard.fetch_add(1, Relaxed);
        self.latencies().add(latency);
    }

    pub(super) fn figures(&self) -> Figures {
        let latencies = self.latencies();
        Figures {
            heard: self.heard.load(Relaxed),
            requests: self.requests.load(Relaxed),
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
            p50: latencies.at(50),
            p99: latencies.at(99),
            server_cpu: None,
            client_cpu: None,
        }
    }

    fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one way has come to so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// Messages, counted with each client that got them.
    pub(super) heard: u64,
    pub(super) requests: u64,
    /// Bytes by the clients, heads included.
    pub(super) sent: u64,
    /// Bytes to the clients, heads included.
    pub(super) received: u64,
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
    /// What its clients cost the server, where that can be told.
    pub(super) server_cpu: Option<Duration>,
    /// What they cost here, where that can be told.
    pub(super) client_cpu: Option<Duration>,
}

/// A histogram of microseconds with buckets of 3 %, so that its size doesn't depend on how many they are.
struct Latencies {
    buckets: Vec<u64>,
    total: u64,
}

impl Latencies {
    fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket_of(micros)) {
            *bucket += 1;
            self.total += 1;
        }
    }

    /// What so many percent did not exceed.
    fn at(&self, percent: u64) -> Option<Duration> {
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map(|bucket| Duration::from_micros(micros_of(bucket)))
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: vec![0; bucket_of(u64::MAX) + 1],
            total: 0,
        }
    }
}

/// One for each microsecond up to 63, then 32 for each power of two.
fn bucket_of(micros: u64) -> usize {
    let shift = micros.checked_ilog2().unwrap_or(0).saturating_sub(STEP);
    // Below 64 for each shift.
    (shift as usize) * (1 << STEP) + (micros >> shift) as usize
}

/// The least that falls into a bucket.
fn micros_of(bucket: usize) -> u64 {
    let shift = (bucket >> STEP).saturating_sub(1);
    ((bucket - (shift << STEP)) as u64) << shift
}

/// Buckets for a power of two, as a power of two.
const STEP: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_and_are_narrow() {
        for bucket in 1..bucket_of(u64::MAX) {
            let (from, to) = (micros_of(bucket), micros_of(bucket + 1));
            assert_eq!(bucket_of(from), bucket);
            assert_eq!(bucket_of(to - 1), bucket);
            assert!(to - from <= 1 + from / 32, "{from} to {to}");
        }
    }

    #[test]
    fn percentiles_are_what_so_many_did_not_exceed() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.at(50), None);
        for micros in 1..=50 {
            latencies.add(Duration::from_micros(micros));
        }
        assert_eq!(latencies.at(50), Some(Duration::from_micros(25)));
        assert_eq!(latencies.at(99), Some(Duration::from_micros(50)));
        latencies.add(Duration::MAX);
        assert!(latencies.at(100) > Some(Duration::from_secs(1 << 40)));
    }
}
