//! The HTTP side's view of the node: its operations, run by the worker that got the request.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::upgrade::{Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tautline_hub::{
    ApiHistory, ApiPresence, ApiPublish, ApiRefresh, ApiSubscribe, Entropy, Hub, Now, PresenceList,
    Target,
};
use tautline_protocol::ErrorCode;
use tautline_protocol::message::{
    Disconnect, Error, HistoryResult, Payload, PresenceStatsResult, StreamPosition, Unsubscribe,
};
use tautline_websocket::proto::handshake::Refusal;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use crate::door::admission::OverLimit;
use crate::door::websocket::Manner;
use crate::door::{self, Opened, rewind::Rewind};
use crate::drain::Stage;
use crate::embed::{self, NodeHandle};
use crate::events::{DeadPage, Events, Which};
use crate::glob::Glob;
use crate::http::RequestBody;
use crate::http::Settings;
use crate::http::admin::{MemoryReport, Report, SessionReport, Sessions, WorkerReport};
use crate::http::api::dead;
use crate::http::counters::HttpCounters;
use crate::http::line::HttpLine;
use crate::http::metrics::{CallCounters, Snapshot};
use crate::http::node::{History, Node, NodeInfo, Presence, Publish};
use crate::http::process::ProcessNumbers;
use crate::http::respond::{self, Reply};
use crate::io::Io;
use crate::log_queue::LogQueue;
use crate::reload::{self, ReloadError, Reloaded};
use crate::revocations::{self, Revoke, Revoked};
use crate::telemetry::Telemetry;
use crate::trace::{TraceBody, TraceRequest};
use crate::worker::connection_log::Failed;
use crate::worker::connections::Link;
use crate::worker::guests::Guests;
use crate::worker::listener;
use crate::worker::thread::Shared;
use crate::worker::{State, Worker};

/// Who this node is.
#[derive(Debug)]
pub(crate) struct NodeIdentity {
    /// Unique among all that were ever started.
    uid: String,
    /// For people.
    name: String,
}

impl NodeIdentity {
    pub(crate) fn new(name: String, entropy: &mut dyn Entropy) -> Self {
        let mut uid = [0; 16];
        entropy.fill(&mut uid);
        Self {
            uid: format!("{:032x}", u128::from_be_bytes(uid)),
            name,
        }
    }

    /// What no other process has as its name.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }
}

/// The node, seen from one of its workers.
pub(crate) struct WorkerNode {
    index: u16,
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    guests: Rc<Guests>,
}

impl WorkerNode {
    /// The node as the worker of that index sees it.
    pub(crate) fn new(
        index: u16,
        worker: Rc<Worker>,
        shared: Arc<Shared>,
        guests: Rc<Guests>,
    ) -> Self {
        Self {
            index,
            worker,
            shared,
            guests,
        }
    }

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
        spawn_local(async move {
            // One that can't be set up is served as it is.
            let _ = listener::prepare(&io);
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

    /// Starts something in the hub, and waits for its callback.
    async fn ask<T: 'static>(
        &self,
        start: impl FnOnce(Now, &mut State, Box<dyn FnOnce(Result<T, Error>)>),
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.worker.turn(|now, state| {
            // Nobody to tell any more is nothing to tell.
            start(now, state, Box::new(|result| drop(answer.send(result))));
        });
        answered
            .await
            .unwrap_or_else(|_| Err(ErrorCode::Internal.into()))
    }

    /// Looks at something on every worker.
    async fn gather<T: Send + 'static>(
        &self,
        look: impl Fn(&State) -> T + Send + Sync + 'static,
    ) -> Vec<T> {
        gather(&self.shared, look).await
    }

    /// Starts something in the hub of every worker, and waits for all of their callbacks. The
    /// first failure is the whole call's.
    async fn ask_all(
        &self,
        start: impl Fn(Now, &mut State, Box<dyn FnOnce(Result<(), Error>)>) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let start = Arc::new(start);
        let (answer, mut answers) = mpsc::unbounded_channel();
        for mailbox in &self.shared.mailboxes {
            let (answer, start) = (answer.clone(), Arc::clone(&start));
            mailbox.call(Box::new(move |now, state| {
                start(
                    now,
                    state,
                    Box::new(move |result| drop(answer.send(result))),
                );
            }));
        }
        drop(answer);
        let mut outcome = Ok(());
        while let Some(result) = answers.recv().await {
            outcome = outcome.and(result);
        }
        outcome
    }
}

