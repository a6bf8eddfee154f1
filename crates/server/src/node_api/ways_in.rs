//! How a request, or a connection that another server has accepted, becomes a client of this worker.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tautline_websocket::proto::handshake::Refusal;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::WorkerNode;
use crate::door::gate;
use crate::door::websocket::Manner;
use crate::door::{self, Opened};
use crate::embed;
use crate::http::RequestBody;
use crate::http::fields::{refused, set_headers, unshared};
use crate::http::line::HttpLine;
use crate::http::node::Node as _;
use crate::http::origin::OriginPolicy;
use crate::http::respond::Reply;
use crate::http::rewind::Rewind;
use crate::io::Io;
use crate::worker::connection_log::Failed;
use crate::worker::link::Link;
use crate::worker::listener;

impl WorkerNode {
    /// Serves a WebSocket whose opening another server has answered. `leftover` is what came behind the
    /// request.
    pub(crate) fn host(
        &self,
        io: std::net::TcpStream,
        manner: Manner,
        leftover: Vec<u8>,
        request: Arc<embed::Request>,
    ) {
        let io = match TcpStream::from_std(io) {
            Ok(io) => io,
            Err(error) => {
                tracing::debug!(%error, "a connection was lost on its way to a worker");
                return;
            }
        };
        let (worker, guest) = (Rc::clone(&self.worker), self.guests.enter());
        let live = self.worker.live();
        let limits = live.websocket.limits;
        let user = live.websocket.user_header.user(&request.headers);
        let address = request.address;
        // One that can't be set up is served as it is.
        let _ = listener::prepare(&io, listener::silence(&live.config));
        spawn_local(async move {
            let opened = Opened {
                link: Link::new(io.into(), manner.transport.encoding),
                leftover,
                limits,
                request: Some(request),
                user,
                manner,
                address_permit: None,
                address,
            };
            door::websocket::serve(&worker, opened).await;
            drop(guest);
        });
    }

    /// As [`Node::enter`](crate::http::node::Node::enter).
    pub(super) async fn enter_door(
        &self,
        request: Request<RequestBody>,
        line: &Rc<HttpLine>,
    ) -> Result<Reply, Request<RequestBody>> {
        let address = self.address_of(line, request.headers());
        let live = self.worker.live();
        let entry = door::entry::Entry {
            address,
            worker: &self.worker,
            index: self.index,
            doors: &live.doors,
            tunnels: &live.config.tunnels,
            mailboxes: &self.shared.mailboxes,
            request: self
                .worker
                .has_handlers()
                .then(|| kept(&live.doors.origins, &request, line, address)),
            user: live.websocket.user_header.user(request.headers()),
            line,
            guests: &self.guests,
            stage: &self.shared.stage,
        };
        door::entry::enter(entry, request).await
    }

    /// As [`Node::open_websocket`](crate::http::node::Node::open_websocket).
    pub(super) fn upgrade(
        &self,
        mut request: Request<RequestBody>,
        line: &Rc<HttpLine>,
    ) -> Option<Response<Full<Bytes>>> {
        let live = self.worker.live();
        let policy = &live.websocket;
        let caller = policy.caller(request.uri().path())?;
        let address = self.address_of(line, request.headers());
        let turn_away = |refusal: &Refusal| {
            if let Some(address) = address {
                let failed = Failed::Refused(refusal.status(), refusal.body());
                self.worker.log_failed(address, failed);
            }
            Some(refused(refusal))
        };
        let (acceptance, mut manner) = match policy.accept_request(caller, &request) {
            None => return Some(door::entry::no_upgrade(&live.doors.origins, &request)),
            Some(Err(refusal)) => return turn_away(&refusal),
            Some(Ok(accepted)) => accepted,
        };
        let address_permit = match policy.admission.session(address) {
            Ok(permit) => permit,
            Err(over) => return Some(over.response()),
        };
        manner.permit = match policy.admission.client() {
            Ok(client) => Some(client),
            Err(over) => return turn_away(&over.into()),
        };
        let kept = self
            .worker
            .has_handlers()
            .then(|| kept(&live.doors.origins, &request, line, address));
        let user = policy.user_header.user(request.headers());
        let upgrade = hyper::upgrade::on(&mut request);
        let (worker, guest, limits) = (Rc::clone(&self.worker), self.guests.enter(), policy.limits);
        let socket = self.shared.admission.socket_goes_on();
        spawn_local(async move {
            let parts = upgrade.await.map(Upgraded::downcast::<TokioIo<Rewind<Io>>>);
            // Fails when the connection ended before the response was written.
            if let Ok(Ok(Parts { io, read_buf, .. })) = parts {
                let (mut leftover, io) = io.into_inner().into_parts();
                // A WebSocket's reader may rest for longer than one of an answer.
                io.give_up_after(None);
                // What hyper has read comes before what it has not.
                leftover.splice(..0, read_buf);
                let opened = Opened {
                    link: Link::new(io, manner.transport.encoding),
                    leftover,
                    limits,
                    request: kept,
                    user,
                    manner,
                    address_permit,
                    address,
                };
                door::websocket::serve(&worker, opened).await;
            }
            drop((guest, socket));
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        set_headers(response.headers_mut(), acceptance.headers());
        Some(response)
    }
}

/// What handlers may want to know of a request.
fn kept<B>(
    origins: &OriginPolicy,
    request: &Request<B>,
    line: &HttpLine,
    address: Option<IpAddr>,
) -> Arc<embed::Request> {
    let mut headers = unshared(request.headers());
    gate::strip_cookies(origins, &mut headers);
    Arc::new(embed::Request {
        uri: request.uri().to_string(),
        headers,
        remote: line.from(),
        address,
        ..embed::Request::default()
    })
}
