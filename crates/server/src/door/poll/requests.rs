//! What requests of a session have in common, whatever the session is for: they find its pad on its worker, wait
//! there for an answer, and write it down.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderValue};
use http_body_util::Full;
use hyper::body::{Body, Frame as BodyFrame};
use serde_json::json;
use tautline_hub::{Now, SessionId};
use tautline_protocol::Encoding;
use tokio::sync::oneshot;

use super::super::address::{AddressKey, Place};
use super::super::entry::{Doors, Entry, Refused, Response, UNBUFFERED, bad_request};
use super::super::streams::{LINES, PROTOBUF};
use super::head::{self, Ask};
use super::keeper::{Answer, Asker, Outcome, Pad, Pads, Parting, Parts, Unanswered};
use crate::http::RequestBody;
use crate::http::body;
use crate::http::line::StreamGuard;
use crate::http::respond::{self, Reply, ReplyBody, SessionOver};
use crate::worker::State;

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One of the hub's, in an encoding.
    Protocol(Encoding),
    /// A tunnel.
    Tunnel,
}

impl Kind {
    /// What its sessions' names are made with: those of one kind are nothing to the other.
    fn key(self, doors: &Doors) -> &AddressKey {
        match self {
            Self::Protocol(_) => &doors.addresses,
            Self::Tunnel => &doors.tunnel_addresses,
        }
    }

    pub(super) fn pads(self, state: &mut State) -> &mut Pads {
        match self {
            Self::Protocol(_) => &mut state.pads,
            Self::Tunnel => &mut state.tunnels,
        }
    }

    /// The pad of a session of this kind, if it is there.
    pub(super) fn pad(self, state: &mut State, id: SessionId) -> Option<Pad> {
        let pad = self.pads(state).get(id)?;
        let is_its_encoding = match self {
            Self::Protocol(encoding) => pad.borrow().encoding() == encoding,
            Self::Tunnel => true,
        };
        is_its_encoding.then_some(pad)
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Protocol(Encoding::Json) => LINES,
            Self::Protocol(_) | Self::Tunnel => PROTOBUF,
        })
    }
}

/// Reads a request: what it asks for, and the data behind that.
pub(crate) async fn read(entry: &Entry<'_>, body: RequestBody) -> Result<(Ask, Bytes), Refused> {
    let limit = entry.doors.options.request_size_limit;
    let body = body::read(body, limit).await.map_err(Box::new)?;
    head::parse(&body).map_err(|error| bad_request(&error))
}

/// Where the session of a name is. `owner` is the tunnel's name, where it is one's.
pub(crate) fn find(
    entry: &Entry<'_>,
    kind: Kind,
    owner: &str,
    session: &str,
) -> Result<Place, Refused> {
    kind.key(entry.doors)
        .find_of(session, owner)
        .map_err(|why| {
            tracing::debug!(?why, "a poll for a session that isn't here");
            unknown()
        })
}

/// Waits for what comes behind `number`, for as long as `hold`; or answers at once, with parts as they come, if
/// the answer `goes_on`.
pub(crate) async fn poll(
    entry: &Entry<'_>,
    kind: Kind,
    place: Place,
    number: u64,
    hold: Duration,
    goes_on: bool,
) -> Result<Reply, Refused> {
    if goes_on {
        let listening = listen(entry, kind, place, number, hold).await;
        return listening.map(Reply::Now);
    }
    let answered = wait(entry, kind, place, number, hold)?;
    Ok(Reply::Later(Box::pin(async move {
        match answered.await {
            Ok(answer) => messages(kind, json!({"next": answer.next}), &answer),
            Err(refusal) => (*refusal).map(ReplyBody::Whole),
        }
    })))
}

/// What comes behind `number`, waited for as long as `hold`.
pub(super) fn wait(
    entry: &Entry<'_>,
    kind: Kind,
    place: Place,
    number: u64,
    hold: Duration,
) -> Result<impl Future<Output = Result<Answer, Refused>> + use<>, Refused> {
    // The connection isn't too old while somebody waits.
    let guard = entry.line.begin_stream();
    let (answer, answered) = oneshot::channel();
    ask(entry, kind, place, number, hold, Asker::Once(answer))?;
    Ok(async move {
        let _guard = guard;
        match answered.await {
            Ok(answer) => answer.map_err(|why| unanswered(number, why)),
            Err(_) => Err(unknown()),
        }
    })
}