impl Node for WorkerNode {
    async fn publish(&self, request: Publish) -> Result<Option<StreamPosition>, Error> {
        let Publish {
            channel,
            data,
            tags,
            idempotency_key,
            skip_history,
            delta,
            version,
            version_epoch,
            exclude_client,
        } = request;
        let idempotency_key = Some(idempotency_key).filter(|key| !key.is_empty());
        let request = ApiPublish {
            channel,
            data,
            tags,
            idempotency_key,
            skip_history,
            delta,
            version,
            version_epoch,
            exclude_client,
        };
        let outcome = self
            .ask(|now, state, done| state.hub.api_publish(now, request, done))
            .await?;
        Ok(outcome.position)
    }

    async fn presence(&self, request: Presence) -> Result<PresenceList, Error> {
        let Presence {
            channel,
            limit,
            cursor,
            sample,
        } = request;
        let request = ApiPresence {
            channel,
            limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            cursor,
            sample,
        };
        self.ask(|now, state, done| state.hub.api_presence(now, request, done))
            .await
    }

    async fn presence_stats(&self, channel: String) -> Result<PresenceStatsResult, Error> {
        self.ask(|now, state, done| state.hub.api_presence_stats(now, &channel, done))
            .await
    }

    async fn history(&self, request: History) -> Result<HistoryResult, Error> {
        let History {
            channel,
            limit,
            since,
            reverse,
        } = request;
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let request = ApiHistory {
            channel,
            limit,
            since,
            reverse,
        };
        self.ask(|now, state, done| state.hub.api_history(now, request, done))
            .await
    }

    async fn history_remove(&self, channel: String) -> Result<(), Error> {
        self.ask(|now, state, done| state.hub.api_history_remove(now, &channel, done))
            .await
    }

    async fn subscribe(&self, target: Target, request: ApiSubscribe) -> Result<(), Error> {
        self.ask_all(move |now, state, done| {
            let State {
                hub, connections, ..
            } = state;
            hub.api_subscribe(now, &target, request.clone(), done, connections);
        })
        .await
    }

    async fn unsubscribe(
        &self,
        target: Target,
        channel: String,
        unsubscribe: Unsubscribe,
    ) -> Result<(), Error> {
        self.ask_all(move |now, state, done| {
            let State {
                hub, connections, ..
            } = state;
            done(hub.api_unsubscribe(now, &target, &channel, &unsubscribe, connections));
        })
        .await
    }

    async fn disconnect(
        &self,
        target: Target,
        spared: Vec<String>,
        disconnect: Disconnect,
    ) -> Result<(), Error> {
        self.ask_all(move |now, state, done| {
            let State {
                hub, connections, ..
            } = state;
            hub.api_disconnect(now, &target, &spared, &disconnect, connections);
            done(Ok(()));
        })
        .await
    }

    async fn refresh(&self, target: Target, request: ApiRefresh) -> Result<(), Error> {
        self.ask_all(move |now, state, done| {
            let State {
                hub, connections, ..
            } = state;
            done(hub.api_refresh(now, &target, &request, connections));
        })
        .await
    }

    async fn revoke(&self, what: Revoke) -> Result<Revoked, Error> {
        revocations::revoke(&self.shared, what).await
    }

    async fn channels(&self, pattern: Option<Glob>) -> Result<BTreeMap<Arc<str>, u64>, Error> {
        let mut all = BTreeMap::new();
        let parts = self.gather(move |state| {
            let sizes = state.hub.channel_sizes();
            let sizes = sizes.filter(|(name, _)| {
                let pattern = pattern.as_ref();
                pattern.is_none_or(|pattern| pattern.matches(name))
            });
            sizes
                .map(|(name, size)| (name.clone(), size as u64))
                .collect::<Vec<_>>()
        });
        for (name, size) in parts.await.into_iter().flatten() {
            *all.entry(name).or_insert(0) += size;
        }
        Ok(all)
    }

