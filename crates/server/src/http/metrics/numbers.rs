//! What is counted, and what it comes to for the whole node.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use tautline_hub::engine::memory::MemoryRefusals;
use tautline_hub::{
    Bound, ClientCounters, FineHistogram, Histogram, HubCounters, Operation, TokenRefusal, Traffic,
};

use crate::events::EventNumbers;
use crate::http::counters::HttpCounters;
use crate::http::process::ProcessNumbers;
use crate::keys::KeyNumbers;
use crate::log_queue::LogLines;
use crate::telemetry::SpanNumbers;

/// What the node has counted so far, and what it carries.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Connections.
    pub clients: u64,
    /// Distinct users.
    pub users: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Channels with subscribers.
    pub channels: u64,
    /// Time since the start.
    pub uptime: Duration,
    /// What the process uses, where the system tells.
    pub process: Option<ProcessNumbers>,
    /// Whether the node is on its way out.
    pub draining: bool,
    /// Of all hubs.
    pub hub: HubCounters,
    /// Of all hubs, of what clients say and do.
    pub said: ClientCounters,
    /// What was said to clients: to a transport, and what.
    pub spoken: BTreeMap<(&'static str, &'static str), Traffic>,
    /// Connections that are not in yet.
    pub coming: u64,
    /// Tasks of all workers.
    pub tasks: u64,
    /// Those who follow somebody.
    pub traces: u64,
    /// Channels of which something is kept, and how many bytes that is.
    pub kept: (u64, u64),
    /// Sessions of the doors of plain HTTP that are polled, and those of tunnels.
    pub polled: (u64, u64),
    /// How long workers took for what they got at once.
    pub(crate) broadcasts: FineHistogram,
    /// Connections ended, by code.
    pub disconnects: BTreeMap<u32, u64>,
    /// Connections that were not taken, by what was full.
    pub turned_away: [(&'static str, u64); 2],
    /// How long publications took.
    pub(crate) deliveries: FineHistogram,
    /// Calls of the API.
    pub calls: CallCounters,
    /// Requests and connections that came to nothing.
    pub http: HttpCounters,
    /// Connections in HTTP/2.
    pub http2: Http2Counters,
    /// What was refused by limits of addresses and memory: the limit, the mode, the number.
    pub refusals: Vec<(&'static str, &'static str, u64)>,
    /// Revocations of tokens, and of users.
    pub revocations: (usize, usize),
    /// Addresses that are remembered.
    pub addresses: u64,
    /// Clients that count for the node, and how many there may be.
    pub admitted: (u64, u64),
    /// Connections that are open at the port for clients, and how many there may be.
    pub sockets: (u64, u64),
    /// Joins and leaves that are still to be told.
    pub unannounced: u64,
    /// Bytes that wait for workers.
    pub mailboxes: u64,
    /// Calls of the API that had to wait for workers.
    pub calls_held_up: u64,
    /// Requests that came through proxies whom nobody trusts.
    pub unknown_proxy_requests: u64,
    /// How much memory the process may have, in bytes, before new clients are refused.
    pub memory_ceiling: u64,
    /// What waits to be written to clients.
    pub queues: QueueNumbers,
    /// Certificates, and until when they are good, in Unix time.
    pub certificates: Vec<(String, u64)>,
    /// Certificates that are ordered.
    pub(crate) orders: Vec<AcmeNumbers>,
    /// Questions to the application's backend.
    pub proxies: Vec<ProxyNumbers>,
    /// Traces that were refused, and events left out of others.
    pub traces_over: (u64, u64),
    /// What the engine may keep: channels, and bytes.
    pub kept_most: (u64, u64),
    /// What has met its limits.
    pub kept_over: MemoryRefusals,
    /// Sessions of the doors of plain HTTP, and how many there may be.
    pub http_sessions: (u64, u64),
    /// Key sets that are fetched.
    pub(crate) keys: KeyNumbers,
    /// What tunnels carry.
    pub(crate) tunnels: Vec<TunnelNumbers>,
    /// Events to the application's backend, if there are any.
    pub(crate) events: Option<EventNumbers>,
    /// Spans of traces, if there are any.
    pub(crate) spans: Option<SpanNumbers>,
    /// Log lines that were lost, if the process's log is the node's.
    pub(crate) log: Option<LogLines>,
    /// Reloads of the configuration.
    pub reloads: ReloadNumbers,
}

/// What waits to be written to clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueNumbers {
    /// Clients for which something waits.
    pub(crate) waiting: u64,
    /// Bytes of all of it.
    pub(crate) bytes: u64,
    /// Bytes of memory that it takes.
    pub(crate) held: u64,
    /// How many it may; 0 for any number.
    pub(crate) ceiling: u64,
}

/// What was counted of reloads.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReloadNumbers {
    pub(crate) applied: u64,
    pub(crate) refused: u64,
    /// Unix time of the last that was applied, or of the start.
    pub(crate) last_success: u64,
}

/// What was counted of orders for one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AcmeNumbers {
    pub(crate) domain: String,
    pub(crate) issued: u64,
    pub(crate) failed: u64,
}

