//! Responses, in the few shapes that there are.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

/// What every handler answers with: a body that is complete.
pub(crate) type Response = http::Response<Full<Bytes>>;

/// Among a response's extensions it says that the client is told of the end of its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionOver;

/// Among a response's extensions it says that its bytes are there anyway, for everybody: they take no memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared;

/// What a request is answered with.
pub enum Reply {
    /// This, now.
    Now(http::Response<ReplyBody>),
    /// Something that has to be waited for. What waits holds nothing of the request, and little else: there may be many
    /// who do.
    Later(Answering),
}

/// An answer that is waited for. Dropped, it is given up.
pub type Answering = Pin<Box<dyn Future<Output = http::Response<ReplyBody>>>>;

impl Reply {
    /// The same with the response changed, when it is there.
    pub(crate) fn then(
        self,
        change: impl FnOnce(&mut http::Response<ReplyBody>) + 'static,
    ) -> Self {
        match self {
            Self::Now(mut response) => {
                change(&mut response);
                Self::Now(response)
            }
            Self::Later(answering) => Self::Later(Box::pin(async move {
                let mut response = answering.await;
                change(&mut response);
                response
            })),
        }
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self::Now(response.map(ReplyBody::Whole))
    }
}

/// The body of whatever the server answers with.
pub enum ReplyBody {
    /// All of it.
    Whole(Full<Bytes>),
    /// What there is so far, and more as it comes.
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = io::Error>>>),
}

impl ReplyBody {
    /// The bytes of a whole one, to be changed for others that are the same.
    pub(crate) fn whole_mut(&mut self) -> Option<&mut Full<Bytes>> {
        match self {
            Self::Whole(body) => Some(body),
            Self::Stream(_) => None,
        }
    }

    /// A body that goes on.
    pub fn stream(body: impl Body<Data = Bytes, Error = io::Error> + 'static) -> Self {
        Self::Stream(Box::pin(body))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// Text for a person: one helpful line, or a few.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    with_body(
        status,
        HeaderValue::from_static("text/plain; charset=utf-8"),
        body.into(),
    )
}

/// JSON for a program.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    with_body(
        status,
        HeaderValue::from_static("application/json"),
        body.into(),
    )
}

/// A body of any other type.
pub(crate) fn with_body(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// 405, with the methods that would do (RFC 9110 §15.5.6 wants them named).
pub(crate) fn method_not_allowed(allowed: &'static str) -> Response {
    let body = format!("This path answers to {allowed} only.\n");
    with_header(
        text(StatusCode::METHOD_NOT_ALLOWED, body),
        header::ALLOW,
        HeaderValue::from_static(allowed),
    )
}

/// The same response with one more header.
pub(crate) fn with_header(
    mut response: Response,
    name: HeaderName,
    value: HeaderValue,
) -> Response {
    response.headers_mut().insert(name, value);
    response
}

/// Sets what every response carries: browsers must not guess at types, and other sites must not
/// learn where a link was followed from.
pub(crate) fn harden(headers: &mut HeaderMap) {
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
}
