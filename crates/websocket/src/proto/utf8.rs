//! UTF-8 as it arrives (RFC 6455 §8.1): chunks may be cut anywhere, and the first byte that can't
//! be right is the last one looked at.

/// A check of one text whose bytes come in chunks, holding the start of a character that the
/// last chunk cut off (at most three bytes).
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8Stream {
    carry: [u8; 3],
    carried: u8,
}

impl Utf8Stream {
    /// Checks the next chunk and appends what is whole to `text`.
    ///
    /// The bytes of a character that the chunk cuts off are kept, and appended with the chunk that
    /// completes it.
    ///
    /// # Errors
    ///
    /// [`InvalidUtf8`] as soon as no continuation could make the bytes valid. What `text` holds is
    /// of no meaning then, and the stream must not be used on.
    pub fn push(&mut self, mut chunk: &[u8], text: &mut String) -> Result<(), InvalidUtf8> {
        while self.carried > 0 {
            let Some((&next, rest)) = chunk.split_first() else {
                return Ok(());
            };
            chunk = rest;
            let have = usize::from(self.carried);
            let mut character = [0; 4];
            character[..have].copy_from_slice(&self.carry[..have]);
            character[have] = next;
            match incomplete(&character[..=have])? {
                Prefix::Whole(character) => {
                    text.push_str(character);
                    self.carried = 0;
                }
                Prefix::Incomplete => {
                    self.carry[have] = next;
                    self.carried += 1;
                }
            }
        }
        let (whole, tail) = chunk.split_at(chunk.len() - cut_off(chunk));
        text.push_str(simdutf8::basic::from_utf8(whole).map_err(|_| InvalidUtf8)?);
        if !tail.is_empty() {
            // One to three bytes: `cut_off` found a lead byte that wants more than there is.
            incomplete(tail)?;
            self.carry[..tail.len()].copy_from_slice(tail);
            self.carried = tail.len() as u8;
        }
        Ok(())
    }

    /// Whether the chunks so far end between two characters, as a text must.
    pub fn is_complete(&self) -> bool {
        self.carried == 0
    }
}

/// The bytes are not UTF-8, and nothing that could follow would make them so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text is not valid UTF-8")]
pub struct InvalidUtf8;

/// What one to four bytes that begin with a lead byte are.
enum Prefix<'a> {
    Whole(&'a str),
    Incomplete,
}

fn incomplete(bytes: &[u8]) -> Result<Prefix<'_>, InvalidUtf8> {
    match std::str::from_utf8(bytes) {
        Ok(character) => Ok(Prefix::Whole(character)),
        Err(error) if error.error_len().is_none() => Ok(Prefix::Incomplete),
        Err(_) => Err(InvalidUtf8),
    }
}

/// How many bytes at the end of `chunk` belong to a character that goes on behind it: 0 to 3.
/// Nothing is validated.
fn cut_off(chunk: &[u8]) -> usize {
    for back in 1..=chunk.len().min(3) {
        let wanted = match chunk[chunk.len() - back] {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xFF => 4,
            _ => 1,
        };
        return if wanted > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes pass before the check fails, fed one by one; `None` when none does.
    fn fails_after(bytes: &[u8]) -> Option<usize> {
        let (mut stream, mut text) = (Utf8Stream::default(), String::new());
        bytes
            .iter()
            .position(|byte| stream.push(&[*byte], &mut text).is_err())
    }

    /// The naive reference: bytes are possible as long as std finds them valid or cut off.
    fn impossible_after(bytes: &[u8]) -> Option<usize> {
        (0..bytes.len()).find(|&end| {
            std::str::from_utf8(&bytes[..=end]).is_err_and(|error| error.error_len().is_some())
        })
    }

    /// Every sequence of three bytes out of those at the edges of the encoding's rules, behind
    /// every four-byte lead too: the failing byte is exactly the one where hope ends.
    #[test]
    fn fails_at_the_first_impossible_byte() {
        const EDGES: [u8; 27] = [
            0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0,
            0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF8, 0xFE, 0xFF,
        ];
        for lead in EDGES {
            for a in EDGES {
                for b in EDGES {
                    for c in EDGES {
                        let bytes = [lead, a, b, c];
                        assert_eq!(fails_after(&bytes), impossible_after(&bytes), "{bytes:x?}");
                    }
                }
            }
        }
    }

    /// Chunks cut anywhere give the text, and are whole exactly at character boundaries.
    #[test]
    fn any_two_cuts_give_the_same_text() {
        let text = "aé€😀\u{10FFFF}z\u{0}κόσμε".repeat(2);
        let bytes = text.as_bytes();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let (mut stream, mut got) = (Utf8Stream::default(), String::new());
                for chunk in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                    stream.push(chunk, &mut got).unwrap();
                }
                assert!(stream.is_complete());
                assert_eq!(got, text);
            }
            let (mut stream, mut got) = (Utf8Stream::default(), String::new());
            stream.push(&bytes[..first], &mut got).unwrap();
            assert_eq!(stream.is_complete(), text.is_char_boundary(first));
        }
    }

    /// A long chunk takes the vector path of the validator; an error inside is found there too.
    #[test]
    fn long_chunks_are_checked() {
        let mut bytes = "пример ".repeat(100).into_bytes();
        let mut text = String::new();
        Utf8Stream::default().push(&bytes, &mut text).unwrap();
        assert_eq!(text.as_bytes(), bytes);
        bytes[600] = 0xFF;
        assert_eq!(
            Utf8Stream::default().push(&bytes, &mut text),
            Err(InvalidUtf8)
        );
    }
}
