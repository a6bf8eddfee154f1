//! Metrics of limits, and what waits.

use tautline_hub::Bound;

use super::super::Metric;

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "http_num_sessions",
        kind: "gauge",
        labels: &["kind"],
        help: "Sessions of the doors of plain HTTP: `polled` for clients of the long-polling doors and `tunnel` for those that \
               are carried to a server behind, which live between requests; `stream` for those whose answer goes on.",
        write: |all, out| {
            let (polled, tunnels) = all.polled;
            let streams = all.http_sessions.0.saturating_sub(polled + tunnels);
            out.labelled(&["polled"], polled);
            out.labelled(&["tunnel"], tunnels);
            out.labelled(&["stream"], streams);
        },
    },
    Metric {
        name: "http_max_sessions",
        kind: "gauge",
        labels: &[],
        help: "How many `http_num_sessions` may be together before new ones are refused (`doors.max_sessions`).",
        write: |all, out| out.number(all.http_sessions.1),
    },
    Metric {
        name: "limits_refused_total",
        kind: "counter",
        labels: &["limit", "mode"],
        help: "What met a limit, by limit and mode (`enforced`; with `dry_run` it was let happen). By address: \
               `connections`, `handshakes`, `connect`, `requests`, and `authentication` for keys and tokens that were not \
               looked at because too many were wrong. Of the node: `memory`; `node_sockets` for connections that were accepted \
               with as many open as may be; `node_connections` and `node_connect` for clients, `http_sessions`; `queues` for \
               connections that were closed because what waits for all takes too much memory, `stalled` for those that had stopped reading when the process had too much. Of a user or a \
               connection: `user_connections`, `subscriptions`, `channel_name` for names that are too long, `input` for bytes, \
               `client_queue` for those for which too much waited to be written, `unauthenticated` for those that did not \
               connect in time, `rpc` for calls that other commands had to wait for. \
               Of a channel: `subscribers`, `deliveries` for publications that would come to too many, `join_leave` for joins and leaves \
               that are told later because of that, `filters` for filters \
               unlike all that it has, `idempotency_keys` for those that \
               were forgotten before their time. Of a command: `tags_filter` for filters that are too large, `presence` for \
               replies that would have been too long, `history` for those that were cut. Of code and the engine: `handlers` \
               at work, `handler_time` for those that took too long, `engine_channels` and `engine_bytes` for what could \
               not be kept, `engine_calls` of the API that wait for it. Of what is looked after: `traces` at a time, \
               `key_sets` of tenants that had to go for others, and `awaited_key_sets` for tokens whose set had no room.",
        write: |all, out| {
            for (limit, mode, count) in &all.refusals {
                out.labelled(&[limit, mode], *count);
            }
            let over = &all.hub.over_limit;
            let of_hub = [
                ("user_connections", over.user_connections),
                ("subscriptions", over.subscriptions),
                ("channel_name", over.channel_names),
                ("subscribers", over.subscribers),
                ("deliveries", over.deliveries),
                ("join_leave", over.join_leave),
                ("client_queue", over.queue),
                ("input", over.input),
                ("unauthenticated", over.unauthenticated),
                ("rpc", over.calls),
            ];
            for (limit, [enforced, dry_run]) in of_hub {
                out.labelled(&[limit, "enforced"], enforced);
                out.labelled(&[limit, "dry_run"], dry_run);
            }
            let bounds = Bound::ALL.map(|bound| (bound.name(), over.bounds[bound.index()]));
            let others = [
                ("engine_channels", all.kept_over.channels),
                ("engine_bytes", all.kept_over.bytes),
                ("idempotency_keys", all.kept_over.keys),
                ("traces", all.traces_over.0),
                ("key_sets", all.keys.pushed_out),
                ("awaited_key_sets", all.keys.refused),
            ];
            for (limit, count) in bounds.into_iter().chain(others) {
                out.labelled(&[limit, "enforced"], count);
            }
        },
    },
    Metric {
        name: "limits_num_sockets",
        kind: "gauge",
        labels: &[],
        help: "Connections that are open at the port for clients, and those of tunnels to servers behind.",
        write: |all, out| out.number(all.sockets.0),
    },
    Metric {
        name: "limits_max_sockets",
        kind: "gauge",
        labels: &[],
        help: "How many that may be: `limits.max_sockets`, or what there are descriptors for.",
        write: |all, out| out.number(all.sockets.1),
    },
    Metric {
        name: "limits_num_clients",
        kind: "gauge",
        labels: &[],
        help: "Clients, by whatever door they came, those that have yet to authenticate too.",
        write: |all, out| out.number(all.admitted.0),
    },
    Metric {
        name: "limits_max_clients",
        kind: "gauge",
        labels: &[],
        help: "How many `limits_num_clients` may be before new ones are refused (`client.connection_limit`); 0 for any number.",
        write: |all, out| out.number(all.admitted.1),
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
        name: "limits_num_untold_join_leave",
        kind: "gauge",
        labels: &[],
        help: "Joins and leaves that are still to be told, as `join_leave_deliveries_per_second` allows no more at the moment.",
        write: |all, out| out.number(all.unannounced),
    },
    Metric {
        name: "publishers_held_up_total",
        kind: "counter",
        labels: &["by"],
        help: "How often a publisher had to wait because a worker was behind with what it had published: by `client`, which \
               isn't read meanwhile, and by `api`, which is answered later.",
        write: |all, out| {
            out.labelled(&["client"], all.hub.held_up);
            out.labelled(&["api"], all.calls_held_up);
        },
    },
    Metric {
        name: "mailboxes_bytes",
        kind: "gauge",
        labels: &[],
        help: "Memory of what workers have yet to hand to their subscribers: publications, joins and leaves. What several \
               workers wait for counts for each.",
        write: |all, out| out.number(all.mailboxes),
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
        help: "Memory that this takes, in bytes, without what many have in common; with answers to requests, with the \
               commands of those who don't take what came of them, with what waits in tunnels, and with what TLS keeps of all that.",
        write: |all, out| out.number(all.queues.held),
    },
    Metric {
        name: "client_queues_ceiling_bytes",
        kind: "gauge",
        labels: &[],
        help: "How much `client_queues_memory_bytes` may be before the longest queues are dropped; 0 for any number.",
        write: |all, out| out.number(all.queues.ceiling),
    },
];
