//! May a page from there open a connection here?
//!
//! Browsers let any page open a WebSocket to any server, and send the user's cookies along; only
//! the `Origin` header tells the server whose page it is (RFC 6455 §10.2). This is the decision,
//! as a pure function; who asks it and writes the refusal is the door's matter.

use std::fmt;

use http::{HeaderMap, StatusCode, header};
use thiserror::Error;

/// Which origins may connect: `client.allowed_origins`.
///
/// With an empty list that is the server's own origin: host and port of `Origin` have to be those
/// of `Host`. With a list, exactly what the list says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    allowed: Vec<OriginPattern>,
    /// The list is beside the server's own origin, and from the command line of `tautline dev`.
    beside_own: bool,
}

impl OriginPolicy {
    /// Reads the patterns of `client.allowed_origins`.
    ///
    /// # Errors
    ///
    /// [`PatternError`] names the first pattern that could never match an origin.
    pub fn new<T: AsRef<str>>(patterns: &[T]) -> Result<Self, PatternError> {
        let allowed = patterns
            .iter()
            .map(|pattern| OriginPattern::new(pattern.as_ref()));
        Ok(Self {
            allowed: allowed.collect::<Result<_, _>>()?,
            beside_own: false,
        })
    }

    /// The server's own origin, and what these patterns match: for `tautline dev`, whose pages are its own, and those of
    /// the development server of whoever builds a page.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn beside_own<T: AsRef<str>>(patterns: &[T]) -> Result<Self, PatternError> {
        let listed = Self::new(patterns)?;
        Ok(Self {
            beside_own: true,
            ..listed
        })
    }

    /// [`names`](Self::names) for a door with its own head parser.
    pub fn names_values<'a>(
        &self,
        origin: impl IntoIterator<Item = &'a [u8]>,
        host: Option<&[u8]>,
    ) -> bool {
        // A `*` alone is no list of names: what is left then is the server's own origin.
        let named = self.allowed.iter().filter(|pattern| pattern.0 != "*");
        self.pass(named, origin, host).is_ok()
    }

    /// Whether pages of any site may connect.
    pub fn allows_all(&self) -> bool {
        self.allowed.iter().any(|pattern| pattern.0 == "*")
    }

    /// The first pattern in which a `*` takes in what strangers can call a site of theirs: `https://*example.org` matches
    /// `https://evil-example.org`, and `https://example.*` all that begin like that. Not `*` alone.
    pub fn loose(&self) -> Option<&str> {
        let patterns = self.allowed.iter().map(|pattern| &*pattern.0);
        patterns.filter(|pattern| *pattern != "*").find(|pattern| {
            let authority = pattern.split_once("://").map_or(*pattern, |(_, rest)| rest);
            let is_port = |rest: &str| {
                rest.bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b'*')
            };
            let host = match authority.rsplit_once(':') {
                Some((host, port)) if is_port(port) => host,
                _ => authority,
            };
            host.rsplit_once('*').is_some_and(|(_, rest)| {
                // All below a domain that somebody has: two names at least, but for those of no registry.
                let domain = rest.strip_prefix('.');
                domain.is_none_or(|domain| !domain.contains('.') && domain != "localhost")
            })
        })
    }

    /// Whether a request comes from a page whose origin is the server's own, or is in the list by
    /// more than `*`.
    pub fn names(&self, headers: &HeaderMap) -> bool {
        let values = |name| {
            headers
                .get_all(name)
                .iter()
                .map(http::HeaderValue::as_bytes)
        };
        self.names_values(values(header::ORIGIN), values(header::HOST).next())
    }

    /// Whether a request with these headers may pass. One without `Origin` may: it does not come
    /// from a page in a browser.
    ///
    /// # Errors
    ///
    /// [`OriginRefusal`], whose text is made to be the body of the 403.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), OriginRefusal> {
        let values = |name| {
            headers
                .get_all(name)
                .iter()
                .map(http::HeaderValue::as_bytes)
        };
        self.check_values(values(header::ORIGIN), values(header::HOST).next())
    }

    /// [`check`](Self::check) for a door with its own head parser: all values of `Origin`, and
    /// the value of `Host`.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn check_values<'a>(
        &self,
        origin: impl IntoIterator<Item = &'a [u8]>,
        host: Option<&[u8]>,
    ) -> Result<(), OriginRefusal> {
        let passed = self.pass(self.allowed.iter(), origin, host);
        passed.map_err(|origin| self.refusal(origin, host))
    }

    /// Whether some of the patterns let a request pass, or the server's own origin does: beside them if so it was said, and in
    /// their place if there are none. An error is the origin that came.
    fn pass<'a, 'p>(
        &self,
        mut patterns: impl Iterator<Item = &'p OriginPattern> + Clone,
        origin: impl IntoIterator<Item = &'a [u8]>,
        host: Option<&[u8]>,
    ) -> Result<(), &'a [u8]> {
        let mut origins = origin.into_iter();
        let Some(origin) = origins.next() else {
            return Ok(());
        };
        let text = std::str::from_utf8(origin)
            .ok()
            .filter(|_| origins.next().is_none());
        let passes = text.is_some_and(|origin| {
            let is_own = || host_text(host).is_some_and(|host| is_same_origin(origin, host));
            if (self.beside_own || patterns.clone().next().is_none()) && is_own() {
                return true;
            }
            let origin = origin.to_ascii_lowercase();
            patterns.any(|pattern| pattern.matches(&origin))
        });
        if passes { Ok(()) } else { Err(origin) }
    }

    /// What a page from this origin is told.
    fn refusal(&self, origin: &[u8], host: Option<&[u8]>) -> OriginRefusal {
        let own = || {
            let host = shown(host_text(host).unwrap_or("which no Host header named"));
            format!("{OWN}{host}")
        };
        let patterns: Vec<_> = self.allowed.iter().map(ToString::to_string).collect();
        let patterns = patterns.join(", ");
        OriginRefusal {
            origin: shown(&String::from_utf8_lossy(origin)),
            expected: match (self.allowed.is_empty(), self.beside_own) {
                (true, _) => own(),
                (false, true) => format!("{}, or {patterns}", own()),
                (false, false) => format!("{LISTED}{patterns}"),
            },
            to_allow: if self.beside_own {
                "tautline dev --allow-origin ORIGIN, such as http://localhost:5173"
            } else {
                "add the page's origin to client.allowed_origins in the server's configuration."
            },
        }
    }
}

