//! What becomes of a batch: whether it is sent again, when, and how much of it.
//!
//! No clock, no sockets: time and chance are arguments.

use std::time::Duration;

/// How persistent it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Most events in a batch.
    pub(crate) batch: usize,
    /// Before the second attempt; then twice as long, and so on.
    pub(crate) min: Duration,
    pub(crate) max: Duration,
    /// For how long an event is tried.
    pub(crate) all: Duration,
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    /// The backend won't have what is in it, now or later.
    Refused(String),
    /// It may go better another time.
    Failed(String),
}

/// What to do with the events that were tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Done,
    Again,
    /// The oldest of them, so many, are dead letters from now on.
    Bury(usize, String),
}

/// The state between attempts.
#[derive(Debug)]
pub(crate) struct Delivery {
    patience: Patience,
    limit: usize,
    failures: u32,
    failing_since: Option<Duration>,
    not_before: Duration,
    /// When the last attempt failed.
    failed_at: Duration,
}

impl Delivery {
    pub(crate) fn new(patience: Patience) -> Self {
        Self {
            limit: patience.batch,
            patience,
            failures: 0,
            failing_since: None,
            not_before: Duration::ZERO,
            failed_at: Duration::ZERO,
        }
    }

    /// How many events the next attempt should have.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// When the next attempt may be.
    pub(crate) fn not_before(&self) -> Duration {
        self.not_before
    }

    /// Whether the last attempt failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Takes the outcome of an attempt with `count` events, the oldest `old` of which are as old as events are tried for.
    /// `dice` is any number.
    pub(crate) fn judge(
        &mut self,
        now: Duration,
        count: usize,
        old: usize,
        outcome: Outcome,
        dice: u64,
    ) -> Decision {
        match outcome {
            Outcome::Delivered => {
                self.limit = (self.limit * 2).min(self.patience.batch);
                self.recovered();
                Decision::Done
            }
            // One of them is at fault: the halves are tried, down to that one.
            Outcome::Refused(_) if count > 1 => {
                self.limit = count / 2;
                self.recovered();
                Decision::Again
            }
            Outcome::Refused(error) => {
                self.recovered();
                Decision::Bury(1, error)
            }
            Outcome::Failed(error) => {
                let since = *self.failing_since.get_or_insert(now);
                let factor = 1 << self.failures.min(20);
                let wait = (self.patience.min * factor).min(self.patience.max);
                self.failures = self.failures.saturating_add(1);
                // Somewhere in the second half, so that nodes which failed together don't try together.
                let half = u64::try_from(wait.as_millis() / 2).unwrap_or(u64::MAX);
                let spread = dice % (half + 1);
                self.not_before = now + wait - Duration::from_millis(spread);
                self.failed_at = now;
                // Those that came while it failed already have their time, too; and who was switched off for days has
                // tried nothing meanwhile.
                if old > 0 && now.saturating_sub(since) >= self.patience.all {
                    return Decision::Bury(old, error);
                }
                Decision::Again
            }
        }
    }

    /// No attempt before then, for reasons that have nothing to do with the backend.
    pub(crate) fn postpone(&mut self, until: Duration) {
        self.not_before = self.not_before.max(until);
    }

    /// What was tried so far says nothing of what is tried next: it is for somebody else.
    pub(crate) fn begin_anew(&mut self) {
        self.limit = self.patience.batch;
        self.recovered();
    }

    /// Is that persistent from now on.
    pub(crate) fn set_patience(&mut self, patience: Patience) {
        self.limit = if self.limit == self.patience.batch {
            patience.batch
        } else {
            self.limit.min(patience.batch)
        };
        self.patience = patience;
        if let Some(wait) = self.not_before.checked_sub(self.failed_at) {
            self.not_before = self.failed_at + wait.min(patience.max);
        }
    }

    fn recovered(&mut self) {
        self.failures = 0;
        self.failing_since = None;
        self.not_before = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const SECOND: Duration = Duration::from_secs(1);

    fn delivery() -> Delivery {
        Delivery::new(Patience {
            batch: 8,
            min: SECOND,
            max: SECOND * 10,
            all: SECOND * 100,
        })
    }

    #[test]
    fn failures_are_tried_again_ever_later_and_then_given_up() {
        let (mut delivery, mut now) = (delivery(), Duration::ZERO);
        let mut waits = Vec::new();
        for dice in 0.. {
            // They were old when it began.
            let decision = delivery.judge(now, 8, 3, Outcome::Failed("down".into()), dice * 77);
            if decision != Decision::Again {
                assert_eq!(decision, Decision::Bury(3, "down".into()));
                break;
            }
            let wait = delivery.not_before() - now;
            waits.push(wait);
            now = delivery.not_before();
        }
        assert!(now >= SECOND * 100 && now < SECOND * 111, "{now:?}");
        for (wait, whole) in waits.iter().zip([1, 2, 4, 8, 10, 10, 10]) {
            let whole = SECOND * whole;
            assert!((whole / 2..=whole).contains(wait), "{waits:?}");
        }
        // What came meanwhile has its time; until one gets through.
        let failed = || Outcome::Failed("down".into());
        assert_eq!(delivery.judge(now, 8, 0, failed(), 0), Decision::Again);
        assert!(delivery.not_before() > now);
        let next = delivery.judge(now, 8, 1, failed(), 0);
        assert_eq!(next, Decision::Bury(1, "down".into()));
        assert_eq!(
            delivery.judge(now, 8, 8, Outcome::Delivered, 0),
            Decision::Done
        );
        assert!(!delivery.is_failing() && delivery.not_before() == Duration::ZERO);
        assert_eq!(delivery.judge(now, 8, 8, failed(), 0), Decision::Again);
    }

    #[test]
    fn attempts_are_as_far_apart_as_the_options_say() {
        let options = "[events]\nenabled = true\nendpoint = \"http://localhost/\"\ndirectory = \"queue\"\n\
                       retry_min = \"3s\"\nretry_max = \"8s\"\n";
        let config = Config::from_toml(options).expect("it is good");
        let mut delivery = Delivery::new(config.events.expect("they are told").patience);
        let waits = [(); 4].map(|()| {
            delivery.judge(SECOND, 1, 0, Outcome::Failed("down".into()), 0);
            delivery.not_before() - SECOND
        });
        assert_eq!(waits, [3, 6, 8, 8].map(Duration::from_secs));
    }

    #[test]
    fn one_bad_event_is_found_and_the_rest_gets_through() {
        let (mut delivery, mut left) = (delivery(), (0..20).collect::<Vec<_>>());
        let (mut done, mut buried) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            let batch: Vec<_> = left.iter().copied().take(delivery.limit()).collect();
            if batch.is_empty() {
                break;
            }
            let is_bad = batch.contains(&13) || batch.contains(&3);
            let outcome = if is_bad {
                Outcome::Refused("400".into())
            } else {
                Outcome::Delivered
            };
            let to = match delivery.judge(SECOND, batch.len(), 0, outcome, 0) {
                Decision::Again => continue,
                Decision::Done => &mut done,
                Decision::Bury(..) => &mut buried,
            };
            to.extend(left.drain(..batch.len()));
        }
        assert_eq!(buried, [3, 13]);
        assert_eq!(done.len(), 18);
        assert!(done.is_sorted());
        assert_eq!(delivery.limit(), 8, "large batches again");
    }
}
