//! Durations as people write them: `25s`, `300ms`, `1h30m`.

use std::time::Duration;

use serde::de::{Deserializer, Error as _, Visitor};

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration; write numbers with units such as 300ms, 25s, 10m, 720h or 1h30m")]
pub struct DurationError(String);

/// Reads a duration: one or more whole numbers, each with one of the units `ms`, `s`, `m`, `h`,
/// or a plain `0`.
///
/// ```
/// # use std::time::Duration;
/// use tautline_hub::config::duration;
///
/// assert_eq!(duration::parse("1h30m")?, Duration::from_secs(5400));
/// assert!(duration::parse("90").is_err());
/// # Ok::<(), duration::DurationError>(())
/// ```
///
/// # Errors
///
/// [`DurationError`] for anything else, such as a number without a unit.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    read(text).ok_or_else(|| DurationError(text.chars().take(40).collect()))
}

fn read(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let unit = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, behind) = behind.split_at(unit);
        let part = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        if behind.is_empty() {
            return Some(total);
        }
        rest = behind;
    }
}

/// For serde's `deserialize_with`: a string as in [`parse`].
///
/// # Errors
///
/// Those of [`parse`], or that the value is no string.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct DurationVisitor;

    impl Visitor<'_> for DurationVisitor {
        type Value = Duration;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a duration such as \"25s\"")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(E::custom)
        }
    }

    deserializer
        .deserialize_str(DurationVisitor)
        .map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("300ms", 300),
            ("25s", 25_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1s500ms", 1_500),
            ("720h", 2_592_000_000),
        ] {
            assert_eq!(
                parse(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for text in [
            "",
            "s",
            "5",
            "-1s",
            "1.5s",
            "5 s",
            "5d",
            "1h30",
            "99999999999999999999s",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("25s"), "{text}: {error}");
        }
        assert!(parse("5124095576030432h").is_err(), "overflow");
    }
}