fn host_text(host: Option<&[u8]>) -> Option<&str> {
    host.and_then(|host| std::str::from_utf8(host).ok())
}

/// The answer to a page that may not connect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "The page's origin is not allowed to connect.\n\
     came:     {origin}\n\
     expected: {expected}\n\
     to allow: {to_allow}\n"
)]
pub struct OriginRefusal {
    origin: String,
    expected: String,
    to_allow: &'static str,
}

impl OriginRefusal {
    /// The status to answer with.
    pub const STATUS: StatusCode = StatusCode::FORBIDDEN;
}

/// By what rule a page was refused, as the answer tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RefusedBy {
    /// It isn't of the server's own origin, which is at this host.
    Own(String),
    /// It isn't in `client.allowed_origins`.
    List,
}

impl RefusedBy {
    /// Reads an answer, of which the end may be missing; `None` if it isn't one of [`OriginRefusal`].
    pub(crate) fn read(body: &str) -> Option<Self> {
        let mut lines = body.lines();
        let expected = lines.find_map(|line| line.strip_prefix("expected: "))?;
        if expected.starts_with(LISTED) {
            return Some(Self::List);
        }
        let own = expected.strip_prefix(OWN)?;
        // There may be a list beside it.
        let host = own.split(", or ").next().unwrap_or(own);
        Some(Self::Own(host.to_owned()))
    }
}

/// What is expected where there is no list, before the host.
const OWN: &str = "the server's own, ";
/// What is expected where there is one, before that.
const LISTED: &str = "one of client.allowed_origins: ";

/// A pattern that could never match.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{pattern}` is not an origin: {reason}; expected `scheme://host` or `scheme://host:port` as in \
     `https://*.example.org`, where `*` stands for anything but `/`, or `*` alone for any origin"
)]
pub struct PatternError {
    pattern: String,
    reason: &'static str,
}

