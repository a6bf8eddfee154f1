//! Header fields between the libraries: the WebSocket library has names and texts, the HTTP library a map.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use tautline_websocket::proto::handshake::Refusal;

use super::respond;

/// The fields of a header, for who has no other view of it.
pub(crate) fn fields(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    let headers = headers.iter();
    headers.map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// Puts what the WebSocket library answers into the HTTP library's header.
pub(crate) fn set_headers<'a>(
    to: &mut HeaderMap,
    headers: impl Iterator<Item = (&'static str, &'a str)>,
) {
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            to.append(name, value);
        }
    }
}

/// A refusal of the WebSocket library as a response of the HTTP library. The connection ends with it: a proxy may
/// believe that it is a WebSocket by now, and let anything through.
pub(crate) fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = respond::text(status, format!("{}\n", refusal.body().trim_end()));
    let headers = response.headers_mut();
    set_headers(headers, refusal.headers());
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A copy that shares no memory with the buffer which the request was read into.
pub(crate) fn unshared(headers: &HeaderMap) -> HeaderMap {
    let copy = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        Some((name.clone(), value))
    };
    headers.iter().filter_map(copy).collect()
}
