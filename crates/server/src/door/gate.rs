//! Whose pages may use the doors that are made of plain HTTP.
//!
//! A page of any site may have its visitor's browser send requests here, some of them with no question
//! asked before (forms, images, `fetch` with a simple content type). Such a request is refused before
//! it does anything: not only is the answer kept from the page, as CORS has it.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::Full;

use super::entry::Refused;
use crate::http::origin::{OriginPolicy, OriginRefusal};
use crate::http::respond::{self, Response};

/// What a browser says of the page that a request comes from (Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long a browser may remember what it was told about a door, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("300");

/// What a page may read of an answer beside what each may: the version of a page of history, when to come back, what
/// is needed.
const READABLE: HeaderValue = HeaderValue::from_static("etag, retry-after, www-authenticate");

/// A request that may come in, as far as its page is concerned.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    origin: Option<HeaderValue>,
    asked_headers: Option<HeaderValue>,
}

/// Checks the page that a request comes from. A program, which is no page, says nothing of one.
///
/// # Errors
///
/// The answer to a page that may not connect.
pub(crate) fn admit(origins: &OriginPolicy, headers: &HeaderMap) -> Result<Admitted, Refused> {
    if let Err(refusal) = origins.check(headers) {
        return Err(respond::text(OriginRefusal::STATUS, refusal.to_string()).into());
    }
    // A copy, as the value is a part of the buffer that the request was read into: that is not to wait with the answer.
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    let origin = origin.and_then(|origin| HeaderValue::from_bytes(origin).ok());
    // An image, a form's GET, a link: sent with no Origin, but not in silence. No more is known of
    // the page than that it is another site's, so no list can have it.
    let is_foreign = headers
        .get(SEC_FETCH_SITE)
        .is_some_and(|site| site != "same-origin" && site != "none");
    if origin.is_none() && is_foreign && !origins.allows_all() {
        return Err(respond::text(
            StatusCode::FORBIDDEN,
            "The request comes from a page of another site, which doesn't say which one.\n\
             expected: a request that names its page's origin, such as fetch() or EventSource send it\n\
             to allow: add the page's origin to client.allowed_origins in the server's configuration.\n",
        )
        .into());
    }
    let asked_headers = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    Ok(Admitted {
        origin,
        asked_headers,
    })
}

/// Whether what a browser sends along by itself counts: only from pages that are named, be it as the
/// server's own or in the list, and not from those that a `*` lets in.
pub(crate) fn cookies_count(origins: &OriginPolicy, headers: &HeaderMap) -> bool {
    if headers.contains_key(header::ORIGIN) {
        return origins.names(headers);
    }
    headers
        .get(SEC_FETCH_SITE)
        .is_none_or(|site| site == "same-origin" || site == "none")
}

/// Takes out the cookies that don't count, for whoever else looks at a request: an application that takes its users by
/// their cookies would let pages of all sites act as their visitors.
pub(crate) fn strip_cookies(origins: &OriginPolicy, headers: &mut HeaderMap) {
    if !cookies_count(origins, headers) {
        headers.remove(header::COOKIE);
    }
}

impl Admitted {
    /// Lets the page read the answer.
    pub(crate) fn mark(self, headers: &mut HeaderMap) {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, READABLE);
            if let Some(asked) = self.asked_headers {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
            }
        }
    }
}

/// The answer to the question which a browser asks before a request that is not simple.
fn preflight(methods: &'static str) -> Response {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(methods),
    );
    response
}

/// Answers what isn't one of a door's methods: the preflight, or 405.
pub(crate) fn other_method(method: &Method, methods: &'static str) -> Refused {
    if method == Method::OPTIONS {
        preflight(methods).into()
    } else {
        respond::method_not_allowed(methods).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(allowed: &[&str], fields: &[(&'static str, &'static str)]) -> Option<u16> {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("chat.example.org"));
        for (name, value) in fields {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let policy = OriginPolicy::new(allowed).unwrap();
        let admitted = admit(&policy, &headers);
        admitted.err().map(|response| response.status().as_u16())
    }

    #[test]
    fn requests_of_other_sites_are_refused() {
        let own = ("origin", "https://chat.example.org");
        let foreign = ("origin", "https://evil.example");
        let site = |site| ("sec-fetch-site", site);
        for (allowed, fields, expected) in [
            (&[][..], &[][..], None),
            (&[], &[own], None),
            (&[], &[own, site("same-origin")], None),
            (&[], &[site("same-origin")], None),
            // Typed into the address bar.
            (&[], &[site("none")], None),
            (&[], &[foreign], Some(403)),
            (&[], &[foreign, site("cross-site")], Some(403)),
            (&[], &[site("cross-site")], Some(403)),
            (&[], &[site("same-site")], Some(403)),
            (&[], &[("origin", "null")], Some(403)),
            (
                &["https://evil.example"],
                &[foreign, site("cross-site")],
                None,
            ),
            (&["https://evil.example"], &[own], Some(403)),
            (&["https://evil.example"], &[site("cross-site")], Some(403)),
            (&["*"], &[site("cross-site")], None),
            (&["*"], &[foreign], None),
        ] {
            assert_eq!(
                status(allowed, fields),
                expected,
                "{fields:?} with {allowed:?}"
            );
        }
    }

    #[test]
    fn an_admitted_page_may_read_the_answer() {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("a.example"));
        let mut answer = HeaderMap::new();
        let policy = OriginPolicy::default();
        admit(&policy, &headers).unwrap().mark(&mut answer);
        assert_eq!(answer.len(), 1);
        headers.insert("origin", HeaderValue::from_static("https://a.example"));
        headers.insert(
            "access-control-request-headers",
            HeaderValue::from_static("content-type"),
        );
        let mut answer = HeaderMap::new();
        admit(&policy, &headers).unwrap().mark(&mut answer);
        assert_eq!(answer["access-control-allow-origin"], "https://a.example");
        assert_eq!(answer["access-control-allow-credentials"], "true");
        assert_eq!(answer["access-control-allow-headers"], "content-type");
        let exposed = answer["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("etag") && exposed.contains("retry-after"));
        assert_eq!(answer["vary"], "origin");
    }
}
