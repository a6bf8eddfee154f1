//! Requests for a tunnel over plain HTTP: a session of long-polling, or the opening of a WebSocket that comes behind
//! other requests of its connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::{
    HeaderValue, Method, Request as HttpRequest, Response as HttpResponse, StatusCode, header,
};
use http_body_util::Full;
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tautline_protocol::Encoding;
use tautline_websocket::proto::handshake::{HttpVersion, Opening, OpeningError, Refusal};
use tokio::task::spawn_local;

use super::asked::{Asked, Request};
use super::held::Held;
use super::socket::{Joined, UPGRADE};
use super::{Carrier, Tunnel, relay};
use crate::door::address::Place;
use crate::door::entry::{Entry, Refused, Response, bad_request};
use crate::door::gate;
use crate::door::poll::head::Ask;
use crate::door::poll::keeper::{self, Answer};
use crate::door::poll::requests::{self, Kind};
use crate::http::RequestBody;
use crate::http::fields::{fields, refused, set_headers};
use crate::http::respond::{self, Reply, ReplyBody};
use crate::http::rewind::Rewind;
use crate::io::Io;
use crate::worker::stream::Stream;
use crate::worker::voice::Framing;

/// Answers a request for a tunnel; `rest` is what its path has behind the name.
pub(crate) async fn respond(
    entry: &Entry<'_>,
    tunnel: &Arc<Tunnel>,
    rest: &str,
    request: HttpRequest<RequestBody>,
) -> Result<Reply, Refused> {
    match *request.method() {
        Method::GET => {
            let opened = open_websocket(entry, tunnel, rest, request).await;
            opened.map(Reply::Now)
        }
        Method::POST => poll(entry, tunnel, rest, request).await,
        _ => Err(gate::other_method(request.method(), "GET, POST, OPTIONS")),
    }
}

/// What a request asks of the server behind.
fn ask(
    entry: &Entry<'_>,
    tunnel: &Tunnel,
    rest: &str,
    parts: &http::request::Parts,
    protocols: Vec<String>,
) -> Result<Asked, Refused> {
    let request = Request {
        rest,
        query: parts.uri.query(),
        protocols,
        cookies_count: gate::cookies_count(&entry.doors.origins, &parts.headers),
        address: entry.address,
    };
    Asked::new(tunnel, request, fields(&parts.headers)).map_err(|refusal| refusing(&refusal))
}

async fn poll(
    entry: &Entry<'_>,
    tunnel: &Arc<Tunnel>,
    rest: &str,
    request: HttpRequest<RequestBody>,
) -> Result<Reply, Refused> {
    let (parts, body) = request.into_parts();
    let (asks, data) = requests::read(entry, body).await?;
    let find = |session: &str| requests::find(entry, Kind::Tunnel, &tunnel.options.name, session);
    let response = match asks {
        Ask::Open { .. } if !data.is_empty() => {
            let problem = "a tunnel's session is opened with no data behind the line: send it once the session is there";
            Err(bad_request(problem))
        }
        Ask::Open { plain: Some(_), .. } => {
            let problem = "ws is for /connection/poll: a session here is the tunnel's";
            Err(bad_request(problem))
        }
        Ask::Open { protocols, .. } => {
            let asked = ask(entry, tunnel, rest, &parts, protocols)?;
            open(entry, tunnel, asked).await
        }
        Ask::Poll {
            session,
            number,
            hold,
            goes_on,
        } => {
            let place = find(&session)?;
            return requests::poll(entry, Kind::Tunnel, place, number, hold, goes_on).await;
        }
        Ask::Send { session, number } => {
            let place = find(&session)?;
            requests::offer(entry, place, number, data).await
        }
        Ask::Close {
            session,
            code,
            reason,
        } => {
            let place = find(&session)?;
            let close = code.map(|code| (code, reason));
            requests::close(entry, Kind::Tunnel, place, close).await
        }
    };
    response.map(Reply::Now)
}

