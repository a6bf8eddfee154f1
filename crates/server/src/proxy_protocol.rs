//! The PROXY protocol, versions 1 and 2: what a proxy says in front of a connection of whom it is for
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! [`Parser`] is sans-IO. It keeps 107 bytes at the most, whatever length is announced, and takes no byte that
//! is behind the header.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// Whom a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The proxy's own: a look whether the server is there (`LOCAL`), or for somebody without an IP address
    /// (`UNKNOWN`, Unix sockets), or not known.
    Own,
    /// Somebody's with that address.
    For(SocketAddr),
}

/// Bytes that are no such header.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProxyProtocolError {
    /// Something else.
    #[error("expected a header of the PROXY protocol, got something else")]
    NotOne,
    /// The beginning of one, and then something that must not be there.
    #[error("the header of the PROXY protocol has {0}")]
    Malformed(&'static str),
}

/// Reads a header as its bytes come.
#[derive(Debug)]
pub struct Parser {
    kept: [u8; MAX_V1],
    len: usize,
    /// Of version 2: bytes that are still to come, kept or not.
    left: Option<usize>,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            kept: [0; MAX_V1],
            len: 0,
            left: None,
        }
    }
}

impl Parser {
    /// Takes bytes: how many of them are the header's, and what it says once it is whole. After that, or after an error,
    /// there must be no further call.
    ///
    /// # Errors
    ///
    /// [`ProxyProtocolError`] as soon as it can't become a header any more.
    pub fn receive(
        &mut self,
        input: &[u8],
    ) -> Result<(usize, Option<ProxyHeader>), ProxyProtocolError> {
        let mut taken = 0;
        while taken < input.len() {
            if let Some(left) = self.left {
                let count = left.min(input.len() - taken);
                for byte in &input[taken..taken + count] {
                    if let Some(place) = self.kept.get_mut(self.len) {
                        *place = *byte;
                        self.len += 1;
                    }
                }
                taken += count;
                self.left = Some(left - count);
            } else {
                self.kept[self.len] = input[taken];
                self.len += 1;
                taken += 1;
                if let Some(header) = self.step()? {
                    return Ok((taken, Some(header)));
                }
            }
            if self.left == Some(0) {
                return self.version_2().map(|header| (taken, Some(header)));
            }
        }
        Ok((taken, None))
    }

    /// Looks at what there is while nothing is known of the length.
    fn step(&mut self) -> Result<Option<ProxyHeader>, ProxyProtocolError> {
        let kept = &self.kept[..self.len];
        let is_begun = |start: &[u8]| {
            let common = start.len().min(kept.len());
            kept[..common] == start[..common]
        };
        if is_begun(V2_SIGNATURE) {
            if let [.., high, low] = kept
                && kept.len() == V2_HEAD
            {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if kept[12] >> 4 != 2 || kept[12] & 0xf > 1 {
                    return Err(ProxyProtocolError::Malformed(
                        "an unknown version or command",
                    ));
                }
                if length > MAX_V2 {
                    return Err(ProxyProtocolError::Malformed("more than 16 KiB"));
                }
                self.left = Some(length);
            }
            return Ok(None);
        }
        if !is_begun(V1_START) {
            return Err(ProxyProtocolError::NotOne);
        }
        if let Some(line) = kept.strip_suffix(b"\r\n") {
            return version_1(line).map(Some);
        }
        if kept.ends_with(b"\n") || self.len == MAX_V1 {
            return Err(ProxyProtocolError::Malformed("no CRLF where it must end"));
        }
        Ok(None)
    }

