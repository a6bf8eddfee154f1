//! The opening request over HTTP/2: an extended CONNECT (RFC 8441), checked.

use super::request::{Found, Opening, OpeningError};

/// The pseudo-header fields of a request in HTTP/2 (RFC 9113 §8.3.1, RFC 8441 §4), as far as they
/// are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PseudoHeaders<'h> {
    /// `:method`.
    pub method: &'h str,
    /// `:protocol`: `websocket`.
    pub protocol: Option<&'h str>,
    /// `:scheme`: `https` for `wss`, `http` for `ws`.
    pub scheme: Option<&'h str>,
    /// `:authority`: what `Host` is in HTTP/1.1.
    pub authority: Option<&'h str>,
    /// `:path`: the target, path and query.
    pub path: Option<&'h str>,
}

impl<'h> Opening<'h> {
    /// Checks a request that came over HTTP/2. `headers` are the names and values of all fields that
    /// are not pseudo-header fields, in their order.
    ///
    /// What RFC 6455 asks of the handshake beyond HTTP/1.1 stays as it is: version, origin,
    /// subprotocols and extensions. The key is not looked at.
    ///
    /// ```
    /// use tautline_websocket::proto::handshake::{Opening, PseudoHeaders};
    ///
    /// let pseudo = PseudoHeaders {
    ///     method: "CONNECT",
    ///     protocol: Some("websocket"),
    ///     scheme: Some("https"),
    ///     authority: Some("example.com"),
    ///     path: Some("/chat"),
    /// };
    /// let opening = Opening::from_connect(&pseudo, [("sec-websocket-version", &b"13"[..])])?;
    /// assert_eq!(opening.host(), "example.com");
    /// let acceptance = opening.accept(None);
    /// assert_eq!((acceptance.status(), acceptance.headers().count()), (200, 0));
    /// # Ok::<(), tautline_websocket::proto::handshake::OpeningError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// One [`OpeningError`] for each rule. The refusals of
    /// [`NoVersion`](OpeningError::NoVersion) and
    /// [`UnsupportedVersion`](OpeningError::UnsupportedVersion) have status 426 and an `Upgrade`
    /// header, neither of which HTTP/2 has: send 400 without it.
    pub fn from_connect(
        pseudo: &PseudoHeaders<'h>,
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> Result<Self, OpeningError> {
        if pseudo.method != "CONNECT" {
            return Err(OpeningError::NotConnect);
        }
        //= rfc8441 5-1
        //= rfc8441 5-2
        match pseudo.protocol {
            None => return Err(OpeningError::NoProtocol),
            Some("websocket") => {}
            Some(_) => return Err(OpeningError::UnknownProtocol),
        }
        // `:authority` means what it means in any request: this server, and no tunnel to another.
        //= rfc8441 4-2
        //= rfc8441 4-3
        //= rfc8441 5-5
        let field = |name, value: Option<&'h str>| {
            let value = value.filter(|value| !value.is_empty());
            value.ok_or(OpeningError::NoPseudoHeader(name))
        };
        let scheme = field(":scheme", pseudo.scheme)?;
        field(":path", pseudo.path)?;
        let authority = field(":authority", pseudo.authority)?;
        //= rfc8441 5-3
        if !["https", "http"]
            .iter()
            .any(|s| scheme.eq_ignore_ascii_case(s))
        {
            return Err(OpeningError::UnknownScheme);
        }
        //= rfc8441 5-6
        let found = Found::collect(headers, false)?;
        //= rfc8441 5-4
        if let Some(name) = found.connection_header {
            return Err(OpeningError::ConnectionHeader(name));
        }
        // RFC 9113 §8.3.1.
        if found
            .host
            .is_some_and(|host| !host.eq_ignore_ascii_case(authority))
        {
            return Err(OpeningError::HostMismatch);
        }
        if found.body {
            return Err(OpeningError::Body);
        }
        //= rfc8441 5-7
        found.check_version()?;
        Ok(Self {
            key: None,
            host: authority,
            origin: found.origin,
            subprotocols: found.subprotocols,
            extensions: found.extensions,
        })
    }
}