/// Begins a session: the server behind has opened its WebSocket before the client hears of it.
async fn open(entry: &Entry<'_>, tunnel: &Arc<Tunnel>, asked: Asked) -> Result<Response, Refused> {
    let permits = entry.admit()?;
    let far = asked
        .dial(tunnel, &entry.doors.admission)
        .await
        .map_err(|refusal| refusing(&refusal))?;
    let patience = entry.doors.options.poll_timeout;
    let stream = Stream::new(Encoding::Protobuf, Framing::Lengths).retaining();
    let stream = Rc::new(RefCell::new(stream));
    let (id, pad) = keeper::begin_tunnel(entry.worker, stream, patience, permits);
    let place = Place {
        worker: entry.index,
        id,
    };
    let mut head = json!({
        "session": &*entry.doors.tunnel_addresses.name_of(place, &tunnel.options.name).session,
        "next": 0,
        "idle": patience.as_secs(),
        "stream": true,
    });
    if let Some(protocol) = &far.subprotocol {
        head["protocol"] = protocol.as_str().into();
    }
    let number = tunnel.counts.opened(Carrier::Poll);
    let near = Held::new(pad, tunnel.message_size());
    let (stage, guest) = (entry.stage.clone(), entry.guests.enter());
    let relayed = entry.worker.relay();
    spawn_local(async move {
        relay::run(near, far, stage, number, relayed).await;
        drop(guest);
    });
    Ok(requests::messages(Kind::Tunnel, head, &Answer::default()))
}

/// Opens a WebSocket on a connection that has carried other requests.
async fn open_websocket(
    entry: &Entry<'_>,
    tunnel: &Arc<Tunnel>,
    rest: &str,
    mut request: HttpRequest<RequestBody>,
) -> Result<Response, Refused> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let version = match parts.version {
        http::Version::HTTP_11 => HttpVersion::HTTP_11,
        _ => HttpVersion::HTTP_10,
    };
    let opening = match Opening::from_request("GET", version, fields(&parts.headers)) {
        Err(OpeningError::NoUpgrade) => return Err(upgrade_required()),
        Err(error) => return Err(refusing(&error.refusal())),
        Ok(opening) => opening,
    };
    let permits = entry.doors.admission.client_from(entry.address)?;
    let protocols = opening.subprotocols().iter();
    let protocols = protocols.map(|name| (*name).to_owned()).collect();
    let asked = ask(entry, tunnel, rest, &parts, protocols)?;
    let far = asked
        .dial(tunnel, &entry.doors.admission)
        .await
        .map_err(|refusal| refusing(&refusal))?;
    let mut response = HttpResponse::new(ReplyBody::Whole(Full::default()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let acceptance = opening.accept(far.subprotocol.as_deref());
    set_headers(response.headers_mut(), acceptance.headers());
    let (stage, guest) = (entry.stage.clone(), entry.guests.enter());
    let relayed = entry.worker.relay();
    let socket = entry.doors.admission.socket_goes_on();
    spawn_local(async move {
        let parts = upgrade.await.map(Upgraded::downcast::<TokioIo<Rewind<Io>>>);
        // Fails when the connection ended before the response was written.
        if let Ok(Ok(Parts { io, read_buf, .. })) = parts {
            let (mut leftover, io) = io.into_inner().into_parts();
            // What hyper has read comes before what it has not.
            leftover.splice(..0, read_buf);
            let joined = Joined::new(Rewind::new(leftover, io), far, permits);
            joined.serve(stage, relayed).await;
        }
        drop((guest, socket));
    });
    Ok(response)
}

fn refusing(refusal: &Refusal) -> Refused {
    refused(refusal).into()
}

fn upgrade_required() -> Refused {
    let body = "This is a tunnel: open a WebSocket here, or use TautlineSocket of @tautline/client, which goes \
                by plain HTTP where none gets through.\n";
    let mut response = respond::text(StatusCode::UPGRADE_REQUIRED, body);
    for (name, value) in UPGRADE {
        response.headers_mut().insert(name, value);
    }
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.into()
}