    fn version_2(&self) -> Result<ProxyHeader, ProxyProtocolError> {
        let (head, addresses) = self.kept[..self.len].split_at(V2_HEAD);
        if head[12] & 0xf == 0 {
            return Ok(ProxyHeader::Own);
        }
        let short = ProxyProtocolError::Malformed("no room for its addresses");
        match head[13] {
            TCP_V4 => {
                let Some((from, [_, _, _, _, high, low, ..])) = addresses.split_first_chunk::<4>()
                else {
                    return Err(short);
                };
                if addresses.len() < 12 {
                    return Err(short);
                }
                let port = u16::from_be_bytes([*high, *low]);
                Ok(ProxyHeader::For((Ipv4Addr::from(*from), port).into()))
            }
            TCP_V6 => {
                let Some((from, rest)) = addresses.split_first_chunk::<16>() else {
                    return Err(short);
                };
                let Some([high, low, _, _]) = rest.get(16..20) else {
                    return Err(short);
                };
                let port = u16::from_be_bytes([*high, *low]);
                let from = IpAddr::from(Ipv6Addr::from(*from)).to_canonical();
                Ok(ProxyHeader::For((from, port).into()))
            }
            _ => Ok(ProxyHeader::Own),
        }
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 4711 443`, without its end.
fn version_1(line: &[u8]) -> Result<ProxyHeader, ProxyProtocolError> {
    let malformed = ProxyProtocolError::Malformed;
    let line = std::str::from_utf8(line).map_err(|_| malformed("bytes that are no ASCII"))?;
    let mut words = line.split(' ');
    let _proxy = words.next();
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(ProxyHeader::Own);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse().ok().map(IpAddr::V4),
            "TCP6" => word.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (Some(from), Some(_to)) = (address(), address()) else {
        return Err(malformed("no addresses of a family that it knows"));
    };
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
        let is_short = word == "0" || !word.starts_with('0');
        (is_plain && is_short).then(|| word.parse().ok())?
    };
    match (port(), port(), words.next()) {
        (Some(port), Some(_to), None) => Ok(ProxyHeader::For((from.to_canonical(), port).into())),
        _ => Err(malformed("no two ports at its end")),
    }
}

/// Reads a header from a connection, and nothing behind it.
///
/// # Errors
///
/// When the connection ends or breaks, and for what is no header ([`io::ErrorKind::InvalidData`]).
///
/// # Cancel safety
///
/// None: what was read is lost.
pub(crate) async fn read(io: &mut TcpStream) -> io::Result<ProxyHeader> {
    let mut parser = Parser::default();
    let mut buffer = [0; 512];
    loop {
        let count = io.peek(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let received = parser.receive(&buffer[..count]);
        let (taken, header) =
            received.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        io.read_exact(&mut buffer[..taken]).await?;
        if let Some(header) = header {
            return Ok(header);
        }
    }
}

const V1_START: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const MAX_V1: usize = 107;
/// Signature, version and command, family, length.
const V2_HEAD: usize = 16;
/// The longest that is taken of version 2: addresses, and whatever a proxy has to tell beside.
const MAX_V2: usize = 16 * 1024;
const TCP_V4: u8 = 0x11;
const TCP_V6: u8 = 0x21;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend((body.len() as u16).to_be_bytes());
        header.extend(body);
        header
    }

    /// What comes of bytes in pieces of that length, with how many were taken.
    fn parse(
        bytes: &[u8],
        piece: usize,
    ) -> Result<(usize, Option<ProxyHeader>), ProxyProtocolError> {
        let mut parser = Parser::default();
        let mut total = 0;
        for piece in bytes.chunks(piece) {
            let (taken, header) = parser.receive(piece)?;
            assert!(header.is_some() || taken == piece.len());
            total += taken;
            if header.is_some() {
                return Ok((total, header));
            }
        }
        Ok((total, None))
    }

    fn of(address: &str) -> ProxyHeader {
        ProxyHeader::For(address.parse().unwrap())
    }

    #[test]
    fn headers_of_both_versions() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 1, 187];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        v6[15] = 9;
        v6[32..34].copy_from_slice(&[0, 80]);
        let with_more = [&v4[..], &[4, 0, 3, 1, 2, 3]].concat();
        let long = [&v4[..], &vec![7; 9000]].concat();
        for (bytes, expected) in [
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n".to_vec(),
                of("192.0.2.1:4711"),
            ),
            (
                b"PROXY TCP6 2001:db8::9 ::1 80 0\r\n".to_vec(),
                of("[2001:db8::9]:80"),
            ),
            (
                b"PROXY TCP6 ::ffff:192.0.2.1 ::1 80 0\r\n".to_vec(),
                of("192.0.2.1:80"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), ProxyHeader::Own),
            (
                b"PROXY UNKNOWN whatever there is\r\n".to_vec(),
                ProxyHeader::Own,
            ),
            (v2(0x21, TCP_V4, &v4), of("192.0.2.1:4711")),
            (v2(0x21, TCP_V4, &with_more), of("192.0.2.1:4711")),
            (v2(0x21, TCP_V4, &long), of("192.0.2.1:4711")),
            (v2(0x21, TCP_V6, &v6), of("[2001:db8::9]:80")),
            (v2(0x20, 0, &[]), ProxyHeader::Own),
            (v2(0x20, TCP_V4, &v4), ProxyHeader::Own),
            (v2(0x21, 0, &[]), ProxyHeader::Own),
            (v2(0x21, 0x31, &[0; 216]), ProxyHeader::Own),
            (v2(0x21, 0x12, &v4), ProxyHeader::Own),
        ] {
            let length = bytes.len();
            let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            for piece in [1, 2, 15, 16, 17, 100, followed.len()] {
                assert_eq!(parse(&followed, piece), Ok((length, Some(expected))));
            }
            assert!(matches!(parse(&bytes[..length - 1], length), Ok((_, None))));
        }
    }

    #[test]
    fn anything_else_is_refused_at_once() {
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"\x16\x03\x01".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 4711\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1  198.51.100.1 4711 443\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::9 ::1 80 0\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 04711 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 443\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
            v2(0x11, TCP_V4, &[0; 12]),
            v2(0x22, TCP_V4, &[0; 12]),
            v2(0x21, TCP_V4, &[0; 11]),
            v2(0x21, TCP_V6, &[0; 35]),
            v2(0x21, TCP_V4, &vec![0; MAX_V2 + 1]),
        ] {
            assert!(parse(&bytes, 1).is_err(), "{}", bytes.escape_ascii());
            assert!(
                parse(&bytes, bytes.len()).is_err(),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    proptest! {
        /// However the bytes come, the same comes of them, and nothing panics.
        #[test]
        fn pieces_make_no_difference(
            start in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", V2_SIGNATURE]),
            rest in prop::collection::vec(any::<u8>(), 0..300),
            piece in 1_usize..40,
        ) {
            let bytes = [start, &rest].concat();
            prop_assume!(!bytes.is_empty());
            prop_assert_eq!(parse(&bytes, piece), parse(&bytes, bytes.len()));
        }
    }
}
