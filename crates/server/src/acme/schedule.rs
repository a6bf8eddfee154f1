//! When certificates are ordered: after two thirds of their time, or when the authority would like it (RFC 9773), and after
//! failures again, less and less often. No clock, no sockets.

use std::time::Duration;

use tautline_hub::Entropy;

/// From when until when a certificate is good, in Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: Duration,
    pub(super) until: Duration,
}

/// When an authority would like a certificate to be renewed (RFC 9773, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// Not before that, in Unix time.
    pub(super) from: Duration,
    /// Not after that.
    pub(super) until: Duration,
    /// After how long it wants to be asked again.
    pub(super) again: Duration,
}

/// What there is to do for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Ask the authority when it would like the certificate to be renewed.
    Ask,
    /// Order another one.
    Order,
}

/// When each of some names has to be looked after.
#[derive(Debug)]
pub(super) struct Schedule(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    /// Of the certificate that there is.
    validity: Option<Validity>,
    due: Duration,
    /// When to ask the authority, if it is to be asked.
    ask: Option<Duration>,
    /// What it has said last: from when until when.
    advised: Option<(Duration, Duration)>,
    /// Before that, no advice counts.
    not_before: Duration,
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
            validity,
            due: validity.map_or(Duration::ZERO, |validity| due(validity, entropy)),
            ask: validity.map(|_| Duration::ZERO),
            advised: None,
            not_before: Duration::ZERO,
            failures: 0,
        });
        Self(entries.collect())
    }

    /// Which name is next, by its place, what for, and when. At the same time, who has no certificate comes before those of
    /// whom there is something to ask: each question may take its time.
    pub(super) fn next(&self) -> Option<(usize, Errand, Duration)> {
        let errands = self.0.iter().enumerate().flat_map(|(place, entry)| {
            let ask = entry.ask.map(|at| (place, Errand::Ask, at));
            ask.into_iter().chain([(place, Errand::Order, entry.due)])
        });
        errands.min_by_key(|(place, errand, at)| {
            let is_missing = self.0[*place].validity.is_none() && *errand == Errand::Order;
            (*at, !is_missing)
        })
    }

    /// What an authority has said of a name's certificate: `None` if it doesn't say such things. It is followed, but not
    /// to where little time would be left for whatever may go wrong. Returns whether that is news.
    pub(super) fn advised(
        &mut self,
        place: usize,
        advice: Option<Advice>,
        now: Duration,
        entropy: &mut dyn Entropy,
    ) -> bool {
        let Some(entry) = self.0.get_mut(place) else {
            return false;
        };
        let Some(advice) = advice else {
            entry.ask = None;
            return false;
        };
        entry.ask = Some(now + advice.again.clamp(SOONEST_QUESTION, LATEST_QUESTION));
        let window = (advice.from, advice.until);
        // Chosen once for each: to choose again with each answer would be to come early.
        let Some(validity) = entry.validity else {
            return false;
        };
        if advice.from >= advice.until || entry.advised == Some(window) {
            return false;
        }
        entry.advised = Some(window);
        // After a failure there is a pause, whatever the authority would like.
        if entry.failures == 0 {
            let chosen = advice.from + part(advice.until - advice.from, entropy);
            let latest = validity.until.saturating_sub(life(validity) / 10);
            entry.due = chosen.max(entry.not_before).min(latest).max(now);
        }
        true
    }

    /// An authority could not be asked: it is later.
    pub(super) fn not_advised(&mut self, place: usize, now: Duration) {
        if let Some(entry) = self.0.get_mut(place) {
            entry.ask = Some(now + NEXT_QUESTION);
        }
    }

    /// Whether the authority has said when it would like a name's certificate to be renewed: then it also wants to know
    /// what another one replaces.
    pub(super) fn is_advised(&self, place: usize) -> bool {
        let entry = self.0.get(place);
        entry.is_some_and(|entry| entry.advised.is_some())
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
                validity: Some(validity),
                due: due(validity, entropy).max(now + LEAST_PAUSE),
                ask: Some(now),
                advised: None,
                not_before: now + ADVISED_PAUSE,
                failures: 0,
            };
        }
    }

    /// A name has got none. Returns how long it is left alone: at least for as long as the authority has asked for, if it
    /// has, and until its refusals would be for nothing.
    pub(super) fn failed(
        &mut self,
        place: usize,
        now: Duration,
        again: Option<Duration>,
        entropy: &mut dyn Entropy,
    ) -> Duration {
        let Some(entry) = self.0.get_mut(place) else {
            return Duration::ZERO;
        };
        let mut pause = FIRST_PAUSE * 2u32.saturating_pow(entry.failures.min(16));
        pause = pause.min(LONGEST_PAUSE);
        // The less time is left, the more often.
        let end = entry.validity.map(|validity| validity.until);
        let left = end.and_then(|end| end.checked_sub(now));
        if let Some(left) = left {
            pause = pause.min((left / 8).max(URGENT_PAUSE));
        }
        let mut pause = pause - part(pause / 4, entropy);
        if let Some(again) = again.map(|again| again.min(LONGEST_WISH)) {
            // Behind it, so that those who were refused together don't come together.
            pause = pause.max(again + part(again / 20, entropy));
        }
        entry.failures = entry.failures.saturating_add(1);
        entry.due = now + pause;
        pause
    }

    /// Nothing is later than it can be by a clock that shows `now`: it may have been set back, and what was to be in five
    /// minutes by the wrong time would be in years.
    pub(super) fn set_back(&mut self, now: Duration) {
        for entry in &mut self.0 {
            let latest = match entry.validity {
                _ if entry.failures > 0 => now + LONGEST_WISH + LONGEST_WISH / 20,
                // Advice isn't followed to where it would be later.
                Some(validity) => {
                    let end = validity.until.saturating_sub(life(validity) / 10);
                    end.max(now + POSTPONED)
                }
                None => now + POSTPONED,
            };
            entry.due = entry.due.min(latest);
            entry.ask = entry.ask.map(|at| at.min(now + LATEST_QUESTION));
            entry.not_before = entry.not_before.min(now + ADVISED_PAUSE);
        }
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

/// Between two questions, whatever an authority says (RFC 9773, section 4.3.2).
const SOONEST_QUESTION: Duration = Duration::from_secs(60);
const LATEST_QUESTION: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two orders of an authority that always wants the certificate back.
const ADVISED_PAUSE: Duration = Duration::from_secs(60 * 60);
/// After one that was not answered.
const NEXT_QUESTION: Duration = Duration::from_secs(6 * 60 * 60);
/// Authorities take offence at names that fail more than some five times an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(5 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(12 * 60 * 60);
/// The longest that an authority is left alone for because it has asked for that.
const LONGEST_WISH: Duration = Duration::from_secs(24 * 60 * 60);
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

    /// The next order, whatever is to be asked before.
    fn next(schedule: &Schedule) -> Option<(usize, Duration)> {
        let orders = schedule.0.iter().map(|entry| entry.due).enumerate();
        orders.min_by_key(|(_, due)| *due)
    }

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
        assert_eq!(next(&schedule), Some((0, 1060 * DAY)));
        let schedule = Schedule::new([Some(validity)], &mut Same(255));
        assert_eq!(next(&schedule), Some((0, 1060 * DAY - 90 * DAY / 20)));
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
        assert_eq!(next(&schedule), Some((1, Duration::ZERO)));
        schedule.renewed(1, of_days(1000, 90), now, &mut entropy);
        assert_eq!(next(&schedule), Some((2, Duration::ZERO)));
        schedule.postponed(2, now);
        assert_eq!(next(&schedule), Some((2, now + POSTPONED)));
        schedule.renewed(2, of_days(1000, 90), now, &mut entropy);
        assert_eq!(next(&schedule), Some((3, 1004 * DAY)));
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
            let pause = schedule.failed(0, now, None, &mut entropy);
            now += pause;
            assert_eq!(next(&schedule), Some((0, now)));
            pauses.push(pause.as_secs() / 60);
        }
        assert_eq!(
            pauses,
            [5, 10, 20, 40, 80, 160, 320, 640, 720, 720, 720, 720]
        );
        assert!(within_an_hour <= 5);
        schedule.renewed(0, of_days(1000, 90), now, &mut entropy);
        assert_eq!(schedule.failed(0, now, None, &mut entropy), FIRST_PAUSE);
    }

    #[test]
    fn the_less_time_is_left_the_more_often_it_is_tried() {
        let mut entropy = Same(0);
        let mut schedule = Schedule::new([Some(of_days(1000, 6))], &mut entropy);
        let end = 1006 * DAY;
        for _ in 0..20 {
            schedule.failed(0, 1000 * DAY, None, &mut entropy);
        }
        assert_eq!(schedule.failed(0, end - 8 * HOUR, None, &mut entropy), HOUR);
        assert_eq!(
            schedule.failed(0, end - HOUR / 60, None, &mut entropy),
            URGENT_PAUSE
        );
        // Once it is too late, patience is all there is.
        assert_eq!(
            schedule.failed(0, end + HOUR, None, &mut entropy),
            LONGEST_PAUSE
        );
    }

    /// Days of the year 1000 of the Unix epoch's days, and seconds.
    fn advice(from: u32, until: u32, again: u64) -> Advice {
        Advice {
            from: from * DAY,
            until: until * DAY,
            again: Duration::from_secs(again),
        }
    }

    #[test]
    fn an_authority_is_asked_first_and_its_wish_is_followed() {
        let now = 1010 * DAY;
        let alone = Schedule::new([Some(of_days(1000, 90))], &mut Same(0));
        assert_eq!(alone.next(), Some((0, Errand::Ask, Duration::ZERO)));
        // But not before who has none.
        let mut schedule = Schedule::new([Some(of_days(1000, 90)), None], &mut Same(0));
        assert_eq!(schedule.next(), Some((1, Errand::Order, Duration::ZERO)));
        assert!(!schedule.is_advised(0));
        assert!(schedule.advised(0, Some(advice(1020, 1022, 3600)), now, &mut Same(0)));
        assert!(schedule.is_advised(0));
        assert_eq!(schedule.next(), Some((1, Errand::Order, Duration::ZERO)));
        schedule.failed(1, 2000 * DAY, None, &mut Same(0));
        assert_eq!(schedule.next(), Some((0, Errand::Ask, now + HOUR)));
        // The same window is no other wish, whatever chance would have it.
        assert!(!schedule.advised(0, Some(advice(1020, 1022, 3600)), now, &mut Same(255)));
        assert_eq!(next(&schedule), Some((0, 1020 * DAY)));
        assert!(schedule.advised(0, Some(advice(1020, 1024, 3600)), now, &mut Same(255)));
        assert_eq!(next(&schedule), Some((0, 1024 * DAY)));
        // In the past is at once, and the end of its time is too late for anybody.
        assert!(schedule.advised(0, Some(advice(1001, 1002, 3600)), now, &mut Same(0)));
        assert_eq!(next(&schedule), Some((0, now)));
        assert!(schedule.advised(0, Some(advice(1089, 1200, 3600)), now, &mut Same(0)));
        assert_eq!(next(&schedule), Some((0, 1081 * DAY)));
        // A window that is none says nothing.
        assert!(!schedule.advised(0, Some(advice(1030, 1030, 3600)), now, &mut Same(0)));
        assert!(!schedule.advised(0, Some(advice(1031, 1030, 3600)), now, &mut Same(0)));
        assert_eq!(next(&schedule), Some((0, 1081 * DAY)));
        // Of another certificate it has said nothing yet.
        schedule.renewed(0, of_days(1010, 90), now, &mut Same(0));
        assert!(!schedule.is_advised(0));
        assert_eq!(schedule.next(), Some((0, Errand::Ask, now)));
        // And if it wants that back, too, it has to wait.
        schedule.advised(0, Some(advice(1001, 1002, 3600)), now, &mut Same(0));
        assert_eq!(schedule.0[0].due, now + ADVISED_PAUSE);
    }

    #[test]
    fn an_authority_is_asked_neither_too_often_nor_too_seldom() {
        let now = 1010 * DAY;
        let mut schedule = Schedule::new([Some(of_days(1000, 90))], &mut Same(0));
        for (again, expected) in [
            (0, SOONEST_QUESTION),
            (7200, 2 * HOUR),
            (u64::MAX, LATEST_QUESTION),
        ] {
            schedule.advised(0, Some(advice(1020, 1022, again)), now, &mut Same(0));
            assert_eq!(schedule.next(), Some((0, Errand::Ask, now + expected)));
        }
        schedule.not_advised(0, now);
        assert_eq!(schedule.next(), Some((0, Errand::Ask, now + NEXT_QUESTION)));
        // One that doesn't say such things isn't asked again.
        schedule.advised(0, None, now, &mut Same(0));
        assert_eq!(schedule.next(), Some((0, Errand::Order, 1020 * DAY)));
    }

    #[test]
    fn a_wish_is_no_way_round_the_pause_after_a_failure() {
        let now = 1010 * DAY;
        let mut schedule = Schedule::new([Some(of_days(1000, 90))], &mut Same(0));
        let pause = schedule.failed(0, now, None, &mut Same(0));
        for until in 1002..1030 {
            schedule.advised(0, Some(advice(1001, until, 0)), now, &mut Same(0));
            assert_eq!(next(&schedule), Some((0, now + pause)));
        }
    }

    #[test]
    fn an_authority_that_asks_for_a_pause_gets_it() {
        let now = 1010 * DAY;
        for (again, byte, expected) in [
            (Some(2 * HOUR), 0, 2 * HOUR),
            (Some(2 * HOUR), 255, 2 * HOUR + HOUR / 10),
            // Less than what would be waited anyhow.
            (Some(Duration::from_secs(1)), 0, FIRST_PAUSE),
            (None, 0, FIRST_PAUSE),
            // As long as that nobody is left alone for.
            (Some(Duration::MAX), 0, DAY),
        ] {
            let mut schedule = Schedule::new([None], &mut Same(byte));
            let pause = schedule.failed(0, now, again, &mut Same(byte));
            assert_eq!(pause, expected, "{again:?}");
            assert_eq!(next(&schedule), Some((0, now + expected)));
        }
        // However little time is left: to come earlier would be for nothing.
        let mut schedule = Schedule::new([Some(of_days(1000, 90))], &mut Same(0));
        let late = 1090 * DAY - HOUR;
        assert_eq!(
            schedule.failed(0, late, Some(2 * HOUR), &mut Same(0)),
            2 * HOUR
        );
    }

    #[test]
    fn a_clock_that_is_set_back_costs_no_more_than_a_pause() {
        let (ahead, now) = (9000 * DAY, 1010 * DAY);
        let of_now = of_days(1000, 90);
        // With one that is good, two that were refused, one that another process was at.
        let have = [Some(of_now), Some(of_now), None, None];
        let mut schedule = Schedule::new(have, &mut Same(0));
        schedule.not_advised(0, ahead);
        for _ in 0..20 {
            schedule.failed(1, ahead, None, &mut Same(0));
            schedule.failed(2, ahead, None, &mut Same(0));
        }
        schedule.postponed(3, ahead);
        schedule.set_back(now);
        let all: Vec<_> = schedule.0.iter().map(|entry| entry.due).collect();
        assert_eq!(all[0], 1060 * DAY, "by its own time");
        assert!(
            all[1] <= now + 2 * DAY && all[2] <= now + 2 * DAY,
            "{all:?}"
        );
        assert_eq!(all[3], now + POSTPONED);
        let asked = schedule.0[0].ask.expect("it is to be asked");
        assert!(asked <= now + LATEST_QUESTION);
        // A renewal that was to wait for its pause, and another process that is at it.
        schedule.renewed(0, of_now, ahead, &mut Same(0));
        schedule.set_back(now);
        assert_eq!(schedule.0[0].due, 1081 * DAY);
        assert_eq!(schedule.0[0].not_before, now + ADVISED_PAUSE);
    }

    #[test]
    fn a_clock_that_is_right_moves_nothing() {
        let now = 1010 * DAY;
        for again in [None, Some(2 * HOUR), Some(Duration::MAX)] {
            let have = [Some(of_days(1000, 90)), Some(of_days(1000, 6)), None];
            let mut schedule = Schedule::new(have, &mut Same(255));
            schedule.advised(0, Some(advice(1020, 1085, u64::MAX)), now, &mut Same(255));
            schedule.postponed(1, now);
            for _ in 0..20 {
                schedule.failed(2, now, again, &mut Same(255));
                let before = format!("{schedule:?}");
                schedule.set_back(now);
                assert_eq!(format!("{schedule:?}"), before);
            }
        }
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
            let (_, due) = next(&schedule).expect("one name");
            prop_assert!(due >= now + LEAST_PAUSE);
            prop_assert!(due <= validity.until.max(now + LEAST_PAUSE));
            for _ in 0..failures {
                let pause = schedule.failed(0, now, None, &mut entropy);
                prop_assert!(pause >= URGENT_PAUSE * 3 / 4 && pause <= LONGEST_PAUSE);
            }
        }
    }
}
