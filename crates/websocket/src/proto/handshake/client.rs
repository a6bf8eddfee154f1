//! The client's side of the opening handshake: the request (RFC 6455 §4.1, first half), and the
//! checks that its response must pass (second half). Over HTTP/2 it differs as RFC 8441 §5 says.

use std::borrow::Cow;
use std::fmt;

use super::super::output::Output;
use super::HttpVersion;
use super::connect::PseudoHeaders;
use super::key::{AcceptKey, encode_key};
use super::request::{elements, has_token, is_extension, is_extension_list, is_token};
use super::response_head::ResponseHead;
use super::url::Url;

/// A request to open a connection, and what its response must fit.
///
/// ```
/// use tautline_websocket::proto::handshake::{ClientRequest, HeadLimits, ResponseHead};
///
/// let url = "ws://example.com/chat".parse()?;
/// // From a random source in earnest.
/// let request = ClientRequest::new(&url, *b"the sample nonce").with_subprotocol("chat.v2")?;
/// let mut bytes = Vec::new();
/// request.write_http1(&mut bytes);
/// assert!(bytes.starts_with(b"GET /chat HTTP/1.1\r\nHost: example.com\r\n"));
///
/// let answer = b"HTTP/1.1 101 Switching Protocols\r\n\
///     Upgrade: websocket\r\n\
///     Connection: Upgrade\r\n\
///     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
///     Sec-WebSocket-Protocol: chat.v2\r\n\r\n";
/// let head = ResponseHead::parse(answer, &HeadLimits::default())?.expect("the head is whole");
/// assert_eq!(request.check(&head)?.subprotocol, Some("chat.v2"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ClientRequest {
    scheme: &'static str,
    target: String,
    authority: String,
    key: [u8; 24],
    subprotocols: Vec<String>,
    extensions: Vec<String>,
    headers: Vec<(String, String)>,
}

