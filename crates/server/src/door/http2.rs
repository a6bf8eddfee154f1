//! A connection that speaks HTTP/2: many requests at once, of which some open WebSockets (RFC 8441).
//!
//! One task drives the connection and hands each request to a task of its own. A WebSocket's stream becomes the
//! [`Io`] of a link like any other, so [`websocket`] doesn't know that it isn't a socket.

use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use tautline_websocket::conn::http2::{Flood, Http2Error, Http2Options, Http2Request, Http2Server};
use tautline_websocket::proto::handshake::{Opening, Refusal};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use super::Opened;
use super::gate;
use super::tunnel;
use super::websocket::{self, Manner};
use crate::config;
use crate::drain::{Stage, reached};
use crate::embed;
use crate::http::counters::Dropped;
use crate::http::fields::{fields, set_headers};
use crate::http::http2::{Answered, Backlog, answer, join_cookies};
use crate::http::metrics::Http2Counters;
use crate::http::rewind::Rewind;
use crate::http::{CLOSING_TIME, HEAD_TIMEOUT, MAX_HEAD_LEN, Service};
use crate::io::{Http2Io, Io};
use crate::node_api::WorkerNode;
use crate::worker::Worker;
use crate::worker::connection_log::Failed;
use crate::worker::guests::Guests;
use crate::worker::link::Link;
use crate::worker::thread::Shared;

/// What connections in HTTP/2 lead to: one worker.
pub(crate) struct Http2Door {
    pub(crate) worker: Rc<Worker>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) guests: Rc<Guests>,
    pub(crate) service: Rc<Service<WorkerNode>>,
}

/// What the tasks of a connection's streams have in common.
#[derive(Default)]
struct Streams {
    backlog: Rc<Backlog>,
    /// Word that a session is over.
    session_over: Notify,
}

impl Http2Door {
    /// Serves a connection whose first bytes, which `io` yields again, are those of HTTP/2. Ends with it.
    ///
    /// While the node drains, a connection takes no more requests once one of its sessions was ended: the client
    /// would come back by it, to the node that is to be left. What is open on it goes on. When the node ends, that
    /// has some seconds to end, too.
    pub(crate) async fn serve(&self, io: Rewind<Io>, from: SocketAddr) {
        let options = library_options(&self.worker.live().config.http2);
        let mut server = match Http2Server::new(io, &options).await {
            Ok(server) => server,
            Err(error) => return tracing::debug!(%error, "HTTP/2 didn't begin"),
        };
        self.worker.count_http2(Http2Counters::opened);
        let result = self.take_requests(&mut server, from).await;
        if let Err(error) = &result {
            tracing::debug!(%error, "an HTTP/2 connection ended early");
        }
        if let Some(dropped) = Dropped::by_http2(&result, server.was_idle()) {
            self.drop_as(dropped);
        }
        let flood = result.err().and_then(|error| flood(&error));
        self.worker.count_http2(|counters| counters.closed(flood));
    }

    fn drop_as(&self, dropped: Dropped) {
        self.worker.count_http(|counters| counters.dropped(dropped));
    }

    /// The next request, while streams that the client is refused are counted as that happens. `seen` is how many there
    /// were of those.
    async fn next(
        &self,
        server: &mut Http2Server<Rewind<Io>>,
        seen: &mut u64,
    ) -> Result<Option<Http2Request>, Http2Error> {
        let refused = server.refused_streams();
        let mut next = pin!(server.next());
        poll_fn(|cx| {
            let polled = next.as_mut().poll(cx);
            let count = refused.count();
            if count > *seen {
                let more = count - std::mem::replace(seen, count);
                self.worker.count_http2(|counters| counters.refused += more);
            }
            polled
        })
        .await
    }

    async fn take_requests(
        &self,
        server: &mut Http2Server<Rewind<Io>>,
        from: SocketAddr,
    ) -> Result<(), Http2Error> {
        let streams = Rc::new(Streams::default());
        let mut stage = self.shared.stage.clone();
        let mut ending = pin!(reached(&mut stage, |stage| *stage == Stage::Ending));
        let mut deadline = pin!(sleep(Duration::MAX));
        let (mut is_ending, mut refused) = (false, 0);
        loop {
            tokio::select! {
                request = self.next(server, &mut refused) => {
                    let Some(request) = request? else {
                        return Ok(());
                    };
                    if is_ending {
                        // On its way before the client could know.
                        request.refuse(&Refusal::new(503, ENDING));
                    } else {
                        self.take(request, from, &streams);
                    }
                }
                () = streams.session_over.notified() => {
                    let stage = *self.shared.stage.borrow();
                    if matches!(stage, Stage::Draining(_) | Stage::Ending) {
                        server.shut_down();
                    }
                }
                _ = ending.as_mut(), if !is_ending => {
                    is_ending = true;
                    server.shut_down();
                    deadline.as_mut().reset(Instant::now() + CLOSING_TIME);
                }
                () = deadline.as_mut(), if is_ending => {
                    self.drop_as(Dropped::Ending);
                    return Ok(());
                }
            }
        }
    }

