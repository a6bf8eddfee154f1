//! Metrics of the application's backend: what it is asked and told, and what tunnels carry to it.

use super::super::Metric;

pub(super) const METRICS: &[Metric] = &[
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
        name: "proxy_refused_total",
        kind: "counter",
        labels: &["protocol", "type", "name", "reason"],
        help: "Those of them that the backend was not asked: `max_in_flight` where as many were under way as may be, \
               `breaker` while it was left alone because it had failed again and again.",
        write: |all, out| {
            for proxy in &all.proxies {
                for (reason, count) in proxy.refused {
                    out.labelled(&["http", proxy.kind, &proxy.name, reason], count);
                }
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
        name: "events_syncs_total",
        kind: "counter",
        labels: &[],
        help: "Times that events which were written down were made safe from a loss of power, at most `events.sync_interval` \
               after they were written.",
        write: |all, out| {
            if let Some(events) = &all.events {
                out.number(events.syncs);
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