impl ClientRequest {
    /// A request for what `url` names. `nonce` is 16 bytes from a random source, new for each
    /// connection: its answer shows that the server means this request.
    pub fn new(url: &Url, nonce: [u8; 16]) -> Self {
        Self {
            //= rfc8441 5-3
            scheme: if url.is_secure() { "https" } else { "http" },
            target: url.target().to_owned(),
            authority: url.authority().to_owned(),
            key: encode_key(nonce),
            subprotocols: Vec::new(),
            extensions: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// Adds a subprotocol that the client can speak; the best comes first.
    ///
    /// # Errors
    ///
    /// [`RequestError::Subprotocol`] when it isn't a token or is there already.
    //= rfc6455 4.1-25, 4.1-26, 4.1-27
    pub fn with_subprotocol(mut self, name: &str) -> Result<Self, RequestError> {
        if !is_token(name) || self.subprotocols.iter().any(|other| other == name) {
            return Err(RequestError::Subprotocol(name.to_owned()));
        }
        self.subprotocols.push(name.to_owned());
        Ok(self)
    }

    /// Adds the offer of an extension: a name, and parameters behind semicolons.
    ///
    /// # Errors
    ///
    /// [`RequestError::Extension`] when it isn't a token, with parameters behind semicolons (§9.1).
    //= rfc6455 4.1-28, 9-1
    pub fn with_extension(mut self, offer: &str) -> Result<Self, RequestError> {
        if !is_extension(offer) || offer.contains(',') {
            return Err(RequestError::Extension(offer.to_owned()));
        }
        self.extensions.push(offer.to_owned());
        Ok(self)
    }

    /// Adds a header line, like `Authorization`, `Cookie` or `Origin`.
    ///
    /// # Errors
    ///
    /// [`RequestError`] when the name isn't a token or belongs to the handshake itself, or when the
    /// value has a line break or another control character: what comes from outside can't add
    /// lines of its own.
    //= rfc6455 4.1-23, 4.1-29
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, RequestError> {
        if !is_token(name) {
            return Err(RequestError::HeaderName(name.to_owned()));
        }
        let is = |other: &&str| name.eq_ignore_ascii_case(other);
        if RESERVED.iter().any(is) {
            return Err(RequestError::Reserved(name.to_owned()));
        }
        if !is_value(value) {
            return Err(RequestError::HeaderValue(name.to_owned()));
        }
        self.headers.push((name.to_owned(), value.to_owned()));
        Ok(self)
    }

    /// The whole request. Nothing may follow it until the response is there.
    pub fn write_http1(&self, out: &mut impl Output) {
        let mut line = |name: &str, value: &str| {
            out.put_parts(name.as_bytes(), value.as_bytes());
            out.put(b"\r\n");
        };
        //= rfc6455 4.1-14, 4.1-15, 4.1-16
        line("GET ", &format!("{} HTTP/1.1", self.target));
        //= rfc6455 4.1-17
        line("Host: ", &self.authority);
        //= rfc6455 4.1-18
        line("Upgrade: ", "websocket");
        //= rfc6455 4.1-19
        line("Connection: ", "Upgrade");
        //= rfc6455 4.1-20, 11.3.1-1
        line("Sec-WebSocket-Key: ", self.key());
        //= rfc6455 4.1-24, 11.3.5-2
        line("Sec-WebSocket-Version: ", "13");
        if !self.subprotocols.is_empty() {
            line("Sec-WebSocket-Protocol: ", &self.subprotocols.join(", "));
        }
        if !self.extensions.is_empty() {
            line("Sec-WebSocket-Extensions: ", &self.extensions.join(", "));
        }
        for (name, value) in &self.headers {
            line(&format!("{name}: "), value);
        }
        line("", "");
    }

    /// The pseudo-header fields of the request over HTTP/2 (RFC 8441 §4, §5), for an HTTP library
    /// to send. Only a server that has sent `SETTINGS_ENABLE_CONNECT_PROTOCOL` with 1 understands
    /// them (§3).
    pub fn pseudo_headers(&self) -> PseudoHeaders<'_> {
        //= rfc8441 4-1
        //= rfc8441 4-2
        //= rfc8441 5-1
        //= rfc8441 5-2
        //= rfc8441 5-5
        PseudoHeaders {
            method: "CONNECT",
            protocol: Some("websocket"),
            scheme: Some(self.scheme),
            authority: Some(&self.authority),
            path: Some(&self.target),
        }
    }

    /// The other fields of the request over HTTP/2: names in lower case, and none that is about an
    /// HTTP/1.1 connection, those that were added included (RFC 9113 §8.2.2).
    pub fn http2_headers(&self) -> impl Iterator<Item = (String, Cow<'_, str>)> {
        //= rfc8441 5-4
        //= rfc8441 5-6
        //= rfc8441 5-7
        let list = |name: &str, elements: &[String]| {
            (!elements.is_empty()).then(|| (name.to_owned(), Cow::from(elements.join(", "))))
        };
        let added = self.headers.iter().map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            (name, Cow::from(value.as_str()))
        });
        [("sec-websocket-version".to_owned(), Cow::from("13"))]
            .into_iter()
            .chain(list("sec-websocket-protocol", &self.subprotocols))
            .chain(list("sec-websocket-extensions", &self.extensions))
            .chain(added.filter(|(name, _)| !["keep-alive", "proxy-connection"].contains(&&**name)))
    }

    /// Makes every check of §4.1 on the response; on one over HTTP/2, those of them which RFC 8441
    /// §5 leaves.
    ///
    /// # Errors
    ///
    /// The rule that the response breaks, in the order of that section. With
    /// [`ResponseError::Status`] the server has declined, and `response` says more: where to go
    /// instead (`Location`), or how to log in (`WWW-Authenticate`).
    pub fn check<'r>(&self, response: &'r ResponseHead) -> Result<Agreed<'r>, ResponseError> {
        if response.version() == HttpVersion::HTTP_2 {
            // CONNECT succeeds with any of them (RFC 9110 §9.3.6).
            if !matches!(response.status(), 200..300) {
                return Err(ResponseError::Status(response.status()));
            }
            return self.check_agreement(response);
        }
        //= rfc6455 4.1-31
        if response.status() != 101 {
            return Err(ResponseError::Status(response.status()));
        }
        //= rfc6455 4.1-37
        if response.version() < HttpVersion::HTTP_11 {
            return Err(ResponseError::OldHttp);
        }
        //= rfc6455 4.1-32
        // Unlike Connection, the value is to be this one word.
        let mut upgrades = values(response, "Upgrade").peekable();
        if upgrades.peek().is_none() || !upgrades.all(|v| v.eq_ignore_ascii_case(b"websocket")) {
            return Err(ResponseError::NoUpgrade);
        }
        //= rfc6455 4.1-33
        if !values(response, "Connection").any(|value| has_token(value, "upgrade")) {
            return Err(ResponseError::NoConnectionUpgrade);
        }
        //= rfc6455 4.1-34, 4.1-37
        let accept = single(response, "Sec-WebSocket-Accept")?.ok_or(ResponseError::NoAccept)?;
        if accept != AcceptKey::answer(self.key()).as_str() {
            return Err(ResponseError::WrongAccept);
        }
        self.check_agreement(response)
    }

    /// Extensions and subprotocol, which are the same in all versions of HTTP.
    //= rfc8441 5-7
    fn check_agreement<'r>(&self, response: &'r ResponseHead) -> Result<Agreed<'r>, ResponseError> {
        let mut extensions = Vec::new();
        for value in values(response, "Sec-WebSocket-Extensions") {
            let value = as_text("Sec-WebSocket-Extensions", value)?;
            //= rfc6455 9.1-1
            if !is_extension_list(value) {
                return Err(ResponseError::InvalidExtension);
            }
            extensions.extend(elements(value));
        }
        let offered = |answer: &&str| {
            let name = extension_name(answer);
            self.extensions
                .iter()
                .any(|offer| extension_name(offer) == name)
        };
        //= rfc6455 4.1-35
        if !extensions.iter().all(offered) {
            return Err(ResponseError::UnexpectedExtension);
        }
        //= rfc6455 4.1-36, 4.1-37
        let subprotocol = single(response, "Sec-WebSocket-Protocol")?;
        if subprotocol.is_some_and(|name| !self.subprotocols.iter().any(|other| other == name)) {
            return Err(ResponseError::UnexpectedSubprotocol);
        }
        Ok(Agreed {
            subprotocol,
            extensions,
        })
    }

    /// The key that was made from the nonce, 16 bytes in base64.
    pub fn key(&self) -> &str {
        // Base64 is ASCII, so the empty string is never given.
        str::from_utf8(&self.key).unwrap_or_default()
    }
}

