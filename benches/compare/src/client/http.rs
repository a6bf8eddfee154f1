//! Plain HTTP for what a load asks a server besides.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Result, bail};

use super::upgrade::PATIENCE;

/// The body of the answer to `GET path`, or to `POST path` with a body.
///
/// # Errors
/// An answer with another status than 200.
pub(crate) fn ask(address: SocketAddr, path: &str, body: Option<&str>) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (method, body) = match body {
        None => ("GET", ""),
        Some(body) => ("POST", body),
    };
    // Version 1.0, so that the end of the connection is the end of the body.
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => bail!("{method} {path} was answered {answer:?}"),
    }
}
