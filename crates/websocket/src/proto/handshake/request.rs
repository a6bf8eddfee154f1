//! The client's opening request, checked (RFC 6455 §4.2.1).

#[cfg(feature = "deflate")]
use super::super::deflate::{Agreement, ServerConfig};
use super::key::{AcceptKey, is_key};
use super::response::{Acceptance, Refusal};

/// A request to open a WebSocket connection that fulfils every rule of §4.2.1.
///
/// Made from the pieces that any HTTP library has at hand; the text values are borrowed from
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening<'h> {
    /// `None` over HTTP/2.
    pub(super) key: Option<&'h str>,
    pub(super) host: &'h str,
    pub(super) origin: Option<&'h str>,
    pub(super) subprotocols: Vec<&'h str>,
    pub(super) extensions: Vec<&'h str>,
}

impl<'h> Opening<'h> {
    /// Checks a request. `headers` are the names and values of all header lines, in their order;
    /// names in any case.
    ///
    /// With the `http` crate, as hyper and axum have it:
    ///
    /// ```
    /// # use tautline_websocket::proto::handshake::{HttpVersion, Opening, OpeningError};
    /// # fn check(request: &http::Request<()>) -> Result<Opening<'_>, OpeningError> {
    /// Opening::from_request(
    ///     request.method().as_str(),
    ///     HttpVersion::HTTP_11,
    ///     request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())),
    /// )
    /// # }
    /// # let request = http::Request::get("/").header("upgrade", "websocket").body(()).unwrap();
    /// # assert_eq!(check(&request), Err(OpeningError::NoConnectionUpgrade));
    /// ```
    ///
    /// # Errors
    ///
    /// One [`OpeningError`] for each rule. [`OpeningError::refusal`] is the response that says so.
    /// When several are broken, the one that tells most comes first: whether WebSocket was asked
    /// for at all, then how.
    pub fn from_request(
        method: &str,
        version: HttpVersion,
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> Result<Self, OpeningError> {
        //= rfc6455 4.2.1-1
        let found = Found::collect(headers, true)?;
        //= rfc6455 4.2.1-4
        if !found.upgrade {
            return Err(OpeningError::NoUpgrade);
        }
        //= rfc6455 4.2.1-2
        if method != "GET" {
            return Err(OpeningError::NotGet);
        }
        if version < HttpVersion::HTTP_11 {
            return Err(OpeningError::OldHttp);
        }
        //= rfc6455 4.2.1-5
        if !found.connection_upgrade {
            return Err(OpeningError::NoConnectionUpgrade);
        }
        if found.body {
            return Err(OpeningError::Body);
        }
        //= rfc6455 4.2.1-7, 4.2.2-5
        found.check_version()?;
        //= rfc6455 4.2.1-3
        let host = found.host.ok_or(OpeningError::NoHost)?;
        //= rfc6455 4.2.1-6
        let key = found.key.ok_or(OpeningError::NoKey)?;
        if !is_key(key) {
            return Err(OpeningError::InvalidKey);
        }
        Ok(Self {
            key: Some(key),
            host,
            origin: found.origin,
            subprotocols: found.subprotocols,
            extensions: found.extensions,
        })
    }

    /// The response that opens the connection, with the subprotocol that was chosen. Take that
    /// from [`select_subprotocol`](Self::select_subprotocol): a client fails the connection
    /// when it gets one that it didn't ask for.
    pub fn accept<'p>(&self, subprotocol: Option<&'p str>) -> Acceptance<'p> {
        Acceptance::new(self.key.map(AcceptKey::answer), subprotocol)
    }

    /// The first of the client's subprotocols, in its order of preference, that is among
    /// `supported` (§4.2.2; names are case-sensitive).
    //= rfc6455 4.2.2-7
    pub fn select_subprotocol<'s>(&self, supported: &[&'s str]) -> Option<&'s str> {
        self.subprotocols
            .iter()
            .find_map(|wanted| supported.iter().find(|name| *name == wanted).copied())
    }

    /// What comes of the client's offers of permessage-deflate with what the server wants: the first
    /// that can be accepted, in the client's order. `None` when there is none; then the connection
    /// goes without, which is always right.
    ///
    /// The agreement goes into the response with
    /// [`Acceptance::with_deflate`], and into the connection with
    /// [`Extensions::deflate`](super::super::Extensions::deflate).
    //= rfc6455 4.2.2-9
    #[cfg(feature = "deflate")]
    pub fn select_deflate(&self, wanted: &ServerConfig) -> Option<Agreement> {
        wanted.accept(self.extensions.iter().copied())
    }

    /// The client's key, 16 bytes in base64; `None` over HTTP/2, which has no use for one (RFC 8441
    /// §5).
    pub fn key(&self) -> Option<&'h str> {
        self.key
    }

    /// The value of `Host`; over HTTP/2 that of `:authority`.
    pub fn host(&self) -> &'h str {
        self.host
    }

    /// The value of `Origin`. Browsers always send it, other clients hardly ever. Without a check
    /// of it, any page on the web can connect with the cookies of its visitor (§10.2).
    //= rfc6455 4.2.1-8, 4.2.2-3
    pub fn origin(&self) -> Option<&'h str> {
        self.origin
    }

    /// The subprotocols that the client can speak, the best first.
    pub fn subprotocols(&self) -> &[&'h str] {
        &self.subprotocols
    }

    /// The extension offers, one for each element of `Sec-WebSocket-Extensions`, as they came.
    pub fn extensions(&self) -> &[&'h str] {
        &self.extensions
    }
}

