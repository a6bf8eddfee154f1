//! Patches of the client protocol (Fossil's format), applied: a reader of its own, so that a server's are not checked by
//! what made them.

use anyhow::{Context as _, Result, bail};

/// What `patch` makes of `base`.
///
/// # Errors
/// What is no patch, or is none of `base`.
pub(crate) fn apply(base: &[u8], mut patch: &[u8]) -> Result<Vec<u8>> {
    let length = number(&mut patch)?;
    expect(&mut patch, b'\n')?;
    let mut made = Vec::new();
    loop {
        let count = number(&mut patch)?;
        let (&what, rest) = patch.split_first().context("the patch is cut off")?;
        patch = rest;
        match what {
            b'@' => {
                let from = number(&mut patch)?;
                expect(&mut patch, b',')?;
                let copy = from
                    .checked_add(count)
                    .and_then(|end| base.get(from..end))
                    .context("the patch copies what is not there")?;
                made.extend_from_slice(copy);
            }
            b':' => {
                let (text, rest) = patch
                    .split_at_checked(count)
                    .context("the patch is cut off")?;
                made.extend_from_slice(text);
                patch = rest;
            }
            // The checksum: whoever compares the outcome needs none.
            b';' if made.len() == length => return Ok(made),
            _ => bail!("the patch is broken"),
        }
    }
}

fn number(patch: &mut &[u8]) -> Result<usize> {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";
    let mut value = 0_usize;
    while let Some((first, rest)) = patch.split_first()
        && let Some(digit) = DIGITS.iter().position(|known| known == first)
    {
        value = value
            .checked_mul(64)
            .and_then(|value| value.checked_add(digit))
            .context("a number in the patch is too large")?;
        *patch = rest;
    }
    Ok(value)
}

fn expect(patch: &mut &[u8], byte: u8) -> Result<()> {
    match patch.split_first() {
        Some((first, rest)) if *first == byte => {
            *patch = rest;
            Ok(())
        }
        _ => bail!("the patch is broken"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_text_come_together() {
        let patch = b"B\n4@0,3:new4@7,3Xs~;";
        assert_eq!(apply(b"the old one", patch).unwrap(), b"the new one");
        for broken in [
            &b"C\n4@0,3:new4@7,3Xs~;"[..],
            b"B\n4@0,3:new4@8,3Xs~;",
            b"B\n4@0,3:new4@7,",
            b"B\n4@0,3:ne",
            b"B4@0,",
            b"",
        ] {
            assert!(apply(b"the old one", broken).is_err());
        }
    }
}
