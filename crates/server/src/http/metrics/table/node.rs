//! Metrics of the node and its process: what it carries, what it uses, and what it was told.

use super::super::Metric;

pub(super) const METRICS: &[Metric] = &[
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
        name: "node_num_tasks",
        kind: "gauge",
        labels: &[],
        help: "Tasks that are alive on all workers: one or two for each connection.",
        write: |all, out| out.number(all.tasks),
    },
    Metric {
        name: "node_num_traces",
        kind: "gauge",
        labels: &[],
        help: "Who is following a user, a connection or a channel live.",
        write: |all, out| out.number(all.traces),
    },
    Metric {
        name: "trace_dropped_events_total",
        kind: "counter",
        labels: &[],
        help: "Events that were left out of traces whose reader was too slow; each of them is told how many.",
        write: |all, out| out.number(all.traces_over.1),
    },
    Metric {
        name: "engine_num_channels",
        kind: "gauge",
        labels: &[],
        help: "Channels of which the memory engine keeps something.",
        write: |all, out| out.number(all.kept.0),
    },
    Metric {
        name: "engine_max_channels",
        kind: "gauge",
        labels: &[],
        help: "How many `engine_num_channels` may be before further ones are refused (`engine.memory.max_channels`).",
        write: |all, out| out.number(all.kept_most.0),
    },
    Metric {
        name: "engine_kept_bytes",
        kind: "gauge",
        labels: &[],
        help: "Memory that it takes for their histories.",
        write: |all, out| out.number(all.kept.1),
    },
    Metric {
        name: "engine_ceiling_bytes",
        kind: "gauge",
        labels: &[],
        help: "How much `engine_kept_bytes` may be before histories stop growing (`engine.memory.max_bytes`).",
        write: |all, out| out.number(all.kept_most.1),
    },
];
