//! `ws://` and `wss://` URLs (RFC 6455 §3), read strictly: what is ambiguous between parsers is
//! refused instead of guessed, so that the server which is asked is the one that was meant.

use std::fmt;
use std::net::Ipv6Addr;

/// Where a WebSocket server is, and what to ask it for.
///
/// ```
/// use tautline_websocket::proto::handshake::Url;
///
/// let url: Url = "ws://[::1]:8080/chat?room=7".parse()?;
/// assert_eq!((url.host(), url.port()), ("::1", 8080));
/// assert_eq!(url.authority(), "[::1]:8080");
/// assert_eq!(url.target(), "/chat?room=7");
///
/// let url: Url = "wss://example.com".parse()?;
/// assert_eq!((url.port(), url.authority(), url.target()), (443, "example.com", "/"));
/// # Ok::<(), tautline_websocket::proto::handshake::UrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    secure: bool,
    host: String,
    port: u16,
    authority: String,
    target: String,
}

impl Url {
    /// Whether the scheme is `wss`: the connection goes through TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// A name or an IP address, in lower case; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port: that of the URL, else 80 for `ws` and 443 for `wss`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as they stand in the `Host` header: the port is left out where it is the
    /// default, an IPv6 address is in brackets.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query as they stand in the request: never empty, always beginning with `/`.
    pub fn target(&self) -> &str {
        &self.target
    }
}

impl std::str::FromStr for Url {
    type Err = UrlError;

    /// # Errors
    ///
    /// [`UrlError`], which names the part that is wrong. A user name in the URL is refused: it
    /// would show wherever the URL does; give an `Authorization` header instead.
    //= rfc6455 4.1-2
    fn from_str(url: &str) -> Result<Self, UrlError> {
        if url.len() > MAX_URL {
            return Err(UrlError::TooLong(url.len()));
        }
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
        let secure = match scheme {
            _ if scheme.eq_ignore_ascii_case("ws") => false,
            _ if scheme.eq_ignore_ascii_case("wss") => true,
            _ => return Err(UrlError::Scheme),
        };
        //= rfc6455 3-1, 3-2
        if rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let (host, port, bracketed) = split_authority(authority)?;
        //= rfc6455 3-3
        let default_port = if secure { 443 } else { 80 };
        let port = match port {
            None | Some("") => default_port,
            Some(digits) => parse_port(digits)?,
        };
        let mut authority = if bracketed {
            format!("[{host}]")
        } else {
            host.clone()
        };
        if port != default_port {
            authority.push_str(&format!(":{port}"));
        }
        check_target(target)?;
        // RFC 6455 §4.1: an empty path is sent as "/".
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self {
            secure,
            host,
            port,
            authority,
            target: format!("{slash}{target}"),
        })
    }
}

/// The query is left out: tokens travel in it.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "Url({scheme}://{}{path})", self.authority)
    }
}

/// What is wrong with a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// A `#`, which RFC 6455 §3 forbids.
    #[error("a WebSocket URL has no fragment; write # as %23 if it is part of the path or query")]
    Fragment,
    /// No host, or characters that a host can't have.
    #[error(
        "the host of a WebSocket URL is a name in ASCII (an international one in its xn-- form), an IPv4 address, or an IPv6 address in brackets"
    )]
    Host,
    /// A port that isn't a number from 1 to 65535.
    #[error("the port of a WebSocket URL is a number from 1 to 65535")]
    Port,
    /// Neither `ws://` nor `wss://`.
    #[error("a WebSocket URL begins with ws:// or wss://")]
    Scheme,
    /// A character in path or query that must be percent-encoded, or a `%` without two hexadecimal
    /// digits.
    #[error(
        "the path or query of the URL has a character at byte {0} that must be percent-encoded"
    )]
    Target(usize),
    /// More than [`MAX_URL`] bytes.
    #[error("the URL has {0} bytes; at most {MAX_URL} are allowed")]
    TooLong(usize),
    /// A user name before the host.
    #[error(
        "a user name in a WebSocket URL is not supported; send an Authorization header instead"
    )]
    UserInfo,
}

/// Bytes that a URL may have. Servers commonly take 8 KiB for a request line.
pub const MAX_URL: usize = 8 * 1024;

/// Host, port and whether the host was in brackets.
//= rfc6455 11.1-1
fn split_authority(authority: &str) -> Result<(String, Option<&str>, bool), UrlError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(UrlError::Host)?;
        let address: Ipv6Addr = address.parse().map_err(|_| UrlError::Host)?;
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port),
            None if port.is_empty() => None,
            None => return Err(UrlError::Port),
        };
        return Ok((address.to_string(), port, true));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if host.is_empty() || host.len() > 255 || !host.bytes().all(is_name) {
        return Err(UrlError::Host);
    }
    Ok((host.to_ascii_lowercase(), port, false))
}