/// The version of HTTP that a request was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpVersion {
    /// The number before the dot.
    pub major: u8,
    /// The number behind it.
    pub minor: u8,
}

impl HttpVersion {
    /// HTTP/1.0, in which nothing can be upgraded.
    pub const HTTP_10: Self = Self { major: 1, minor: 0 };
    /// HTTP/1.1.
    pub const HTTP_11: Self = Self { major: 1, minor: 1 };
    /// HTTP/2, where a connection is opened with an extended CONNECT (RFC 8441).
    pub const HTTP_2: Self = Self { major: 2, minor: 0 };
}

/// The rule of RFC 6455 §4.2.1 that a request breaks, in the order of that section; then those of
/// RFC 8441, for requests that came over HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpeningError {
    /// A method other than GET.
    #[error("a WebSocket connection is opened with GET")]
    NotGet,
    /// A version of HTTP before 1.1.
    #[error(
        "a WebSocket connection is opened with HTTP/1.1; this request came with an older version, perhaps from a proxy that must be told to use 1.1"
    )]
    OldHttp,
    /// No `Host`.
    #[error("the Host header is missing")]
    NoHost,
    /// `Upgrade` is missing or doesn't name `websocket`: not a WebSocket request at all.
    #[error("this is a WebSocket endpoint; expected the header Upgrade: websocket")]
    NoUpgrade,
    /// `Connection` is missing or doesn't name `Upgrade`.
    #[error("expected the header Connection: Upgrade; a reverse proxy must pass it on")]
    NoConnectionUpgrade,
    /// No `Sec-WebSocket-Key`.
    #[error("the Sec-WebSocket-Key header is missing")]
    NoKey,
    /// A `Sec-WebSocket-Key` that isn't 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    InvalidKey,
    /// No `Sec-WebSocket-Version`.
    #[error("the Sec-WebSocket-Version header is missing; expected 13")]
    NoVersion,
    /// A `Sec-WebSocket-Version` other than 13.
    #[error("this Sec-WebSocket-Version is not supported; expected 13")]
    UnsupportedVersion,
    /// A `Sec-WebSocket-Protocol` with something that isn't a token, or one of them twice.
    #[error("Sec-WebSocket-Protocol must be a list of tokens separated by commas, each only once")]
    InvalidSubprotocol,
    /// A `Sec-WebSocket-Extensions` that isn't a list of extensions (§9.1).
    #[error(
        "Sec-WebSocket-Extensions must be a list of extensions separated by commas: tokens, with parameters behind semicolons"
    )]
    InvalidExtension,
    /// A header line more than once where one is allowed.
    #[error("the header {0} must appear only once")]
    Repeated(&'static str),
    /// A header value that isn't printable ASCII where it must be.
    #[error("the header {0} has characters which it can't have")]
    InvalidHeader(&'static str),
    /// A request with a body. The bytes behind the head would be taken for frames, by us if not by
    /// a proxy on the way.
    #[error("a request that opens a WebSocket connection has no body")]
    Body,
    /// Over HTTP/2: a method other than CONNECT.
    #[error(
        "this is a WebSocket endpoint; over HTTP/2 it is opened with CONNECT and :protocol websocket (RFC 8441)"
    )]
    NotConnect,
    /// Over HTTP/2: a CONNECT without `:protocol`, which asks for a proxy.
    #[error("this is no proxy; expected CONNECT with :protocol websocket (RFC 8441)")]
    NoProtocol,
    /// Over HTTP/2: a `:protocol` other than `websocket`.
    #[error("the only :protocol that is supported here is websocket")]
    UnknownProtocol,
    /// Over HTTP/2: one of the pseudo-header fields that must be there.
    #[error("the pseudo-header field {0} is missing or empty")]
    NoPseudoHeader(&'static str),
    /// Over HTTP/2: a `:scheme` other than `http` and `https`.
    #[error("expected the :scheme https for wss, or http for ws")]
    UnknownScheme,
    /// Over HTTP/2: a `Host` that names something else than `:authority`.
    #[error("the Host header must name what :authority does, or be left out")]
    HostMismatch,
    /// Over HTTP/2: a header that is about one HTTP/1.1 connection.
    #[error("the header {0} has no place in HTTP/2")]
    ConnectionHeader(&'static str),
}

impl OpeningError {
    /// The HTTP status of the response: 400, 405, 426, 501 or 505.
    //= rfc6455 4.2.1-1, 10.7-4
    pub const fn status(&self) -> u16 {
        match self {
            Self::NotGet | Self::NotConnect => 405,
            // As RFC 9220 §3 has it for HTTP/3.
            Self::UnknownProtocol => 501,
            Self::OldHttp => 505,
            Self::NoUpgrade | Self::NoVersion | Self::UnsupportedVersion => 426,
            _ => 400,
        }
    }

    /// The response that tells the client.
    pub fn refusal(&self) -> Refusal {
        let refusal = Refusal::new(self.status(), self.to_string());
        match self {
            Self::NotGet => refusal.with_header("Allow", "GET"),
            Self::NotConnect => refusal.with_header("Allow", "CONNECT"),
            //= rfc6455 4.2.2-5, 4.4-1
            // RFC 9110 §15.5.22 wants Upgrade with a 426, RFC 6455 §4.4 the version that we speak.
            Self::NoUpgrade | Self::NoVersion | Self::UnsupportedVersion => refusal
                .with_header("Upgrade", "websocket")
                .with_header("Sec-WebSocket-Version", "13"),
            _ => refusal,
        }
    }
}

impl From<OpeningError> for Refusal {
    fn from(error: OpeningError) -> Self {
        error.refusal()
    }
}

/// The header lines that matter.
#[derive(Default)]
pub(super) struct Found<'h> {
    pub(super) host: Option<&'h str>,
    upgrade: bool,
    connection_upgrade: bool,
    key: Option<&'h str>,
    version: Option<&'h [u8]>,
    pub(super) origin: Option<&'h str>,
    pub(super) subprotocols: Vec<&'h str>,
    pub(super) extensions: Vec<&'h str>,
    pub(super) body: bool,
    /// Which of the two headers of an HTTP/1.1 upgrade is there, whatever it says.
    pub(super) connection_header: Option<&'static str>,
}

