//! How often something may happen: rates, and the token buckets that keep them.
//!
//! A [`Bucket`] holds as many tokens as its [`Rate`] allows at once, and gets new ones as time
//! passes. It knows no clock and no rate of its own: both come with each call, so a bucket is eight
//! bytes, and a fresh one is full.
//!
//! ```
//! use std::time::Duration;
//! use tautline_hub::rate::{Bucket, Rate};
//!
//! let rate = Rate::parse("2/s")?;
//! let mut bucket = Bucket::default();
//! let at = Duration::from_millis;
//! assert_eq!(bucket.take(at(0), &rate), Ok(()));
//! assert_eq!(bucket.take(at(100), &rate), Ok(()));
//! assert_eq!(bucket.take(at(200), &rate), Err(at(300)), "the next token comes half a second after the first was taken");
//! assert_eq!(bucket.take(at(500), &rate), Ok(()));
//! # Ok::<(), tautline_hub::rate::RateError>(())
//! ```

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::de::{Deserializer, Error as _, Unexpected, Visitor};

use crate::config::duration;

/// So many times in so much time, and how many of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds in which one token comes.
    cost: u64,
    /// How many tokens a full bucket has.
    burst: u32,
}

/// A text that is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a rate; write a number up to 1000000 and a time of 1ms to 1h, such as 100/s, 20/5s, \
     or `100/s, burst 500`, or `off` for no limit"
)]
pub struct RateError(String);

impl Rate {
    /// `count` times in `interval`, all of them at once if need be. Both are kept within what a
    /// bucket can count: 1 to 1,000,000 times in 1 ms to 1 h.
    pub const fn new(count: u32, interval: Duration) -> Self {
        let count = if count == 0 { 1 } else { count };
        let count = if count > MAX_COUNT { MAX_COUNT } else { count };
        let nanos = interval.as_nanos();
        let nanos = if nanos < MIN_INTERVAL.as_nanos() {
            MIN_INTERVAL.as_nanos()
        } else if nanos > MAX_INTERVAL.as_nanos() {
            MAX_INTERVAL.as_nanos()
        } else {
            nanos
        };
        Self {
            // An hour is 42 bits of nanoseconds.
            cost: nanos as u64 / count as u64,
            burst: count,
        }
    }

    /// `count` times a second.
    pub const fn per_second(count: u32) -> Self {
        Self::new(count, Duration::from_secs(1))
    }

    /// The same rate with at least `burst` times at once.
    #[must_use]
    pub fn at_once(self, burst: usize) -> Self {
        let burst = u32::try_from(burst).unwrap_or(MAX_COUNT).min(MAX_COUNT);
        Self {
            burst: self.burst.max(burst),
            ..self
        }
    }

    /// Reads a rate as people write it: `100/s`, `20/5s`, `1/1m30s`; with `, burst 500` behind it
    /// if another number may happen at once.
    ///
    /// # Errors
    ///
    /// [`RateError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, RateError> {
        Self::read(text).ok_or_else(|| RateError(text.chars().take(40).collect()))
    }

    fn read(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number: u32 = is_number.then(|| text.parse().ok()).flatten()?;
            (1..=MAX_COUNT).contains(&number).then_some(number)
        };
        let (rate, burst) = match text.split_once(',') {
            None => (text, None),
            Some((rate, burst)) => {
                let burst = burst.trim_start().strip_prefix("burst ")?;
                (rate, Some(number(burst.trim())?))
            }
        };
        let (count, interval) = rate.split_once('/')?;
        let (count, interval) = (number(count.trim())?, interval.trim());
        let is_unit = interval.starts_with(|first: char| first.is_ascii_alphabetic());
        let interval = if is_unit {
            duration::parse(&format!("1{interval}"))
        } else {
            duration::parse(interval)
        };
        let interval = interval.ok()?;
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
            return None;
        }
        let rate = Self::new(count, interval);
        Some(Self {
            burst: burst.unwrap_or(rate.burst),
            ..rate
        })
    }

    /// How long it takes to fill an empty bucket, in nanoseconds.
    const fn depth(&self) -> u64 {
        // At most a million times an hour.
        self.cost * self.burst as u64
    }

    /// A bucket's time after a token was taken, or how long there is none.
    fn next(&self, full_at: u64, now: u64) -> Result<u64, Duration> {
        let next = full_at.max(now).saturating_add(self.cost);
        let latest = now.saturating_add(self.depth());
        if next > latest {
            Err(Duration::from_nanos(next - latest))
        } else {
            Ok(next)
        }
    }
}

