//! The doors: how the bytes of a new connection reach a session, or the HTTP side.
//!
//! A connection begins with the head of an HTTP request, read by our own parser. A request to open
//! a WebSocket is checked and answered here, and goes on in [`websocket`]; whatever else it is, the
//! HTTP side gets the bytes as if nobody had read them. One that begins as HTTP/2 does is [`http2`]'s.

pub(crate) mod address;
pub(crate) mod admission;
pub(crate) mod arrival;
mod emulation;
pub(crate) mod entry;
pub(crate) mod gate;
pub(crate) mod http2;
pub(crate) mod mistaken;
mod plain;
pub(crate) mod poll;
mod streams;
pub(crate) mod tunnel;
mod uni;
mod user;
pub(crate) mod websocket;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tautline_hub::Pings;
use tautline_protocol::Encoding;
use tautline_websocket::conn::scratch;
use tautline_websocket::proto::Limits;
use tautline_websocket::proto::handshake::{
    Acceptance, HeadLimits, HttpVersion, Opening, OpeningError, Refusal, RequestHead,
};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use self::admission::{AddressPermit, Admission, OverLimit, Permits};
use self::tunnel::Tunnel;
use self::tunnel::socket::Joined;
pub(crate) use self::uni::UniRules;
pub(crate) use self::user::UserHeader;
use self::websocket::Manner;
use crate::embed;
use crate::http::counters::Dropped;
use crate::http::host::{HostRefusal, check_loopback_host_values};
use crate::http::origin::{OriginPolicy, OriginRefusal};
use crate::http::rewind::Rewind;
use crate::http::{
    HEAD_TIMEOUT, MAX_HEAD_LEN, MAX_HEADERS, PLAIN_PATH, UNI_WEBSOCKET_PATH, WEBSOCKET_PATH,
};
use crate::io::Io;
use crate::worker::Worker;
use crate::worker::connection_log::Failed;
use crate::worker::link::Link;
use crate::worker::relays::Relayed;

/// The subprotocols that a client may ask for.
const SUBPROTOCOLS: [&str; 2] = [PROTOBUF, "centrifuge-json"];
const PROTOBUF: &str = "centrifuge-protobuf";

/// Limits of a request's head; the same for both readers of it.
const HEAD_LIMITS: HeadLimits = HeadLimits {
    max_bytes: MAX_HEAD_LEN,
    max_headers: MAX_HEADERS,
};

/// What decides who may open a WebSocket, and how much may come through it.
#[derive(Clone, Debug)]
pub(crate) struct WebSocketPolicy {
    /// Whose pages may connect.
    pub(crate) origins: OriginPolicy,
    /// Whether only names of the loopback interface are answered to.
    pub(crate) loopback_only: bool,
    /// Limits of the WebSocket connection.
    pub(crate) limits: Limits,
    /// Whether there is `/connection/uni_websocket`.
    pub(crate) unidirectional: bool,
    /// Whether there is `/ws`.
    pub(crate) plain: bool,
    /// Who clients are without a token.
    pub(crate) user_header: UserHeader,
    /// What the options say of `/connection/uni_websocket`.
    pub(crate) uni: Arc<UniRules>,
    /// Who may come in.
    pub(crate) admission: Arc<Admission>,
}

/// Who opens WebSockets at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// An SDK.
    Sdk,
    /// A client that listens only.
    Uni,
    /// A client with no SDK.
    Plain,
}

impl WebSocketPolicy {
    /// Who opens WebSockets at a path, if anybody does.
    pub(crate) fn caller(&self, path: &str) -> Option<Caller> {
        match path {
            WEBSOCKET_PATH => Some(Caller::Sdk),
            UNI_WEBSOCKET_PATH if self.unidirectional => Some(Caller::Uni),
            PLAIN_PATH if self.plain => Some(Caller::Plain),
            _ => None,
        }
    }

    /// Checks whose page a request to open a WebSocket comes from.
    fn check(&self, opening: &Opening<'_>) -> Result<(), Refusal> {
        if self.loopback_only {
            check_loopback_host_values([opening.host().as_bytes()]).map_err(|refusal| {
                Refusal::new(HostRefusal::STATUS.as_u16(), refusal.to_string())
            })?;
        }
        self.origins
            .check_values(
                opening.origin().map(str::as_bytes),
                Some(opening.host().as_bytes()),
            )
            .map_err(|refusal| Refusal::new(OriginRefusal::STATUS.as_u16(), refusal.to_string()))
    }