/// `*`, or an origin in which `*` stands for any characters but `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OriginPattern(String);

impl OriginPattern {
    fn new(pattern: &str) -> Result<Self, PatternError> {
        let refuse = |reason| {
            Err(PatternError {
                pattern: pattern.to_owned(),
                reason,
            })
        };
        if pattern == "*" {
            return Ok(Self(pattern.to_owned()));
        }
        let Some((scheme, rest)) = pattern.split_once("://") else {
            return refuse("it has no scheme");
        };
        if scheme.is_empty() || rest.is_empty() {
            return refuse("a part of it is empty");
        }
        if rest.contains('/') {
            return refuse("it has a path, and origins have none");
        }
        if !pattern.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse("it has characters that an Origin header never has");
        }
        if pattern.contains(['?', '{', '}']) {
            return refuse("the only wildcard is `*`");
        }
        Ok(Self(pattern.to_ascii_lowercase()))
    }

    fn matches(&self, origin: &str) -> bool {
        self.0 == "*" || glob(self.0.as_bytes(), origin.as_bytes())
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether host and port of an `Origin` are those of a `Host` header. The scheme isn't compared,
/// since TLS may end at a proxy in front; it only tells which port is meant where none is written.
fn is_same_origin(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => "80",
        "https" | "wss" => "443",
        _ => return false,
    };
    let ((origin_name, origin_port), (host_name, host_port)) =
        (split_port(authority), split_port(host));
    !host_name.is_empty()
        && origin_name.eq_ignore_ascii_case(host_name)
        && origin_port.unwrap_or(default_port) == host_port.unwrap_or(default_port)
}

/// Splits `host:port`; an IPv6 address keeps its brackets.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // A colon inside of brackets belongs to the address.
        Some((_, port)) if port.contains(']') => (authority, None),
        Some((name, "")) => (name, None),
        Some((name, port)) => (name, Some(port)),
        None => (authority, None),
    }
}

