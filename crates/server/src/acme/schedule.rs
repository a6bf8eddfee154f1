//! When certificates are ordered: after two thirds of their time, and after failures again, less and less often.
//! No clock, no sockets.

use std::time::Duration;

use tautline_hub::Entropy;

/// From when until when a certificate is good, in Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: Duration,
    pub(super) until: Duration,
}

/// When each of some names has to be looked after.
#[derive(Debug)]
pub(super) struct Schedule(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    /// Until when there is a certificate.
    until: Option<Duration>,
    due: Duration,
    /// In a row.
    failures: u32,
}

impl Schedule {
    /// That of names which have certificates, or none yet.
    pub(super) fn new(
        have: impl IntoIterator<Item = Option<Validity>>,
        entropy: &mut dyn Entropy,
    ) -> Self {
        let entries = have.into_iter().map(|validity| Entry {
            until: validity.map(|validity| validity.until),
            due: validity.map_or(Duration::ZERO, |validity| due(validity, entropy)),
            failures: 0,
        });
        Self(entries.collect())
    }

    /// Which name is next, by its place, and when.
    pub(super) fn next(&self) -> Option<(usize, Duration)> {
        let places = self.0.iter().map(|entry| entry.due).enumerate();
        places.min_by_key(|(_, due)| *due)
    }

    /// A name has got a certificate.
    pub(super) fn renewed(
        &mut self,
        place: usize,
        validity: Validity,
        now: Duration,
        entropy: &mut dyn Entropy,
    ) {
        if let Some(entry) = self.0.get_mut(place) {
            *entry = Entry {
                until: Some(validity.until),
                due: due(validity, entropy).max(now + LEAST_PAUSE),
                failures: 0,
            };
        }
    }

    /// A name has got none. Returns how long it is left alone.
    pub(super) fn failed(
        &mut self,
        place: usize,
        now: Duration,
        entropy: &mut dyn Entropy,
    ) -> Duration {
        let Some(entry) = self.0.get_mut(place) else {
            return Duration::ZERO;
        };
        let mut pause = FIRST_PAUSE * 2u32.saturating_pow(entry.failures.min(16));
        pause = pause.min(LONGEST_PAUSE);
        // The less time is left, the more often.
        let left = entry.until.and_then(|until| until.checked_sub(now));
        if let Some(left) = left {
            pause = pause.min((left / 8).max(URGENT_PAUSE));
        }
        let pause = pause - part(pause / 4, entropy);
        entry.failures = entry.failures.saturating_add(1);
        entry.due = now + pause;
        pause
    }

    /// Somebody else is at it.
    pub(super) fn postponed(&mut self, place: usize, now: Duration) {
        if let Some(entry) = self.0.get_mut(place) {
            entry.due = now + POSTPONED;
        }
    }
}

/// Whether a certificate should have been renewed by now.
pub(super) fn is_due(validity: Validity, now: Duration) -> bool {
    now >= validity.until.saturating_sub(life(validity) / 3)
}

/// A while before two thirds of it are over, so that those who started together don't come together.
fn due(validity: Validity, entropy: &mut dyn Entropy) -> Duration {
    let life = life(validity);
    let before_end = life / 3 + part(life / 20, entropy);
    validity.until.saturating_sub(before_end)
}

fn life(validity: Validity) -> Duration {
    validity.until.saturating_sub(validity.from)
}

/// Some part of it.
fn part(whole: Duration, entropy: &mut dyn Entropy) -> Duration {
    let mut bytes = [0; 4];
    entropy.fill(&mut bytes);
    whole.mul_f64(f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX))
}