    /// Checks a request to open a WebSocket. Whose page it is comes first: who may not connect
    /// learns nothing else. Whether there is room for a client is asked behind it, once its address has some.
    fn accept<'h>(
        &self,
        caller: Caller,
        opening: &Opening<'h>,
        query: Option<&str>,
        cookies: Option<&[u8]>,
    ) -> Result<(Acceptance<'static>, Manner), Refusal> {
        self.check(opening)?;
        match caller {
            Caller::Sdk => Ok(Self::accept_sdk(opening, query)),
            Caller::Uni => uni::accept(opening, query, &self.uni),
            Caller::Plain => {
                let cookies = cookies.and_then(|cookies| std::str::from_utf8(cookies).ok());
                plain::accept(opening, query, cookies.filter(|_| self.trusts(opening)))
            }
        }
    }

    /// Whether a page's cookies count: not those of one that only a `*` lets in.
    fn trusts(&self, opening: &Opening<'_>) -> bool {
        let origin = opening.origin().map(str::as_bytes);
        self.origins
            .names_values(origin, Some(opening.host().as_bytes()))
    }

    fn accept_sdk(opening: &Opening<'_>, query: Option<&str>) -> (Acceptance<'static>, Manner) {
        // What the query asks for counts, whatever is offered beside it.
        let by_query = query.is_some_and(asks_for_protobuf);
        let known = if by_query {
            &SUBPROTOCOLS[..1]
        } else {
            &SUBPROTOCOLS
        };
        let subprotocol = opening.select_subprotocol(known);
        let encoding = if by_query || subprotocol == Some(PROTOBUF) {
            Encoding::Protobuf
        } else {
            Encoding::Json
        };
        let pings = if query.is_some_and(asks_for_frame_pings) {
            Pings::Transport
        } else {
            Pings::Protocol
        };
        let manner = Manner::protocol(encoding, pings);
        (opening.accept(subprotocol), manner)
    }

    /// The same for a request that an HTTP library has read; `None` when it doesn't ask for a
    /// WebSocket.
    pub(crate) fn accept_request<B>(
        &self,
        caller: Caller,
        request: &Request<B>,
    ) -> Option<Result<(Acceptance<'static>, Manner), Refusal>> {
        let cookies = request.headers().get(http::header::COOKIE);
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
        let version = match request.version() {
            http::Version::HTTP_11 => HttpVersion::HTTP_11,
            _ => HttpVersion::HTTP_10,
        };
        match Opening::from_request(request.method().as_str(), version, headers) {
            Err(OpeningError::NoUpgrade) => None,
            Err(error) => Some(Err(error.refusal())),
            Ok(opening) => Some(self.accept(
                caller,
                &opening,
                request.uri().query(),
                cookies.map(HeaderValue::as_bytes),
            )),
        }
    }
}

/// Whether one of the protocol's parameters for it is there.
fn asks_for_protobuf(query: &str) -> bool {
    query
        .split('&')
        .any(|parameter| matches!(parameter, "format=protobuf" | "cf_protocol=protobuf"))
}

/// Whether pings and pongs are to be control frames: for tools which answer these by themselves.
fn asks_for_frame_pings(query: &str) -> bool {
    let mut parameters = query.split('&');
    parameters.any(|parameter| parameter == "cf_ws_frame_ping_pong=true")
}

/// A connection that is a WebSocket now.
pub(crate) struct Opened {
    /// What it has queued is the response to the upgrade.
    pub(crate) link: Rc<RefCell<Link>>,
    /// What came behind the request.
    pub(crate) leftover: Vec<u8>,
    pub(crate) limits: Limits,
    /// What brought it here, where handlers want to know.
    pub(crate) request: Option<Arc<embed::Request>>,
    /// Who it is, if the request says so and is to be believed.
    pub(crate) user: Option<Arc<str>>,
    pub(crate) manner: Manner,
    /// Among those of its address, if it counts.
    pub(crate) address_permit: Option<AddressPermit>,
    /// Whom it is from, where that is known.
    pub(crate) address: Option<IpAddr>,
}

/// What a new connection is.
pub(crate) enum Came {
    WebSocket(Opened),
    /// Requests of HTTP/1.
    Http1(Rewind<Io>),
    /// HTTP/2.
    Http2(Rewind<Io>),
    /// A WebSocket to a server of the operator's own.
    Tunnel(Box<Joined>),
}

impl Came {
    /// Has what TLS keeps of it written down by what `begin` makes for that; `None` without TLS, and for a WebSocket, with
    /// whose queue it counts.
    pub(crate) fn count_unsent(&mut self, begin: impl FnOnce() -> Relayed) -> Option<Arc<Relayed>> {
        match self {
            Self::WebSocket(_) => None,
            Self::Http1(stream) | Self::Http2(stream) => stream.count_unsent(begin),
            Self::Tunnel(joined) => joined.held.take(),
        }
    }
}

