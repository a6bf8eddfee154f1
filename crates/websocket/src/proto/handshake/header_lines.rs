//! The header lines of a parsed head, owned: what the heads of requests and of responses share.

use std::ops::Range;

/// The bytes of a head, and where its header lines lie in them.
#[derive(Clone)]
pub(super) struct HeaderLines {
    bytes: Box<[u8]>,
    lines: Box<[(Range<u32>, Range<u32>)]>,
}

impl HeaderLines {
    /// Copies a head; `headers` are slices of it, as httparse gives them.
    pub(super) fn copy(head: &[u8], headers: &[httparse::Header<'_>]) -> Self {
        Self {
            bytes: head.into(),
            lines: headers
                .iter()
                .map(|header| {
                    let name = place(head, header.name.as_bytes());
                    (name, place(head, header.value))
                })
                .collect(),
        }
    }

    /// Puts `parts` and header lines of a head that an HTTP library has parsed into one piece, and
    /// gives the places of the parts.
    pub(super) fn gather<'h, const N: usize>(
        parts: [&str; N],
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> (Self, [Range<u32>; N]) {
        let mut bytes = Vec::with_capacity(512);
        let mut put = |part: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(part);
            start as u32..bytes.len() as u32
        };
        let places = parts.map(|part| put(part.as_bytes()));
        let lines = headers
            .into_iter()
            .map(|(name, value)| (put(name.as_bytes()), put(value)))
            .collect();
        let gathered = Self {
            lines,
            bytes: bytes.into(),
        };
        (gathered, places)
    }

    /// Where another slice of the head lies.
    pub(super) fn place(&self, head: &[u8], part: &[u8]) -> Range<u32> {
        debug_assert!(head.starts_with(&self.bytes));
        place(head, part)
    }

    /// All lines, in their order, names as they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.lines
            .iter()
            .map(|(name, value)| (self.text(name), self.slice(value)))
    }

    /// The value of the first line of this name, in whatever case.
    pub(super) fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Bytes of the head.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Of the parts that httparse gives as text.
    pub(super) fn text(&self, range: &Range<u32>) -> &str {
        str::from_utf8(self.slice(range)).unwrap_or_default()
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }
}

fn place(head: &[u8], part: &[u8]) -> Range<u32> {
    // A part without bytes need not point into the head: httparse makes some out of nothing.
    if part.is_empty() {
        return 0..0;
    }
    let start = part.as_ptr() as usize - head.as_ptr() as usize;
    start as u32..(start + part.len()) as u32
}

/// As many header lines as there is room for while parsing.
pub(super) const MAX_HEADERS: usize = 128;
