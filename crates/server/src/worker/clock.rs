//! The one place where the server reads the time.

use std::cell::Cell;
use std::time::{self, Duration, SystemTime, UNIX_EPOCH};

use tautline_hub::Now;
use tokio::time::Instant;

/// How long the offset between the two clocks is believed before it is measured again.
const RESYNC: Duration = Duration::from_secs(1);

/// A worker's clocks. Reading costs one call to the monotonic clock; the offset to Unix time is
/// measured again once a second, so that a step of the system's clock is seen soon.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// Unix time minus monotonic time, and when it was measured.
    offset: Cell<(Duration, Duration)>,
}

impl Clock {
    /// Clocks that count monotonic time from `start`, which all workers of a process share.
    pub(crate) fn new(start: time::Instant) -> Self {
        // The clock of timers, which is the system's, and a test's own where there is one.
        let start = Instant::from_std(start);
        let clock = Self {
            start,
            offset: Cell::default(),
        };
        clock.resync(start.elapsed());
        clock
    }

    pub(crate) fn now(&self) -> Now {
        let monotonic = self.start.elapsed();
        let (mut offset, measured) = self.offset.get();
        if monotonic.saturating_sub(measured) >= RESYNC {
            offset = self.resync(monotonic);
        }
        Now {
            monotonic,
            unix: offset + monotonic,
        }
    }

    /// The instant at which the monotonic clock reads `monotonic`.
    pub(crate) fn instant(&self, monotonic: Duration) -> Instant {
        self.start + monotonic
    }

    fn resync(&self, monotonic: Duration) -> Duration {
        // A system clock before 1970 only makes every token look valid from birth; not a reason
        // to stop serving.
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let offset = unix.saturating_sub(monotonic);
        self.offset.set((offset, monotonic));
        offset
    }
}
