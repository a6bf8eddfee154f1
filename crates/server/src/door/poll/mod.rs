//! `/connection/poll`: a session in both directions over requests that are answered as soon as there is
//! something to say (`docs/long-polling.md`).
//!
//! What the hub says is kept until the client has acknowledged it, and frames of commands are numbered:
//! so a request may be repeated whenever its answer got lost. A session is looked after by a task of its
//! own on the worker where it began ([`keeper`]); requests may come to any worker, and reach it through
//! the mailbox ([`requests`]). Tunnels are carried by sessions of the same kind, behind which there is no hub
//! but a server of the operator's own (`door/tunnel`).

pub(crate) mod head;
pub(crate) mod intake;
pub(crate) mod keeper;
pub(crate) mod requests;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::json;
use tautline_hub::{Frame, Now, SessionId, Transport};
use tautline_protocol::{Disconnect, Encoding};
use tokio::sync::oneshot;

use self::head::Ask;
use self::keeper::{Answer, Outcome, Pad};
use self::requests::Kind;
use super::address::Place;
use super::entry::{Commands, Entry, Refused, Response, Seat, bad_request, frame};
use super::gate;
use super::plain::{self, Publisher};
use super::streams::encoding;
use crate::http::RequestBody;
use crate::http::respond::{self, Reply, ReplyBody};
use crate::worker::State;
use crate::worker::stream::Stream;
use crate::worker::voice::Framing;

/// `POST /connection/poll`.
pub(crate) async fn respond(
    entry: &Entry<'_>,
    request: Request<RequestBody>,
) -> Result<Reply, Refused> {
    if request.method() != Method::POST {
        return Err(gate::other_method(request.method(), "POST, OPTIONS"));
    }
    let encoding = encoding(&request);
    let kind = Kind::Protocol(encoding);
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let (ask, data) = requests::read(entry, body).await?;
    if ask.is_of_tunnels() {
        let problem = "protocols (but with ws), code and reason are for tunnels, and this is none";
        return Err(bad_request(problem));
    }
    // Before anything is done with it.
    frame(encoding, &data)?;
    match ask {
        Ask::Open {
            plain: Some(query),
            protocols,
        } => open_plain(entry, encoding, &data, &query, &protocols, &headers),
        Ask::Open { .. } => open(entry, encoding, &data),
        Ask::Poll {
            session,
            number,
            hold,
            goes_on,
        } => {
            let place = requests::find(entry, kind, "", &session)?;
            requests::poll(entry, kind, place, number, hold, goes_on).await
        }
        Ask::Send { session, number } => {
            let place = requests::find(entry, kind, "", &session)?;
            let sent = send(entry, place, encoding, number, data).await;
            sent.map(Reply::Now)
        }
        Ask::Close { session, .. } => {
            let place = requests::find(entry, kind, "", &session)?;
            let closed = requests::close(entry, kind, place, None).await;
            closed.map(Reply::Now)
        }
    }
}

/// Begins a session of the protocol's.
fn open(entry: &Entry<'_>, encoding: Encoding, commands: &Bytes) -> Result<Reply, Refused> {
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
    let seat = entry.open(transport, stream, Commands::Numbered, first)?;
    let waits = !commands.is_empty();
    keep(entry, encoding, seat, None, waits)
}

/// Begins a session of a client that would speak as one of `/ws` does.
fn open_plain(
    entry: &Entry<'_>,
    encoding: Encoding,
    data: &Bytes,
    query: &str,
    protocols: &[String],
    headers: &HeaderMap,
) -> Result<Reply, Refused> {
    if !entry.doors.options.plain {
        return Err(
            respond::text(StatusCode::NOT_FOUND, "/ws is shut here (doors.plain).\n").into(),
        );
    }
    if encoding != Encoding::Json || !data.is_empty() {
        let problem =
            "a session of /ws is opened with no data, as anything but application/octet-stream";
        return Err(bad_request(problem));
    }
    let offered = protocols.iter().map(String::as_str);
    let cookies_count = gate::cookies_count(&entry.doors.origins, headers);
    let cookie = || cookies_count.then(|| plain::cookie_of(headers)).flatten();
    let plain::Greeting {
        commands,
        voice,
        publisher,
    } = plain::greet(Some(query), offered, cookie).map_err(|error| bad_request(&error))?;
    let stream = Stream::new(encoding, Framing::Lines).with_voice(voice);
    let seat = entry.open(
        Transport::one_way("poll", encoding),
        stream.retaining(),
        Commands::Numbered,
        Frame::Json(&commands),
    )?;
    keep(entry, encoding, seat, Some(publisher), false)
}

/// Has a session kept, and tells its client of it; with the first messages, if it `waits` for them. The keeper is there
/// before anybody can ask for it.
fn keep(
    entry: &Entry<'_>,
    encoding: Encoding,
    seat: Seat,
    publisher: Option<Publisher>,
    waits: bool,
) -> Result<Reply, Refused> {
    let patience = entry.doors.options.poll_timeout;
    let place = Place {
        worker: entry.index,
        id: seat.id,
    };
    let kind = Kind::Protocol(encoding);
    keeper::begin(seat, kind, patience, publisher);
    let mut head = json!({
        "session": &*entry.doors.addresses.name(place).session,
        "next": 0,
        "idle": patience.as_secs(),
        "stream": true,
    });
    if !waits {
        let response = requests::messages(kind, head, &Answer::default());
        return Ok(Reply::Now(response));
    }
    let answered = requests::wait(entry, kind, place, 0, head::HOLD)?;
    Ok(Reply::Later(Box::pin(async move {
        match answered.await {
            Ok(answer) => {
                head["next"] = answer.next.into();
                requests::messages(kind, head, &answer)
            }
            Err(refusal) => (*refusal).map(ReplyBody::Whole),
        }
    })))
}

/// Has a session execute what its client has sent.
fn execute(now: Now, state: &mut State, pad: &Pad, id: SessionId, encoding: Encoding, data: &[u8]) {
    let State {
        hub, connections, ..
    } = state;
    if !hub.charge_input(now, id, data.len(), connections) {
        return;
    }
    if pad.borrow().speaks_protocol() {
        return match frame(encoding, data) {
            Ok(frame) => hub.receive(now, id, frame, connections),
            Err(_) => hub.disconnect(now, id, Disconnect::BAD_REQUEST, connections),
        };
    }
    // One command at a time: each is longer than its line by the name of the channel, which may be as long as a body, and
    // there may be a line for every two bytes.
    for line in data.split(|byte| *byte == b'\n') {
        let heard = pad.borrow_mut().hear(line);
        match heard {
            Some(Ok(command)) => hub.receive(now, id, Frame::Json(&command), connections),
            Some(Err(end)) => return hub.disconnect(now, id, end, connections),
            None => return,
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
) -> Result<Response, Refused> {
    requests::check_sent(&data, "commands")?;
    let (answer, answered) = oneshot::channel();
    requests::call(entry, place, move |now, state| {
        let Some(pad) = Kind::Protocol(encoding).pad(state, place.id) else {
            return;
        };
        let outcome = pad.borrow_mut().number(number);
        if outcome == Outcome::Execute {
            execute(now, state, &pad, place.id, encoding, &data);
        }
        // Nobody to tell any more is nothing to tell.
        let _ = answer.send(outcome);
    })?;
    requests::sent(number, answered.await.unwrap_or(Outcome::Over))
}
