//! The opening handshake for libraries that begin after it. Just enough for the driver, which sends nothing behind
//! its request before it has read the answer.

use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Deflate;

const HEAD_LIMIT: usize = 8 * 1024;

/// Answers the upgrade request on `stream`, agreeing to the extension that `deflate` asks for. That the client has
/// offered it is taken for granted: the driver does.
///
/// # Errors
/// Those of the stream; `InvalidData` for a head that is too long, has no key, or has bytes behind it.
pub async fn upgrade(stream: &mut TcpStream, deflate: Deflate) -> io::Result<()> {
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if head.len() > HEAD_LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the request's head is too long",
            ));
        }
    }
    let head = String::from_utf8_lossy(&head);
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.trim())
    });
    let Some(key) = key else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no Sec-WebSocket-Key",
        ));
    };
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = BASE64_STANDARD.encode(hash.digest().bytes());
    let extension = deflate.header();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{extension}\r\n"
    );
    stream.write_all(answer.as_bytes()).await
}
