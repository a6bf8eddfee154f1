//! The head of a request: from the raw bytes of HTTP/1.1, for servers that open WebSocket
//! connections without an HTTP library, or from what a library has parsed. Parsing proper is
//! httparse's; limits and ownership are ours.

use std::fmt;
use std::ops::Range;

use super::connect::PseudoHeaders;
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
    /// Those that HTTP/1.1 doesn't have.
    pseudo: Option<Box<Pseudo>>,
}

/// The places of the other pseudo-header fields of HTTP/2, as far as they are there.
#[derive(Clone)]
struct Pseudo {
    protocol: Option<Range<u32>>,
    scheme: Option<Range<u32>>,
    authority: Option<Range<u32>>,
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
            pseudo: None,
        }))
    }

    /// A copy of a head that a library has parsed from HTTP/1. `headers` are the names and values
    /// of all header lines, in their order.
    pub fn from_http1<'h>(
        method: &str,
        target: &str,
        version: HttpVersion,
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> Self {
        let (lines, [method, target]) = HeaderLines::gather([method, target], headers);
        Self {
            lines,
            method,
            target,
            version,
            pseudo: None,
        }
    }

    /// The same from HTTP/2. `headers` are the fields that are not pseudo-header fields.
    pub fn from_http2<'h>(
        pseudo: &PseudoHeaders<'_>,
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> Self {
        let text = Option::unwrap_or_default;
        let (lines, [method, target, protocol, scheme, authority]) = HeaderLines::gather(
            [
                pseudo.method,
                text(pseudo.path),
                text(pseudo.protocol),
                text(pseudo.scheme),
                text(pseudo.authority),
            ],
            headers,
        );
        Self {
            lines,
            method,
            target,
            version: HttpVersion::HTTP_2,
            pseudo: Some(Box::new(Pseudo {
                protocol: pseudo.protocol.map(|_| protocol),
                scheme: pseudo.scheme.map(|_| scheme),
                authority: pseudo.authority.map(|_| authority),
            })),
        }
    }

    /// Checks that the request opens a WebSocket connection; see [`Opening::from_request`] and, for
    /// HTTP/2, [`Opening::from_connect`].
    ///
    /// # Errors
    ///
    /// The rule that it breaks.
    pub fn opening(&self) -> Result<Opening<'_>, OpeningError> {
        if self.version == HttpVersion::HTTP_2 {
            return Opening::from_connect(&self.pseudo_headers(), self.headers());
        }
        Opening::from_request(self.method(), self.version, self.headers())
    }

    /// The pseudo-header fields as HTTP/2 would have them, or has them.
    pub fn pseudo_headers(&self) -> PseudoHeaders<'_> {
        let of = |field: fn(&Pseudo) -> &Option<Range<u32>>| {
            let place = field(self.pseudo.as_deref()?).as_ref()?;
            Some(self.lines.text(place))
        };
        PseudoHeaders {
            method: self.method(),
            protocol: of(|pseudo| &pseudo.protocol),
            scheme: of(|pseudo| &pseudo.scheme),
            authority: of(|pseudo| &pseudo.authority),
            path: Some(self.target()).filter(|target| !target.is_empty()),
        }
    }

    /// The method, as it came: `GET`.
    pub fn method(&self) -> &str {
        self.lines.text(&self.method)
    }

    /// The request target, as it came: mostly path and query. Over HTTP/2 it is `:path`.
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
