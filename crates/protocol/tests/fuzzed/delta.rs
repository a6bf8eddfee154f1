//! What must hold for patches, whatever they are made of: the fuzz target `delta` calls this with what
//! it invents, ordinary tests with the corpus and with edits of their own.

use tautline_protocol::delta::{self, Encoder};

/// More than anything here makes.
const LIMIT: usize = 1 << 20;

/// The first byte says how far the base reaches, in steps of a 256th; the rest is the target.
pub(crate) fn check(data: &[u8]) {
    let Some((&share, data)) = data.split_first() else {
        return;
    };
    let (base, target) = data.split_at(data.len() * usize::from(share) / 256);
    check_encode(base, target);
    check_apply(base, target);
}

/// A patch is shorter than the target, makes the target, and is UTF-8 if that is.
pub(crate) fn check_encode(base: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = Encoder::default();
    // What an encoder was used for before makes no difference.
    encoder.encode(target, base);
    let patch = encoder.encode(base, target).map(<[u8]>::to_vec);
    assert_eq!(patch.as_deref(), Encoder::default().encode(base, target));
    let patch = patch?;
    assert!(patch.len() < target.len());
    assert_eq!(apply_naively(base, &patch).as_deref(), Some(target));
    assert_eq!(
        delta::apply(base, &patch, target.len()).as_deref(),
        Ok(target)
    );
    assert!(delta::apply(base, &patch, target.len() - 1).is_err());
    assert!(std::str::from_utf8(target).is_err() || std::str::from_utf8(&patch).is_ok());
    Some(patch)
}

/// Any bytes are applied as a naive decoder would, or refused as it would.
pub(crate) fn check_apply(base: &[u8], patch: &[u8]) {
    let ours = delta::apply(base, patch, LIMIT);
    let naive = apply_naively(base, patch).filter(|target| target.len() <= LIMIT);
    assert_eq!(ours.as_ref().ok(), naive.as_ref(), "{ours:?}");
}

/// The format once more, as plainly as can be.
fn apply_naively(base: &[u8], patch: &[u8]) -> Option<Vec<u8>> {
    let mut at = 0;
    let (length, mark) = number(patch, &mut at)?;
    (mark == b'\n').then_some(())?;
    let mut target = Vec::new();
    loop {
        let (count, mark) = number(patch, &mut at)?;
        match mark {
            b'@' => {
                let (offset, comma) = number(patch, &mut at)?;
                (comma == b',').then_some(())?;
                target.extend_from_slice(base.get(offset..offset + count)?);
            }
            b':' => {
                target.extend_from_slice(patch.get(at..at + count)?);
                at += count;
            }
            b';' => {
                let mut padded = target.clone();
                padded.resize(padded.len().next_multiple_of(4), 0);
                let words = padded.chunks(4);
                let words =
                    words.map(|word| u32::from_be_bytes(word.try_into().expect("four bytes")));
                let sum = words.fold(0, u32::wrapping_add);
                let is_right = count == sum as usize && target.len() == length && at == patch.len();
                return is_right.then_some(target);
            }
            _ => return None,
        }
        // More than was announced is wrong already.
        (target.len() <= length).then_some(())?;
    }
}

/// A number of one to six digits, and the byte behind it.
fn number(patch: &[u8], at: &mut usize) -> Option<(usize, u8)> {
    let alphabet = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";
    let mut number = 0;
    for digits in 0.. {
        let byte = *patch.get(*at)?;
        *at += 1;
        match alphabet.iter().position(|digit| *digit == byte) {
            Some(value) if digits < 6 => number = number * 64 + value,
            None if digits > 0 => return Some((number, byte)),
            _ => return None,
        }
    }
    None
}