/// Answers at once, with parts as they come, for as long as `hold`.
async fn listen(
    entry: &Entry<'_>,
    kind: Kind,
    place: Place,
    number: u64,
    hold: Duration,
) -> Result<Response, Refused> {
    let guard = entry.line.begin_stream();
    let (parts, mut parting) = Parts::new();
    ask(entry, kind, place, number, hold, Asker::Parts(parts))?;
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
    headers.insert(header::CONTENT_TYPE, kind.content_type());
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
    kind: Kind,
    place: Place,
    number: u64,
    hold: Duration,
    asker: Asker,
) -> Result<(), Refused> {
    call(entry, place, move |now, state| {
        let Some(pad) = kind.pad(state, place.id) else {
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

/// Has a tunnel's session take a piece of what its client sends, as soon as there is room for it.
pub(crate) async fn offer(
    entry: &Entry<'_>,
    place: Place,
    number: u64,
    data: Bytes,
) -> Result<Response, Refused> {
    check_sent(&data, "messages")?;
    let (answer, mut answered) = oneshot::channel();
    call(entry, place, move |_, state| {
        if let Some(pad) = Kind::Tunnel.pad(state, place.id) {
            pad.borrow_mut().offer(number, data, answer);
        }
    })?;
    let outcome = match tokio::time::timeout(SEND_HOLD, &mut answered).await {
        Ok(outcome) => outcome.unwrap_or(Outcome::Over),
        Err(_elapsed) => Outcome::Waits,
    };
    sent(number, outcome)
}

/// Ends a session; `close` is what its client says of that, if anything.
pub(crate) async fn close(
    entry: &Entry<'_>,
    kind: Kind,
    place: Place,
    close: Option<(u16, String)>,
) -> Result<Response, Refused> {
    let (answer, answered) = oneshot::channel();
    call(entry, place, move |now, state| {
        if let Some(pad) = kind.pads(state).get(place.id) {
            pad.borrow_mut().close(close);
            if let Kind::Protocol(_) = kind {
                state.leave(now, place.id);
            }
            let _ = answer.send(());
        }
    })?;
    answered.await.map_err(|_| unknown())?;
    Ok(done())
}

/// Has a session's worker do something in a turn.
pub(super) fn call(
    entry: &Entry<'_>,
    place: Place,
    work: impl FnOnce(Now, &mut State) + Send + 'static,
) -> Result<(), Refused> {
    let mailbox = entry.mailboxes.get(usize::from(place.worker));
    let mailbox = mailbox.ok_or_else(unknown)?;
    mailbox.call(Box::new(work));
    Ok(())
}

/// That there is something behind the line of a `send`.
pub(super) fn check_sent(data: &Bytes, what: &str) -> Result<(), Refused> {
    if data.is_empty() {
        let problem = format!("expected {what} behind the line with \"send\"; there are none");
        return Err(bad_request(&problem));
    }
    Ok(())
}

/// What a `send` is answered with.
pub(super) fn sent(number: u64, outcome: Outcome) -> Result<Response, Refused> {
    match outcome {
        Outcome::Execute | Outcome::Done => Ok(done()),
        Outcome::Waits => {
            let body = "There is no room yet. Send the same again.\n";
            let response = respond::text(StatusCode::ACCEPTED, body);
            Ok(unstored(response.map(ReplyBody::Whole)))
        }
        Outcome::Missing { expected } => {
            let body = format!(
                "A frame before this one is missing: expected number {expected}; got {number}. Nothing of \
                 it was executed.\n"
            );
            Err(respond::text(StatusCode::CONFLICT, body).into())
        }
        Outcome::Over => Err(unknown()),
    }
}

/// An answer with messages.
pub(crate) fn messages(kind: Kind, head: serde_json::Value, answer: &Answer) -> Response {
    let body = written(head, answer);
    let mut response = respond::with_body(StatusCode::OK, kind.content_type(), body.into());
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

/// 404: there is no such session.
pub(super) fn unknown() -> Refused {
    respond::text(
        StatusCode::NOT_FOUND,
        "There is no such session. It may be over, or have another encoding: begin a new one.\n",
    )
    .into()
}

/// How long a `send` waits for room, before its client is told to send it again.
const SEND_HOLD: Duration = Duration::from_secs(5);
