//! The metrics: what each is called, what it counts, and where its numbers come from.

use tautline_hub::{Operation, TokenRefusal};

use super::Metric;

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
        name: "client_input_paused_total",
        kind: "counter",
        labels: &[],
        help: "How often a connection wasn't read for a while, as its client hadn't taken what came of its commands.",
        write: |all, out| out.number(all.hub.input_paused),
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
               written to the connections of a worker, as far as these had room, `client.write_delay` included. Of one in 64.",
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
        help: "Connections that were dropped without a word: `head` because the head of a request did not come in \
               time (nor any further request), `tls` because of a TLS handshake that failed or did not come in time, `answer` because nothing of an \
               answer was taken, or acknowledged, for `http_server.write_timeout` (in HTTP/2 that may be one of its streams).",
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
        help: "What met a limit, by limit and mode (`enforced`; with `dry_run` it was let happen). By address: \
               `connections`, `handshakes`, `connect`, `requests`, and `authentication` for keys and tokens that were not \
               looked at because too many were wrong. Of the node: `memory`; `node_connections` and `node_connect` for \
               clients, `http_sessions`; `queues` for connections that were closed because what waits for all takes too much \
               memory, `stalled` for those that had stopped reading when the process had too much. Of a user or a \
               connection: `user_connections`, `subscriptions`, `channel_name` for names that are too long, `input` for bytes, \
               `unauthenticated` for those that did not connect in time, `rpc` for calls that other commands had to wait for. \
               Of a channel: `subscribers`.",
        write: |all, out| {
            for (limit, mode, count) in &all.refusals {
                out.labelled(&[limit, mode], *count);
            }
            let over = &all.hub.over_limit;
            let of_hub = [
                ("user_connections", over.user_connections),
                ("subscriptions", over.subscriptions),
                ("channel_name", [over.channel_names, 0]),
                ("subscribers", over.subscribers),
                ("input", over.input),
                ("unauthenticated", [over.unauthenticated, 0]),
                ("rpc", [over.calls, 0]),
            ];
            for (limit, [enforced, dry_run]) in of_hub {
                out.labelled(&[limit, "enforced"], enforced);
                out.labelled(&[limit, "dry_run"], dry_run);
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
        name: "limits_unknown_proxy_requests_total",
        kind: "counter",
        labels: &[],
        help: "Requests with `X-Forwarded-For` or `Forwarded` from an address of this machine or of a private network that \
               is not in `http_server.trusted_proxies`: the limits by address don't tell its clients apart.",
        write: |all, out| out.number(all.unknown_proxy_requests),
    },
    Metric {
        name: "node_memory_ceiling_bytes",
        kind: "gauge",
        labels: &[],
        help: "How much `process_resident_memory_bytes` may be before new clients are refused; 0 for no ceiling.",
        write: |all, out| out.number(all.memory_ceiling),
    },
    Metric {
        name: "client_num_waiting",
        kind: "gauge",
        labels: &[],
        help: "Connections that have yet to take something of what was sent to them.",
        write: |all, out| out.number(all.queues.waiting),
    },
    Metric {
        name: "client_queued_bytes",
        kind: "gauge",
        labels: &[],
        help: "Bytes that wait to be written to all of them. What waits for many counts for each.",
        write: |all, out| out.number(all.queues.bytes),
    },
    Metric {
        name: "client_queues_memory_bytes",
        kind: "gauge",
        labels: &[],
        help: "Memory that this takes, in bytes, without what many have in common; with answers to requests, and with the \
               commands of those who don't take what came of them.",
        write: |all, out| out.number(all.queues.held),
    },
    Metric {
        name: "client_queues_ceiling_bytes",
        kind: "gauge",
        labels: &[],
        help: "How much `client_queues_memory_bytes` may be before the longest queues are dropped; 0 for any number.",
        write: |all, out| out.number(all.queues.ceiling),
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
        name: "log_dropped_lines_total",
        kind: "counter",
        labels: &["log"],
        help: "Log lines that were lost because standard error took nothing, or is gone: of the `audit` log, and all `other`.",
        write: |all, out| {
            if let Some(lost) = &all.log {
                out.labelled(&["audit"], lost.audit);
                out.labelled(&["other"], lost.other);
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
