//! Opens connections: plain TCP for the bare peers, the handshake of RFC 6455 section 4.1 for the others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::TlsStream;

/// The pair of section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const HEAD_LIMIT: usize = 8 * 1024;
/// No server that is measured here is silent for that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// No handshake, no unmasking: the peer hands on bytes as they come.
    Raw,
    /// RFC 6455, upgraded on this path.
    WebSocket(&'static str),
}

/// What is offered of permessage-deflate (RFC 7692).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Each message by itself, both ways.
    Alone,
    /// What browsers offer: takeover, and a window that the server may choose.
    Takeover,
}

impl Offer {
    fn header(self) -> &'static str {
        match self {
            Self::Alone => {
                "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
                 client_no_context_takeover\r\n"
            }
            Self::Takeover => {
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
            }
        }
    }
}

/// What the server agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// Replies are compressed with what came before.
    pub(crate) server_takeover: bool,
    /// Messages to the server may be.
    pub(crate) client_takeover: bool,
    /// How far messages to the server may reach back, as a power of two.
    pub(crate) client_window_bits: u8,
}

/// A blocking connection, past the handshake, with `TCP_NODELAY` and a read time-out of [`PATIENCE`].
pub(crate) fn connect(address: SocketAddr, dialect: Dialect) -> Result<TcpStream> {
    let mut stream = dial(address)?;
    upgrade(&mut stream, address, dialect, "")?;
    Ok(stream)
}

/// The same with permessage-deflate, on which the server must agree.
pub(crate) fn connect_deflate(
    address: SocketAddr,
    dialect: Dialect,
    offer: Offer,
) -> Result<(TcpStream, Agreed)> {
    let mut stream = dial(address)?;
    let head = upgrade(&mut stream, address, dialect, offer.header())?;
    let agreed = agreed(&head).context("the server does not agree on permessage-deflate")?;
    if offer == Offer::Takeover && !agreed.server_takeover {
        bail!("the server does not take context over");
    }
    Ok((stream, agreed))
}

/// The same over TLS.
pub(crate) fn connect_tls(address: SocketAddr, dialect: Dialect) -> Result<TlsStream> {
    let mut stream = super::tls::wrap(dial(address)?)?;
    upgrade(&mut stream, address, dialect, "")?;
    Ok(stream)
}

fn dial(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).context("cannot connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The opening request.
pub(crate) fn request(address: SocketAddr, path: &str, extensions: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{extensions}\r\n"
    )
}

/// Checks the answer to [`request`].
pub(crate) fn check_answer(head: &str) -> Result<()> {
    if !head.starts_with("HTTP/1.1 101 ") || !head.contains(ACCEPT) {
        bail!("no upgrade: {head:?}");
    }
    Ok(())
}

fn upgrade(
    stream: &mut (impl Read + Write),
    address: SocketAddr,
    dialect: Dialect,
    extensions: &str,
) -> Result<String> {
    let Dialect::WebSocket(path) = dialect else {
        return Ok(String::new());
    };
    stream.write_all(request(address, path, extensions).as_bytes())?;
    let mut head = [0; HEAD_LIMIT];
    let mut filled = 0;
    while !head[..filled].ends_with(b"\r\n\r\n") {
        let n = stream
            .read(&mut head[filled..])
            .context("no answer to the upgrade request")?;
        if n == 0 {
            bail!("no upgrade: {:?}", String::from_utf8_lossy(&head[..filled]));
        }
        filled += n;
    }
    let head = String::from_utf8_lossy(&head[..filled]).into_owned();
    check_answer(&head)?;
    Ok(head)
}

/// What the head of an answer says about permessage-deflate.
fn agreed(head: &str) -> Option<Agreed> {
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-extensions")
            .then(|| value.trim())
    })?;
    let mut parameters = value.split(';').map(str::trim);
    if parameters.next() != Some("permessage-deflate") {
        return None;
    }
    let mut agreed = Agreed {
        server_takeover: true,
        client_takeover: true,
        client_window_bits: 15,
    };
    for parameter in parameters {
        match parameter.split_once('=') {
            None if parameter == "server_no_context_takeover" => agreed.server_takeover = false,
            None if parameter == "client_no_context_takeover" => agreed.client_takeover = false,
            Some(("client_max_window_bits", bits)) => {
                agreed.client_window_bits = bits.trim_matches('"').parse().ok()?;
            }
            _ => {}
        }
    }
    Some(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_agreed_is_read() {
        let head = "HTTP/1.1 101 x\r\nsec-websocket-extensions: permessage-deflate; \
                    client_max_window_bits=10; server_no_context_takeover\r\n\r\n";
        let expected = Agreed {
            server_takeover: false,
            client_takeover: true,
            client_window_bits: 10,
        };
        assert_eq!(agreed(head), Some(expected));
        assert_eq!(agreed("HTTP/1.1 101 x\r\nServer: y\r\n\r\n"), None);
    }
}
