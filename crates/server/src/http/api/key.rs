//! API keys: three ways to give one, several to be right, and what each is good for.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tautline_auth::KeyDigest;

use super::command::Command;
use super::method::Method;
use crate::glob::Glob;
use crate::http::respond::{self, Response};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The keys that a server knows. Without any, nobody is admitted.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    keys: Vec<ApiKey>,
    /// For calls without a key, where none is needed.
    open: Option<ApiKey>,
}

/// A key, as far as the server knows it: its digest, and what it is good for.
#[derive(Clone, Debug)]
pub struct ApiKey {
    name: String,
    digest: KeyDigest,
    scope: Scope,
}

/// What a key is good for. The default is everything.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Methods; `None` for all, or, if there are `channels`, for all that are about channels.
    pub methods: Option<Vec<Method>>,
    /// Patterns of channels; `None` for all.
    pub channels: Option<Vec<Glob>>,
}

/// Why a key isn't enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ScopeError {
    Method(Method),
    Channel(String),
}

impl ApiKey {
    /// A key of this name, with which people find it in logs.
    pub fn new(name: impl Into<String>, digest: KeyDigest, scope: Scope) -> Self {
        Self {
            name: name.into(),
            digest,
            scope,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }
}

impl ApiKeys {
    /// All of them. `insecure` admits calls without a key, to everything.
    pub fn new(keys: Vec<ApiKey>, insecure: bool) -> Self {
        let open = || ApiKey::new("(none needed)", KeyDigest::of(b""), Scope::default());
        Self {
            keys,
            open: insecure.then(open),
        }
    }

    /// One key, good for everything.
    pub fn single(key: &[u8]) -> Self {
        let digest = KeyDigest::of(key);
        Self::new(
            vec![ApiKey::new("http_api.key", digest, Scope::default())],
            false,
        )
    }

    /// Whether nobody is admitted.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.open.is_none()
    }

    /// The key of a request, if it is right. It is taken from `X-API-Key: <key>`; if that is absent,
    /// from `Authorization: apikey <key>`; and if neither is right, from the query's `api_key`.
    pub(super) fn of_request(&self, headers: &HeaderMap, query: Option<&str>) -> Option<&ApiKey> {
        if self.open.is_some() {
            return self.open.as_ref();
        }
        let from_headers = match headers.get(X_API_KEY) {
            Some(value) => Some(value.as_bytes()),
            None => headers
                .get(header::AUTHORIZATION)
                .and_then(authorization_key),
        };
        from_headers
            .and_then(|given| self.find(given))
            .or_else(|| self.find(&query.and_then(query_key)?))
    }

    /// Whether a request has a key at all, where one is needed: there may be something to guess.
    pub(super) fn is_tried_by(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        let is_given = headers.contains_key(X_API_KEY)
            || headers
                .get(header::AUTHORIZATION)
                .is_some_and(|value| authorization_key(value).is_some())
            || query.is_some_and(|query| query_key(query).is_some());
        is_given && self.open.is_none()
    }

    /// Compares with all of them, so that the time tells nothing about which it is.
    fn find(&self, given: &[u8]) -> Option<&ApiKey> {
        if given.is_empty() {
            return None;
        }
        let mut found = None;
        for key in &self.keys {
            if key.digest.matches(given) {
                found = Some(key);
            }
        }
        found
    }
}

impl Scope {
    /// Whether a command may be executed. Channels of a broadcast and of a list are looked at one by
    /// one, by [`check_channel`](Self::check_channel).
    pub(super) fn check(&self, command: &Command) -> Result<(), ScopeError> {
        let method = command.method();
        let is_about_channels =
            command.channel().is_some() || matches!(method, Method::Broadcast | Method::Channels);
        let is_allowed = match (&self.methods, &self.channels) {
            (Some(methods), _) => methods.contains(&method),
            (None, Some(_)) => is_about_channels,
            (None, None) => true,
        };
        // Whoever is for some channels only doesn't get to see what has happened in others.
        if !is_allowed || method.is_about_events() && self.channels.is_some() {
            return Err(ScopeError::Method(method));
        }
        command
            .channel()
            .map_or(Ok(()), |channel| self.check_channel(channel))
    }

    /// Whether somebody may be followed, or this channel.
    pub(super) fn check_trace(&self, channel: Option<&str>) -> Result<(), ScopeError> {
        let is_allowed = match (&self.methods, &self.channels) {
            (Some(methods), _) => methods.contains(&Method::Trace),
            (None, Some(_)) => channel.is_some(),
            (None, None) => true,
        };
        // Whoever is for some channels only doesn't get to see what a user does in others.
        if !is_allowed || channel.is_none() && self.channels.is_some() {
            return Err(ScopeError::Method(Method::Trace));
        }
        channel.map_or(Ok(()), |channel| self.check_channel(channel))
    }

    pub(super) fn check_channel(&self, channel: &str) -> Result<(), ScopeError> {
        let Some(patterns) = &self.channels else {
            return Ok(());
        };
        if patterns.iter().any(|pattern| pattern.matches(channel)) {
            return Ok(());
        }
        Err(ScopeError::Channel(channel.to_owned()))
    }
}

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(method) => write!(f, "the API key may not use the method {method}"),
            Self::Channel(channel) => write!(f, "the API key is not for the channel {channel}"),
        }
    }
}

/// 401; RFC 9110 §15.5.2 wants it to name a scheme.
pub(super) fn unauthorized() -> Response {
    let body = "The API key is missing or wrong: send it as `X-API-Key: <key>` or \
                `Authorization: apikey <key>`. The server has it in http_api.key, or its digest in \
                http_api.keys.\n";
    let response = respond::text(StatusCode::UNAUTHORIZED, body);
    respond::with_header(
        response,
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("apikey"),
    )
}

