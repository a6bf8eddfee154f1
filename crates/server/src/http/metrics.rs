//! What the server counts, for Prometheus: `GET /metrics`.
//!
//! Every worker counts for itself, without atomics; the counts are added up when somebody asks. Names
//! and labels are those of Centrifugo, behind a prefix of our own, so that dashboards need a search and
//! replace. [`METRICS`] is what there is, and what the chapter about metrics is made from.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use tautline_hub::{HubCounters, Operation, TokenRefusal};

use super::counters::HttpCounters;
use super::process::ProcessNumbers;
use super::respond::{self, Response};
use crate::door::tunnel::TunnelNumbers;
use crate::events::EventNumbers;
use crate::telemetry::SpanNumbers;

/// Where they are.
pub(crate) const PATH: &str = "/metrics";

/// What a family of numbers is.
pub struct Metric {
    /// Its name, behind the prefix.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What its numbers are told apart by.
    pub labels: &'static [&'static str],
    /// What is counted.
    pub help: &'static str,
    write: fn(&Snapshot, &mut Samples<'_>),
}

impl Metric {
    /// Its name as it is told: with a prefix, but for those of the process, which are called alike everywhere.
    pub fn full_name(&self) -> String {
        let prefix = if self.name.starts_with("process_") {
            ""
        } else {
            METRICS_PREFIX
        };
        format!("{prefix}{}", self.name)
    }
}

/// What stands before every name but those of the process.
pub const METRICS_PREFIX: &str = "tautline_";

