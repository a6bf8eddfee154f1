//! A circuit breaker: a backend that fails again and again is left alone for a while, and then asked once
//! whether it is back. Whoever would have waited for it hears at once that it isn't.
//!
//! It knows no clock: time is an argument.

use tokio::time::Instant;

use std::time::Duration;

/// One backend's breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    /// How many failures in a row open it; 0 for never.
    failures: usize,
    pause: Duration,
    state: State,
    /// Counts changes of the state: what began before the last one tells nothing about now.
    generation: u64,
}

#[derive(Debug)]
enum State {
    /// All is well, or not yet too bad.
    Closed { failures: usize },
    /// Nobody is let through until then.
    Open { until: Instant },
    /// One has been let through, and all others wait for what becomes of it.
    Probing,
}

/// Leave to call. To be given back by one of [`Breaker::succeeded`], [`Breaker::failed`] and
/// [`Breaker::abandoned`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a probe that isn't given back keeps the breaker from closing for ever"]
pub(super) struct Pass {
    generation: u64,
}

/// What a breaker looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    Closed,
    Probing,
    Open,
}

impl Position {
    /// As metrics tell it.
    pub(super) const fn number(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::Probing => 1,
            Self::Open => 2,
        }
    }
}

impl Breaker {
    pub(super) fn new(failures: usize, pause: Duration) -> Self {
        Self {
            failures,
            pause,
            state: State::Closed { failures: 0 },
            generation: 0,
        }
    }

    /// Asks for leave; `None` while the backend is left alone.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Pass> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { until } if now >= until => self.change(State::Probing),
            State::Open { .. } | State::Probing => return None,
        }
        Some(Pass {
            generation: self.generation,
        })
    }

    /// The backend has answered. Whether that has closed the breaker.
    pub(super) fn succeeded(&mut self, pass: Pass) -> bool {
        if pass.generation != self.generation {
            return false;
        }
        let was_open = matches!(self.state, State::Probing);
        match &mut self.state {
            State::Closed { failures } => *failures = 0,
            _ => self.change(State::Closed { failures: 0 }),
        }
        was_open
    }

    /// It has not. Whether that has opened the breaker, anew or once more.
    pub(super) fn failed(&mut self, pass: Pass, now: Instant) -> bool {
        if pass.generation != self.generation {
            return false;
        }
        if let State::Closed { failures } = &mut self.state {
            *failures += 1;
            if self.failures == 0 || *failures < self.failures {
                return false;
            }
        }
        let until = now + self.pause;
        self.change(State::Open { until });
        true
    }

    /// Nobody waits for the answer any more, and it tells nothing. The next one may try.
    pub(super) fn abandoned(&mut self, pass: Pass, now: Instant) {
        if pass.generation == self.generation && matches!(self.state, State::Probing) {
            self.change(State::Open { until: now });
        }
    }

    pub(super) fn position(&self) -> Position {
        match self.state {
            State::Closed { .. } => Position::Closed,
            State::Probing => Position::Probing,
            State::Open { .. } => Position::Open,
        }
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(2);

    fn fail(breaker: &mut Breaker, now: Instant) -> bool {
        let pass = breaker.admit(now).expect("it is closed");
        breaker.failed(pass, now)
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_success_begins_a_new_row() {
        let (mut breaker, now) = (Breaker::new(3, PAUSE), Instant::now());
        for _ in 0..2 {
            assert!(!fail(&mut breaker, now));
        }
        let pass = breaker.admit(now).expect("it is closed");
        assert!(!breaker.succeeded(pass));
        assert!(!fail(&mut breaker, now) && !fail(&mut breaker, now));
        assert_eq!(breaker.position(), Position::Closed);
        assert!(fail(&mut breaker, now));
        assert_eq!(breaker.position(), Position::Open);
        let just_before = now + PAUSE - Duration::from_nanos(1);
        assert!(breaker.admit(just_before).is_none());
    }

    #[test]
    fn one_tries_whether_the_backend_is_back() {
        let (mut breaker, now) = (Breaker::new(1, PAUSE), Instant::now());
        assert!(fail(&mut breaker, now));
        let later = now + PAUSE;
        let probe = breaker.admit(later).expect("its time has come");
        assert!(breaker.admit(later).is_none(), "one at a time");
        assert!(breaker.failed(probe, later));
        assert!(breaker.admit(later).is_none());
        let later = later + PAUSE;
        let probe = breaker.admit(later).expect("once more");
        assert_eq!(breaker.position(), Position::Probing);
        assert!(breaker.succeeded(probe));
        assert_eq!(breaker.position(), Position::Closed);
        assert!(breaker.admit(later).is_some() && breaker.admit(later).is_some());
    }

    #[test]
    fn a_probe_that_nobody_waits_for_leaves_its_place_to_the_next() {
        let (mut breaker, now) = (Breaker::new(1, PAUSE), Instant::now());
        fail(&mut breaker, now);
        let probe = breaker.admit(now + PAUSE).expect("its time has come");
        breaker.abandoned(probe, now + PAUSE);
        assert!(breaker.admit(now + PAUSE).is_some());
        // In good times nothing hangs on one.
        let mut breaker = Breaker::new(1, PAUSE);
        let pass = breaker.admit(now).expect("it is closed");
        breaker.abandoned(pass, now);
        assert_eq!(breaker.position(), Position::Closed);
    }

    #[test]
    fn what_began_earlier_tells_nothing_about_now() {
        let (mut breaker, now) = (Breaker::new(1, PAUSE), Instant::now());
        let [slow, late, gone] = [0; 3].map(|_| breaker.admit(now).expect("it is closed"));
        assert!(fail(&mut breaker, now));
        assert!(!breaker.succeeded(slow), "it was asked before the failure");
        assert_eq!(breaker.position(), Position::Open);
        let probe = breaker.admit(now + PAUSE).expect("its time has come");
        assert!(!breaker.failed(late, now + PAUSE));
        breaker.abandoned(gone, now + PAUSE);
        assert_eq!(breaker.position(), Position::Probing);
        assert!(breaker.succeeded(probe));
    }

    #[test]
    fn it_can_be_switched_off() {
        let (mut breaker, now) = (Breaker::new(0, PAUSE), Instant::now());
        for _ in 0..1000 {
            assert!(!fail(&mut breaker, now));
        }
    }
}