/// Authorities take offence at names that fail more than some five times an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(5 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(12 * 60 * 60);
/// The least of pauses while a certificate is about to expire.
const URGENT_PAUSE: Duration = Duration::from_secs(60);
/// How long another process may take for it.
const POSTPONED: Duration = Duration::from_secs(60);
/// Between two orders, whatever an authority thinks is a good time for certificates.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Same(u8);

    impl Entropy for Same {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn of_days(from: u32, days: u32) -> Validity {
        let from = from * DAY;
        Validity {
            from,
            until: from + days * DAY,
        }
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_time() {
        let validity = of_days(1000, 90);
        let schedule = Schedule::new([Some(validity)], &mut Same(0));
        assert_eq!(schedule.next(), Some((0, 1060 * DAY)));
        let schedule = Schedule::new([Some(validity)], &mut Same(255));
        assert_eq!(schedule.next(), Some((0, 1060 * DAY - 90 * DAY / 20)));
        assert!(!is_due(validity, 1060 * DAY - Duration::from_secs(1)));
        assert!(is_due(validity, 1060 * DAY));
        assert!(is_due(validity, 2000 * DAY));
    }

    #[test]
    fn what_is_missing_comes_first_and_one_after_the_other() {
        let mut entropy = Same(0);
        let have = [Some(of_days(1000, 90)), None, None, Some(of_days(1000, 6))];
        let mut schedule = Schedule::new(have, &mut entropy);
        let now = 1000 * DAY;
        assert_eq!(schedule.next(), Some((1, Duration::ZERO)));
        schedule.renewed(1, of_days(1000, 90), now, &mut entropy);
        assert_eq!(schedule.next(), Some((2, Duration::ZERO)));
        schedule.postponed(2, now);
        assert_eq!(schedule.next(), Some((2, now + POSTPONED)));
        schedule.renewed(2, of_days(1000, 90), now, &mut entropy);
        assert_eq!(schedule.next(), Some((3, 1004 * DAY)));
    }

    #[test]
    fn an_authority_that_is_out_of_order_is_left_alone_longer_and_longer() {
        let mut entropy = Same(0);
        let mut schedule = Schedule::new([None], &mut entropy);
        let mut now = 1000 * DAY;
        let mut within_an_hour = 0;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            within_an_hour += u32::from(now < 1000 * DAY + HOUR);
            let pause = schedule.failed(0, now, &mut entropy);
            now += pause;
            assert_eq!(schedule.next(), Some((0, now)));
            pauses.push(pause.as_secs() / 60);
        }
        assert_eq!(
            pauses,
            [5, 10, 20, 40, 80, 160, 320, 640, 720, 720, 720, 720]
        );
        assert!(within_an_hour <= 5);
        schedule.renewed(0, of_days(1000, 90), now, &mut entropy);
        assert_eq!(schedule.failed(0, now, &mut entropy), FIRST_PAUSE);
    }

    #[test]
    fn the_less_time_is_left_the_more_often_it_is_tried() {
        let mut entropy = Same(0);
        let mut schedule = Schedule::new([Some(of_days(1000, 6))], &mut entropy);
        let end = 1006 * DAY;
        for _ in 0..20 {
            schedule.failed(0, 1000 * DAY, &mut entropy);
        }
        assert_eq!(schedule.failed(0, end - 8 * HOUR, &mut entropy), HOUR);
        assert_eq!(
            schedule.failed(0, end - HOUR / 60, &mut entropy),
            URGENT_PAUSE
        );
        // Once it is too late, patience is all there is.
        assert_eq!(schedule.failed(0, end + HOUR, &mut entropy), LONGEST_PAUSE);
    }

    proptest! {
        #[test]
        fn nothing_is_ever_due_at_once_after_an_attempt(
            from in 0u64..1 << 40, life in 0u64..1 << 32, now in 0u64..1 << 40, failures in 0u32..40, byte: u8,
        ) {
            let mut entropy = Same(byte);
            let validity = Validity {
                from: Duration::from_secs(from),
                until: Duration::from_secs(from + life),
            };
            let now = Duration::from_secs(now);
            let mut schedule = Schedule::new([Some(validity)], &mut entropy);
            schedule.renewed(0, validity, now, &mut entropy);
            let (_, due) = schedule.next().expect("one name");
            prop_assert!(due >= now + LEAST_PAUSE);
            prop_assert!(due <= validity.until.max(now + LEAST_PAUSE));
            for _ in 0..failures {
                let pause = schedule.failed(0, now, &mut entropy);
                prop_assert!(pause >= URGENT_PAUSE * 3 / 4 && pause <= LONGEST_PAUSE);
            }
        }
    }
}
