//! What is passed on of a trace: `traceparent` of W3C Trace Context.

use std::fmt;

use tautline_hub::watch::TraceParent;

/// Which trace, which span of it, and whether it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    trace: [u8; 16],
    span: [u8; 8],
    is_sampled: bool,
}

impl Context {
    /// A new trace, which is kept for so many of a hundred.
    pub(super) fn root(random: [u8; 24], percent: u32) -> Self {
        let (trace, span) = split(random);
        // The last bytes are the random ones of any id (Trace Context, section 3.2.2.3).
        let [.., a, b, c, d] = trace;
        let place = u64::from(u32::from_be_bytes([a, b, c, d]));
        Self {
            trace,
            span,
            is_sampled: place * 100 < u64::from(percent) << 32,
        }
    }

    /// A span of the same trace.
    pub(super) fn child(&self, random: [u8; 24]) -> Self {
        let (_, span) = split(random);
        Self { span, ..*self }
    }

    /// What a header field says; `None` for what can't be understood, with which a new trace begins (section 3.2.2).
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.split('-');
        let [version] = hex(parts.next()?)?;
        let (trace, span) = (hex(parts.next()?)?, hex(parts.next()?)?);
        let [flags] = hex(parts.next()?)?;
        // Later versions may say more behind it, this one doesn't (section 4.3).
        let is_known = match version {
            0 => parts.next().is_none(),
            0xff => false,
            _ => true,
        };
        let is_some = trace != [0; 16] && span != [0; 8];
        (is_known && is_some).then_some(Self {
            trace,
            span,
            is_sampled: flags & 1 == 1,
        })
    }

    pub(super) fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    pub(super) fn trace(&self) -> [u8; 16] {
        self.trace
    }

    pub(super) fn span(&self) -> [u8; 8] {
        self.span
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TraceParent::from(*self).fmt(f)
    }
}

impl From<Context> for TraceParent {
    fn from(context: Context) -> Self {
        Self {
            trace_id: context.trace,
            parent_id: context.span,
            is_sampled: context.is_sampled,
        }
    }
}

impl From<TraceParent> for Context {
    fn from(parent: TraceParent) -> Self {
        Self {
            trace: parent.trace_id,
            span: parent.parent_id,
            is_sampled: parent.is_sampled,
        }
    }
}

/// Bytes as ids are written.
pub(super) fn write_hex(out: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

/// Ids, which are never zero.
fn split(random: [u8; 24]) -> ([u8; 16], [u8; 8]) {
    let (mut trace, mut span) = ([0; 16], [0; 8]);
    trace.copy_from_slice(&random[..16]);
    span.copy_from_slice(&random[16..]);
    if trace == [0; 16] {
        trace[0] = 1;
    }
    if span == [0; 8] {
        span[0] = 1;
    }
    (trace, span)
}

/// Small letters, as the field has them.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_a_caller_says_is_understood() {
        let context = Context::parse(GOOD.as_bytes()).expect("the example of the standard");
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), GOOD);
        let child = context.child([7; 24]);
        assert_eq!(
            child.to_string(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0707070707070707-01"
        );
        for (from, to, is_sampled) in [
            ("-01", "-00", Some(false)),
            ("-01", "-03", Some(true)),
            ("00-4", "01-4", Some(true)),
            ("-01", "-01-more", None),
            ("00-4", "ff-4", None),
            ("00-4", "0-4", None),
            (
                "4bf92f3577b34da6a3ce929d0e0e4736",
                "00000000000000000000000000000000",
                None,
            ),
            ("00f067aa0ba902b7", "0000000000000000", None),
            ("4bf9", "4BF9", None),
            ("4bf9", "4bf", None),
            ("-01", "", None),
            ("-01", "-1", None),
            ("-", "_", None),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let sampled = Context::parse(text.as_bytes()).map(|one| one.is_sampled());
            assert_eq!(sampled, is_sampled, "{text}");
        }
        let later = GOOD.replacen("00-4", "cc-4", 1) + "-what-will-be";
        assert!(Context::parse(later.as_bytes()).is_some());
    }

    #[test]
    fn so_many_of_a_hundred_are_kept() {
        let place = |place: u32| {
            let mut random = [1; 24];
            random[12..16].copy_from_slice(&place.to_be_bytes());
            random
        };
        for (percent, at, expected) in [
            (0, 0, false),
            (1, 0, true),
            (10, u32::MAX / 10 - 1, true),
            (10, u32::MAX / 10 + 1, false),
            (100, u32::MAX, true),
        ] {
            assert_eq!(
                Context::root(place(at), percent).is_sampled(),
                expected,
                "{percent} {at}"
            );
        }
        // Of all zeros comes no id of all zeros.
        let zero = Context::root([0; 24], 100).to_string();
        assert!(Context::parse(zero.as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn what_is_passed_on_is_read_again(random: [u8; 24], percent in 0u32..=100) {
            let context = Context::root(random, percent);
            prop_assert_eq!(Context::parse(context.to_string().as_bytes()), Some(context));
        }

        #[test]
        fn nothing_panics(value: Vec<u8>) {
            let _ = Context::parse(&value);
        }
    }
}
