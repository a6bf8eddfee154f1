//! `/connection/poll`: a session in both directions over requests that are answered as soon as there is
//! something to say (`docs/long-polling.md`).
//!
//! What the hub says is kept until the client has acknowledged it, and frames of commands are numbered:
//! so a request may be repeated whenever its answer got lost. A session is looked after by a task of its
//! own on the worker where it began ([`keeper`]); requests may come to any worker, and reach it through
//! the mailbox.

mod head;
pub(crate) mod keeper;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame as BodyFrame};
use serde_json::json;
use tautline_hub::{Now, Transport};
use tautline_protocol::{Disconnect, Encoding};
use tokio::sync::oneshot;

use self::head::Ask;
use self::keeper::{Answer, Asker, Outcome, Pad, Parting, Parts, Unanswered};
use super::address::Place;
use super::entry::{Commands, Entry, Refused, Response, UNBUFFERED, bad_request, frame};
use super::gate;
use super::streams::{LINES, PROTOBUF, encoding, read};
use crate::http::RequestBody;
use crate::http::line::StreamGuard;
use crate::http::respond::{self, ReplyBody, SessionOver};
use crate::worker::State;
use crate::worker::stream::Stream;
use crate::worker::voice::Framing;

/// `POST /connection/poll`.
pub(crate) async fn respond(
    entry: &Entry<'_>,
    request: Request<RequestBody>,
) -> Result<Response, Refused> {
    if request.method() != Method::POST {
        return Err(gate::other_method(request.method(), "POST, OPTIONS"));
    }
    let encoding = encoding(&request);
    let body = read(entry, request).await?;
    let (ask, data) = head::parse(&body).map_err(|error| bad_request(&error))?;
    // Before anything is done with it.
    frame(encoding, &data)?;
    match ask {
        Ask::Open => open(entry, encoding, &data).await,
        Ask::Poll {
            session,
            number,
            hold,
            goes_on: true,
        } => {
            let place = find(entry, &session)?;
            listen(entry, place, encoding, number, hold).await
        }
        Ask::Poll {
            session,
            number,
            hold,
            goes_on: false,
        } => {
            let place = find(entry, &session)?;
            let answer = poll(entry, place, encoding, number, hold).await?;
            let head = json!({"next": answer.next});
            Ok(messages(encoding, head, &answer))
        }
        Ask::Send { session, number } => {
            let place = find(entry, &session)?;
            send(entry, place, encoding, number, data).await?;
            Ok(done())
        }
        Ask::Close { session } => {
            let place = find(entry, &session)?;
            close(entry, place).await?;
            Ok(done())
        }
    }
}

/// Begins a session. Its keeper is there before anybody can ask for it.
async fn open(
    entry: &Entry<'_>,
    encoding: Encoding,
    commands: &Bytes,
) -> Result<Response, Refused> {
    let framing = match encoding {
        Encoding::Json => Framing::Lines,
        _ => Framing::Lengths,
    };
    let stream = Stream::new(encoding, framing).retaining();
    let first = match &commands[..] {
        [] => None,
        commands => Some(frame(encoding, commands)?),
    };
    let transport = Transport::new("poll", encoding);
    let patience = entry.doors.options.poll_timeout;
    let seat = entry.open(transport, stream, Commands::Numbered, first)?;
    let place = Place {
        worker: entry.index,
        id: seat.id,
    };
    keeper::begin(seat, patience);
    let mut head = json!({
        "session": &*entry.doors.addresses.name(place).session,
        "next": 0,
        "idle": patience.as_secs(),
        "stream": true,
    });
    let answer = if commands.is_empty() {
        Answer::default()
    } else {
        poll(entry, place, encoding, 0, head::HOLD).await?
    };
    head["next"] = answer.next.into();
    Ok(messages(encoding, head, &answer))
}

/// Waits for what comes behind `number`, for as long as `hold`.
async fn poll(
    entry: &Entry<'_>,
    place: Place,
    encoding: Encoding,
    number: u64,
    hold: Duration,
) -> Result<Answer, Refused> {
    // The connection isn't too old while somebody waits.
    let _guard = entry.line.begin_stream();
    let (answer, answered) = oneshot::channel();
    ask(entry, place, encoding, number, hold, Asker::Once(answer))?;
    match answered.await {
        Ok(answer) => answer.map_err(|why| unanswered(number, why)),
        Err(_) => Err(unknown()),
    }
}

/// Answers at once, with parts as they come, for as long as `hold`.
async fn listen(
    entry: &Entry<'_>,
    place: Place,
    encoding: Encoding,
    number: u64,
    hold: Duration,
) -> Result<Response, Refused> {
    let guard = entry.line.begin_stream();
    let (parts, mut parting) = Parts::new();
    ask(entry, place, encoding, number, hold, Asker::Parts(parts))?;
    let first = match parting.parts.recv().await {
        Some(first) => first.map_err(|why| unanswered(number, why))?,
        None => return Err(unknown()),
    };
    let body = PartsBody {
        first: Some(first),
        parting,
        _guard: guard,
    };
    let mut response = Response::new(ReplyBody::stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type(encoding));
    for (name, value) in UNBUFFERED {
        headers.insert(name, value);
    }
    Ok(response)
}

/// An answer that goes on: each part has its length in its head.
struct PartsBody {
    first: Option<Answer>,
    parting: Parting,
    _guard: StreamGuard,
}