    async fn rpc(&self, method: String, params: Bytes) -> Result<Option<Payload>, Error> {
        let live = self.worker.live();
        let Some(calls) = &live.api_calls else {
            return Err(ErrorCode::MethodNotFound.into());
        };
        let node = NodeHandle::new(Arc::clone(&self.shared));
        let params = Some(params).filter(|params| !params.is_empty());
        calls.answer(node, method, params).await
    }

    async fn dead_events(&self, which: Which, from: u64, most: usize) -> Result<DeadPage, Error> {
        let events = self.shared.events.as_ref();
        let events = events.ok_or_else(dead::not_available)?;
        let page = events.dead(which, from, most).await;
        page.map_err(|error| dead::failed(&error))
    }

    async fn settle_dead_events(&self, which: Which, again: bool) -> Result<usize, Error> {
        let events = self.shared.events.as_ref();
        let events = events.ok_or_else(dead::not_available)?;
        let count = events.settle_dead(which, again).await;
        count.map_err(|error| dead::failed(&error))
    }

    async fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot {
            uptime: self.shared.start.elapsed(),
            process: ProcessNumbers::read(),
            draining: !self.is_ready(),
            ..Snapshot::default()
        };
        let mut load = Load::default();
        let parts = self.gather(|state| {
            let State {
                hub,
                calls,
                http,
                http2,
                ..
            } = state;
            let disconnects = hub.disconnects().clone();
            let calls = (calls.clone(), http.clone(), http2.clone());
            let calls = (calls, state.deliveries.clone());
            let queues = state.connections.queues();
            (Load::of(hub), hub.counters(), disconnects, calls, queues)
        });
        for (part, counters, disconnects, (calls, deliveries), queues) in parts.await {
            snapshot.queues.waiting += queues.waiting;
            snapshot.queues.bytes += queues.bytes;
            let (calls, http, http2) = calls;
            snapshot.deliveries.merge(&deliveries);
            load.add(part);
            snapshot.add_hub(&counters, &disconnects);
            snapshot.calls.add(&calls);
            snapshot.http.add(&http);
            snapshot.http2.add(&http2);
        }
        let live = self.worker.live();
        let handlers = live.handlers.as_ref();
        let proxies = handlers.and_then(|handlers| handlers.proxies.as_ref());
        snapshot.proxies = proxies.map_or_else(Vec::new, |proxies| proxies.numbers());
        let telemetry = live.config.telemetry.as_deref();
        snapshot.spans = telemetry.map(Telemetry::numbers);
        snapshot.log = self.shared.log.as_ref().map(LogQueue::lost);
        snapshot.reloads = self.shared.reloads.numbers();
        snapshot.tunnels = live.config.tunnels.numbers();
        let events = self.shared.events.as_ref();
        snapshot.events = events.map(Events::numbers);
        if let Some(tls) = &live.tls {
            snapshot.certificates = tls.expiries();
            snapshot.orders = tls.orders();
        }
        snapshot.revocations = self.shared.revocations.count();
        let admission = &self.shared.admission;
        snapshot.turned_away = admission.node_refusals();
        snapshot.refusals = admission.refusals();
        snapshot.refusals.extend(self.shared.queues.refusals());
        snapshot.queues.held = self.shared.queues.held() as u64;
        snapshot.queues.ceiling = self.shared.queues.ceiling();
        snapshot.addresses = admission.addresses() as u64;
        snapshot.unknown_proxy_requests = admission.unknown_proxy_requests();
        snapshot.memory_ceiling = admission.memory_ceiling();
        snapshot.clients = load.clients;
        snapshot.subscriptions = load.subscriptions;
        snapshot.users = load.users.len() as u64;
        snapshot.channels = load.channels.len() as u64;
        snapshot
    }

    async fn report(&self) -> Report {
        let mut workers = self.gather(worker_report).await;
        workers.sort_by(|one, other| one.name.cmp(&other.name));
        let admission = &self.shared.admission;
        let engine = &self.shared.engine;
        let NodeIdentity { uid, name } = &self.shared.identity;
        Report {
            name: name.clone(),
            uid: uid.clone(),
            version: crate::VERSION.to_owned(),
            uptime: self.shared.start.elapsed().as_secs(),
            draining: !self.is_ready(),
            memory: MemoryReport {
                resident: ProcessNumbers::read().map(|process| process.resident_bytes),
                ceiling: admission.memory_ceiling(),
                histories: engine.bytes() as u64,
                kept_channels: engine.channels() as u64,
                queues: workers.iter().map(|worker| worker.queues.bytes).sum(),
                addresses: admission.addresses() as u64,
            },
            workers,
        }
    }

    fn admin_sessions(&self) -> Option<Arc<Sessions>> {
        Some(Arc::clone(&self.shared.admins))
    }

    fn is_ready(&self) -> bool {
        *self.shared.stage.borrow() == Stage::Serving
    }

    fn trace(&self, request: &TraceRequest) -> Option<TraceBody> {
        let shared = &self.shared;
        shared
            .traces
            .begin(request, &shared.mailboxes, shared.stage.clone())
    }

    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        reload::reload(&self.shared, None).await
    }

    fn settings(&self) -> Option<Arc<Settings>> {
        Some(Arc::clone(&self.worker.live().config.http))
    }

    fn address_of(&self, line: &HttpLine, headers: &HeaderMap) -> Option<IpAddr> {
        let from = line.from()?.ip();
        let admission = &self.shared.admission;
        Some(admission.client_address(from, fields(headers)))
    }

    fn refuse_key(&self, address: Option<IpAddr>) -> Option<respond::Response> {
        let attempt = self.shared.admission.key_attempt(address?);
        attempt.err().map(OverLimit::response)
    }

    fn note_key(&self, address: Option<IpAddr>, is_right: bool) {
        if let Some(address) = address {
            self.shared.admission.key_tried(address, is_right);
        }
    }

    fn count_call(&self, count: impl FnOnce(&mut CallCounters)) {
        self.worker.count_call(count);
    }

    fn count_http(&self, count: impl FnOnce(&mut HttpCounters)) {
        self.worker.count_http(count);
    }

    async fn info(&self) -> Result<Vec<NodeInfo>, Error> {
        Ok(vec![info(&self.shared).await])
    }

    async fn enter(
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
                .then(|| kept(&request, line, address)),
            user: live.websocket.user_header.user(request.headers()),
            line,
            guests: &self.guests,
            stage: &self.shared.stage,
        };
        door::entry::enter(entry, request).await
    }

    fn opens_websockets_at(&self, path: &str) -> bool {
        self.worker.live().websocket.caller(path).is_some()
    }

    fn open_websocket(
        &self,
        mut request: Request<RequestBody>,
        line: &Rc<HttpLine>,
    ) -> Option<Response<Full<Bytes>>> {
        let live = self.worker.live();
        let policy = &live.websocket;
        let caller = policy.caller(request.uri().path())?;
        let (acceptance, manner) = match policy.accept_request(caller, &request) {
            None => return Some(door::entry::no_upgrade(&live.doors.origins, &request)),
            Some(Err(refusal)) => {
                let address = self.address_of(line, request.headers());
                if let Some(address) = address {
                    let failed = Failed::Refused(refusal.status(), refusal.body());
                    self.worker.log_failed(address, failed);
                }
                return Some(refused(&refusal));
            }
            Some(Ok(accepted)) => accepted,
        };
        let address = self.address_of(line, request.headers());
        let address_permit = match policy.admission.session(address) {
            Ok(permit) => permit,
            Err(over) => return Some(over.response()),
        };
        let kept = self
            .worker
            .has_handlers()
            .then(|| kept(&request, line, address));
        let user = policy.user_header.user(request.headers());
        let upgrade = hyper::upgrade::on(&mut request);
        let (worker, guest, limits) = (Rc::clone(&self.worker), self.guests.enter(), policy.limits);
        spawn_local(async move {
            let parts = upgrade.await.map(Upgraded::downcast::<TokioIo<Rewind<Io>>>);
            // Fails when the connection ended before the response was written.
            if let Ok(Ok(Parts { io, read_buf, .. })) = parts {
                let (mut leftover, io) = io.into_inner().into_parts();
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
            drop(guest);
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        set_headers(response.headers_mut(), acceptance.headers());
        Some(response)
    }
}

/// Looks at something on every worker.
pub(crate) async fn gather<T: Send + 'static>(
    shared: &Shared,
    look: impl Fn(&State) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let look = Arc::new(look);
    let (answer, mut answers) = mpsc::unbounded_channel();
    for mailbox in &shared.mailboxes {
        let (answer, look) = (answer.clone(), Arc::clone(&look));
        // Nobody to tell any more is nothing to tell.
        mailbox.call(Box::new(move |_, state| drop(answer.send(look(state)))));
    }
    drop(answer);
    let mut parts = Vec::with_capacity(shared.mailboxes.len());
    while let Some(part) = answers.recv().await {
        parts.push(part);
    }
    parts
}

/// What one worker carries. On its thread.
fn worker_report(state: &State) -> WorkerReport {
    let stats = state.hub.stats();
    let sessions = state.hub.census().into_iter();
    let sessions = sessions.map(|(transport, census)| {
        let report = SessionReport {
            coming: census.coming as u64,
            connected: census.connected as u64,
        };
        (transport, report)
    });
    let thread = std::thread::current();
    WorkerReport {
        name: thread.name().unwrap_or_default().to_owned(),
        tasks: Handle::current().metrics().num_alive_tasks() as u64,
        sessions: sessions.collect(),
        channels: stats.channels as u64,
        subscriptions: stats.subscriptions as u64,
        queues: state.connections.queues(),
    }
}

/// What the node carries, of all its workers.
pub(crate) async fn info(shared: &Shared) -> NodeInfo {
    let mut load = Load::default();
    for part in gather(shared, |state| Load::of(&state.hub)).await {
        load.add(part);
    }
    let NodeIdentity { uid, name } = &shared.identity;
    NodeInfo {
        uid: uid.clone(),
        name: name.clone(),
        version: crate::VERSION.to_owned(),
        num_clients: load.clients,
        num_users: load.users.len() as u64,
        num_channels: load.channels.len() as u64,
        num_subs: load.subscriptions,
        uptime: shared.start.elapsed().as_secs(),
    }
}

/// What handlers may want to know of a request.
fn kept<B>(request: &Request<B>, line: &HttpLine, address: Option<IpAddr>) -> Arc<embed::Request> {
    Arc::new(embed::Request {
        uri: request.uri().to_string(),
        headers: unshared(request.headers()),
        remote: line.from(),
        address,
        ..embed::Request::default()
    })
}

/// A copy that shares no memory with the buffer which the request was read into.
fn unshared(headers: &HeaderMap) -> HeaderMap {
    let copy = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        Some((name.clone(), value))
    };
    headers.iter().filter_map(copy).collect()
}

