//! A share of all: `off`, `all`, or a percentage.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

/// How many of all: none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// All of them, in millionths.
    pub(crate) const WHOLE: u64 = 1_000_000;

    pub(crate) fn millionths(self) -> u64 {
        u64::from(self.0)
    }
}

/// What can't be a share.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected `off`, `all` or a percentage such as `1%` or `0.5%`, at least 0.0001%")]
pub struct ShareError;

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        match text {
            "off" => return Ok(Self(0)),
            "all" => return Ok(Self(1_000_000)),
            _ => {}
        }
        let number = text.strip_suffix('%').ok_or(ShareError)?.trim_end();
        let is_plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let percent: f64 = number.parse().map_err(|_| ShareError)?;
        if !is_plain || !(0.0..=100.0).contains(&percent) {
            return Err(ShareError);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and a million"
        )]
        let millionths = (percent * 10_000.0).round() as u32;
        if millionths == 0 && percent > 0.0 {
            return Err(ShareError);
        }
        Ok(Self(millionths))
    }
}

struct ShareVisitor;

impl Visitor<'_> for ShareVisitor {
    type Value = Share;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a share such as \"1%\", or \"off\" or \"all\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
        text.parse().map_err(E::custom)
    }

    /// What YAML 1.1 makes of `off` where nothing quotes it.
    fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<Share, E> {
        match is_on {
            false => Ok(Share::default()),
            true => Err(E::invalid_value(de::Unexpected::Bool(true), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShareVisitor)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("off"),
            1_000_000 => f.write_str("all"),
            share => write!(f, "{}%", f64::from(share) / 10_000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_and_written() {
        for (text, expected) in [
            ("off", 0),
            ("all", 1_000_000),
            ("0%", 0),
            ("1%", 10_000),
            ("0.5%", 5_000),
            ("0.0001%", 1),
            ("12.5 %", 125_000),
            ("100%", 1_000_000),
        ] {
            let share: Share = text.parse().expect(text);
            assert_eq!(share.millionths(), expected, "{text}");
            assert_eq!(share.to_string().parse(), Ok(share), "{text}");
        }
        for text in [
            "", "%", "1", "101%", "-1%", "1e1%", "NaN%", "inf%", "some", "0.00001%",
        ] {
            assert_eq!(text.parse::<Share>(), Err(ShareError), "{text}");
        }
    }
}
