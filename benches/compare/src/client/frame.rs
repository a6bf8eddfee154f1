//! Frames of RFC 6455 section 5.2, both directions.

use anyhow::{Result, bail};

/// The opcodes that a load meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// The start of a frame from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) opcode: Opcode,
    /// Whether it is a message that permessage-deflate has compressed.
    pub(crate) compressed: bool,
    /// Where the payload begins.
    pub(crate) start: usize,
    /// Where the frame ends.
    pub(crate) end: usize,
}

/// Appends an unfragmented frame as a client sends it, masked with `key`.
pub(crate) fn put_client(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    put_header(out, opcode, payload.len(), 0x80);
    put_masked(out, payload, key);
}

/// The same with a payload that was compressed.
pub(crate) fn put_client_compressed(
    out: &mut Vec<u8>,
    opcode: Opcode,
    payload: &[u8],
    key: [u8; 4],
) {
    let start = out.len();
    put_header(out, opcode, payload.len(), 0x80);
    out[start] |= 0x40;
    put_masked(out, payload, key);
}

fn put_masked(out: &mut Vec<u8>, payload: &[u8], key: [u8; 4]) {
    out.extend_from_slice(&key);
    out.extend(
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
}

/// Appends an unfragmented frame as a server sends it.
pub(crate) fn put_server(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    put_header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// The header at the start of `bytes`, `None` if there is not enough of it yet.
///
/// # Errors
/// What no server that is measured here may send: fragments, reserved bits, masks, unknown opcodes.
pub(crate) fn parse_server(bytes: &[u8]) -> Result<Option<Header>> {
    match parse_server_deflate(bytes)? {
        Some(header) if header.compressed => bail!("a frame is compressed: that was not agreed on"),
        header => Ok(header),
    }
}

/// The same where permessage-deflate was agreed on.
pub(crate) fn parse_server_deflate(bytes: &[u8]) -> Result<Option<Header>> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    let compressed = matches!(first, 0xc1 | 0xc2);
    let opcode = match first & if compressed { !0x40 } else { 0xff } {
        0x81 => Opcode::Text,
        0x82 => Opcode::Binary,
        0x88 => Opcode::Close,
        0x89 => Opcode::Ping,
        0x8a => Opcode::Pong,
        other => bail!("a frame starts with {other:#04x}: not one whole data or control frame"),
    };
    let (start, length) = match (second, rest) {
        (0..=125, _) => (2, usize::from(*second)),
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => (
            10,
            usize::try_from(u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))?,
        ),
        (126 | 127, _) => return Ok(None),
        _ => bail!("the server masks its frames"),
    };
    Ok(Some(Header {
        opcode,
        compressed,
        start,
        end: start.saturating_add(length),
    }))
}

fn put_header(out: &mut Vec<u8>, opcode: Opcode, length: usize, mask_bit: u8) {
    out.push(0x80 | opcode as u8);
    if length < 126 {
        out.push(mask_bit | length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(mask_bit | 126);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(mask_bit | 127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_section_5_7_come_out() {
        let mut out = Vec::new();
        put_client(&mut out, Opcode::Text, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(
            out,
            [
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
        out.clear();
        put_server(&mut out, Opcode::Text, b"Hello");
        assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        out.clear();
        put_server(&mut out, Opcode::Binary, &[0; 256]);
        assert_eq!(out[..4], [0x82, 0x7e, 0x01, 0x00]);
        out.clear();
        put_server(&mut out, Opcode::Binary, &[0; 65536]);
        assert_eq!(out[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn what_is_written_is_read_in_every_length_form() {
        for length in [0, 1, 125, 126, 127, 65535, 65536] {
            let mut out = Vec::new();
            put_server(&mut out, Opcode::Binary, &vec![7; length]);
            let header = parse_server(&out).unwrap().unwrap();
            assert_eq!((header.opcode, header.end), (Opcode::Binary, out.len()));
            assert_eq!(header.end - header.start, length);
            for cut in 0..header.start {
                let parsed = parse_server(&out[..cut]).unwrap();
                assert!(
                    parsed.is_none_or(|early| early == header),
                    "cut at {cut} of {length}"
                );
            }
        }
    }

    #[test]
    fn fragments_and_masks_are_refused() {
        assert!(parse_server(&[0x01, 0x00]).is_err());
        assert!(parse_server(&[0xc1, 0x00]).is_err());
        assert!(parse_server(&[0x81, 0x80, 0, 0, 0, 0]).is_err());
    }
}