/// The fields of a header, for who has no other view of it.
pub(crate) fn fields(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    let headers = headers.iter();
    headers.map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// A refusal of the WebSocket library as a response of the HTTP library. The connection ends with it: a proxy may
/// believe that it is a WebSocket by now, and let anything through.
pub(crate) fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = respond::text(status, format!("{}\n", refusal.body().trim_end()));
    let headers = response.headers_mut();
    set_headers(headers, refusal.headers());
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

pub(crate) fn set_headers<'a>(
    to: &mut HeaderMap,
    headers: impl Iterator<Item = (&'static str, &'a str)>,
) {
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            to.append(name, value);
        }
    }
}

/// What a worker carries, or several together: users and channels may be on more than one.
#[derive(Default)]
struct Load {
    clients: u64,
    subscriptions: u64,
    users: HashSet<Arc<str>>,
    channels: HashSet<Arc<str>>,
}

impl Load {
    fn of(hub: &Hub) -> Self {
        let stats = hub.stats();
        Self {
            clients: stats.clients as u64,
            subscriptions: stats.subscriptions as u64,
            users: hub.users().cloned().collect(),
            channels: hub.channels().cloned().collect(),
        }
    }

    fn add(&mut self, other: Self) {
        self.clients += other.clients;
        self.subscriptions += other.subscriptions;
        self.users.extend(other.users);
        self.channels.extend(other.channels);
    }
}