impl<'h> Found<'h> {
    /// Reads the header lines, as they count in HTTP/1.1 or in HTTP/2.
    pub(super) fn collect(
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
        http1: bool,
    ) -> Result<Self, OpeningError> {
        let mut found = Self::default();
        for (name, value) in headers {
            let value = value.trim_ascii();
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            // By length first: most headers of a browser's request are none of these.
            match name.len() {
                4 if is("host") => set(&mut found.host, "Host", text("Host", value)?)?,
                6 if is("origin") => set(&mut found.origin, "Origin", text("Origin", value)?)?,
                7 if is("upgrade") => {
                    found.connection_header = Some("Upgrade");
                    found.upgrade |= has_token(value, "websocket");
                }
                10 if is("connection") => {
                    found.connection_header = Some("Connection");
                    found.connection_upgrade |= has_token(value, "upgrade");
                }
                // HTTP/2 would count our frames against it.
                14 if is("content-length") => found.body |= !http1 || value != b"0",
                17 if http1 && is("sec-websocket-key") => {
                    set(
                        &mut found.key,
                        "Sec-WebSocket-Key",
                        text("Sec-WebSocket-Key", value)?,
                    )?;
                }
                17 if is("transfer-encoding") => found.body = true,
                21 if is("sec-websocket-version") => {
                    set(&mut found.version, "Sec-WebSocket-Version", value)?;
                }
                22 if is("sec-websocket-protocol") => {
                    for protocol in elements(text("Sec-WebSocket-Protocol", value)?) {
                        if !is_token(protocol) || found.subprotocols.contains(&protocol) {
                            return Err(OpeningError::InvalidSubprotocol);
                        }
                        found.subprotocols.push(protocol);
                    }
                }
                //= rfc6455 9.1-2
                24 if is("sec-websocket-extensions") => {
                    let value = text("Sec-WebSocket-Extensions", value)?;
                    //= rfc6455 9.1-1
                    if !is_extension_list(value) {
                        return Err(OpeningError::InvalidExtension);
                    }
                    found.extensions.extend(elements(value));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// The one version of the protocol that there is (RFC 6455 §4.1).
    pub(super) fn check_version(&self) -> Result<(), OpeningError> {
        match self.version {
            None => Err(OpeningError::NoVersion),
            Some(b"13") => Ok(()),
            Some(_) => Err(OpeningError::UnsupportedVersion),
        }
    }
}

fn set<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), OpeningError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(OpeningError::Repeated(name)),
    }
}

/// A value as text: printable ASCII, which is all that these headers may contain.
fn text<'h>(name: &'static str, value: &'h [u8]) -> Result<&'h str, OpeningError> {
    match str::from_utf8(value) {
        Ok(text) if text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) => Ok(text),
        _ => Err(OpeningError::InvalidHeader(name)),
    }
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1): empty ones don't count.
pub(super) fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(|element| element.trim_matches([' ', '\t']))
        .filter(|e| !e.is_empty())
}

pub(super) fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|byte| *byte == b',')
        .any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether this is a list of extensions (RFC 6455 §9.1). A quoted value must be a token too, so there is
/// no comma or semicolon but between elements.
///
/// The grammar wants one at least. But clients which offer nothing send the header empty (Python's
/// `websockets` with an empty list), and it can't mean anything else; so that is let pass.
//= rfc6455 4.3-1
pub(super) fn is_extension_list(list: &str) -> bool {
    elements(list).all(is_extension)
}

/// Whether this is one extension: a token, and parameters behind semicolons.
pub(super) fn is_extension(element: &str) -> bool {
    let mut parts = element.split(';').map(str::trim_ascii);
    let is_parameter = |part: &str| match part.split_once('=') {
        None => is_token(part),
        Some((name, value)) => {
            let value = value.trim_ascii_start();
            let unquoted = value
                .strip_prefix('"')
                .map_or(Some(value), |rest| rest.strip_suffix('"'));
            is_token(name.trim_ascii_end()) && unquoted.is_some_and(is_token)
        }
    };
    parts.next().is_some_and(is_token) && parts.all(is_parameter)
}

/// Whether this is a token (RFC 9110 §5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