/// The key of `apikey <key>`; the name of the scheme in any case (RFC 9110 §11.1).
fn authorization_key(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, key) = value.as_bytes().split_at_checked("apikey ".len())?;
    scheme
        .eq_ignore_ascii_case(b"apikey ")
        .then(|| key.trim_ascii())
}

/// The first `api_key` of a query, decoded as forms are.
fn query_key(query: &str) -> Option<Vec<u8>> {
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("api_key="))?;
    let mut bytes = value.bytes();
    let mut decoded = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (hex(bytes.next()?)?, hex(bytes.next()?)?);
                high << 4 | low
            }
            other => other,
        });
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let given = given.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("a header's value");
            (HeaderName::from_static(name), value)
        });
        given.collect()
    }

    fn admits(given: &[(&'static str, &str)], query: Option<&str>) -> bool {
        let keys = ApiKeys::single(b"k+ 1");
        keys.of_request(&headers(given), query).is_some()
    }

    #[test]
    fn the_key_can_be_given_in_three_ways() {
        for (headers, query, expected) in [
            (&[("x-api-key", "k+ 1")][..], None, true),
            (&[("authorization", "apikey k+ 1")], None, true),
            (&[("authorization", "ApiKey k+ 1")], None, true),
            (&[], Some("api_key=k%2B+1"), true),
            (&[], Some("a=b&api_key=k%2b%201&c"), true),
            // The query is looked at even where a header was wrong.
            (&[("x-api-key", "wrong")], Some("api_key=k%2B+1"), true),
            // Authorization is not looked at where X-API-Key is there.
            (
                &[("x-api-key", "wrong"), ("authorization", "apikey k+ 1")],
                None,
                false,
            ),
            (&[], None, false),
            (&[("x-api-key", "")], None, false),
            (&[("x-api-key", "k+ 12")], None, false),
            (&[("x-api-key", "k+ ")], None, false),
            (&[("authorization", "k+ 1")], None, false),
            (&[("authorization", "Bearer k+ 1")], None, false),
            (&[("authorization", "apikey")], None, false),
            (&[], Some("api_key=k+1"), false),
            (&[], Some("api_key=k%2"), false),
            (&[], Some("api_key=%zz"), false),
            (&[], Some("xapi_key=k%2B+1"), false),
        ] {
            assert_eq!(admits(headers, query), expected, "{headers:?} {query:?}");
        }
    }

    #[test]
    fn without_a_key_nobody_is_admitted() {
        for given in [headers(&[]), headers(&[("x-api-key", "")])] {
            let admits = |keys: &ApiKeys| keys.of_request(&given, Some("api_key=")).is_some();
            assert!(!admits(&ApiKeys::default()));
            assert!(!admits(&ApiKeys::single(b"")));
            assert!(admits(&ApiKeys::new(Vec::new(), true)));
        }
    }

    #[test]
    fn any_of_several_keys_will_do() {
        let key = |name: &str| ApiKey::new(name, KeyDigest::of(name.as_bytes()), Scope::default());
        let keys = ApiKeys::new(vec![key("old"), key("new")], false);
        for name in ["old", "new"] {
            let found = keys.of_request(&headers(&[("x-api-key", name)]), None);
            assert_eq!(found.map(ApiKey::name), Some(name));
        }
        assert!(
            keys.of_request(&headers(&[("x-api-key", "older")]), None)
                .is_none()
        );
    }

    #[test]
    fn a_key_is_good_for_what_its_scope_says() {
        let patterns = || Some(vec!["chat:*".parse().expect("a pattern")]);
        let channels = Scope {
            methods: None,
            channels: patterns(),
        };
        let methods = Scope {
            methods: Some(vec![
                Method::Disconnect,
                Method::Presence,
                Method::DeadEvents,
            ]),
            channels: patterns(),
        };
        let limits = super::super::ApiLimits::default();
        for (method, body, by_channels, by_methods) in [
            (
                Method::Publish,
                r#"{"channel":"chat:1","data":1}"#,
                true,
                false,
            ),
            (
                Method::Publish,
                r#"{"channel":"news","data":1}"#,
                false,
                false,
            ),
            (Method::Presence, r#"{"channel":"chat:1"}"#, true, true),
            (Method::Presence, r#"{"channel":"news"}"#, false, false),
            (Method::Subscribe, r#"{"channel":"chat:1"}"#, true, false),
            (Method::Subscribe, r#"{"channel":"news"}"#, false, false),
            (Method::Disconnect, "{}", false, true),
            (Method::Refresh, "{}", false, false),
            (Method::Info, "{}", false, false),
            (Method::Reload, "{}", false, false),
            (Method::DeadEvents, "{}", false, false),
            (Method::DeadEventsDrop, r#"{"all":true}"#, false, false),
            (Method::RevokeToken, r#"{"uid":"a"}"#, false, false),
            (Method::Rpc, r#"{"method":"m"}"#, false, false),
            // Looked at one by one.
            (
                Method::Broadcast,
                r#"{"channels":["news"],"data":1}"#,
                true,
                false,
            ),
            (Method::Channels, "{}", true, false),
        ] {
            let command = Command::parse(method, body.as_bytes(), &limits).expect("it is right");
            assert!(Scope::default().check(&command).is_ok());
            assert_eq!(
                channels.check(&command).is_ok(),
                by_channels,
                "{method} {body}"
            );
            assert_eq!(
                methods.check(&command).is_ok(),
                by_methods,
                "{method} {body}"
            );
        }
    }
}