/// As people write it, such as `100/s` or `4/s, burst 20`; by the hour where a second is too short for one.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1, "s"), (60, "m"), (3600, "h")];
        let count = |seconds: u64| (seconds * NANOS_PER_SECOND + self.cost / 2) / self.cost.max(1);
        let (seconds, unit) = units
            .into_iter()
            .find(|(seconds, _)| count(*seconds) > 0)
            .unwrap_or((3600, "h"));
        let count = count(seconds).max(1);
        write!(f, "{count}/{unit}")?;
        if u64::from(self.burst) != count {
            write!(f, ", burst {}", self.burst)?;
        }
        Ok(())
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// For serde's `deserialize_with`: a text as in [`Rate::parse`], or `off` for no limit; also `false`, which is what YAML 1.1
/// makes of `off` where nothing quotes it.
///
/// # Errors
///
/// Those of [`Rate::parse`], or that the value is something else.
pub fn deserialize<'de, D>(deserializer: D) -> Result<Option<Rate>, D::Error>
where
    D: Deserializer<'de>,
{
    struct RateVisitor;

    impl Visitor<'_> for RateVisitor {
        type Value = Option<Rate>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a rate such as \"100/s\", or \"off\" for no limit")
        }

        fn visit_bool<E: serde::de::Error>(self, is_on: bool) -> Result<Option<Rate>, E> {
            match is_on {
                false => Ok(None),
                true => Err(E::invalid_value(Unexpected::Bool(true), &self)),
            }
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Option<Rate>, E> {
            match text {
                "off" => Ok(None),
                text => Rate::parse(text).map(Some).map_err(E::custom),
            }
        }
    }

    deserializer
        .deserialize_any(RateVisitor)
        .map_err(D::Error::custom)
}

/// Tokens for one who may do something at a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it is full again, in nanoseconds on the clock of its caller.
    full_at: u64,
}

impl Bucket {
    /// Takes a token at `now`, the time on a clock that never goes back.
    ///
    /// # Errors
    ///
    /// Without a token: how long it is until there is one. Nothing was taken.
    pub fn take(&mut self, now: Duration, rate: &Rate) -> Result<(), Duration> {
        self.full_at = rate.next(self.full_at, nanos(now))?;
        Ok(())
    }

    /// Whether there is a token at `now`, which stays where it is.
    ///
    /// # Errors
    ///
    /// As those of [`take`](Self::take).
    pub fn peek(&self, now: Duration, rate: &Rate) -> Result<(), Duration> {
        rate.next(self.full_at, nanos(now)).map(drop)
    }

    /// Whether no token is missing at `now`: it is as good as a new one.
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at <= nanos(now)
    }
}

/// A bucket that several threads take from, without a lock.
#[derive(Debug, Default)]
pub struct SharedBucket {
    full_at: AtomicU64,
}

impl SharedBucket {
    /// As [`Bucket::take`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn take(&self, now: Duration, rate: &Rate) -> Result<(), Duration> {
        let now = nanos(now);
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let next = rate.next(full_at, now)?;
            // Nothing else is read or written by what a token allows.
            let swapped = self.full_at.compare_exchange_weak(
                full_at,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swapped {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }

    /// Takes `cost`, time in which what is taken comes again, from a bucket that holds `depth` of it. A full one gives more
    /// than it has, and takes the longer to be full again.
    ///
    /// # Errors
    ///
    /// Where there is less: how long it is until there is enough. Nothing was taken.
    pub fn take_time(
        &self,
        now: Duration,
        cost: Duration,
        depth: Duration,
    ) -> Result<(), Duration> {
        let (now, cost, depth) = (nanos(now), nanos(cost), nanos(depth));
        let latest = now.saturating_add(depth.saturating_sub(cost));
        let taken = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let from = full_at.max(now);
                (from <= latest).then(|| from.saturating_add(cost))
            });
        match taken {
            Ok(_) => Ok(()),
            Err(full_at) => Err(Duration::from_nanos(full_at - latest)),
        }
    }

    /// As [`Bucket::is_full`].
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at.load(Ordering::Relaxed) <= nanos(now)
    }
}

