//! Between the heads of the `http` crate, as HTTP libraries have them, and ours.

#[cfg(feature = "http2")]
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};

use crate::proto::handshake::{Acceptance, HttpVersion, PseudoHeaders, Refusal, RequestHead};

/// A copy of the head of a request. `protocol` is the pseudo-header field, which each library keeps
/// in a type of its own.
pub(super) fn request_head(
    method: &http::Method,
    uri: &http::Uri,
    version: Version,
    headers: &HeaderMap,
    protocol: Option<&str>,
) -> RequestHead {
    let path = uri.path_and_query().map(http::uri::PathAndQuery::as_str);
    if version == Version::HTTP_2 {
        let pseudo = PseudoHeaders {
            method: method.as_str(),
            protocol,
            scheme: uri.scheme_str(),
            authority: uri.authority().map(http::uri::Authority::as_str),
            path,
        };
        return RequestHead::from_http2(&pseudo, lines(headers));
    }
    let version = match version {
        Version::HTTP_11 => HttpVersion::HTTP_11,
        Version::HTTP_3 => HttpVersion { major: 3, minor: 0 },
        _ => HttpVersion::HTTP_10,
    };
    let whole;
    let target = if uri.authority().is_some() {
        whole = uri.to_string();
        &whole
    } else {
        path.unwrap_or_default()
    };
    RequestHead::from_http1(method.as_str(), target, version, lines(headers))
}

/// The header lines of a map.
pub(super) fn lines(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// The response that opens a connection.
pub(super) fn accepting(acceptance: &Acceptance<'_>) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status(acceptance.status());
    put(response.headers_mut(), acceptance.headers());
    response
}

/// A refusal as a response, fit for a version of HTTP.
pub(super) fn refusing(refusal: &Refusal, version: Version) -> Response<String> {
    let mut response = Response::new(format!("{}\n", refusal.body()));
    *response.status_mut() = status(refusal.status());
    let headers = response.headers_mut();
    put(
        headers,
        [
            ("content-type", "text/plain; charset=utf-8"),
            ("x-content-type-options", "nosniff"),
        ],
    );
    put(headers, refusal.headers());
    if version == Version::HTTP_2 {
        // A 426 has to name the protocol in Upgrade (RFC 9110 §15.5.22), which HTTP/2 doesn't have
        // (RFC 9113 §8.2.2).
        headers.remove(http::header::UPGRADE);
        headers.remove(http::header::CONNECTION);
        if response.status() == StatusCode::UPGRADE_REQUIRED {
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
    } else if headers.contains_key(http::header::UPGRADE) {
        // RFC 9110 §7.8: who sends Upgrade must name it in Connection.
        headers.insert(
            http::header::CONNECTION,
            HeaderValue::from_static("Upgrade"),
        );
    }
    response
}

/// A whole response for a raw connection of HTTP/1.1 that ends with it. What only says where the body ends, or how the
/// connection goes on, is ours to say.
#[cfg(feature = "http2")]
pub(super) fn write_last(response: &Response<Bytes>, to_head: bool, out: &mut Vec<u8>) {
    use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};

    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    out.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
    for (name, value) in response.headers() {
        if ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    let body = response.body();
    // RFC 9110 §8.6: these have no body, and say nothing of one.
    let is_bodiless = matches!(status.as_u16(), 100..200 | 204 | 304);
    if !is_bodiless {
        out.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"connection: close\r\n\r\n");
    if !is_bodiless && !to_head {
        out.extend_from_slice(body);
    }
}

/// Those that can be header lines; ours all can, and those of an application should.
fn put<'a>(map: &mut HeaderMap, lines: impl IntoIterator<Item = (&'static str, &'a str)>) {
    for (name, value) in lines {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            map.append(name, value);
        }
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