/// All there is.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "node_num_clients",
        kind: "gauge",
        labels: &[],
        help: "Connections that are authenticated.",
        write: |all, out| out.number(all.clients),
    },
    Metric {
        name: "node_num_users",
        kind: "gauge",
        labels: &[],
        help: "Distinct users among them; all anonymous ones count as one.",
        write: |all, out| out.number(all.users),
    },
    Metric {
        name: "node_num_subscriptions",
        kind: "gauge",
        labels: &[],
        help: "Subscriptions of all connections.",
        write: |all, out| out.number(all.subscriptions),
    },
    Metric {
        name: "node_num_channels",
        kind: "gauge",
        labels: &[],
        help: "Channels with subscribers.",
        write: |all, out| out.number(all.channels),
    },
    Metric {
        name: "node_build",
        kind: "gauge",
        labels: &["version"],
        help: "1, with the version of the server.",
        write: |_, out| out.labelled(&[crate::VERSION], 1),
    },
    Metric {
        name: "node_uptime_seconds",
        kind: "gauge",
        labels: &[],
        help: "For how long the server has been running.",
        write: |all, out| out.number(all.uptime.as_secs()),
    },
    Metric {
        name: "node_draining",
        kind: "gauge",
        labels: &[],
        help: "1 once the server is on its way out, and 0 before.",
        write: |all, out| out.number(u64::from(all.draining)),
    },
    Metric {
        name: "process_cpu_seconds_total",
        kind: "counter",
        labels: &[],
        help: "Time of processors that the process has had, in seconds.",
        write: |all, out| out.maybe(all.process.as_ref().map(|process| process.cpu_seconds)),
    },
    Metric {
        name: "process_resident_memory_bytes",
        kind: "gauge",
        labels: &[],
        help: "Memory that the process has, in bytes.",
        write: |all, out| out.maybe(all.process.as_ref().map(|process| process.resident_bytes)),
    },
    Metric {
        name: "process_virtual_memory_bytes",
        kind: "gauge",
        labels: &[],
        help: "Memory that it has asked for, in bytes.",
        write: |all, out| out.maybe(all.process.as_ref().map(|process| process.virtual_bytes)),
    },
    Metric {
        name: "process_open_fds",
        kind: "gauge",
        labels: &[],
        help: "Descriptors that are open: a connection is one.",
        write: |all, out| out.maybe(all.process.as_ref().map(|process| process.open_descriptors)),
    },
    Metric {
        name: "process_max_fds",
        kind: "gauge",
        labels: &[],
        help: "Descriptors that may be open.",
        write: |all, out| {
            let process = all.process.as_ref();
            out.maybe(process.and_then(|process| process.max_descriptors));
        },
    },
    Metric {
        name: "process_start_time_seconds",
        kind: "gauge",
        labels: &[],
        help: "When the process was started, in seconds of Unix time.",
        write: |all, out| out.maybe(all.process.as_ref().map(|process| process.start_seconds)),
    },
    Metric {
        name: "client_commands_total",
        kind: "counter",
        labels: &[],
        help: "Commands of clients, executed or refused.",
        write: |all, out| out.number(all.hub.commands),
    },
    Metric {
        name: "client_num_server_disconnects",
        kind: "counter",
        labels: &["code"],
        help: "Connections that the server has ended.",
        write: |all, out| {
            for (code, count) in &all.disconnects {
                out.labelled(&[&code.to_string()], *count);
            }
        },
    },
    Metric {
        name: "node_client_connection_limit",
        kind: "counter",
        labels: &["limit"],
        help: "Connections that were not taken: `connections` for `client.connection_limit`, `rate` for \
               `client.connection_rate_limit`.",
        write: |all, out| {
            for (limit, count) in all.turned_away {
                out.labelled(&[limit], count);
            }
        },
    },
    Metric {
        name: "client_over_limit_total",
        kind: "counter",
        labels: &["limit", "operation"],
        help: "What connections and users did too often: `client` and `user` for commands, by kind; `namespace` and \
               `channel` for those beyond the rates of a namespace; `errors` for commands that were refused.",
        write: |all, out| {
            let over = &all.hub.over_limit;
            for operation in Operation::ALL {
                let (name, index) = (operation.name(), operation.index());
                out.labelled(&["client", name], over.client_command[index]);
                out.labelled(&["user", name], over.user_command[index]);
                if matches!(
                    operation,
                    Operation::Subscribe
                        | Operation::Publish
                        | Operation::Presence
                        | Operation::PresenceStats
                        | Operation::History
                ) {
                    out.labelled(&["namespace", name], over.namespace[index]);
                    out.labelled(&["channel", name], over.channel[index]);
                }
            }
            out.labelled(&["errors", ""], over.client_error);
        },
    },
    Metric {
        name: "client_refused_tokens_total",
        kind: "counter",
        labels: &["token", "reason"],
        help: "Tokens that let nobody in, of a `connection` or a `subscription`, by what was wrong with them. Clients \
               come back with others after `expired`, `not_yet` and `revoked`, and with the same after `key_unavailable`.",
        write: |all, out| {
            let refused = &all.hub.refused_tokens;
            for refusal in TokenRefusal::ALL {
                let (name, index) = (refusal.name(), refusal.index());
                out.labelled(&["connection", name], refused.connection[index]);
                out.labelled(&["subscription", name], refused.subscription[index]);
            }
        },
    },
    Metric {
        name: "client_revoked_total",
        kind: "counter",
        labels: &["kind"],
        help: "What was ended because its token was revoked: a `connection`, or a `subscription` of one that stayed.",
        write: |all, out| {
            out.labelled(&["connection"], all.hub.revoked_connections);
            out.labelled(&["subscription"], all.hub.revoked_subscriptions);
        },
    },
    Metric {
        name: "node_num_revocations",
        kind: "gauge",
        labels: &["kind"],
        help: "Revocations that are known: of a `token`, or of those of a `user`. Together they may be as many as                `revocation.max_entries`.",
        write: |all, out| {
            let (tokens, users) = all.revocations;
            out.labelled(&["token"], tokens as u64);
            out.labelled(&["user"], users as u64);
        },
    },
    Metric {
        name: "client_slow_disconnects_total",
        kind: "counter",
        labels: &[],
        help: "Connections that were closed because too much waited for them.",
        write: |all, out| out.number(all.hub.slow),
    },
    Metric {
        name: "subscription_parked_total",
        kind: "counter",
        labels: &[],
        help: "How often a subscription was set behind because its connection had no room.",
        write: |all, out| out.number(all.hub.parked),
    },
    Metric {
        name: "subscription_pages_total",
        kind: "counter",
        labels: &[],
        help: "Pages of history that were sent to subscriptions which are behind.",
        write: |all, out| out.number(all.hub.pages),
    },
    Metric {
        name: "subscription_lost_total",
        kind: "counter",
        labels: &[],
        help: "Subscriptions that were ended because what they need is not kept any more.",
        write: |all, out| out.number(all.hub.lost),
    },
    Metric {
        name: "subscription_dropped_publications_total",
        kind: "counter",
        labels: &[],
        help: "Publications that were left out for readers which can't keep up, by their namespace's `slow_consumer`.",
        write: |all, out| out.number(all.hub.dropped),
    },
    Metric {
        name: "publication_delivery_duration_seconds_histogram",
        kind: "histogram",
        labels: &[],
        help: "How long publications took within the server: from when one had its place in its channel to when it was \
               written to the connections of a worker, as far as these had room. Of one in 64.",
        write: |all, out| out.histogram(&[], &all.deliveries),
    },
    Metric {
        name: "api_command_duration_seconds_histogram",
        kind: "histogram",
        labels: &["protocol", "method"],
        help: "How long commands of the server API took. Those of a batch count one by one.",
        write: |all, out| {
            for (method, histogram) in &all.calls.durations {
                out.histogram(&["http", method], histogram);
            }
        },
    },
    Metric {
        name: "api_command_errors_total",
        kind: "counter",
        labels: &["protocol", "method", "error"],
        help: "Commands of the server API that failed, by the error's code.",
        write: |all, out| {
            for ((method, code), count) in &all.calls.errors {
                out.labelled(&["http", method, &code.to_string()], *count);
            }
        },
    },
    Metric {
        name: "api_refused_total",
        kind: "counter",
        labels: &["status"],
        help: "Calls of the server API that came to nothing: 400 can't be read, 401 no key, 408 too slow, 413 too \
               long, 429 too many wrong keys, 503 too many at a time.",
        write: |all, out| {
            for (status, count) in &all.calls.refused {
                out.labelled(&[&status.to_string()], *count);
            }
        },
    },
    Metric {
        name: "http_errors_total",
        kind: "counter",
        labels: &["status"],
        help: "Requests that were answered with an error, by status, whatever they were for: opening a WebSocket, a \
               door, the API, a page; and those that could not be read (400, 431, 501).",
        write: |all, out| {
            for (status, count) in &all.http.errors {
                out.labelled(&[&status.to_string()], *count);
            }
        },
    },
    Metric {
        name: "connections_dropped_total",
        kind: "counter",
        labels: &["reason"],
        help: "Connections that were dropped without an answer: `head` because the head of a request did not come in \
               time (nor any further request), `tls` because of a TLS handshake that failed or did not come in time.",
        write: |all, out| {
            for (reason, count) in &all.http.dropped {
                out.labelled(&[reason], *count);
            }
        },
    },
    Metric {
        name: "websocket_failures_total",
        kind: "counter",
        labels: &["code"],
        help: "WebSockets that were closed because of what their client sent, by the code of the Close: 1002 breaks \
               the protocol, 1007 is no UTF-8, 1008 too many fragments or control frames, 1009 too long a message.",
        write: |all, out| {
            for (code, count) in &all.http.failures {
                out.labelled(&[&code.to_string()], *count);
            }
        },
    },
    Metric {
        name: "limits_refused_total",
        kind: "counter",
        labels: &["limit", "mode"],
        help: "Connections, sessions and requests that were refused for what comes from their address, or for want of \
               memory: `connections`, `handshakes`, `connect`, `requests`, `memory`, and `authentication` for keys and tokens \
               that were not looked at because too many were wrong; with `dry_run` they were let in.",
        write: |all, out| {
            for (limit, mode, count) in &all.refusals {
                out.labelled(&[limit, mode], *count);
            }
        },
    },
    Metric {
        name: "limits_num_addresses",
        kind: "gauge",
        labels: &[],
        help: "Addresses of clients that are remembered.",
        write: |all, out| out.number(all.addresses),
    },
    Metric {
        name: "node_memory_ceiling_bytes",
        kind: "gauge",
        labels: &[],
        help: "How much `process_resident_memory_bytes` may be before new clients are refused; 0 for no ceiling.",
        write: |all, out| out.number(all.memory_ceiling),
    },
    Metric {
        name: "http2_num_connections",
        kind: "gauge",
        labels: &[],
        help: "Connections that speak HTTP/2.",
        write: |all, out| out.number(all.http2.open),
    },
    Metric {
        name: "http2_streams_total",
        kind: "counter",
        labels: &["kind"],
        help: "Requests that came over HTTP/2: `websocket` for those to open one, `request` for all others.",
        write: |all, out| {
            out.labelled(&["websocket"], all.http2.websockets);
            out.labelled(&["request"], all.http2.requests);
        },
    },
    Metric {
        name: "http2_floods_total",
        kind: "counter",
        labels: &["kind"],
        help: "Connections in HTTP/2 that were ended because their client sent too much: `control` of frames that \
               carry nothing, `resets`, `windows`; `streams` for requests that were given up at once, header blocks \
               in too many pieces, and whatever else the HTTP/2 library has enough of.",
        write: |all, out| {
            for (kind, count) in &all.http2.floods {
                out.labelled(&[kind], *count);
            }
        },
    },
    Metric {
        name: "config_reloads_total",
        kind: "counter",
        labels: &["result"],
        help: "Reloads of the configuration: `applied`, or `refused`, after which the one before goes on.",
        write: |all, out| {
            out.labelled(&["applied"], all.reloads.applied);
            out.labelled(&["refused"], all.reloads.refused);
        },
    },
    Metric {
        name: "config_last_reload_success_timestamp_seconds",
        kind: "gauge",
        labels: &[],
        help: "When the configuration was last reloaded, or the server started: Unix time.",
        write: |all, out| out.number(all.reloads.last_success),
    },
    Metric {
        name: "tls_certificate_expiry_timestamp_seconds",
        kind: "gauge",
        labels: &["certificate"],
        help: "Until when a certificate is good, in seconds of Unix time: by its option, or by the name that it was ordered for; 0 \
               for one that is still to be ordered.",
        write: |all, out| {
            for (certificate, expiry) in &all.certificates {
                out.labelled(&[certificate], *expiry);
            }
        },
    },
    Metric {
        name: "tls_acme_orders_total",
        kind: "counter",
        labels: &["domain", "outcome"],
        help: "Orders of certificates from the authority, by name: `issued` or `failed`.",
        write: |all, out| {
            for numbers in &all.orders {
                out.labelled(&[&numbers.domain, "issued"], numbers.issued);
                out.labelled(&[&numbers.domain, "failed"], numbers.failed);
            }
        },
    },
    Metric {
        name: "proxy_duration_seconds_histogram",
        kind: "histogram",
        labels: &["protocol", "type", "name"],
        help: "How long questions to the application's backend took, those without an answer too, but not those which \
               it was not asked.",
        write: |all, out| {
            for proxy in &all.proxies {
                out.histogram(&["http", proxy.kind, &proxy.name], &proxy.durations);
            }
        },
    },
    Metric {
        name: "proxy_errors",
        kind: "counter",
        labels: &["protocol", "type", "name"],
        help: "Questions to the application's backend that got no answer.",
        write: |all, out| {
            for proxy in &all.proxies {
                out.labelled(&["http", proxy.kind, &proxy.name], proxy.errors);
            }
        },
    },
    Metric {
        name: "proxy_retries_total",
        kind: "counter",
        labels: &["protocol", "type", "name"],
        help: "Questions that were asked once more because the connection broke.",
        write: |all, out| {
            for proxy in &all.proxies {
                out.labelled(&["http", proxy.kind, &proxy.name], proxy.retries);
            }
        },
    },
    Metric {
        name: "proxy_inflight_requests",
        kind: "gauge",
        labels: &["protocol", "type", "name"],
        help: "Questions that wait for the application's backend.",
        write: |all, out| {
            for proxy in &all.proxies {
                out.labelled(&["http", proxy.kind, &proxy.name], proxy.in_flight);
            }
        },
    },
    Metric {
        name: "proxy_breaker_state",
        kind: "gauge",
        labels: &["protocol", "type", "name"],
        help: "Whether the application's backend is asked: 0 it is, 1 one question tries whether it is back, 2 it is \
               left alone.",
        write: |all, out| {
            for proxy in &all.proxies {
                out.labelled(&["http", proxy.kind, &proxy.name], proxy.breaker);
            }
        },
    },
    Metric {
        name: "tunnel_num_connections",
        kind: "gauge",
        labels: &["tunnel"],
        help: "Connections to the server behind a tunnel.",
        write: |all, out| {
            for tunnel in &all.tunnels {
                out.labelled(&[&tunnel.name], tunnel.open);
            }
        },
    },
    Metric {
        name: "tunnel_connections_total",
        kind: "counter",
        labels: &["tunnel", "carrier"],
        help: "Connections that were opened through a tunnel, by what the client came by: `websocket`, or `poll` for \
               plain HTTP.",
        write: |all, out| {
            for tunnel in &all.tunnels {
                for (carrier, count) in tunnel.opened {
                    out.labelled(&[&tunnel.name, carrier], count);
                }
            }
        },
    },
    Metric {
        name: "tunnel_refused_total",
        kind: "counter",
        labels: &["tunnel", "reason"],
        help: "Connections that came to nothing: `limit` for `max_connections`, `upstream` where the server behind was \
               not reached or has refused.",
        write: |all, out| {
            for tunnel in &all.tunnels {
                for (reason, count) in tunnel.refused {
                    out.labelled(&[&tunnel.name, reason], count);
                }
            }
        },
    },
    Metric {
        name: "tunnel_messages_total",
        kind: "counter",
        labels: &["tunnel", "to"],
        help: "Messages that were carried: to `upstream`, the server behind, and to the `client`.",
        write: |all, out| {
            for tunnel in &all.tunnels {
                for (to, count) in tunnel.messages {
                    out.labelled(&[&tunnel.name, to], count);
                }
            }
        },
    },
    Metric {
        name: "tunnel_bytes_total",
        kind: "counter",
        labels: &["tunnel", "to"],
        help: "Bytes of those messages.",
        write: |all, out| {
            for tunnel in &all.tunnels {
                for (to, count) in tunnel.bytes {
                    out.labelled(&[&tunnel.name, to], count);
                }
            }
        },
    },
    Metric {
        name: "telemetry_spans_total",
        kind: "counter",
        labels: &["outcome"],
        help: "Spans of traces: `exported` to the collector, `dropped` for want of room in the queue, `failed` where the \
               collector has not taken them.",
        write: |all, out| {
            if let Some(spans) = &all.spans {
                out.labelled(&["exported"], spans.exported);
                out.labelled(&["dropped"], spans.dropped);
                out.labelled(&["failed"], spans.failed);
            }
        },
    },
    Metric {
        name: "events_queued",
        kind: "gauge",
        labels: &[],
        help: "Events on disk that are still to be delivered to the application's backend.",
        write: |all, out| {
            if let Some(events) = &all.events {
                out.number(events.queued);
            }
        },
    },
    Metric {
        name: "events_queue_bytes",
        kind: "gauge",
        labels: &[],
        help: "What events take on disk.",
        write: |all, out| {
            if let Some(events) = &all.events {
                out.number(events.bytes);
            }
        },
    },
    Metric {
        name: "events_lag_seconds",
        kind: "gauge",
        labels: &[],
        help: "Age of the oldest event that is still to be delivered.",
        write: |all, out| {
            if let Some(events) = &all.events {
                out.number(events.lag.as_secs());
            }
        },
    },
    Metric {
        name: "events_delivered_total",
        kind: "counter",
        labels: &[],
        help: "Events that the application's backend has taken.",
        write: |all, out| {
            if let Some(events) = &all.events {
                out.number(events.delivered);
            }
        },
    },
    Metric {
        name: "events_failed_attempts_total",
        kind: "counter",
        labels: &[],
        help: "Batches of events that the application's backend has not taken. They are sent again.",
        write: |all, out| {
            if let Some(events) = &all.events {
                out.number(events.failed);
            }
        },
    },
    Metric {
        name: "events_write_failures_total",
        kind: "counter",
        labels: &[],
        help: "Attempts to write events down that the disk had no room for, or would not take. They wait in memory and \
               are tried again.",
        write: |all, out| {
            if let Some(events) = &all.events {
                out.number(events.write_failures);
            }
        },
    },
    Metric {
        name: "events_blocked",
        kind: "gauge",
        labels: &[],
        help: "1 while events can't be written down, and 0 otherwise.",
        write: |all, out| {
            if let Some(events) = &all.events {
                out.number(u64::from(events.blocked));
            }
        },
    },
    Metric {
        name: "events_buried_total",
        kind: "counter",
        labels: &[],
        help: "Events that became dead letters.",
        write: |all, out| {
            if let Some(events) = &all.events {
                out.number(events.buried);
            }
        },
    },
    Metric {
        name: "events_dead",
        kind: "gauge",
        labels: &[],
        help: "Dead letters that are kept.",
        write: |all, out| {
            if let Some(events) = &all.events {
                out.number(events.dead);
            }
        },
    },
    Metric {
        name: "events_dropped_total",
        kind: "counter",
        labels: &[],
        help: "Cache misses that were not told because there were too many at a time, and dead letters that had to go for newer ones.",
        write: |all, out| {
            if let Some(events) = &all.events {
                out.number(events.dropped);
            }
        },
    },
];

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
    /// How much memory the process may have, in bytes, before new clients are refused.
    pub memory_ceiling: u64,
    /// Certificates, and until when they are good, in Unix time.
    pub certificates: Vec<(String, u64)>,
    /// Certificates that are ordered.
    pub(crate) orders: Vec<AcmeNumbers>,
    /// Questions to the application's backend.
    pub proxies: Vec<ProxyNumbers>,
    /// What tunnels carry.
    pub(crate) tunnels: Vec<TunnelNumbers>,
    /// Events to the application's backend, if there are any.
    pub(crate) events: Option<EventNumbers>,
    /// Spans of traces, if there are any.
    pub(crate) spans: Option<SpanNumbers>,
    /// Reloads of the configuration.
    pub reloads: ReloadNumbers,
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
    pub(crate) breaker: u64,
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
        sum.revoked_connections += hub.revoked_connections;
        sum.revoked_subscriptions += hub.revoked_subscriptions;
        let (to, from) = (&mut sum.over_limit, &hub.over_limit);
        to.client_error += from.client_error;
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
    durations: BTreeMap<&'static str, Histogram>,
    errors: BTreeMap<(&'static str, u32), u64>,
    refused: BTreeMap<u16, u64>,
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
    open: u64,
    /// Requests to open a WebSocket.
    pub(crate) websockets: u64,
    /// All others.
    pub(crate) requests: u64,
    floods: BTreeMap<&'static str, u64>,
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
        for (kind, count) in &other.floods {
            *self.floods.entry(kind).or_insert(0) += count;
        }
    }
}