/// Header values can be secrets, so none is shown; neither is the query.
impl fmt::Debug for ClientRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientRequest")
            .field("authority", &self.authority)
            .field("subprotocols", &self.subprotocols)
            .field("extensions", &self.extensions)
            .field("headers", &self.headers.len())
            .finish_non_exhaustive()
    }
}

/// What a response that passes every check has settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed<'r> {
    /// The subprotocol to speak; `None` when the server chose none, even if some were asked for.
    pub subprotocol: Option<&'r str>,
    /// The server's answers to the extension offers, as they came. Each has the name of one that
    /// was offered; whether its parameters fit is for the extension to say.
    pub extensions: Vec<&'r str>,
}

/// Why a request can't be sent: always the caller's doing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The offer of an extension that isn't one.
    #[error("{0:?} is not an extension offer: expected a token, and parameters behind semicolons")]
    Extension(String),
    /// A header name that isn't a token.
    #[error("{0:?} is not a header name")]
    HeaderName(String),
    /// A header value with control characters. The value may be a secret, so only the name is
    /// kept.
    #[error("the value of the header {0} has a line break or another control character")]
    HeaderValue(String),
    /// A header that the handshake itself sets.
    #[error(
        "the header {0} belongs to the handshake and can't be set; subprotocols have an option of their own"
    )]
    Reserved(String),
    /// A subprotocol that isn't a token, or is there twice.
    #[error("{0:?} can't be a subprotocol: expected a token that is named once")]
    Subprotocol(String),
}

/// The rule of §4.1 that a response breaks. In the order of that section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// A status other than 101, over HTTP/2 other than 200 to 299: the server has declined.
    #[error("the server declined with status {0}")]
    Status(u16),
    /// HTTP/1.0, in which nothing can be upgraded.
    #[error("the server answered in a version of HTTP before 1.1")]
    OldHttp,
    /// `Upgrade` is missing or isn't `websocket`.
    #[error("the server's response lacks the header Upgrade: websocket")]
    NoUpgrade,
    /// `Connection` is missing or doesn't name `Upgrade`.
    #[error("the server's response lacks the header Connection: Upgrade")]
    NoConnectionUpgrade,
    /// No `Sec-WebSocket-Accept`.
    #[error("the server's response lacks the header Sec-WebSocket-Accept")]
    NoAccept,
    /// A `Sec-WebSocket-Accept` that isn't the answer to the key: what answered doesn't speak
    /// WebSocket, or is a cache.
    #[error("the server's Sec-WebSocket-Accept is not the answer to this request's key")]
    WrongAccept,
    /// A `Sec-WebSocket-Extensions` that isn't a list of extensions (§9.1).
    #[error("the server's Sec-WebSocket-Extensions is not a list of extensions")]
    InvalidExtension,
    /// An extension that wasn't offered.
    #[error("the server answered with an extension that was not offered")]
    UnexpectedExtension,
    /// A subprotocol that wasn't asked for.
    #[error("the server chose a subprotocol that was not asked for")]
    UnexpectedSubprotocol,
    /// A header line more than once where one is allowed.
    #[error("the header {0} must appear only once in the server's response")]
    Repeated(&'static str),
    /// A header value that isn't printable ASCII where it must be.
    #[error("the header {0} of the server's response has characters which it can't have")]
    InvalidHeader(&'static str),
}

/// Headers that decide whether and how the connection opens, and where the request ends.
const RESERVED: [&str; 11] = [
    "Connection",
    "Content-Length",
    "Host",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
    "TE",
    "Transfer-Encoding",
    "Upgrade",
];

/// The values of all lines of this name, without the blanks around them.
fn values<'r>(response: &'r ResponseHead, name: &str) -> impl Iterator<Item = &'r [u8]> {
    response
        .headers()
        .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim_ascii())
}

/// The value of a header that may appear once.
fn single<'r>(
    response: &'r ResponseHead,
    name: &'static str,
) -> Result<Option<&'r str>, ResponseError> {
    let mut values = values(response, name);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ResponseError::Repeated(name));
    }
    as_text(name, value).map(Some)
}

fn as_text<'r>(name: &'static str, value: &'r [u8]) -> Result<&'r str, ResponseError> {
    match str::from_utf8(value) {
        Ok(text) if text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) => Ok(text),
        _ => Err(ResponseError::InvalidHeader(name)),
    }
}

/// What stands before the parameters.
fn extension_name(element: &str) -> &str {
    element.split(';').next().unwrap_or_default().trim()
}

/// Whether this can be a header's value: no line breaks, no other control characters.
fn is_value(text: &str) -> bool {
    !text
        .bytes()
        .any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7F)
}