/// Finds out what a new connection of `worker` from `from` is; `None` when nothing came of it, or it was refused. HTTP/2 may be
/// spoken if the options say so. The request is kept if anybody wants to know of it. A WebSocket takes the
/// `permit` of its address along.
pub(crate) async fn admit(
    worker: &Worker,
    mut io: Io,
    from: SocketAddr,
    permit: &mut Option<AddressPermit>,
) -> Option<Came> {
    let mut received = Vec::new();
    let http2 = worker.live().config.http2.enabled;
    let reading = read_head(&mut io, &mut received, http2);
    let head = match tokio::time::timeout(HEAD_TIMEOUT, reading).await {
        Ok(Ok(Some(head))) => head,
        Ok(Ok(None)) => {
            if let Some(permit) = permit {
                permit.begun();
            }
            return Some(Came::Http2(Rewind::new(received, io)));
        }
        Ok(Err(HeadFailure::Io)) => return None,
        Ok(Err(HeadFailure::Tls)) => {
            mistaken::tell_of_no_tls(worker, io, from).await;
            return None;
        }
        // Too slow to be told anything.
        Err(_elapsed) => {
            worker.count_http(|counters| counters.dropped(Dropped::Head));
            worker.log_failed(from.ip(), Failed::Head);
            return None;
        }
        Ok(Err(HeadFailure::Refused(refusal))) => {
            worker.count_http(|counters| counters.refused(refusal.status()));
            worker.log_failed(from.ip(), Failed::Refused(refusal.status(), refusal.body()));
            refuse(io, &refusal).await;
            return None;
        }
    };
    if let Some(permit) = permit {
        permit.begun();
    }
    // What holds now, and not what held when the connection was accepted.
    let live = worker.live();
    let policy = &live.websocket;
    let Some(caller) = policy.caller(head.path()) else {
        let Some((tunnel, rest)) = live.config.tunnels.find(head.path()) else {
            return Some(Came::Http1(Rewind::new(received, io)));
        };
        let asking = (&head, tunnel, rest);
        return admit_to_tunnel(worker, asking, (received, io), from, permit).await;
    };
    let accepted = match head.opening() {
        Err(OpeningError::NoUpgrade) => {
            return Some(Came::Http1(Rewind::new(received, io)));
        }
        Err(error) => Err(error.refusal()),
        Ok(opening) => policy.accept(caller, &opening, head.query(), head.header("cookie")),
    };
    let (acceptance, mut manner) = match accepted {
        Ok(accepted) => accepted,
        Err(refusal) => return turn_away(worker, &head, io, from, &refusal).await,
    };
    let address = match client_of(&policy.admission, &head, from, permit) {
        Ok(address) => address,
        Err(over) => return tell_over(worker, io, over).await,
    };
    manner.permit = match policy.admission.client() {
        Ok(client) => Some(client),
        Err(over) => return turn_away(worker, &head, io, from, &over.into()).await,
    };
    let leftover = received.split_off(head.len());
    let request = worker
        .has_handlers()
        .then(|| Arc::new(kept(&live.doors.origins, &head, &io, address)));
    let user = policy.user_header.user_among(head.headers());
    let link = Link::new(io, manner.transport.encoding);
    acceptance.write_http1(&mut link.borrow_mut().queue);
    Some(Came::WebSocket(Opened {
        link,
        leftover,
        limits: policy.limits,
        request,
        user,
        manner,
        address_permit: permit.take(),
        address: Some(address),
    }))
}

/// Refuses a request to open a WebSocket, which is counted and logged: nothing came of it.
async fn turn_away(
    worker: &Worker,
    head: &RequestHead,
    io: Io,
    from: SocketAddr,
    refusal: &Refusal,
) -> Option<Came> {
    worker.count_http(|counters| counters.refused(refusal.status()));
    let rules = worker.live().websocket.admission.rules();
    let address = rules.trust.client(from.ip(), head.headers());
    worker.log_failed(address, Failed::Refused(refusal.status(), refusal.body()));
    refuse(io, refusal).await;
    None
}

/// Tells a client that there is too much from its address, if it isn't one of too many who are told: nothing came of it.
async fn tell_over(worker: &Worker, io: Io, over: OverLimit) -> Option<Came> {
    let Some(_goodbye) = worker.live().websocket.admission.goodbye() else {
        worker.count_http(|counters| counters.dropped(Dropped::Untold));
        return None;
    };
    say_and_close(io, &over.http1()).await;
    None
}