/// How many durations were at most as long as each bound: those of what waits for others.
pub(crate) type Histogram = Durations<false>;

/// The same with finer bounds: those of what happens within the process.
pub(crate) type FineHistogram = Durations<true>;

/// How many durations were at most as long as each bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durations<const FINE: bool> {
    /// By bound, not added up; the last is for what is longer than all.
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl<const FINE: bool> Durations<FINE> {
    /// In seconds.
    const BOUNDS: [f64; BOUNDS.len()] = if FINE { FINE_BOUNDS } else { BOUNDS };

    pub(crate) fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let place = Self::BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[place] += 1;
        self.sum += duration;
    }

    /// Whether nothing was counted yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }
}

/// Where the numbers of one metric go.
struct Samples<'a> {
    metric: &'a Metric,
    out: &'a mut String,
}

impl Samples<'_> {
    fn number(&mut self, value: u64) {
        self.labelled(&[], value);
    }

    /// One that may not be known.
    fn maybe(&mut self, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.line("", &[], &[], value);
        }
    }

    fn labelled(&mut self, values: &[&str], value: u64) {
        self.line("", values, &[], value);
    }

    fn histogram<const FINE: bool>(&mut self, values: &[&str], histogram: &Durations<FINE>) {
        let mut total = 0;
        let bounds = Durations::<FINE>::BOUNDS.iter().map(ToString::to_string);
        let bounds = bounds.chain(["+Inf".to_owned()]);
        for (count, bound) in histogram.counts.iter().zip(bounds) {
            total += count;
            self.line("_bucket", values, &[("le", &bound)], total);
        }
        self.line("_sum", values, &[], histogram.sum.as_secs_f64());
        self.line("_count", values, &[], total);
    }

    fn line(
        &mut self,
        suffix: &str,
        values: &[&str],
        more: &[(&str, &str)],
        value: impl std::fmt::Display,
    ) {
        let labels = self.metric.labels;
        let _ = write!(self.out, "{}{suffix}", self.metric.full_name());
        let labels = labels.iter().copied().zip(values.iter().copied());
        for (index, (label, text)) in labels.chain(more.iter().copied()).enumerate() {
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{open}{label}=\"{text}\"");
        }
        if !values.is_empty() || !more.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

