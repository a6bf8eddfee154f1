//! The head of an HTTP/1.1 request from raw bytes, for servers that open WebSocket connections
//! without an HTTP library. Parsing proper is httparse's; limits and ownership are ours.

use std::fmt;
use std::ops::Range;

use super::header_lines::{HeaderLines, MAX_HEADERS};
use super::request::{HttpVersion, Opening, OpeningError};
use super::response::Refusal;

/// How large the head of a request or of a response may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first line to the empty line. Default 16 KiB: room for large cookies.
    pub max_bytes: usize,
    /// Header lines, 128 at most. Default 100.
    pub max_headers: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            max_bytes: 16 * 1024,
            max_headers: 100,
        }
    }
}

/// The head of a request: request line and header lines. Owned, to be kept as long as wanted.
#[derive(Clone)]
pub struct RequestHead {
    lines: HeaderLines,
    method: Range<u32>,
    target: Range<u32>,
    version: HttpVersion,
}

impl RequestHead {
    /// Reads the head at the start of `bytes`; `None` when it isn't whole yet. What comes behind
    /// it starts at [`len`](Self::len).
    ///
    /// Reading starts anew with each call, so call it when a read brought something, not for each
    /// byte.
    ///
    /// # Errors
    ///
    /// [`HeadError`], as soon as the bytes at hand can't become a head within `limits`.
    pub fn parse(bytes: &[u8], limits: &HeadLimits) -> Result<Option<Self>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let max_headers = limits.max_headers.min(MAX_HEADERS);
        let mut request = httparse::Request::new(&mut headers[..max_headers]);
        let len = match request.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() < limits.max_bytes => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(HeadError::TooLarge(limits.max_bytes)),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(HeadError::TooManyHeaders(max_headers));
            }
            Err(_) => return Err(HeadError::Malformed),
        };
        if len > limits.max_bytes {
            return Err(HeadError::TooLarge(limits.max_bytes));
        }
        let (Some(method), Some(target), Some(minor)) =
            (request.method, request.path, request.version)
        else {
            return Err(HeadError::Malformed);
        };
        let lines = HeaderLines::copy(&bytes[..len], request.headers);
        Ok(Some(Self {
            method: lines.place(bytes, method.as_bytes()),
            target: lines.place(bytes, target.as_bytes()),
            version: HttpVersion { major: 1, minor },
            lines,
        }))
    }

    /// Checks that the request opens a WebSocket connection; see [`Opening::from_request`].
    ///
    /// # Errors
    ///
    /// The rule that it breaks.
    pub fn opening(&self) -> Result<Opening<'_>, OpeningError> {
        Opening::from_request(self.method(), self.version, self.headers())
    }

    /// The method, as it came: `GET`.
    pub fn method(&self) -> &str {
        self.lines.text(&self.method)
    }

    /// The request target, as it came: mostly path and query.
    pub fn target(&self) -> &str {
        self.lines.text(&self.target)
    }

    /// The path of the target: what is before the first `?`.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// The query of the target: what is behind the first `?`.
    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// HTTP/1.0 or HTTP/1.1.
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

    /// Bytes of the head, up to and including the empty line.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Never: a head has a request line.
    pub fn is_empty(&self) -> bool {
        self.lines.len() == 0
    }
}

/// Values can be secrets, like cookies and tokens, so none is shown.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method())
            .field("path", &self.path())
            .field("headers", &self.lines.iter().count())
            .finish_non_exhaustive()
    }
}

/// Why bytes are not the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// Not HTTP/1.
    #[error("this is not an HTTP/1.1 request")]
    Malformed,
    /// More than [`HeadLimits::max_bytes`].
    #[error("the head of the request is longer than {0} bytes")]
    TooLarge(usize),
    /// More than [`HeadLimits::max_headers`].
    #[error("the request has more than {0} header lines")]
    TooManyHeaders(usize),
}

impl HeadError {
    /// The response that tells the client: status 400 or 431.
    pub fn refusal(&self) -> Refusal {
        let status = if *self == Self::Malformed { 400 } else { 431 };
        Refusal::new(status, self.to_string())
    }
}
