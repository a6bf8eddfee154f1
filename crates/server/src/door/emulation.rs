//! `/emulation`: commands for sessions whose connection carries messages in one direction only.
//!
//! The request may come to any worker; what is in it goes to the session's, through its mailbox.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use tautline_protocol::{Disconnect, Encoding, protobuf};
use tokio::sync::oneshot;

use super::address::{Place, Unreachable};
use super::entry::{Entry, Refused, Response, bad_request, frame};
use super::gate;
use super::streams::{encoding, read};
use crate::http::RequestBody;
use crate::http::respond::{self, ReplyBody};
use crate::worker::State;

/// What a client sends.
#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Envelope {
    #[serde(default)]
    session: String,
    #[serde(default)]
    node: String,
    /// A frame of commands: in JSON a string that holds them.
    #[serde(default)]
    data: String,
}

/// `POST /emulation`.
pub(crate) async fn respond(
    entry: &Entry<'_>,
    request: Request<RequestBody>,
) -> Result<Response, Refused> {
    if request.method() != Method::POST {
        return Err(gate::other_method(request.method(), "POST, OPTIONS"));
    }
    let encoding = encoding(&request);
    let body = read(entry, request).await?;
    let (session, node, data) = match encoding {
        Encoding::Json => {
            let Envelope {
                session,
                node,
                data,
            } = serde_json::from_slice(&body).map_err(|error| {
                bad_request(&format!(
                    r#"expected {{"session":"…","node":"…","data":"…"}}, the commands in a string: {error}"#
                ))
            })?;
            (session, node, Bytes::from(data))
        }
        _ => {
            let envelope = protobuf::decode_emulation(&body)
                .map_err(|error| bad_request(&format!("expected an EmulationRequest: {error}")))?;
            let data = body.slice_ref(envelope.data);
            (envelope.session.to_owned(), envelope.node.to_owned(), data)
        }
    };
    // The node's name is in the session's as well, where nobody can have changed it.
    if !node.is_empty() && session.split_once('.').map(|(named, _)| named) != Some(&node) {
        return Err(unknown());
    }
    let place = entry.doors.addresses.find(&session).map_err(|why| {
        match why {
            Unreachable::OtherNode => tracing::debug!("commands for a session of another node"),
            Unreachable::Forged => tracing::debug!("commands for a session that can't be"),
        }
        unknown()
    })?;
    frame(encoding, &data)?;
    hand_over(entry, place, encoding, data).await?;
    let mut response = Response::new(ReplyBody::Whole(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Has the session's worker execute commands.
async fn hand_over(
    entry: &Entry<'_>,
    place: Place,
    encoding: Encoding,
    data: Bytes,
) -> Result<(), Refused> {
    let mailbox = entry
        .mailboxes
        .get(usize::from(place.worker))
        .ok_or_else(unknown)?;
    let (answer, answered) = oneshot::channel();
    mailbox.call(Box::new(move |now, state: &mut State| {
        let State {
            hub, connections, ..
        } = state;
        let stream = connections.stream(place.id);
        let is_there = stream.is_some_and(|stream| {
            let stream = stream.borrow();
            stream.takes_commands() && stream.encoding() == encoding
        });
        if is_there && hub.charge_input(now, place.id, data.len(), connections) {
            match frame(encoding, &data) {
                Ok(frame) => hub.receive(now, place.id, frame, connections),
                Err(_) => hub.disconnect(now, place.id, Disconnect::BAD_REQUEST, connections),
            }
        }
        // Nobody to tell any more is nothing to tell.
        let _ = answer.send(is_there);
    }));
    match answered.await {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(unknown()),
    }
}

fn unknown() -> Refused {
    respond::text(
        StatusCode::NOT_FOUND,
        "There is no such session. It may be over: connect again.\n",
    )
    .into()
}
