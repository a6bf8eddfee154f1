//! The doors that are made of plain HTTP: which request is for which of them, and what they share.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, StatusCode, Version};
use hyper::body::{Body, Frame as BodyFrame};
use tautline_hub::{Frame, SessionId, Transport};
use tautline_protocol::Encoding;
use tokio::sync::watch;

use super::address::{AddressKey, Place};
use super::admission::{Admission, Permit, Permits};
use super::gate;
use super::tunnel::{self, Tunnels};
use super::uni::UniRules;
use super::{emulation, plain, poll, streams};
use crate::config::DoorOptions;
use crate::drain::Stage;
use crate::embed;
use crate::http::line::{HttpLine, StreamGuard};
use crate::http::origin::OriginPolicy;
use crate::http::respond::{self, Reply, ReplyBody};
use crate::http::{PLAIN_PATH, RequestBody, upgrade_required_at};
use crate::worker::Worker;
use crate::worker::connection_log::Failed;
use crate::worker::guests::Guests;
use crate::worker::stream::Stream;

pub(crate) type Response = http::Response<ReplyBody>;

/// The answer to a request that comes to nothing.
pub(crate) type Refused = Box<respond::Response>;

/// What the doors of all workers have in common.
pub(crate) struct Doors {
    pub(crate) options: DoorOptions,
    pub(crate) origins: OriginPolicy,
    pub(crate) addresses: AddressKey,
    /// The same for sessions of tunnels.
    pub(crate) tunnel_addresses: AddressKey,
    pub(crate) uni: Arc<UniRules>,
    /// Who may come in.
    pub(crate) admission: Arc<Admission>,
    /// When browsers come back that were refused for now.
    reconnects: Arc<plain::Reconnects>,
}

impl Doors {
    pub(crate) fn new(
        options: DoorOptions,
        origins: OriginPolicy,
        addresses: AddressKey,
        uni: Arc<UniRules>,
        admission: Arc<Admission>,
    ) -> Self {
        Self {
            options,
            origins,
            tunnel_addresses: addresses.for_purpose("tunnel"),
            addresses,
            uni,
            admission,
            reconnects: Arc::default(),
        }
    }

    /// The same doors by other options.
    pub(crate) fn succeed(
        &self,
        options: DoorOptions,
        origins: OriginPolicy,
        uni: Arc<UniRules>,
    ) -> Self {
        Self {
            options,
            origins,
            uni,
            addresses: self.addresses.clone(),
            tunnel_addresses: self.tunnel_addresses.clone(),
            admission: Arc::clone(&self.admission),
            reconnects: Arc::clone(&self.reconnects),
        }
    }
}

/// The way in from one request.
pub(crate) struct Entry<'a> {
    /// Whom the request is from, where that is known.
    pub(crate) address: Option<IpAddr>,
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) index: u16,
    pub(crate) doors: &'a Arc<Doors>,
    pub(crate) tunnels: &'a Tunnels,
    pub(crate) mailboxes: &'a [Arc<crate::worker::mailbox::WorkerMailbox>],
    /// Kept for handlers, where there are any.
    pub(crate) request: Option<Arc<embed::Request>>,
    /// Who it is, if the request says so and is to be believed.
    pub(crate) user: Option<Arc<str>>,
    /// The connection below.
    pub(crate) line: &'a Rc<HttpLine>,
    /// Counts what the worker waits for before it ends.
    pub(crate) guests: &'a Rc<Guests>,
    /// How far the node is on its way out.
    pub(crate) stage: &'a watch::Receiver<Stage>,
}

/// The doors, by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    HttpStream,
    Sse,
    Poll,
    Emulation,
    UniHttpStream,
    UniSse,
    Events,
    Lines,
    History,
    Publish,
}

impl Door {
    fn at(path: &str, options: &DoorOptions) -> Option<Self> {
        let (door, is_open) = match path {
            "/connection/http_stream" => (Self::HttpStream, options.http_stream),
            "/connection/sse" => (Self::Sse, options.sse),
            "/connection/poll" => (Self::Poll, options.poll),
            "/emulation" => (Self::Emulation, options.http_stream || options.sse),
            "/connection/uni_http_stream" => (Self::UniHttpStream, options.unidirectional),
            "/connection/uni_sse" => (Self::UniSse, options.unidirectional),
            "/events" => (Self::Events, options.plain),
            "/lines" => (Self::Lines, options.plain),
            "/history" => (Self::History, options.plain),
            "/publish" => (Self::Publish, options.plain),
            _ => return None,
        };
        is_open.then_some(door)
    }
}