fn parse_port(digits: &str) -> Result<u16, UrlError> {
    // `parse` alone would take "+80".
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UrlError::Port);
    }
    match digits.parse() {
        Ok(0) | Err(_) => Err(UrlError::Port),
        Ok(port) => Ok(port),
    }
}

/// Path and query: the characters of RFC 3986, and the square brackets that query strings have
/// everywhere. The rest differs from parser to parser.
//= rfc6455 11.1-2
fn check_target(target: &str) -> Result<(), UrlError> {
    let bytes = target.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let good = match byte {
            b'%' => bytes
                .get(at + 1..at + 3)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
            _ => byte.is_ascii_graphic(),
        };
        if !good {
            return Err(UrlError::Target(at));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// URL; secure, host, port, authority, target.
    //= rfc6455 3-3
    #[test]
    fn good_urls_are_taken_apart() {
        for (text, expected) in [
            ("ws://a", (false, "a", 80, "a", "/")),
            (
                "WSS://Example.COM",
                (true, "example.com", 443, "example.com", "/"),
            ),
            ("ws://a:80/b", (false, "a", 80, "a", "/b")),
            ("ws://a:443/b", (false, "a", 443, "a:443", "/b")),
            ("wss://a:80/b", (true, "a", 80, "a:80", "/b")),
            ("ws://a:/b", (false, "a", 80, "a", "/b")),
            ("ws://a?q=1", (false, "a", 80, "a", "/?q=1")),
            (
                "ws://a/b?q=/?:@&x[]=%20",
                (false, "a", 80, "a", "/b?q=/?:@&x[]=%20"),
            ),
            (
                "ws://127.0.0.1:9001",
                (false, "127.0.0.1", 9001, "127.0.0.1:9001", "/"),
            ),
            ("ws://[0:0::1]", (false, "::1", 80, "[::1]", "/")),
            (
                "wss://[fe80::1]:9/x",
                (true, "fe80::1", 9, "[fe80::1]:9", "/x"),
            ),
        ] {
            let url: Url = text.parse().unwrap();
            let parts = (
                url.is_secure(),
                url.host(),
                url.port(),
                url.authority(),
                url.target(),
            );
            assert_eq!(parts, expected, "{text}");
        }
    }

    //= rfc6455 3-1, 3-2, 4.1-2, 11.1-1, 11.1-2
    #[test]
    fn each_bad_part_is_named() {
        let long = format!("ws://a/{}", "b".repeat(MAX_URL));
        for (text, expected) in [
            ("", UrlError::Scheme),
            ("a/b", UrlError::Scheme),
            ("http://a", UrlError::Scheme),
            (" ws://a", UrlError::Scheme),
            ("ws:/a", UrlError::Scheme),
            ("ws://", UrlError::Host),
            ("ws:///a", UrlError::Host),
            ("ws://:80", UrlError::Host),
            ("ws://a b", UrlError::Host),
            ("ws://a\r\nX: y", UrlError::Host),
            ("ws://a\\b", UrlError::Host),
            ("ws://a%2eb", UrlError::Host),
            ("ws://b\u{fc}cher", UrlError::Host),
            ("ws://[::1", UrlError::Host),
            ("ws://[1.2.3.4]", UrlError::Host),
            ("ws://[fe80::1%25eth0]", UrlError::Host),
            ("ws://[::1]80", UrlError::Port),
            ("ws://::1", UrlError::Host),
            ("ws://a:0", UrlError::Port),
            ("ws://a:65536", UrlError::Port),
            ("ws://a:+80", UrlError::Port),
            ("ws://a:80:80", UrlError::Port),
            ("ws://me:secret@a", UrlError::UserInfo),
            ("ws://a@b/c", UrlError::UserInfo),
            ("ws://a/b#c", UrlError::Fragment),
            ("ws://a#", UrlError::Fragment),
            ("ws://a/b c", UrlError::Target(2)),
            ("ws://a/\r\nX: y", UrlError::Target(1)),
            ("ws://a/\u{fc}", UrlError::Target(1)),
            ("ws://a/%2", UrlError::Target(1)),
            ("ws://a/%zz", UrlError::Target(1)),
            ("ws://a/b\\c", UrlError::Target(2)),
            (long.as_str(), UrlError::TooLong(MAX_URL + 7)),
        ] {
            assert_eq!(text.parse::<Url>(), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn tokens_in_the_query_are_not_printed() {
        let url: Url = "wss://a/b?token=secret".parse().unwrap();
        assert_eq!(format!("{url:?}"), "Url(wss://a/b)");
    }
}
