//! The server's answer to an opening request: yes with 101, or no with a reason.

#[cfg(feature = "deflate")]
use super::super::deflate::Agreement;
use super::super::output::Output;
use super::key::AcceptKey;

/// The response that opens the connection (RFC 6455 §4.2.2, RFC 8441 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance<'p> {
    /// `None` over HTTP/2.
    accept: Option<AcceptKey>,
    subprotocol: Option<&'p str>,
    /// The value of `Sec-WebSocket-Extensions`.
    extensions: Option<String>,
}

impl<'p> Acceptance<'p> {
    pub(super) fn new(accept: Option<AcceptKey>, subprotocol: Option<&'p str>) -> Self {
        Self {
            accept,
            subprotocol,
            extensions: None,
        }
    }

    /// The same with what was agreed on permessage-deflate. Take that from
    /// [`Opening::select_deflate`](super::Opening::select_deflate), and give it to the connection too.
    //= rfc6455 4.2.2-10, 9-2, 11.3.2-2
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn with_deflate(mut self, agreement: Option<Agreement>) -> Self {
        self.extensions = agreement.map(|agreement| agreement.to_string());
        self
    }

    /// The HTTP status: 101, and 200 over HTTP/2.
    pub fn status(&self) -> u16 {
        if self.accept.is_some() { 101 } else { 200 }
    }

    /// The header lines of the response, for an HTTP library that writes the rest.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        // None of them over HTTP/2.
        //= rfc8441 5-4
        //= rfc8441 5-6
        let upgrade = self.accept.as_ref().map(|accept| {
            [
                //= rfc6455 4.2.2-12
                ("Upgrade", "websocket"),
                //= rfc6455 4.2.2-13
                ("Connection", "Upgrade"),
                //= rfc6455 4.2.2-14, 11.3.3-1
                ("Sec-WebSocket-Accept", accept.as_str()),
            ]
        });
        upgrade
            .into_iter()
            .flatten()
            .chain(
                self.subprotocol
                    //= rfc6455 4.2.2-8, 11.3.4-2
                    .map(|protocol| ("Sec-WebSocket-Protocol", protocol)),
            )
            .chain(
                self.extensions
                    .as_deref()
                    .map(|extensions| ("Sec-WebSocket-Extensions", extensions)),
            )
    }

    /// The whole response to a request that came in HTTP/1.1, for a raw connection. Frames follow
    /// it.
    pub fn write_http1(&self, out: &mut impl Output) {
        //= rfc6455 4.2.2-11
        out.put(b"HTTP/1.1 101 Switching Protocols\r\n");
        write_headers(self.headers(), out);
        out.put(b"\r\n");
    }

    /// The subprotocol that was chosen.
    pub fn subprotocol(&self) -> Option<&'p str> {
        self.subprotocol
    }
}

/// A response that refuses to open a connection, or to serve a request that didn't ask for that.
///
/// ```
/// use tautline_websocket::proto::handshake::Refusal;
///
/// let refusal = Refusal::new(403, "origin https://evil.example is not allowed");
/// let mut bytes = Vec::new();
/// refusal.write_http1(&mut bytes);
/// assert!(bytes.starts_with(b"HTTP/1.1 403 Forbidden\r\n"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused with status {status}: {body}")]
pub struct Refusal {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

//= rfc6455 4.2.2-2, 4.2.2-4, 4.2.2-6
impl Refusal {
    /// A refusal with an HTTP status, 400 to 599 in any sensible case, and a line of plain text
    /// that says what was wrong and what to do.
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// Adds a header line. Neither name nor value may contain line breaks; a value with one in it
    /// is cut there.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        // What comes from outside must not become a header of its own.
        let value = value.split(['\r', '\n']).next().unwrap_or_default();
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The header lines that were added.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }

    /// The text.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// The whole response, for a raw connection that ends with it.
    pub fn write_http1(&self, out: &mut impl Output) {
        let (status, reason) = (self.status, reason_phrase(self.status));
        out.put(format!("HTTP/1.1 {status} {reason}\r\n").as_bytes());
        write_headers(self.headers(), out);
        // RFC 9110 §7.8: who sends Upgrade must name it in Connection.
        let upgrade = self.headers().any(|(name, _)| name == "Upgrade");
        out.put(if upgrade {
            b"Connection: Upgrade, close\r\n"
        } else {
            b"Connection: close\r\n".as_slice()
        });
        let len = self.body.len() + 1;
        let head = format!(
            "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
             Content-Length: {len}\r\n\r\n",
        );
        out.put(head.as_bytes());
        out.put_parts(self.body.as_bytes(), b"\n");
    }
}

fn write_headers<'a>(
    headers: impl Iterator<Item = (&'static str, &'a str)>,
    out: &mut impl Output,
) {
    for (name, value) in headers {
        out.put_parts(name.as_bytes(), b": ");
        out.put_parts(value.as_bytes(), b"\r\n");
    }
}

/// The phrase of the statuses that a refusal is likely to have; it has no meaning, so it may be
/// empty for the others.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