/// Answers a request for one of the doors; gives back one that is for none.
pub(crate) async fn enter(
    entry: Entry<'_>,
    request: Request<RequestBody>,
) -> Result<Reply, Request<RequestBody>> {
    let path = request.uri().path();
    let tunnel = entry.tunnels.find(path);
    let tunnel = tunnel.map(|(tunnel, rest)| (Arc::clone(tunnel), rest.to_owned()));
    let door = Door::at(path, &entry.doors.options);
    if door.is_none() && tunnel.is_none() {
        return Err(request);
    }
    let comes_back = door == Some(Door::Events) && plain::Reconnects::are_for(request.headers());
    let refuse = |refusal: respond::Response| -> Reply {
        if comes_back {
            return entry.doors.reconnects.answer(refusal).into();
        }
        refusal.into()
    };
    if let Some(address) = entry.address
        && let Err(over) = entry.doors.admission.request(address)
    {
        let reply = refuse(over.response());
        return Ok(match gate::admit(&entry.doors.origins, request.headers()) {
            // A page is to learn when to come back.
            Ok(admitted) => reply.then(|response| admitted.mark(response.headers_mut())),
            Err(_) => reply,
        });
    }
    let admitted = match gate::admit(&entry.doors.origins, request.headers()) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            if let Some(address) = entry.address {
                let text = "the page that the request comes from may not connect";
                let failed = Failed::Refused(refusal.status().as_u16(), text);
                entry.worker.log_failed(address, failed);
            }
            return Ok((*refusal).into());
        }
    };
    let answered = match (door, tunnel) {
        (_, Some((tunnel, rest))) => tunnel::door::respond(&entry, &tunnel, &rest, request).await,
        (Some(door), None) => through(door, &entry, request).await,
        (None, None) => return Err(request),
    };
    let reply = answered.unwrap_or_else(|refusal| refuse(*refusal));
    Ok(reply.then(|response| admitted.mark(response.headers_mut())))
}

async fn through(
    door: Door,
    entry: &Entry<'_>,
    request: Request<RequestBody>,
) -> Result<Reply, Refused> {
    let response = match door {
        Door::Poll => return poll::respond(entry, request).await,
        Door::History => return plain::history(entry, request).await,
        Door::HttpStream => streams::http_stream(entry, request).await,
        Door::Sse => streams::sse(entry, request).await,
        Door::UniHttpStream => streams::uni_http_stream(entry, request).await,
        Door::UniSse => streams::uni_sse(entry, request).await,
        Door::Emulation => emulation::respond(entry, request).await,
        Door::Events => plain::events(entry, request).await,
        Door::Lines => plain::lines(entry, request).await,
        Door::Publish => plain::publish(entry, request).await,
    };
    response.map(Reply::Now)
}

impl Entry<'_> {
    /// Opens a session whose messages leave by `stream`, with the first frame of its commands,
    /// if it comes along.
    ///
    /// # Errors
    ///
    /// 503 when there are too many already, 429 when there are from that address.
    pub(crate) fn open<'f>(
        &self,
        transport: Transport,
        mut stream: Stream,
        commands: Commands,
        frame: impl Into<Option<Frame<'f>>>,
    ) -> Result<Seat, Refused> {
        let (session, Permits { client, address }) = self.admit()?;
        stream.set_address_permit(address);
        let stream = self.worker.turn(|now, state| {
            let id = state.open(
                now,
                transport,
                self.request.clone(),
                self.user.clone(),
                self.address,
            );
            let place = Place {
                worker: self.index,
                id,
            };
            // Who numbers commands was told the name already, and the protocol has no use for it.
            if commands != Commands::Numbered {
                let mut address = self.doors.addresses.name(place);
                if commands == Commands::None {
                    address.node = None;
                }
                stream.set_address(address, commands == Commands::Beside);
            }
            let stream = Rc::new(RefCell::new(stream));
            state
                .connections
                .insert_stream(id, Rc::clone(&stream), transport.name);
            if let Some(frame) = frame.into() {
                state.hub.receive(now, id, frame, &mut state.connections);
            }
            (id, stream)
        });
        let (id, stream) = stream;
        Ok(Seat {
            worker: Rc::clone(self.worker),
            id,
            stream,
            _permits: (session, client),
        })
    }

    /// Permits for one more session whose messages leave in the bodies of responses: among these, and as a client.
    ///
    /// # Errors
    ///
    /// 503 when there are too many already, 429 when there are from that address.
    pub(crate) fn admit(&self) -> Result<(Permit, Permits), Refused> {
        let admission = &self.doors.admission;
        let session = admission.http_session()?;
        Ok((session, admission.client_from(self.address)?))
    }

    /// The response whose body is what a session's client is told, for as long as it listens.
    pub(crate) fn listen(
        &self,
        seat: Seat,
        content_type: &'static str,
        version: Version,
    ) -> Response {
        let body = StreamBody {
            seat,
            _guard: self.line.begin_stream(),
        };
        let mut response = Response::new(ReplyBody::stream(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if version < Version::HTTP_2 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        for (name, value) in UNBUFFERED {
            headers.insert(name, value);
        }
        response
    }
}

/// How commands reach a session behind the first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commands {
    /// In requests beside its connection.
    Beside,
    /// In requests that are all there is, and numbered.
    Numbered,
    /// Not at all.
    None,
}

