//! HTTP streaming and server-sent events: a response that goes on for as long as the client listens.
//!
//! The bidirectional ones carry the protocol as it is; further commands come by `/emulation`. Those
//! that go one way tell pushes alone, as [`Uni`] puts them.

use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Request, header};
use tautline_hub::Transport;
use tautline_protocol::Encoding;

use super::entry::{Commands, Entry, Refused, Response, bad_request, frame};
use super::gate;
use super::uni::{self, Met, Uni};
use crate::http::RequestBody;
use crate::http::body;
use crate::http::query::Query;
use crate::worker::stream::Stream;
use crate::worker::voice::Framing;

/// What makes a body Protobuf, all else being JSON.
pub(crate) const PROTOBUF: &str = "application/octet-stream";
/// What makes it lines of JSON.
pub(crate) const LINES: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream; charset=utf-8";

/// What a stream of events begins with, so that the client sees at once that it is open.
const FIRST_BYTES: &[u8] = b"\r\n";

/// The parameter with what would be the body of a `POST`.
const CONNECT: &str = "cf_connect";

type Answer = Result<Response, Refused>;

/// `POST /connection/http_stream`.
pub(crate) async fn http_stream(entry: &Entry<'_>, request: Request<RequestBody>) -> Answer {
    if request.method() != Method::POST {
        return Err(gate::other_method(request.method(), "POST, OPTIONS"));
    }
    let version = request.version();
    let encoding = encoding(&request);
    let body = read(entry, request).await?;
    let (framing, content_type) = match encoding {
        Encoding::Json => (Framing::Lines, LINES),
        _ => (Framing::Lengths, PROTOBUF),
    };
    let stream = Stream::new(encoding, framing).with_line(Rc::clone(entry.line));
    let transport = Transport::new("http_stream", encoding);
    let seat = entry.open(transport, stream, Commands::Beside, frame(encoding, &body)?)?;
    Ok(entry.listen(seat, content_type, version))
}

/// `GET /connection/sse?cf_connect=…`, or `POST` with the same as its body.
pub(crate) async fn sse(entry: &Entry<'_>, request: Request<RequestBody>) -> Answer {
    let version = request.version();
    let commands = match *request.method() {
        Method::GET => parameter(&request)?.ok_or_else(|| {
            bad_request(
                "expected a command to connect in the parameter cf_connect, such as \
                 ?cf_connect=%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D; it isn't there",
            )
        })?,
        Method::POST => text(read(entry, request).await?.into())?,
        _ => return Err(gate::other_method(request.method(), "GET, POST, OPTIONS")),
    };
    let transport = Transport::new("sse", Encoding::Json);
    let frame = frame(Encoding::Json, commands.as_bytes())?;
    let seat = entry.open(transport, events(entry), Commands::Beside, frame)?;
    Ok(entry.listen(seat, EVENTS, version))
}

/// `POST /connection/uni_http_stream`.
pub(crate) async fn uni_http_stream(entry: &Entry<'_>, request: Request<RequestBody>) -> Answer {
    if request.method() != Method::POST {
        return Err(gate::other_method(request.method(), "POST, OPTIONS"));
    }
    let version = request.version();
    let connect = text(read(entry, request).await?.into())?;
    let stream = Stream::new(Encoding::Json, Framing::Lines).with_line(Rc::clone(entry.line));
    uni(entry, "uni_http_stream", stream, &connect, LINES, version).await
}

/// `GET /connection/uni_sse?cf_connect=…`, or `POST` with the same as its body.
pub(crate) async fn uni_sse(entry: &Entry<'_>, request: Request<RequestBody>) -> Answer {
    let version = request.version();
    let connect = match *request.method() {
        Method::GET => parameter(&request)?.unwrap_or_default(),
        Method::POST => text(read(entry, request).await?.into())?,
        _ => return Err(gate::other_method(request.method(), "GET, POST, OPTIONS")),
    };
    let stream = Stream::new(Encoding::Json, Framing::Events).with_line(Rc::clone(entry.line));
    uni(entry, "uni_sse", stream, &connect, EVENTS, version).await
}

async fn uni(
    entry: &Entry<'_>,
    name: &'static str,
    stream: Stream,
    connect: &str,
    content_type: &'static str,
    version: http::Version,
) -> Answer {
    let command = uni::connect_command(connect).map_err(|error| bad_request(&error))?;
    let rules = &entry.doors.uni;
    let met = rules.responses.is_some().then(Met::default);
    let voice = Uni::of_stream(Arc::clone(rules), met.clone());
    let stream = stream.with_voice(Box::new(voice));
    let transport = Transport::one_way(name, Encoding::Json);
    let frame = tautline_hub::Frame::Json(&command);
    let seat = entry.open(transport, stream, Commands::None, frame)?;
    if let Some(met) = met {
        seat.news().await;
        if let Some(Some(refusing)) = met.get() {
            return Err(rules.response(refusing));
        }
    }
    if content_type == EVENTS {
        seat.stream.borrow_mut().push_first(FIRST_BYTES.into());
    }
    Ok(entry.listen(seat, content_type, version))
}

fn events(entry: &Entry<'_>) -> Stream {
    let mut stream = Stream::new(Encoding::Json, Framing::Events).with_line(Rc::clone(entry.line));
    stream.push_raw(FIRST_BYTES.into());
    stream
}

/// What a body is written in, as its type says.
pub(crate) fn encoding<B>(request: &Request<B>) -> Encoding {
    let is_protobuf = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value == PROTOBUF);
    if is_protobuf {
        Encoding::Protobuf
    } else {
        Encoding::Json
    }
}

/// The whole body of a request, within the limit.
pub(crate) async fn read(
    entry: &Entry<'_>,
    request: Request<RequestBody>,
) -> Result<bytes::Bytes, Refused> {
    let limit = entry.doors.options.request_size_limit;
    body::read(request.into_body(), limit)
        .await
        .map_err(Box::new)
}

fn text(body: Vec<u8>) -> Result<String, Refused> {
    String::from_utf8(body)
        .map_err(|_| bad_request("expected JSON, which is UTF-8; got bytes which aren't"))
}

fn parameter(request: &Request<RequestBody>) -> Result<Option<String>, Refused> {
    let query = Query::parse(request.uri().query()).map_err(|error| bad_request(&error))?;
    Ok(query.first(CONNECT).map(str::to_owned))
}
