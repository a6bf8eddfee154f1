//! The wire format below the messages: varints, and fields with their numbers and types.

/// How deep groups may nest in a field that is skipped. Nobody has sent groups for a decade, but a
/// reader has to get over them.
pub const MAX_GROUP_DEPTH: usize = 32;

/// Why a command can't be read. All of these end a connection with
/// [`Disconnect::BAD_REQUEST`](crate::Disconnect::BAD_REQUEST).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A frame with nothing in it.
    #[error("expected a command, found an empty frame; a pong is a single zero byte")]
    Empty,
    /// Something reaches beyond the end of what it is part of.
    #[error("the message ends in the middle of a field; is its length in front of it as a varint?")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("a varint that doesn't fit into 64 bits")]
    Varint,
    /// No field begins like this.
    #[error("not the beginning of a field: number {number}, wire type {wire_type}")]
    Key {
        /// The field's number, from 1 in a valid message.
        number: u64,
        /// 0 to 5 in a valid message.
        wire_type: u8,
    },
    /// A known field has another type than the protocol says.
    #[error("field {number} has wire type {found}, expected {expected}")]
    WireType {
        /// The field's number.
        number: u32,
        /// What the schema says.
        expected: u8,
        /// What came.
        found: u8,
    },
    /// A string that isn't one.
    #[error("field {number} is a string, but not valid UTF-8")]
    Utf8 {
        /// The field's number.
        number: u32,
    },
    /// More entries of a map than are taken.
    #[error("field {number} is a map with more than {limit} entries")]
    TooMany {
        /// The field's number.
        number: u32,
        /// How many there may be.
        limit: usize,
    },
    /// Groups nested deeper than [`MAX_GROUP_DEPTH`].
    #[error("groups nested deeper than {MAX_GROUP_DEPTH} levels")]
    TooDeep,
}

/// A field as it stands in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    value: Value<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A type that the protocol has no use for, with its number on the wire.
    Other(u8),
}

impl<'a> Field<'a> {
    pub(crate) fn unsigned(self) -> Result<u64, DecodeError> {
        match self.value {
            Value::Varint(number) => Ok(number),
            value => Err(self.expected(VARINT, value)),
        }
    }

    /// `uint32` and `int32` fields are varints of up to 64 bits, of which the lower ones count.
    pub(crate) fn lower(self) -> Result<u32, DecodeError> {
        Ok(self.unsigned()? as u32)
    }

    pub(crate) fn boolean(self) -> Result<bool, DecodeError> {
        Ok(self.unsigned()? != 0)
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8], DecodeError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            value => Err(self.expected(LENGTH, value)),
        }
    }

    /// A payload; as in every proto3 message, an empty one is as good as none.
    pub(crate) fn payload(self) -> Result<Option<&'a [u8]>, DecodeError> {
        Ok(Some(self.bytes()?).filter(|bytes| !bytes.is_empty()))
    }

    pub(crate) fn text(self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Utf8 {
            number: self.number,
        })
    }

    /// Checks how many of such a field there are.
    pub(crate) fn at_most(self, found: usize, limit: usize) -> Result<(), DecodeError> {
        let number = self.number;
        if found > limit {
            return Err(DecodeError::TooMany { number, limit });
        }
        Ok(())
    }

    fn expected(self, expected: u8, found: Value<'a>) -> DecodeError {
        let found = match found {
            Value::Varint(_) => VARINT,
            Value::Bytes(_) => LENGTH,
            Value::Other(wire_type) => wire_type,
        };
        DecodeError::WireType {
            number: self.number,
            expected,
            found,
        }
    }
}