/// A session that has no connection of its own; over when this is dropped.
pub(crate) struct Seat {
    pub(crate) worker: Rc<Worker>,
    pub(crate) id: SessionId,
    pub(crate) stream: Rc<RefCell<Stream>>,
    _permits: (Permit, Permit),
}

impl Seat {
    /// Has the session execute a command, written in JSON.
    pub(crate) fn command(&self, command: &str) {
        self.worker.turn(|now, state| {
            let frame = Frame::Json(command);
            state
                .hub
                .receive(now, self.id, frame, &mut state.connections);
        });
    }

    /// Resolves when the session takes commands, as all that came of those before it is taken. Dropping it changes nothing.
    pub(crate) async fn takes_commands(&self) {
        poll_fn(|cx| {
            let mut stream = self.stream.borrow_mut();
            stream.register(cx);
            if stream.is_ended() || self.worker.wants_input(self.id) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Resolves when there is something to tell the client, or nothing more. Dropping it changes nothing.
    pub(crate) async fn news(&self) {
        poll_fn(|cx| {
            let mut stream = self.stream.borrow_mut();
            stream.register(cx);
            if stream.has_news() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Tells the hub if it waits for the queue to be empty, and it is.
    pub(crate) fn tell_drained(&self) {
        if self.stream.borrow_mut().take_drained() {
            self.worker.turn(|now, state| {
                state.hub.drained(now, self.id, &mut state.connections);
            });
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.worker.turn(|now, state| state.leave(now, self.id));
        self.worker.forget_request(self.id);
    }
}

/// What a session's client is told, as the body of a response.
struct StreamBody {
    seat: Seat,
    _guard: StreamGuard,
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<BodyFrame<Bytes>>>> {
        let mut stream = self.seat.stream.borrow_mut();
        stream.register(cx);
        if let Some(chunk) = stream.take() {
            drop(stream);
            self.seat.tell_drained();
            return Poll::Ready(Some(Ok(BodyFrame::data(chunk))));
        }
        if stream.is_ended() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

/// A whole body of commands in an encoding.
///
/// # Errors
///
/// 400 for JSON that isn't UTF-8.
pub(crate) fn frame(encoding: Encoding, bytes: &[u8]) -> Result<Frame<'_>, Refused> {
    match encoding {
        Encoding::Json => std::str::from_utf8(bytes)
            .map(Frame::Json)
            .map_err(|_| bad_request("expected JSON, which is UTF-8; got bytes which aren't")),
        _ => Ok(Frame::Protobuf(bytes)),
    }
}

/// 400, with what was expected.
pub(crate) fn bad_request(reason: &str) -> Refused {
    respond::text(StatusCode::BAD_REQUEST, format!("Bad Request: {reason}\n")).into()
}

/// What a plain request gets where WebSockets are opened. A page may read it: of a WebSocket that failed, its browser
/// tells it nothing.
pub(crate) fn no_upgrade(
    origins: &OriginPolicy,
    request: &Request<RequestBody>,
) -> respond::Response {
    let admitted = match gate::admit(origins, request.headers()) {
        Ok(admitted) => admitted,
        Err(refusal) => return *refusal,
    };
    let uri = request.uri();
    let asked = match uri.path() {
        PLAIN_PATH => plain::check(uri.query()),
        _ => Ok(()),
    };
    let mut response = match asked {
        Ok(()) => upgrade_required_at(uri.path()),
        Err(error) => *bad_request(&error),
    };
    admitted.mark(response.headers_mut());
    response
}

/// What keeps caches and proxies from holding messages back.
pub(super) const UNBUFFERED: [(HeaderName, HeaderValue); 4] = [
    (
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    ),
    (
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache, no-store, must-revalidate, max-age=0"),
    ),
    (header::PRAGMA, HeaderValue::from_static("no-cache")),
    // As the protocol's other servers spell it.
    (
        HeaderName::from_static("expire"),
        HeaderValue::from_static("0"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_may_be_shut() {
        let open = DoorOptions::default();
        let shut = DoorOptions {
            http_stream: false,
            ..DoorOptions::default()
        };
        assert_eq!(
            Door::at("/connection/http_stream", &open),
            Some(Door::HttpStream)
        );
        assert_eq!(Door::at("/connection/http_stream", &shut), None);
        // The other door needs it still.
        assert_eq!(Door::at("/emulation", &shut), Some(Door::Emulation));
        let both = DoorOptions { sse: false, ..shut };
        assert_eq!(Door::at("/emulation", &both), None);
        assert_eq!(Door::at("/connection/http_stream/", &open), None);
    }
}