/// What was counted of one kind of question to one endpoint of the application's backend.
#[derive(Clone, Debug)]
pub struct ProxyNumbers {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) durations: Histogram,
    pub(crate) errors: u64,
    pub(crate) retries: u64,
    pub(crate) in_flight: u64,
    /// Not asked: why, and how often.
    pub(crate) refused: [(&'static str, u64); 2],
    pub(crate) breaker: u64,
}

/// What a tunnel has counted, by what the labels say.
#[derive(Clone, Debug)]
pub(crate) struct TunnelNumbers {
    pub(crate) name: String,
    pub(crate) open: u64,
    pub(crate) opened: [(&'static str, u64); 2],
    pub(crate) refused: [(&'static str, u64); 2],
    pub(crate) messages: [(&'static str, u64); 2],
    pub(crate) bytes: [(&'static str, u64); 2],
}

impl Snapshot {
    /// Adds what another hub has counted.
    pub(crate) fn add_hub(&mut self, hub: &HubCounters, disconnects: &BTreeMap<u32, u64>) {
        let sum = &mut self.hub;
        sum.commands += hub.commands;
        sum.parked += hub.parked;
        sum.pages += hub.pages;
        sum.lost += hub.lost;
        sum.dropped += hub.dropped;
        sum.slow += hub.slow;
        sum.input_paused += hub.input_paused;
        sum.held_up += hub.held_up;
        sum.revoked_connections += hub.revoked_connections;
        sum.revoked_subscriptions += hub.revoked_subscriptions;
        let (to, from) = (&mut sum.over_limit, &hub.over_limit);
        to.client_error += from.client_error;
        for bound in 0..Bound::COUNT {
            to.bounds[bound] += from.bounds[bound];
        }
        for mode in 0..2 {
            to.user_connections[mode] += from.user_connections[mode];
            to.subscriptions[mode] += from.subscriptions[mode];
            to.subscribers[mode] += from.subscribers[mode];
            to.input[mode] += from.input[mode];
            to.deliveries[mode] += from.deliveries[mode];
            to.join_leave[mode] += from.join_leave[mode];
            to.queue[mode] += from.queue[mode];
            to.channel_names[mode] += from.channel_names[mode];
            to.unauthenticated[mode] += from.unauthenticated[mode];
            to.calls[mode] += from.calls[mode];
        }
        for index in 0..Operation::COUNT {
            to.client_command[index] += from.client_command[index];
            to.user_command[index] += from.user_command[index];
            to.namespace[index] += from.namespace[index];
            to.channel[index] += from.channel[index];
        }
        let (to, from) = (&mut sum.refused_tokens, &hub.refused_tokens);
        for index in 0..TokenRefusal::COUNT {
            to.connection[index] += from.connection[index];
            to.subscription[index] += from.subscription[index];
        }
        for (code, count) in disconnects {
            *self.disconnects.entry(*code).or_insert(0) += count;
        }
    }
}

/// What is counted of calls of the API.
#[derive(Clone, Debug, Default)]
pub struct CallCounters {
    pub(super) durations: BTreeMap<&'static str, Histogram>,
    pub(super) errors: BTreeMap<(&'static str, u32), u64>,
    pub(super) refused: BTreeMap<u16, u64>,
}

impl CallCounters {
    /// A command was executed; `error` is the code of its failure, 0 for none.
    pub fn executed(&mut self, method: &'static str, error: u32, duration: Duration) {
        self.durations.entry(method).or_default().add(duration);
        if error != 0
            && (self.errors.len() < MAX_SERIES || self.errors.contains_key(&(method, error)))
        {
            *self.errors.entry((method, error)).or_insert(0) += 1;
        }
    }

    /// A call was answered with a status instead.
    pub fn refused(&mut self, status: StatusCode) {
        *self.refused.entry(status.as_u16()).or_insert(0) += 1;
    }

    /// Adds what another worker has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (method, histogram) in &other.durations {
            self.durations.entry(method).or_default().merge(histogram);
        }
        for (key, count) in &other.errors {
            *self.errors.entry(*key).or_insert(0) += count;
        }
        for (status, count) in &other.refused {
            *self.refused.entry(*status).or_insert(0) += count;
        }
    }
}

/// What is counted of connections in HTTP/2.
#[derive(Clone, Debug, Default)]
pub struct Http2Counters {
    /// Connections that are open.
    pub(super) open: u64,
    /// Requests to open a WebSocket.
    pub(crate) websockets: u64,
    /// All others.
    pub(crate) requests: u64,
    /// Streams that were refused because there were as many as may be.
    pub(crate) refused: u64,
    pub(super) floods: BTreeMap<&'static str, u64>,
}

impl Http2Counters {
    /// A connection has begun.
    pub(crate) fn opened(&mut self) {
        self.open += 1;
    }

    /// A connection has ended; `flood` says what there was too much of, if that is why.
    pub(crate) fn closed(&mut self, flood: Option<&'static str>) {
        self.open = self.open.saturating_sub(1);
        if let Some(kind) = flood {
            *self.floods.entry(kind).or_insert(0) += 1;
        }
    }

    /// Adds what another worker has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.websockets += other.websockets;
        self.requests += other.requests;
        self.refused += other.refused;
        for (kind, count) in &other.floods {
            *self.floods.entry(kind).or_insert(0) += count;
        }
    }
}

/// How many kinds of errors are told apart: extensions may have codes of their own.
const MAX_SERIES: usize = 1000;