/// Opens a WebSocket to the server behind a tunnel, if that is what a request asks for and may.
async fn admit_to_tunnel(
    worker: &Worker,
    (head, tunnel, rest): (&RequestHead, &Arc<Tunnel>, &str),
    (mut received, mut io): (Vec<u8>, Io),
    from: SocketAddr,
    permit: &mut Option<AddressPermit>,
) -> Option<Came> {
    let live = worker.live();
    let admission = &live.websocket.admission;
    let opening = match head.opening() {
        Err(OpeningError::NoUpgrade) => {
            return Some(Came::Http1(Rewind::new(received, io)));
        }
        Err(error) => return turn_away(worker, head, io, from, &error.refusal()).await,
        Ok(opening) => opening,
    };
    let address = match client_of(admission, head, from, permit) {
        Ok(address) => address,
        Err(over) => return tell_over(worker, io, over).await,
    };
    let dial = async {
        let (asked, client) = tunnel::socket::ask(&live, tunnel, rest, head, &opening, address)?;
        Ok((asked.dial(tunnel, admission).await?, client))
    };
    let (far, client) = match dial.await {
        Ok(reached) => reached,
        Err(refusal) => return turn_away(worker, head, io, from, &refusal).await,
    };
    let mut response = Vec::new();
    let acceptance = opening.accept(far.subprotocol.as_deref());
    acceptance.write_http1(&mut response);
    let say = tokio::time::timeout(websocket::GOODBYE, io.write_all(&response));
    say.await.ok()?.ok()?;
    let mut io = Rewind::new(received.split_off(head.len()), io);
    let address = permit.take();
    let held = io.count_unsent(|| worker.relay());
    let mut joined = Joined::new(io, far, Permits { client, address });
    joined.held = held;
    Some(Came::Tunnel(Box::new(joined)))
}

/// Whom a request is from, with a `permit` for that address: behind a proxy, what counts is the client.
fn client_of(
    admission: &Arc<Admission>,
    head: &RequestHead,
    from: SocketAddr,
    permit: &mut Option<AddressPermit>,
) -> Result<IpAddr, OverLimit> {
    let address = admission.client_address(from.ip(), head.headers());
    if address != from.ip() || permit.is_none() {
        *permit = admission.session(Some(address))?;
    }
    Ok(address)
}

/// What handlers may want to know of a request.
fn kept(origins: &OriginPolicy, head: &RequestHead, io: &Io, address: IpAddr) -> embed::Request {
    let mut headers = HeaderMap::new();
    for (name, value) in head.headers() {
        let name = HeaderName::try_from(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    gate::strip_cookies(origins, &mut headers);
    embed::Request {
        uri: head.target().to_owned(),
        headers,
        remote: io.peer_addr().ok(),
        address: Some(address),
        extensions: http::Extensions::new(),
    }
}

/// Why there is no head.
enum HeadFailure {
    Io,
    /// It begins as TLS does.
    Tls,
    Refused(Refusal),
}

/// Reads until the head is whole, `None` if it is the beginning of HTTP/2, which may be spoken if `http2` is
/// set. What came is in `received`, the head and what is behind it.
async fn read_head(
    io: &mut Io,
    received: &mut Vec<u8>,
    http2: bool,
) -> Result<Option<RequestHead>, HeadFailure> {
    loop {
        let count = poll_fn(|cx| {
            scratch::with(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *io).poll_read(cx, &mut read))?;
                received.extend_from_slice(read.filled());
                Poll::Ready(io::Result::Ok(read.filled().len()))
            })
        })
        .await;
        match count {
            Ok(0) | Err(_) => return Err(HeadFailure::Io),
            Ok(_) => {}
        }
        if received.first() == Some(&mistaken::HANDSHAKE) {
            return Err(HeadFailure::Tls);
        }
        if http2 && received.starts_with(PREFACE) {
            return Ok(None);
        }
        if http2 && PREFACE.starts_with(received) {
            continue;
        }
        match RequestHead::parse(received, &HEAD_LIMITS) {
            Ok(Some(head)) => return Ok(Some(head)),
            Ok(None) => {}
            Err(error) => return Err(HeadFailure::Refused(error.refusal())),
        }
    }
}

/// Answers with a refusal, and lets the peer read it before the connection is dropped.
async fn refuse(io: Io, refusal: &Refusal) {
    let mut response = Vec::new();
    refusal.write_http1(&mut response);
    say_and_close(io, &response).await;
}

async fn say_and_close(mut io: Io, response: &[u8]) {
    let say = async {
        io.write_all(response).await?;
        io.shutdown().await?;
        let mut sink = [0; 512];
        while tokio::io::AsyncReadExt::read(&mut io, &mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(websocket::GOODBYE, say).await;
}

/// What a client says first in HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
