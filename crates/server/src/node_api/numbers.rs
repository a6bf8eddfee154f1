//! What the node carries and has counted, asked of all its workers.

use std::collections::HashSet;
use std::sync::Arc;

use tautline_hub::{ClientCounters, FineHistogram, FrameType, Hub, Traffic};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::WorkerNode;
use crate::events::Events;
use crate::http::admin::{MemoryReport, Report, SessionReport, WorkerReport};
use crate::http::metrics::Snapshot;
use crate::http::node::{Node as _, NodeInfo};
use crate::http::process::ProcessNumbers;
use crate::log_queue::LogQueue;
use crate::telemetry::Telemetry;
use crate::worker::State;
use crate::worker::thread::Shared;

impl WorkerNode {
    /// As [`Node::snapshot`](crate::http::node::Node::snapshot).
    pub(super) async fn count(&self) -> Snapshot {
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
            let calls = (calls, state.deliveries);
            let queues = state.connections.queues();
            let said = Said::of(state);
            (
                Load::of(hub),
                hub.counters(),
                disconnects,
                calls,
                queues,
                said,
            )
        });
        for (part, counters, disconnects, (calls, deliveries), queues, said) in parts.await {
            said.add_to(&mut snapshot);
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
        snapshot.events = self.shared.events().as_ref().map(Events::numbers);
        if let Some(tls) = &live.tls {
            snapshot.certificates = tls.expiries();
            snapshot.orders = tls.orders();
        }
        let engine = &self.shared.engine;
        snapshot.kept = (engine.channels() as u64, engine.bytes() as u64);
        let most = engine.limits();
        snapshot.kept_most = (most.max_channels as u64, most.max_bytes as u64);
        snapshot.kept_over = engine.refusals();
        snapshot.traces_over = self.shared.traces.refusals();
        for source in &live.config.keys {
            snapshot.keys.add(source.numbers());
        }
        snapshot.revocations = self.shared.revocations.count();
        let admission = &self.shared.admission;
        let (sessions, most) = admission.http_sessions();
        snapshot.http_sessions = (sessions as u64, most as u64);
        snapshot.turned_away = admission.node_refusals();
        snapshot.refusals = admission.refusals();
        snapshot.refusals.extend(self.shared.queues.refusals());
        snapshot.queues.held = self.shared.queues.held() as u64;
        snapshot.queues.ceiling = self.shared.queues.ceiling();
        snapshot.addresses = admission.addresses() as u64;
        let (clients, most) = admission.clients();
        snapshot.admitted = (clients as u64, most as u64);
        let (open, most) = admission.sockets_open();
        snapshot.sockets = (open as u64, most as u64);
        snapshot.unknown_proxy_requests = admission.unknown_proxy_requests();
        snapshot.memory_ceiling = admission.memory_ceiling();
        snapshot.clients = load.clients;
        snapshot.subscriptions = load.subscriptions;
        snapshot.unannounced = load.unannounced;
        for mailbox in &self.shared.mailboxes {
            snapshot.mailboxes += mailbox.memory() as u64;
            snapshot.calls_held_up += mailbox.room().calls();
        }
        snapshot.users = load.users.len() as u64;
        snapshot.channels = load.channels.len() as u64;
        snapshot
    }

    /// Counts one minute after the other. Never ends.
    pub(crate) async fn count_minutes(&self) {
        self.shared.recent.watch(self).await;
    }

    /// As [`Node::report`](crate::http::node::Node::report).
    pub(super) async fn describe(&self) -> Report {
        let mut workers = self.gather(worker_report).await;
        workers.sort_by(|one, other| one.name.cmp(&other.name));
        let admission = &self.shared.admission;
        let engine = &self.shared.engine;
        let identity = &self.shared.identity;
        Report {
            name: identity.name(),
            uid: identity.uid().to_owned(),
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

/// What the node carries, of all its workers.
pub(crate) async fn info(shared: &Shared) -> NodeInfo {
    let mut load = Load::default();
    for part in gather(shared, |state| Load::of(&state.hub)).await {
        load.add(part);
    }
    let identity = &shared.identity;
    let uptime = shared.start.elapsed();
    let (metrics, process) = shared.recent.tell(uptime);
    NodeInfo {
        uid: identity.uid().to_owned(),
        name: identity.name(),
        version: crate::VERSION.to_owned(),
        num_clients: load.clients,
        num_users: load.users.len() as u64,
        num_channels: load.channels.len() as u64,
        num_subs: load.subscriptions,
        uptime: uptime.as_secs(),
        metrics,
        process,
    }
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

/// What was said on a worker, and what it has beside sessions.
struct Said {
    counters: ClientCounters,
    spoken: Vec<(&'static str, FrameType, Traffic)>,
    coming: u64,
    tasks: u64,
    traces: usize,
    polled: (usize, usize),
    broadcasts: FineHistogram,
}

impl Said {
    /// On the worker's thread.
    fn of(state: &State) -> Self {
        let hub = &state.hub;
        Self {
            counters: hub.client_counters(),
            spoken: state.connections.spoken().all().collect(),
            coming: (hub.session_count() - hub.stats().clients) as u64,
            tasks: Handle::current().metrics().num_alive_tasks() as u64,
            traces: state.traces.len(),
            polled: (state.pads.len(), state.tunnels.len()),
            broadcasts: state.broadcasts,
        }
    }

    fn add_to(self, snapshot: &mut Snapshot) {
        snapshot.said.add(&self.counters);
        for (transport, what, traffic) in self.spoken {
            let sum = snapshot.spoken.entry((transport, what.name()));
            sum.or_default().merge(traffic);
        }
        snapshot.coming += self.coming;
        snapshot.tasks += self.tasks;
        // Each worker has all of them.
        snapshot.traces = snapshot.traces.max(self.traces as u64);
        snapshot.polled.0 += self.polled.0 as u64;
        snapshot.polled.1 += self.polled.1 as u64;
        snapshot.broadcasts.merge(&self.broadcasts);
    }
}

/// What a worker carries, or several together: users and channels may be on more than one.
#[derive(Default)]
struct Load {
    clients: u64,
    subscriptions: u64,
    unannounced: u64,
    users: HashSet<Arc<str>>,
    channels: HashSet<Arc<str>>,
}

impl Load {
    fn of(hub: &Hub) -> Self {
        let stats = hub.stats();
        Self {
            clients: stats.clients as u64,
            subscriptions: stats.subscriptions as u64,
            unannounced: hub.unannounced() as u64,
            users: hub.users().cloned().collect(),
            channels: hub.channels().cloned().collect(),
        }
    }

    fn add(&mut self, other: Self) {
        self.clients += other.clients;
        self.subscriptions += other.subscriptions;
        self.unannounced += other.unannounced;
        self.users.extend(other.users);
        self.channels.extend(other.channels);
    }
}
