//! The pages that are built into the binary.
//!
//! `build.rs` lists the files below `assets/` with their types and hashes. A file whose name has a
//! hash in it never changes and may be kept for ever; any other is asked for again each time, and
//! answered with 304 while its ETag is the same.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::respond::{self, Response, Shared};

/// One file of a page.
pub(crate) struct Asset {
    /// Path in the URL, such as `/assets/chat-0A1B2C3D.js`. A directory's `index.html` has the
    /// directory's path.
    path: &'static str,
    content_type: &'static str,
    /// Strong entity tag, quotes included (RFC 9110 §8.8.3).
    etag: &'static str,
    /// Whether the name changes with the content.
    immutable: bool,
    content: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The file of a page at `path`: of the chat at `/`, or of the lab at `/lab`.
pub(crate) fn find(path: &str) -> Option<&'static Asset> {
    // A page is where its folder is, with and without the slash.
    let path = if path == "/lab" { "/lab/" } else { path };
    let mut all = CHAT.iter().chain(LAB);
    all.find(|asset| asset.path == path)
}

impl Asset {
    /// Answers a request for this file.
    pub(crate) fn respond(&self, method: &Method, request: &HeaderMap) -> Response {
        if method != Method::GET && method != Method::HEAD {
            return respond::method_not_allowed("GET, HEAD");
        }
        let mut response = if self.is_unchanged(request) {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            let content_type = HeaderValue::from_static(self.content_type);
            respond::with_body(
                StatusCode::OK,
                content_type,
                Bytes::from_static(self.content),
            )
        };
        response.extensions_mut().insert(Shared);
        let headers = response.headers_mut();
        headers.insert(header::ETAG, HeaderValue::from_static(self.etag));
        let caching = if self.immutable {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
        if self.content_type.starts_with("text/html") {
            let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }

    /// RFC 9110 §13.1.2: `If-None-Match` is `*` or a list of tags, compared weakly.
    fn is_unchanged(&self, request: &HeaderMap) -> bool {
        request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
    }
}

/// Nothing but the page's own files, and connections to where it came from. No inline script or
/// style, so a message that should ever slip through unescaped stays text.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self'; object-src 'none'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    const ASSET: Asset = Asset {
        path: "/x.txt",
        content_type: "text/plain; charset=utf-8",
        etag: "\"abc\"",
        immutable: false,
        content: b"x",
    };

    fn status(if_none_match: &'static str) -> StatusCode {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::IF_NONE_MATCH,
            HeaderValue::from_static(if_none_match),
        );
        ASSET.respond(&Method::GET, &headers).status()
    }

    #[test]
    fn unchanged_files_are_not_sent_again() {
        for tag in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert_eq!(status(tag), StatusCode::NOT_MODIFIED, "{tag}");
        }
        for tag in ["\"abd\"", "abc", "\"x\", \"y\"", ""] {
            assert_eq!(status(tag), StatusCode::OK, "{tag}");
        }
    }

    #[test]
    fn the_page_is_there() {
        let index = find("/").expect("assets/chat/index.html");
        assert_eq!(index.content_type, "text/html; charset=utf-8");
        assert!(!index.immutable);
        assert!(find("/lab").is_some_and(|index| !index.immutable));
        assert!(find("/index.html").is_none() && find("/lab/index.html").is_none());
        assert!(find("/../Cargo.toml").is_none());
        for asset in CHAT.iter().chain(LAB) {
            assert!(
                asset.path.starts_with('/') && !asset.content.is_empty(),
                "{}",
                asset.path
            );
            assert!(asset.etag.len() > 16, "{}", asset.etag);
        }
    }
}
