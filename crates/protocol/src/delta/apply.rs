//! Applying a patch.

use super::{DIGITS, checksum};

/// Why a patch can't be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// The patch doesn't follow the format.
    #[error("not a patch: expected {expected} at byte {at}")]
    Syntax {
        /// What should be there.
        expected: &'static str,
        /// Where.
        at: usize,
    },
    /// What the patch makes is longer than the caller allows.
    #[error("a patch that makes {announced} bytes; at most {limit} are taken")]
    TooLarge {
        /// How long it would be.
        announced: u64,
        /// How long it may be.
        limit: usize,
    },
    /// The patch makes more or less than it announced.
    #[error("a patch that announces {announced} bytes and makes {made}")]
    Length {
        /// What stands at its beginning.
        announced: usize,
        /// What it comes to.
        made: usize,
    },
    /// The patch copies what the base doesn't have: it was made against another base.
    #[error("a patch for a longer base: it copies up to byte {end}, and the base has {length}")]
    Base {
        /// Where the copy ends.
        end: u64,
        /// How long the base is.
        length: usize,
    },
    /// The result isn't what the patch was made of: it was made against another base.
    #[error("a patch for another base: the checksum is {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// The patch's.
        expected: u32,
        /// The result's.
        found: u32,
    },
}

/// Applies `patch` to `base`.
///
/// # Errors
///
/// When the patch is not one, was not made against this base, or would make more than `limit` bytes.
pub fn apply(base: &[u8], patch: &[u8], limit: usize) -> Result<Vec<u8>, DeltaError> {
    let mut reader = Reader { patch, at: 0 };
    let announced = reader.number()?;
    reader.expect(b'\n', "a line break behind the length")?;
    let announced = match usize::try_from(announced) {
        Ok(announced) if announced <= limit => announced,
        _ => return Err(DeltaError::TooLarge { announced, limit }),
    };
    // Grows with what is really there, not with what is announced.
    let mut target = Vec::new();
    loop {
        let number = reader.number()?;
        match reader.byte() {
            Some(b'@') => {
                let offset = reader.number()?;
                reader.expect(b',', "a comma behind the offset")?;
                // Numbers are below 2^36 each.
                let end = offset + number;
                let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
                let copied = range.and_then(|(offset, end)| base.get(offset..end));
                let length = base.len();
                let copied = copied.ok_or(DeltaError::Base { end, length })?;
                extend(&mut target, copied, announced)?;
            }
            Some(b':') => {
                let literal = reader.take(number)?;
                extend(&mut target, literal, announced)?;
            }
            Some(b';') => {
                if target.len() != announced {
                    let made = target.len();
                    return Err(DeltaError::Length { announced, made });
                }
                let found = checksum(&target);
                if u64::from(found) != number {
                    let expected = number as u32;
                    return Err(DeltaError::Checksum { expected, found });
                }
                if reader.at < patch.len() {
                    return Err(reader.unexpected("the end of the patch"));
                }
                return Ok(target);
            }
            _ => {
                reader.at -= 1;
                return Err(reader.unexpected("\"@\", \":\" or \";\" behind a number"));
            }
        }
    }
}

fn extend(target: &mut Vec<u8>, piece: &[u8], announced: usize) -> Result<(), DeltaError> {
    let made = target.len() + piece.len();
    if made > announced {
        return Err(DeltaError::Length { announced, made });
    }
    target.extend_from_slice(piece);
    Ok(())
}

struct Reader<'a> {
    patch: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.patch.get(self.at).copied();
        self.at += 1;
        byte
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), DeltaError> {
        if self.patch.get(self.at) != Some(&byte) {
            return Err(self.unexpected(expected));
        }
        self.at += 1;
        Ok(())
    }

    /// Of at most six digits, which is enough for 32 bits.
    fn number(&mut self) -> Result<u64, DeltaError> {
        let digits = self.patch[self.at.min(self.patch.len())..].iter();
        let digits = digits.map_while(|byte| value_of(*byte));
        let (mut number, mut count) = (0, 0);
        for digit in digits.take(7) {
            number = number << 6 | u64::from(digit);
            count += 1;
        }
        if count == 0 || count > 6 {
            return Err(self.unexpected("a number of one to six digits"));
        }
        self.at += count;
        Ok(number)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DeltaError> {
        let rest = &self.patch[self.at..];
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((taken, _)) = rest.split_at_checked(length) else {
            return Err(self.unexpected("as many bytes as the number before them says"));
        };
        self.at += length;
        Ok(taken)
    }

    fn unexpected(&self, expected: &'static str) -> DeltaError {
        DeltaError::Syntax {
            expected,
            at: self.at,
        }
    }
}

/// What a digit is worth.
fn value_of(byte: u8) -> Option<u8> {
    const VALUES: [u8; 256] = {
        let mut values = [u8::MAX; 256];
        let mut value = 0;
        while value < DIGITS.len() {
            values[DIGITS[value] as usize] = value as u8;
            value += 1;
        }
        values
    };
    Some(VALUES[usize::from(byte)]).filter(|value| *value < 64)
}
