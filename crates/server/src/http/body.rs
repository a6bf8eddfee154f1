//! A request's body, and reading it within limits of size and time.

use std::cell::Cell;
use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tautline_websocket::conn::http2::Http2Body;

use super::respond::{self, Response};

/// How long a body may take to arrive.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The body of a request, whichever version of HTTP it came in.
#[derive(Debug)]
pub struct RequestBody(Kind);

#[derive(Debug)]
enum Kind {
    Http1 {
        body: Incoming,
        /// Set when all of it was read.
        is_read: Option<Rc<Cell<bool>>>,
    },
    Http2 {
        body: Http2Body,
        /// What the head says; that it is true, the library sees to.
        length: Option<u64>,
    },
}

impl RequestBody {
    /// The body of a request in HTTP/2 with this head.
    pub(super) fn http2(body: Http2Body, headers: &HeaderMap) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self(Kind::Http2 { body, length })
    }
}

impl RequestBody {
    /// A body in HTTP/1 that tells when all of it was read.
    pub(super) fn watched(body: Incoming, is_read: Rc<Cell<bool>>) -> Self {
        let is_read = Some(is_read);
        Self(Kind::Http1 { body, is_read })
    }
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        let is_read = None;
        Self(Kind::Http1 { body, is_read })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.get_mut().0 {
            Kind::Http1 { body, is_read } => {
                let polled = Pin::new(body).poll_frame(cx);
                if let (Poll::Ready(None), Some(is_read)) = (&polled, is_read) {
                    is_read.set(true);
                }
                polled.map_err(Into::into)
            }
            Kind::Http2 { body, .. } => body
                .poll_data(cx)
                .map(|data| data.map(|data| data.map(Frame::data).map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Http1 { body, .. } => body.is_end_stream(),
            Kind::Http2 { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Http1 { body, .. } => body.size_hint(),
            Kind::Http2 { length, .. } => length.map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}

/// The whole body, or the answer to one that is too long, too slow, or breaks off.
pub(crate) async fn read(body: RequestBody, max_len: usize) -> Result<Bytes, Response> {
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
