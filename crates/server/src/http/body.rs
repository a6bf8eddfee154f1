//! Reads a request's body, within limits of size and time.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};

use super::respond::{self, Response};

/// How long a body may take to arrive.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole body, or the answer to one that is too long, too slow, or breaks off.
pub(crate) async fn read(body: Incoming, max_len: usize) -> Result<Bytes, Response> {
    // What is announced as too long is not even read.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max_len {
        return Err(too_large(max_len));
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max_len).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(max_len)),
        Ok(Err(error)) => {
            let body = format!("Bad Request: the body could not be read: {error}\n");
            Err(closing(respond::text(StatusCode::BAD_REQUEST, body)))
        }
        Err(_elapsed) => {
            let seconds = BODY_TIMEOUT.as_secs();
            let body = format!("The body did not arrive within {seconds} seconds.\n");
            Err(closing(respond::text(StatusCode::REQUEST_TIMEOUT, body)))
        }
    }
}

fn too_large(max_len: usize) -> Response {
    let body = format!("The body is too long: at most {max_len} bytes are accepted here.\n");
    closing(respond::text(StatusCode::PAYLOAD_TOO_LARGE, body))
}

/// The rest of the body is still on its way, so the connection can't be used again.
fn closing(response: Response) -> Response {
    respond::with_header(
        response,
        header::CONNECTION,
        HeaderValue::from_static("close"),
    )
}
