//! `/events` and `/lines`: responses that go on, for an `EventSource` and for `curl`.

use std::rc::Rc;

use http::{Method, Request, StatusCode};
use tautline_hub::{Frame, Transport};
use tautline_protocol::Encoding;
use tokio::sync::oneshot;

use super::super::entry::{Commands, Entry, Refused, Response, bad_request};
use super::super::gate;
use super::voice::Plain;
use super::wanted::{REPEATED, Wanted, check_names, token};
use crate::http::RequestBody;
use crate::http::query::Query;
use crate::http::respond;
use crate::worker::stream::Stream;
use crate::worker::voice::Framing;

const PARAMETERS: [&str; 4] = ["channel", "since", "envelope", "token"];

/// `GET /events?channel=…`: server-sent events whose ids are positions.
pub(crate) async fn events(
    entry: &Entry<'_>,
    request: Request<RequestBody>,
) -> Result<Response, Refused> {
    let kind = "text/event-stream; charset=utf-8";
    listen(entry, request, "events", Framing::Events, kind, false).await
}

/// `GET /lines?channel=…`: a line of JSON each.
pub(crate) async fn lines(
    entry: &Entry<'_>,
    request: Request<RequestBody>,
) -> Result<Response, Refused> {
    let kind = "application/x-ndjson";
    listen(entry, request, "lines", Framing::Lines, kind, true).await
}

async fn listen(
    entry: &Entry<'_>,
    request: Request<RequestBody>,
    name: &'static str,
    framing: Framing,
    content_type: &'static str,
    envelope: bool,
) -> Result<Response, Refused> {
    if request.method() != Method::GET {
        return Err(gate::other_method(request.method(), "GET, OPTIONS"));
    }
    let query = Query::parse(request.uri().query()).map_err(|error| bad_request(&error))?;
    check_names(&query, &PARAMETERS, &REPEATED).map_err(|error| bad_request(&error))?;
    let wanted = Wanted::parse(&query, request.headers()).map_err(|error| bad_request(&error))?;
    let cookies_count = gate::cookies_count(&entry.doors.origins, request.headers());
    let token = token(&query, request.headers(), cookies_count);
    let (opening, opened) = oneshot::channel();
    let voice = Plain::new(&wanted, wanted.envelope_or(envelope), Some(opening));
    let stream = Stream::new(Encoding::Json, framing)
        .with_voice(Box::new(voice))
        .with_line(Rc::clone(entry.line));
    let transport = Transport::one_way(name, Encoding::Json);
    let commands = wanted.commands(token.as_deref());
    let seat = entry.open(transport, stream, Commands::None, Frame::Json(&commands))?;
    // What comes of it decides the status, by which a browser knows whether to come back.
    match opened.await {
        Ok(Ok(())) => Ok(entry.listen(seat, content_type, request.version())),
        Ok(Err(refusal)) => Err(refusal.to_response()),
        Err(_) => Err(respond::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "The server is about to end. Try again later.\n",
        )
        .into()),
    }
}
