//! The API key: three ways to give it, one constant-time comparison.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use subtle::ConstantTimeEq as _;
use tautline_auth::Secret;

use crate::http::respond::{self, Response};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What a call has to know.
pub(super) struct ApiKey<'a> {
    key: Option<&'a Secret>,
    insecure: bool,
}

impl<'a> ApiKey<'a> {
    /// Without a key nobody is admitted, unless `insecure` admits everybody.
    pub(super) fn new(key: Option<&'a Secret>, insecure: bool) -> Self {
        Self { key, insecure }
    }

    /// Whether a request may use the API. The key is taken from `X-API-Key: <key>`; if that is
    /// absent, from `Authorization: apikey <key>`; and if neither is right, from the query's
    /// `api_key`.
    pub(super) fn admits(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        if self.insecure {
            return true;
        }
        let Some(key) = self.key.filter(|key| !key.is_empty()) else {
            return false;
        };
        let matches = |given: &[u8]| bool::from(key.expose().ct_eq(given));
        let from_headers = match headers.get(X_API_KEY) {
            Some(value) => Some(value.as_bytes()),
            None => headers
                .get(header::AUTHORIZATION)
                .and_then(authorization_key),
        };
        from_headers.is_some_and(matches)
            || query
                .and_then(query_key)
                .is_some_and(|given| matches(&given))
    }
}

/// 401; RFC 9110 §15.5.2 wants it to name a scheme.
pub(super) fn unauthorized() -> Response {
    let body = "The API key is missing or wrong: send it as `X-API-Key: <key>` or \
                `Authorization: apikey <key>`. The server has it in http_api.key.\n";
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

    fn admits(headers: &[(&'static str, &str)], query: Option<&str>) -> bool {
        let secret = Secret::from("k+ 1");
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect();
        ApiKey::new(Some(&secret), false).admits(&headers, query)
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
        let none = HeaderMap::new();
        let mut empty = HeaderMap::new();
        empty.insert(X_API_KEY, HeaderValue::from_static(""));
        for headers in [&none, &empty] {
            assert!(!ApiKey::new(None, false).admits(headers, Some("api_key=")));
            assert!(!ApiKey::new(Some(&"".into()), false).admits(headers, Some("api_key=")));
            assert!(ApiKey::new(None, true).admits(headers, None));
        }
    }
}
