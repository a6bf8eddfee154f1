//! The head of a response, as a client reads it: from the raw bytes of HTTP/1.1, or from what a
//! library has parsed. Parsing proper is httparse's; limits and ownership are ours.

use std::fmt;
use std::ops::Range;

use super::header_lines::{HeaderLines, MAX_HEADERS};
use super::http1::HeadLimits;
use super::request::HttpVersion;

/// The head of a response: status line and header lines. Owned, to be kept as long as wanted.
#[derive(Clone)]
pub struct ResponseHead {
    lines: HeaderLines,
    version: HttpVersion,
    status: u16,
    reason: Range<u32>,
}

impl ResponseHead {
    /// Reads the head at the start of `bytes`; `None` when it isn't whole yet. What comes behind
    /// it starts at [`len`](Self::len).
    ///
    /// Reading starts anew with each call, so call it when a read brought something, not for each
    /// byte.
    ///
    /// ```
    /// use tautline_websocket::proto::handshake::{HeadLimits, ResponseHead};
    ///
    /// let bytes = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\n\r\nno token";
    /// let head = ResponseHead::parse(bytes, &HeadLimits::default())?.expect("the head is whole");
    /// assert_eq!(head.status(), 401);
    /// assert_eq!(head.header("www-authenticate"), Some(b"Bearer".as_slice()));
    /// assert_eq!(&bytes[head.len()..], b"no token");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ResponseHeadError`], as soon as the bytes at hand can't become a head within `limits`.
    pub fn parse(bytes: &[u8], limits: &HeadLimits) -> Result<Option<Self>, ResponseHeadError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let max_headers = limits.max_headers.min(MAX_HEADERS);
        let mut response = httparse::Response::new(&mut headers[..max_headers]);
        let len = match response.parse(bytes) {
            Ok(httparse::Status::Complete(len)) if len <= limits.max_bytes => len,
            Ok(httparse::Status::Partial) if bytes.len() < limits.max_bytes => return Ok(None),
            Ok(_) => return Err(ResponseHeadError::TooLarge(limits.max_bytes)),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(ResponseHeadError::TooManyHeaders(max_headers));
            }
            Err(_) => return Err(ResponseHeadError::Malformed),
        };
        let (Some(minor), Some(status)) = (response.version, response.code) else {
            return Err(ResponseHeadError::Malformed);
        };
        let reason = response.reason.unwrap_or_default();
        let lines = HeaderLines::copy(&bytes[..len], response.headers);
        Ok(Some(Self {
            version: HttpVersion { major: 1, minor },
            status,
            reason: lines.place(bytes, reason.as_bytes()),
            lines,
        }))
    }

    /// A copy of a head that a library has parsed from HTTP/2. `headers` are the fields that are not
    /// pseudo-header fields.
    pub fn from_http2<'h>(
        status: u16,
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> Self {
        let (lines, [reason]) = HeaderLines::gather([""], headers);
        Self {
            lines,
            version: HttpVersion::HTTP_2,
            status,
            reason,
        }
    }

    /// The status: 101 when the connection is open, over HTTP/2 one from 200 to 299.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The phrase behind the status, for people; often empty.
    pub fn reason(&self) -> &str {
        self.lines.text(&self.reason)
    }

    /// HTTP/1.0, HTTP/1.1 or HTTP/2.
    pub fn version(&self) -> HttpVersion {
        self.version
    }

    /// All header lines, in their order, names as they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.lines.iter()
    }

    /// The value of the first header line of this name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.lines.first(name)
    }

    /// Bytes of the head: as it came, up to and including the empty line, or as it is kept here
    /// when a library has parsed it.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Never: a head has a status line.
    pub fn is_empty(&self) -> bool {
        self.lines.len() == 0
    }
}

/// Values can be secrets, like cookies, so none is shown.
impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("headers", &self.lines.iter().count())
            .finish_non_exhaustive()
    }
}

/// Why bytes are not the head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseHeadError {
    /// Not HTTP/1.
    #[error(
        "the server's answer is not an HTTP/1.1 response; perhaps something else listens there"
    )]
    Malformed,
    /// More than [`HeadLimits::max_bytes`].
    #[error("the head of the server's response is longer than {0} bytes")]
    TooLarge(usize),
    /// More than [`HeadLimits::max_headers`].
    #[error("the server's response has more than {0} header lines")]
    TooManyHeaders(usize),
}
