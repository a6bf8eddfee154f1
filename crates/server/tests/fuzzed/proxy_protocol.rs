//! What must hold of the PROXY protocol's parser whatever a peer sends. The fuzz target `proxy_protocol` calls this with
//! what it invents, ordinary tests with the corpus and with headers of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::proxy_protocol::{Parser, ProxyHeader};

/// What came of some bytes: how many were the header's, and what it says; `None` where more must come.
type Outcome = Option<Result<(usize, ProxyHeader), ()>>;

/// However the bytes come, the same comes of them, and it is what a reader says who has them all at once.
pub(crate) fn check(data: &[u8]) {
    let expected = reference(data);
    assert_eq!(in_pieces(data, data.len().max(1)), expected, "at once");
    assert_eq!(in_pieces(data, 1), expected, "byte by byte");
    let size = data.last().map_or(1, |last| usize::from(last % 31) + 2);
    assert_eq!(in_pieces(data, size), expected, "in pieces of {size}");
}

/// Feeds the parser, as long as it takes bytes.
fn in_pieces(data: &[u8], size: usize) -> Outcome {
    let mut parser = Parser::default();
    let mut before = 0;
    for piece in data.chunks(size) {
        match parser.receive(piece) {
            Ok((taken, Some(header))) => {
                assert!(taken <= piece.len());
                return Some(Ok((before + taken, header)));
            }
            Ok((taken, None)) => {
                assert_eq!(
                    taken,
                    piece.len(),
                    "what is not enough is all of the header's"
                );
                before += taken;
            }
            Err(_) => return Some(Err(())),
        }
    }
    None
}

/// The same without a state.
fn reference(data: &[u8]) -> Outcome {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let begins = |start: &[u8]| {
        let common = start.len().min(data.len());
        data[..common] == start[..common]
    };
    if begins(SIGNATURE) {
        version_2(data)
    } else if begins(b"PROXY ") {
        version_1(data)
    } else {
        Some(Err(()))
    }
}

fn version_1(data: &[u8]) -> Outcome {
    let line = &data[..data.len().min(107)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return (line.len() == 107).then_some(Err(()));
    };
    let header = || -> Option<ProxyHeader> {
        let text = std::str::from_utf8(line[..end].strip_suffix(b"\r")?).ok()?;
        let words: Vec<_> = text.split(' ').skip(1).collect();
        let port = |word: &str| -> Option<u16> {
            let port: u16 = word.parse().ok()?;
            (port.to_string() == word).then_some(port)
        };
        let (from, _to): (IpAddr, IpAddr) = match words[..] {
            ["UNKNOWN", ..] => return Some(ProxyHeader::Own),
            ["TCP4", from, to, _, _] => (
                from.parse::<Ipv4Addr>().ok()?.into(),
                to.parse::<Ipv4Addr>().ok()?.into(),
            ),
            ["TCP6", from, to, _, _] => (
                from.parse::<Ipv6Addr>().ok()?.into(),
                to.parse::<Ipv6Addr>().ok()?.into(),
            ),
            _ => return None,
        };
        let _to = port(words[4])?;
        let from = SocketAddr::new(from.to_canonical(), port(words[3])?);
        Some(ProxyHeader::For(from))
    };
    Some(header().map(|header| (end + 1, header)).ok_or(()))
}

fn version_2(data: &[u8]) -> Outcome {
    let head = data.get(..16)?;
    let (version, command, family) = (head[12] >> 4, head[12] & 0xf, head[13]);
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if version != 2 || command > 1 || length > 16 * 1024 {
        return Some(Err(()));
    }
    let body = data.get(16..16 + length)?;
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let header = match (command, family) {
        (1, 0x11 | 0x21) if body.len() < if family == 0x11 { 12 } else { 36 } => {
            return Some(Err(()));
        }
        (1, 0x11) => {
            let from = Ipv4Addr::new(body[0], body[1], body[2], body[3]);
            ProxyHeader::For((from, port(8)).into())
        }
        (1, 0x21) => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&body[..16]);
            let from = IpAddr::from(Ipv6Addr::from(octets)).to_canonical();
            ProxyHeader::For((from, port(32)).into())
        }
        _ => ProxyHeader::Own,
    };
    Some(Ok((16 + length, header)))
}
