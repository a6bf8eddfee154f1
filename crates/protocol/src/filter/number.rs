//! Decimal numbers as filters compare them: exactly, however many digits there are.

use std::cmp::Ordering;

/// The number that a comparison names.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Decimal {
    is_negative: bool,
    /// Without leading zeros.
    integer: Box<str>,
    /// Without trailing zeros.
    fraction: Box<str>,
}

impl Decimal {
    /// `None` for what is no number.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let Digits {
            is_negative,
            integer,
            fraction,
        } = Digits::parse(text)?;
        Some(Self {
            is_negative,
            integer: integer.into(),
            fraction: fraction.into(),
        })
    }

    /// How this number compares to another; `None` if that is none.
    pub(super) fn compared_to(&self, text: &str) -> Option<Ordering> {
        let other = Digits::parse(text)?;
        let this = Digits {
            is_negative: self.is_negative,
            integer: &self.integer,
            fraction: &self.fraction,
        };
        Some(this.compare(other))
    }
}

/// The same, where it stands.
#[derive(Clone, Copy)]
struct Digits<'a> {
    is_negative: bool,
    integer: &'a str,
    fraction: &'a str,
}

impl<'a> Digits<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (is_negative, text) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        // Digits stand on both sides of a point.
        let (integer, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        if !is_number(integer) || !is_number(fraction) {
            return None;
        }
        let integer = integer.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        Some(Self {
            // There is one zero.
            is_negative: is_negative && !(integer.is_empty() && fraction.is_empty()),
            integer,
            fraction,
        })
    }

    fn compare(self, other: Self) -> Ordering {
        let magnitude = self
            .integer
            .len()
            .cmp(&other.integer.len())
            .then_with(|| self.integer.cmp(other.integer))
            // Digits behind the point compare like words.
            .then_with(|| self.fraction.cmp(other.fraction));
        match (self.is_negative, other.is_negative) {
            (false, false) => magnitude,
            (true, true) => magnitude.reverse(),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_their_value() {
        let ascending = [
            "-100000000000000000000000000000000000000000.5",
            "-10",
            "-9.5",
            "-9.45",
            "-0.001",
            "0",
            "0.0009",
            "0.001",
            "0.01",
            "1",
            "1.00000000000000000000000000000000000000001",
            "9.99",
            "10",
            "99",
            "100000000000000000000000000000000000000000.5",
        ];
        for (index, left) in ascending.iter().enumerate() {
            for (other, right) in ascending.iter().enumerate() {
                let number = Decimal::parse(left).expect("a number");
                assert_eq!(
                    number.compared_to(right),
                    Some(index.cmp(&other)),
                    "{left} {right}"
                );
            }
        }
    }

    #[test]
    fn a_number_may_be_written_in_several_ways() {
        for group in [
            &["0", "-0", "+0", "00", "0.0", "-0.00"][..],
            &["1.5", "+1.5", "01.50", "1.5000"],
            &["-10", "-010.0"],
        ] {
            for left in group {
                for right in group {
                    let number = Decimal::parse(left).expect("a number");
                    assert_eq!(number.compared_to(right), Some(Ordering::Equal));
                    assert_eq!(Some(number), Decimal::parse(right));
                }
            }
        }
    }

    #[test]
    fn what_is_no_number() {
        for text in [
            "", "-", "+", ".", "1.", ".5", "-.5", "1.2.3", "--1", "+-1", "1e5", "0x1", " 1", "1 ",
            "1,5", "NaN", "inf", "\u{664}", "1_000", "é",
        ] {
            assert!(Decimal::parse(text).is_none(), "{text}");
        }
    }
}
