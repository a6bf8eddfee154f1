//! Opens connections: plain TCP for the bare peers, the handshake of RFC 6455 section 4.1 for the others.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

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

/// A blocking connection, past the handshake, with `TCP_NODELAY` and a read time-out of [`PATIENCE`].
pub(crate) fn connect(address: SocketAddr, dialect: Dialect) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).context("cannot connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    if let Dialect::WebSocket(path) = dialect {
        upgrade(&mut stream, address, path)?;
    }
    Ok(stream)
}

fn upgrade(stream: &mut TcpStream, address: SocketAddr, path: &str) -> Result<()> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
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
    let head = String::from_utf8_lossy(&head[..filled]);
    if !head.starts_with("HTTP/1.1 101 ") || !head.contains(ACCEPT) {
        bail!("no upgrade: {head:?}");
    }
    Ok(())
}