/// Enough for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const MAX_COUNT: u32 = 1_000_000;
const MIN_INTERVAL: Duration = Duration::from_millis(1);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_numbers_by_time() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        for (text, rate) in [
            ("100/s", Rate::per_second(100)),
            ("100 / s", Rate::per_second(100)),
            ("20/5s", Rate::new(20, 5 * second)),
            ("1/1m30s", Rate::new(1, minute + 30 * second)),
            ("6/m", Rate::new(6, minute)),
            ("100/s, burst 500", Rate::per_second(100).at_once(500)),
            ("1000000/ms", Rate::new(1_000_000, Duration::from_millis(1))),
        ] {
            assert_eq!(Rate::parse(text), Ok(rate), "{text}");
        }
        assert_eq!(Rate::parse("10/s, burst 2").unwrap().burst, 2);
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in [
            "",
            "100",
            "/s",
            "100/",
            "0/s",
            "-1/s",
            "1.5/s",
            "100/0s",
            "100/2h",
            "100/x",
            "1000001/s",
            "100/s, burst",
            "100/s, burst 0",
            "100/s burst 5",
            "100/s, 5",
            "+5/s",
        ] {
            let error = Rate::parse(text).unwrap_err().to_string();
            assert!(error.contains("100/s"), "{text}: {error}");
        }
    }

    #[test]
    fn a_new_rate_is_within_what_can_be_counted() {
        let odd = Rate::new(0, Duration::ZERO);
        assert_eq!((odd.burst, odd.cost), (1, 1_000_000));
        let large = Rate::new(u32::MAX, Duration::MAX).at_once(usize::MAX);
        assert_eq!((large.burst, large.cost), (1_000_000, 3_600_000));
    }

    proptest! {
        /// In any stretch of time no more happens than the rate allows and the bucket holds; and
        /// whoever waits as long as he is told gets a token, and not before.
        #[test]
        fn no_more_happens_than_is_allowed(
            count in 1_u32..50,
            interval in 1_u64..5_000,
            burst in 1_usize..80,
            steps in proptest::collection::vec(0_u64..400, 1..300),
        ) {
            let rate = Rate::new(count, Duration::from_millis(interval)).at_once(burst);
            let (mut bucket, shared) = (Bucket::default(), SharedBucket::default());
            let mut now = Duration::from_secs(5);
            let mut taken: Vec<Duration> = Vec::new();
            for step in steps {
                now += Duration::from_millis(step);
                let before = bucket;
                let result = bucket.take(now, &rate);
                prop_assert_eq!(shared.take(now, &rate), result);
                prop_assert_eq!(shared.is_full(now), bucket.is_full(now));
                match result {
                    Ok(()) => taken.push(now),
                    Err(wait) => {
                        prop_assert_eq!(bucket, before);
                        prop_assert!(!bucket.is_full(now));
                        let (mut early, mut late) = (bucket, bucket);
                        prop_assert!(late.take(now + wait, &rate).is_ok());
                        prop_assert!(early.take(now + wait - Duration::from_nanos(1), &rate).is_err());
                    }
                }
            }
            for (index, start) in taken.iter().enumerate() {
                for (behind, end) in taken[index..].iter().enumerate() {
                    let earned = (*end - *start).as_nanos() / u128::from(rate.cost);
                    prop_assert!((behind as u128) < u128::from(rate.burst) + earned);
                }
            }
        }
    }
}