    /// Has a request answered, by a task of its own.
    fn take(&self, request: Http2Request, from: SocketAddr, streams: &Rc<Streams>) {
        let guest = self.guests.enter();
        let streams = Rc::clone(streams);
        if request.http_head().method == Method::CONNECT {
            self.worker.count_http2(|counters| counters.websockets += 1);
            let live = self.worker.live();
            let path = request.head().path();
            if let Some((tunnel, rest)) = live.config.tunnels.find(path) {
                let (tunnel, rest) = (Arc::clone(tunnel), rest.to_owned());
                let shared = Arc::clone(&self.shared);
                let (live, worker) = (Arc::clone(&live), Rc::clone(&self.worker));
                spawn_local(Box::pin(async move {
                    let opening = tunnel::socket::open_http2(&live, &tunnel, &rest, request, from);
                    if let Some(joined) = opening.await {
                        joined.serve(shared.stage.clone(), worker.relay()).await;
                        streams.session_over.notify_one();
                    }
                    drop(guest);
                }));
                return;
            }
            if let Some(opened) = self.open(request, from) {
                let worker = Rc::clone(&self.worker);
                spawn_local(async move {
                    websocket::serve(&worker, opened).await;
                    streams.session_over.notify_one();
                    drop(guest);
                });
            }
            return;
        }
        self.worker.count_http2(|counters| counters.requests += 1);
        let backlog = Rc::clone(&streams.backlog);
        let answering = Box::pin(answer(Rc::clone(&self.service), request, backlog, from));
        spawn_local(async move {
            if answering.await == Answered::SessionOver {
                streams.session_over.notify_one();
            }
            drop(guest);
        });
    }

    /// Opens a WebSocket; `None` when the request was refused.
    fn open(&self, request: Http2Request, from: SocketAddr) -> Option<Opened> {
        let live = self.worker.live();
        let policy = &live.websocket;
        let mut headers = request.http_head().headers.clone();
        join_cookies(&mut headers);
        let admission = &policy.admission;
        let turn_away = |request: Http2Request, refusal: &Refusal| {
            self.worker
                .count_http(|counters| counters.refused(refusal.status()));
            let trust = &admission.rules().trust;
            let address = trust.client(from.ip(), fields(&headers));
            let failed = Failed::Refused(refusal.status(), refusal.body());
            self.worker.log_failed(address, failed);
            request.refuse(refusal);
        };
        let (response, mut manner) = match self.accept(&request, headers.get(header::COOKIE)) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                turn_away(request, &refusal);
                return None;
            }
        };
        let address = admission.client_address(from.ip(), fields(&headers));
        let address_permit = match admission.session(Some(address)) {
            Ok(permit) => permit,
            Err(over) => {
                request.refuse(&over.into());
                return None;
            }
        };
        manner.permit = match admission.client() {
            Ok(client) => Some(client),
            Err(over) => {
                turn_away(request, &over.into());
                return None;
            }
        };
        let user = policy.user_header.user(&headers);
        let kept = self.worker.has_handlers().then(|| {
            let host = request.head().pseudo_headers().authority;
            if let Some(Ok(host)) = host.map(HeaderValue::from_str) {
                headers.insert(header::HOST, host);
            }
            gate::strip_cookies(&live.doors.origins, &mut headers);
            Arc::new(embed::Request {
                uri: request.head().target().to_owned(),
                headers,
                remote: Some(from),
                address: Some(address),
                extensions: http::Extensions::new(),
            })
        });
        // Fails when the client has given the stream up already.
        let stream = request.into_stream(response).ok()?;
        let io = Io::Http2(Box::new(Http2Io {
            stream,
            remote: Some(from),
        }));
        Some(Opened {
            link: Link::new(io, manner.transport.encoding),
            leftover: Vec::new(),
            limits: policy.limits,
            request: kept,
            user,
            manner,
            address_permit,
            address: Some(address),
        })
    }

    fn accept(
        &self,
        request: &Http2Request,
        cookies: Option<&HeaderValue>,
    ) -> Result<(http::Response<()>, Manner), Refusal> {
        let live = self.worker.live();
        let policy = &live.websocket;
        let head = request.head();
        let opening: Opening<'_> = head.opening().map_err(|error| error.refusal())?;
        let caller = policy
            .caller(head.path())
            .ok_or_else(|| Refusal::new(404, NOT_FOUND))?;
        let cookies = cookies.map(HeaderValue::as_bytes);
        let (acceptance, manner) = policy.accept(caller, &opening, head.query(), cookies)?;
        let mut response = http::Response::new(());
        *response.status_mut() = StatusCode::OK;
        set_headers(response.headers_mut(), acceptance.headers());
        Ok((response, manner))
    }
}

/// What a client has sent too much of, if that is why its connection ended.
fn flood(error: &Http2Error) -> Option<&'static str> {
    match error {
        Http2Error::Flooded(Flood::Control) => Some("control"),
        Http2Error::Flooded(Flood::Resets) => Some("resets"),
        Http2Error::Flooded(Flood::Windows) => Some("windows"),
        Http2Error::Flooded(_) => Some("other"),
        // What the library itself has had enough of.
        Http2Error::GoAway {
            code: ENHANCE_YOUR_CALM,
            by_peer: false,
            ..
        } => Some("streams"),
        _ => None,
    }
}

fn library_options(options: &config::Http2Options) -> Http2Options {
    Http2Options {
        max_streams: options.max_concurrent_streams,
        max_header_list: MAX_HEAD_LEN as u32,
        handshake_timeout: HEAD_TIMEOUT,
        keep_alive: Some(KEEP_ALIVE),
        ..Http2Options::default()
    }
}

/// How often it is looked whether a client is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// RFC 9113, section 7.
const ENHANCE_YOUR_CALM: u32 = 11;

const ENDING: &str = "The server is about to end. Connect again.";

const NOT_FOUND: &str = "Not Found: WebSockets are opened at /connection/websocket, and at /ws and \
     /connection/uni_websocket where the configuration has them.";