/// The page, in the text format of Prometheus.
pub(crate) fn page(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for metric in METRICS {
        let Metric { kind, help, .. } = metric;
        let name = metric.full_name();
        let _ = writeln!(out, "# HELP {name} {help}");
        let _ = writeln!(out, "# TYPE {name} {kind}");
        let mut samples = Samples {
            metric,
            out: &mut out,
        };
        (metric.write)(snapshot, &mut samples);
    }
    out
}

/// The answer to a request for it.
pub(crate) fn respond(method: &Method, snapshot: &Snapshot) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return respond::method_not_allowed("GET, HEAD");
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    respond::with_body(StatusCode::OK, kind, page(snapshot).into())
}

/// Bounds of durations, in seconds.
const BOUNDS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Bounds of durations within the process, in seconds.
const FINE_BOUNDS: [f64; BOUNDS.len()] = [
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.5, 1.0,
];

/// How many kinds of errors are told apart: extensions may have codes of their own.
const MAX_SERIES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_that_prometheus_reads() {
        let mut snapshot = Snapshot {
            clients: 2,
            ..Snapshot::default()
        };
        snapshot.disconnects.insert(3503, 4);
        let millis = Duration::from_millis;
        let mut other = CallCounters::default();
        other.executed("publish", 0, millis(1));
        other.executed("publish", 102, millis(3));
        other.refused(StatusCode::UNAUTHORIZED);
        snapshot
            .calls
            .executed("publish", 0, Duration::from_secs(20));
        snapshot.calls.add(&other);
        let page = page(&snapshot);
        let call = "tautline_api_command_duration_seconds_histogram";
        let labels = "protocol=\"http\",method=\"publish\"";
        for line in [
            "# TYPE tautline_node_num_clients gauge".to_owned(),
            "tautline_node_num_clients 2".to_owned(),
            "tautline_client_num_server_disconnects{code=\"3503\"} 4".to_owned(),
            format!("# TYPE {call} histogram"),
            format!("{call}_bucket{{{labels},le=\"0.0005\"}} 0"),
            format!("{call}_bucket{{{labels},le=\"0.001\"}} 1"),
            format!("{call}_bucket{{{labels},le=\"0.005\"}} 2"),
            format!("{call}_bucket{{{labels},le=\"10\"}} 2"),
            format!("{call}_bucket{{{labels},le=\"+Inf\"}} 3"),
            format!("{call}_sum{{{labels}}} 20.004"),
            format!("{call}_count{{{labels}}} 3"),
            format!("tautline_api_command_errors_total{{{labels},error=\"102\"}} 1"),
            "tautline_api_refused_total{status=\"401\"} 1".to_owned(),
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn names_follow_the_conventions() {
        for Metric {
            name, kind, help, ..
        } in METRICS
        {
            let is_fine = |char: char| matches!(char, 'a'..='z' | '0'..='9' | '_');
            assert!(
                name.starts_with(|char: char| char.is_ascii_lowercase())
                    && name.chars().all(is_fine),
                "{name}"
            );
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
            assert!(["counter", "gauge", "histogram"].contains(kind), "{name}");
        }
    }
}