impl Body for PartsBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<BodyFrame<Bytes>>>> {
        let part = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => ready!(self.parting.parts.poll_recv(cx)),
        };
        // Nothing is refused once it has begun.
        let part = part.and_then(Result::ok);
        Poll::Ready(part.map(|part| {
            let head = json!({"next": part.next, "size": part.messages.len()});
            Ok(BodyFrame::data(written(head, &part).into()))
        }))
    }
}

/// Has a session's pad take a poll.
fn ask(
    entry: &Entry<'_>,
    place: Place,
    encoding: Encoding,
    number: u64,
    hold: Duration,
    asker: Asker,
) -> Result<(), Refused> {
    call(entry, place, move |now, state| {
        let Some(pad) = pad_of(state, place, encoding) else {
            return;
        };
        let is_drained = pad.borrow_mut().poll(number, hold, asker);
        if is_drained {
            let State {
                hub, connections, ..
            } = state;
            hub.drained(now, place.id, connections);
        }
    })
}

fn unanswered(number: u64, why: Unanswered) -> Refused {
    match why {
        Unanswered::Overtaken => respond::text(
            StatusCode::CONFLICT,
            "Another poll of this session has begun, which ends this one.\n",
        )
        .into(),
        Unanswered::UnknownNumber { expected } => {
            let (first, last) = expected.into_inner();
            let body = format!(
                "Gone: expected a number from {first} to {last} to poll with; got {number}. What came before \
                 was acknowledged, what comes behind was never told. Begin a new session.\n"
            );
            respond::text(StatusCode::GONE, body).into()
        }
    }
}

/// Has the session execute a frame of commands, unless it has already.
async fn send(
    entry: &Entry<'_>,
    place: Place,
    encoding: Encoding,
    number: u64,
    data: Bytes,
) -> Result<(), Refused> {
    if data.is_empty() {
        return Err(bad_request(
            "expected commands behind the line with \"send\"; there are none",
        ));
    }
    let (answer, answered) = oneshot::channel();
    call(entry, place, move |now, state| {
        let Some(pad) = pad_of(state, place, encoding) else {
            return;
        };
        let outcome = pad.borrow_mut().number(number);
        if outcome == Outcome::Execute {
            let State {
                hub, connections, ..
            } = state;
            match frame(encoding, &data) {
                Ok(frame) => hub.receive(now, place.id, frame, connections),
                Err(_) => hub.disconnect(now, place.id, Disconnect::BAD_REQUEST, connections),
            }
        }
        // Nobody to tell any more is nothing to tell.
        let _ = answer.send(outcome);
    })?;
    match answered.await {
        Ok(Outcome::Execute | Outcome::Done) => Ok(()),
        Ok(Outcome::Missing { expected }) => {
            let body = format!(
                "A frame before this one is missing: expected number {expected}; got {number}. Nothing of \
                 it was executed.\n"
            );
            Err(respond::text(StatusCode::CONFLICT, body).into())
        }
        Ok(Outcome::Over) | Err(_) => Err(unknown()),
    }
}

/// Ends a session.
async fn close(entry: &Entry<'_>, place: Place) -> Result<(), Refused> {
    let (answer, answered) = oneshot::channel();
    call(entry, place, move |now, state| {
        if let Some(pad) = state.pads.get(place.id) {
            pad.borrow_mut().close();
            state.leave(now, place.id);
            let _ = answer.send(());
        }
    })?;
    answered.await.map_err(|_| unknown())
}

/// Has a session's worker do something in a turn.
fn call(
    entry: &Entry<'_>,
    place: Place,
    work: impl FnOnce(Now, &mut State) + Send + 'static,
) -> Result<(), Refused> {
    let mailbox = entry.mailboxes.get(usize::from(place.worker));
    let mailbox = mailbox.ok_or_else(unknown)?;
    mailbox.call(Box::new(work));
    Ok(())
}

fn pad_of(state: &State, place: Place, encoding: Encoding) -> Option<Pad> {
    let pad = state.pads.get(place.id)?;
    let is_its_encoding = pad.borrow().encoding() == encoding;
    is_its_encoding.then_some(pad)
}

fn find(entry: &Entry<'_>, session: &str) -> Result<Place, Refused> {
    entry.doors.addresses.find(session).map_err(|why| {
        tracing::debug!(?why, "a poll for a session that isn't here");
        unknown()
    })
}

fn messages(encoding: Encoding, head: serde_json::Value, answer: &Answer) -> Response {
    let body = written(head, answer);
    let mut response = respond::with_body(StatusCode::OK, content_type(encoding), body.into());
    if answer.end.is_some() {
        response.extensions_mut().insert(SessionOver);
    }
    unstored(response.map(ReplyBody::Whole))
}

/// A head on its line, and the messages.
fn written(mut head: serde_json::Value, answer: &Answer) -> Vec<u8> {
    if let Some(end) = &answer.end {
        head["end"] = json!({"code": end.code, "reason": &*end.reason});
    }
    let mut body = head.to_string().into_bytes();
    body.reserve_exact(1 + answer.messages.len());
    body.push(b'\n');
    body.extend_from_slice(&answer.messages);
    body
}

fn content_type(encoding: Encoding) -> HeaderValue {
    HeaderValue::from_static(match encoding {
        Encoding::Json => LINES,
        _ => PROTOBUF,
    })
}

fn done() -> Response {
    let mut response = Response::new(ReplyBody::Whole(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    unstored(response)
}

fn unstored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn unknown() -> Refused {
    respond::text(
        StatusCode::NOT_FOUND,
        "There is no such session. It may be over, or have another encoding: begin a new one.\n",
    )
    .into()
}