/// Matches `*` against any run of bytes without `/`. Linear but for the last `*` seen: a mismatch
/// only ever gives that one more byte, so a hostile header costs pattern × text at the very most.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when the text stops matching: behind the last `*`, and how far it reaches.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after_star, reach)) = retry
            && text[reach] != b'/'
        {
            p = after_star;
            t = reach + 1;
            retry = Some((p, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// A stranger's header, short enough and plain enough for an answer and a log line.
fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    text.chars()
        .take(MAX_CHARS)
        .flat_map(char::escape_debug)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &[&str], origin: &str, host: &str) -> Result<(), OriginRefusal> {
        let policy = OriginPolicy::new(allowed).unwrap();
        policy.check_values([origin.as_bytes()], Some(host.as_bytes()))
    }

    #[test]
    fn an_answer_says_by_what_rule_it_was() {
        let by = |refusal: OriginRefusal| RefusedBy::read(&refusal.to_string());
        let told = check(&[], "https://a.example", "127.0.0.1:8000").unwrap_err();
        assert_eq!(by(told), Some(RefusedBy::Own("127.0.0.1:8000".to_owned())));
        let told = check(&["https://b.example"], "https://a.example", "a.example").unwrap_err();
        assert_eq!(by(told), Some(RefusedBy::List));
        let policy = OriginPolicy::beside_own(&["http://localhost:5173"]).unwrap();
        let told = policy.check_values([b"https://a.example".as_slice()], Some(b"b.example"));
        let told = by(told.unwrap_err());
        assert_eq!(told, Some(RefusedBy::Own("b.example".to_owned())));
        for other in ["", "Forbidden\n", "expected: a password\n"] {
            assert_eq!(RefusedBy::read(other), None, "{other}");
        }
    }

    #[test]
    fn a_list_can_be_beside_the_own_origin() {
        let policy = OriginPolicy::beside_own(&["http://localhost:5173"]).unwrap();
        let check = |origin: &str| {
            policy.check_values([origin.as_bytes()], Some(b"127.0.0.1:8000".as_slice()))
        };
        assert_eq!(check("http://127.0.0.1:8000"), Ok(()));
        assert_eq!(check("http://localhost:5173"), Ok(()));
        let told = check("http://localhost:5174").unwrap_err().to_string();
        for part in [
            "came:     http://localhost:5174\n",
            "expected: the server's own, 127.0.0.1:8000, or http://localhost:5173\n",
            "to allow: tautline dev --allow-origin ORIGIN",
        ] {
            assert!(told.contains(part), "{told}");
        }
        let names = |origin: &str| {
            policy.names_values([origin.as_bytes()], Some(b"127.0.0.1:8000".as_slice()))
        };
        assert!(names("http://127.0.0.1:8000") && names("http://localhost:5173"));
        assert!(!names("http://localhost:5174"));
    }

    #[test]
    fn pages_are_named_by_all_of_the_list_but_a_star() {
        let (own, listed, other) = (
            "http://127.0.0.1:8000",
            "https://chat.example.org",
            "https://evil.example",
        );
        let star_too = ["https://chat.example.org", "*"];
        for (list, named) in [
            (&[][..], [true, false, false]),
            (&star_too[1..], [true, false, false]),
            (&star_too[..1], [false, true, false]),
            (&star_too[..], [false, true, false]),
        ] {
            let policy = OriginPolicy::new(list).unwrap();
            let host = Some(b"127.0.0.1:8000".as_slice());
            let names = |origin: &str| policy.names_values([origin.as_bytes()], host);
            assert_eq!([own, listed, other].map(names), named, "{list:?}");
            assert!(policy.names_values([], host), "it is no page");
            let two = [own, listed].map(str::as_bytes);
            assert!(!policy.names_values(two, host));
        }
    }

    #[test]
    fn own_origin_is_allowed_by_default() {
        for (origin, host, allowed) in [
            ("http://localhost:8000", "localhost:8000", true),
            ("http://LOCALHOST:8000", "localhost:8000", true),
            ("http://chat.example.org", "chat.example.org", true),
            // TLS ends at a proxy.
            ("https://chat.example.org", "chat.example.org", true),
            ("https://chat.example.org", "chat.example.org:443", true),
            ("https://chat.example.org:443", "chat.example.org", true),
            ("http://chat.example.org", "chat.example.org:80", true),
            ("http://[::1]:8000", "[::1]:8000", true),
            ("http://[::1]", "[::1]", true),
            ("http://[::1]", "[::1]:80", true),
            ("http://localhost:8001", "localhost:8000", false),
            ("http://127.0.0.1:8000", "localhost:8000", false),
            ("https://chat.example.org", "chat.example.org:80", false),
            ("http://chat.example.org", "chat.example.org:443", false),
            ("https://evil.example", "chat.example.org", false),
            (
                "https://chat.example.org.evil.example",
                "chat.example.org",
                false,
            ),
            ("https://evilchat.example.org", "chat.example.org", false),
            (
                "https://chat.example.org@evil.example",
                "chat.example.org",
                false,
            ),
            ("http://[::1]:8000", "[::2]:8000", false),
            ("null", "null", false),
            ("file://", "", false),
            ("http://", "", false),
            ("chrome-extension://abc", "abc", false),
            ("chat.example.org", "chat.example.org", false),
            ("", "chat.example.org", false),
        ] {
            assert_eq!(
                check(&[], origin, host).is_ok(),
                allowed,
                "{origin} on {host}"
            );
        }
    }

    #[test]
    fn a_list_is_all_there_is() {
        for (allowed, origin, expected) in [
            (
                &["https://app.example.org"][..],
                "https://app.example.org",
                true,
            ),
            (
                &["https://APP.example.org"],
                "https://app.EXAMPLE.org",
                true,
            ),
            (
                &["https://app.example.org"],
                "http://app.example.org",
                false,
            ),
            (
                &["https://app.example.org"],
                "https://app.example.org:8443",
                false,
            ),
            (&["https://*.example.org"], "https://a.example.org", true),
            (&["https://*.example.org"], "https://a.b.example.org", true),
            (&["https://*.example.org"], "https://example.org", false),
            (
                &["https://*.example.org"],
                "https://evil.example/.example.org",
                false,
            ),
            (
                &["https://*.example.org"],
                "https://a.example.org.evil.example",
                false,
            ),
            (
                &["https://*.example.org:*"],
                "https://a.example.org:8443",
                true,
            ),
            (&["*://localhost:*"], "http://localhost:3000", true),
            (&["http://a", "http://b"], "http://b", true),
            // Not even the server itself, which has the host `own.example`.
            (&["https://app.example.org"], "https://own.example", false),
            (&["https://app.example.org"], "null", false),
            (&["*"], "null", true),
            (&["*"], "https://anybody.example", true),
        ] {
            let result = check(allowed, origin, "own.example");
            assert_eq!(result.is_ok(), expected, "{origin} with {allowed:?}");
        }
    }

    #[test]
    fn no_origin_is_no_page() {
        let policy = OriginPolicy::new(&["https://a.example"]).unwrap();
        assert_eq!(policy.check_values([], Some(b"b.example")), Ok(()));
        assert_eq!(OriginPolicy::default().check(&HeaderMap::new()), Ok(()));
    }

    #[test]
    fn several_origins_are_none() {
        let policy = OriginPolicy::default();
        let twice = [&b"http://a.example"[..], b"http://a.example"];
        assert!(policy.check_values(twice, Some(b"a.example")).is_err());
        assert!(
            policy
                .check_values([&b"http://a.example\xff"[..]], Some(b"a.example"))
                .is_err()
        );
        assert!(
            policy
                .check_values([&b"http://a.example"[..]], None)
                .is_err()
        );
    }

    #[test]
    fn the_refusal_says_what_came_what_was_expected_and_what_to_do() {
        let text = check(&[], "https://evil.example", "chat.example.org")
            .unwrap_err()
            .to_string();
        for part in [
            "https://evil.example",
            "chat.example.org",
            "client.allowed_origins",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        let text = check(&["https://a.example", "https://b.example"], "null", "h").unwrap_err();
        assert!(
            text.to_string()
                .contains("https://a.example, https://b.example"),
            "{text}"
        );

        let long = format!("http://{}\n\u{1b}[31m", "x".repeat(10_000));
        let text = check(&[], &long, "h").unwrap_err().to_string();
        assert!(text.len() < 600 && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn patterns_that_never_match_are_refused() {
        for pattern in [
            "",
            "example.org",
            "https://",
            "://example.org",
            "https://example.org/",
            "https://example.org/chat",
            "https://{a,b}.example.org",
            "https://example.or?",
            "https://exämple.org",
            "https://example.org ",
        ] {
            let error = OriginPolicy::new(&[pattern]).expect_err(pattern);
            assert!(error.to_string().contains("scheme://host"), "{error}");
        }
    }

    #[test]
    fn globs_match_what_a_naive_matcher_does() {
        fn naive(pattern: &[u8], text: &[u8]) -> bool {
            match pattern.split_first() {
                None => text.is_empty(),
                Some((b'*', rest)) => {
                    let run = text.iter().take_while(|&&byte| byte != b'/').count();
                    (0..=run).any(|taken| naive(rest, &text[taken..]))
                }
                Some((byte, rest)) => text.first() == Some(byte) && naive(rest, &text[1..]),
            }
        }
        fn words(letters: &[u8], max: usize) -> Vec<Vec<u8>> {
            let mut all = vec![Vec::new()];
            let mut last = all.clone();
            for _ in 0..max {
                last = last
                    .iter()
                    .flat_map(|word| {
                        letters
                            .iter()
                            .map(move |&letter| [&word[..], &[letter]].concat())
                    })
                    .collect();
                all.extend(last.iter().cloned());
            }
            all
        }
        let texts = words(b"ab/", 5);
        for pattern in words(b"ab*/", 4) {
            for text in &texts {
                let (p, t) = (
                    String::from_utf8_lossy(&pattern),
                    String::from_utf8_lossy(text),
                );
                assert_eq!(glob(&pattern, text), naive(&pattern, text), "{p} on {t}");
            }
        }
    }
}