/// Reads from the front of a message, or of a frame of messages.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// What stands behind its length: a message of a frame.
    pub(crate) fn delimited(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.varint()?;
        let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
        self.take(length)
    }

    /// The next field; `None` at the end of the message.
    pub(crate) fn field(&mut self) -> Result<Option<Field<'a>>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        let value = match wire_type {
            VARINT => Value::Varint(self.varint()?),
            LENGTH => Value::Bytes(self.delimited()?),
            _ => {
                self.skip(number, wire_type)?;
                Value::Other(wire_type)
            }
        };
        Ok(Some(Field { number, value }))
    }

    fn key(&mut self) -> Result<(u32, u8), DecodeError> {
        let key = self.varint()?;
        let wire_type = (key & 7) as u8;
        let number = key >> 3;
        match u32::try_from(key) {
            Ok(key) if number > 0 && wire_type <= FIXED32 => Ok((key >> 3, wire_type)),
            _ => Err(DecodeError::Key { number, wire_type }),
        }
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for (index, &byte) in self.rest.iter().enumerate() {
            // The tenth byte holds the 64th bit, and nothing else.
            if index == 9 && byte > 1 {
                return Err(DecodeError::Varint);
            }
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(number);
            }
        }
        Err(DecodeError::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Gets over a value that nobody wants. Without recursion: groups are counted.
    fn skip(&mut self, number: u32, wire_type: u8) -> Result<(), DecodeError> {
        // The numbers of the groups that are open.
        let mut open = [0; MAX_GROUP_DEPTH];
        let mut depth = 0;
        let (mut number, mut wire_type) = (number, wire_type);
        loop {
            match wire_type {
                VARINT => drop(self.varint()?),
                FIXED64 => drop(self.take(8)?),
                LENGTH => drop(self.delimited()?),
                GROUP => {
                    *open.get_mut(depth).ok_or(DecodeError::TooDeep)? = number;
                    depth += 1;
                }
                GROUP_END if depth > 0 && open[depth - 1] == number => depth -= 1,
                FIXED32 => drop(self.take(4)?),
                _ => {
                    return Err(DecodeError::Key {
                        number: u64::from(number),
                        wire_type,
                    });
                }
            }
            if depth == 0 {
                return Ok(());
            }
            (number, wire_type) = self.key()?;
        }
    }
}

/// Writes fields behind one another.
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    pub(crate) fn unsigned(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.key(number, VARINT);
            self.varint(value);
        }
    }

    /// `int64` in two's complement, so a negative number takes ten bytes.
    pub(crate) fn signed(&mut self, number: u32, value: i64) {
        self.unsigned(number, value as u64);
    }

    pub(crate) fn boolean(&mut self, number: u32, value: bool) {
        self.unsigned(number, u64::from(value));
    }

    pub(crate) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes_always(number, bytes);
        }
    }

    /// Keys and values of a map stand there even when they are empty.
    pub(crate) fn bytes_always(&mut self, number: u32, bytes: &[u8]) {
        self.begin(number, bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// What comes before a field of `length` bytes.
    pub(crate) fn begin(&mut self, number: u32, length: usize) {
        self.key(number, LENGTH);
        self.varint(length as u64);
    }

    /// A message as a field, even when it is empty. It costs least when its length takes as many
    /// bytes as `guess` would; a wrong guess moves what was written.
    pub(crate) fn message(
        &mut self,
        number: u32,
        guess: usize,
        fill: impl FnOnce(&mut Writer<'_>),
    ) {
        self.key(number, LENGTH);
        self.delimited(guess, fill);
    }

    /// A message behind its length.
    pub(crate) fn delimited(&mut self, guess: usize, fill: impl FnOnce(&mut Writer<'_>)) {
        let at = self.out.len();
        let guessed = varint_len(guess as u64);
        self.out.resize(at + guessed, 0);
        fill(&mut Writer::new(self.out));
        let end = self.out.len();
        let length = end - at - guessed;
        let width = varint_len(length as u64);
        if width > guessed {
            self.out.resize(end + width - guessed, 0);
        }
        if width != guessed {
            self.out.copy_within(at + guessed..end, at + width);
            self.out.truncate(at + width + length);
        }
        let mut rest = length;
        for byte in &mut self.out[at..at + width] {
            *byte = (rest & 0x7f) as u8 | 0x80;
            rest >>= 7;
        }
        self.out[at + width - 1] &= 0x7f;
    }

    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn key(&mut self, number: u32, wire_type: u8) {
        self.varint(u64::from(number << 3 | u32::from(wire_type)));
    }
}

/// How many bytes a number takes as a varint.
pub(crate) const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_varints() {
        for value in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            let mut out = Vec::new();
            Writer::new(&mut out).varint(value);
            assert_eq!(varint_len(value), out.len());
            assert_eq!(Reader::new(&out).varint(), Ok(value));
        }
    }

    #[test]
    fn a_wrong_guess_changes_nothing() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 20_000] {
            let content: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let mut expected = b"x\x0a".to_vec();
            Writer::new(&mut expected).varint(length);
            expected.extend_from_slice(&content);
            for guess in [0, 127, 128, length as usize, 16_384, 3_000_000] {
                let mut out = b"x".to_vec();
                Writer::new(&mut out).message(1, guess, |writer| {
                    writer.out.extend_from_slice(&content);
                });
                assert_eq!(out, expected, "{length} bytes, guessed {guess}");
            }
        }
    }
}
