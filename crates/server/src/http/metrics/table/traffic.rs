//! Metrics of what is said: connections by transport, messages and bytes, commands, recoveries.

use tautline_hub::{ClientName, FrameType, Histogram, Operation};

use super::super::{Metric, Samples, Snapshot};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "client_connections_accepted",
        kind: "counter",
        labels: &["transport", "client_name"],
        help: "Clients that have connected, by transport and by the SDK that they say they are: its name, `other` for whatever \
               else they say, `unnamed` for nothing.",
        write: |all, out| by_client(all, out, |transport| &transport.accepted),
    },
    Metric {
        name: "client_connections_inflight",
        kind: "gauge",
        labels: &["transport", "client_name"],
        help: "Those of them that are still connected.",
        write: |all, out| by_client(all, out, |transport| &transport.in_flight),
    },
    Metric {
        name: "client_num_coming",
        kind: "gauge",
        labels: &[],
        help: "Connections that have yet to authenticate, or were refused and are about to end.",
        write: |all, out| out.number(all.coming),
    },
    Metric {
        name: "client_subscriptions_accepted",
        kind: "counter",
        labels: &[],
        help: "Subscriptions that have begun.",
        write: |all, out| out.number(all.said.subscribed),
    },
    Metric {
        name: "client_subscriptions_inflight",
        kind: "gauge",
        labels: &[],
        help: "Subscriptions of all connections, as `node_num_subscriptions`.",
        write: |all, out| out.number(all.subscriptions),
    },
    Metric {
        name: "client_command_duration_seconds_histogram",
        kind: "histogram",
        labels: &["method"],
        help: "How long commands of clients took: from when a worker began with what it had read to when it had the answer. \
               Those that have nothing to wait for (the application's backend, a long history) are below the first bound.",
        write: |all, out| {
            for operation in Operation::ALL {
                histogram(out, operation.name(), &all.said.commands[operation.index()]);
            }
        },
    },
    Metric {
        name: "client_num_reply_errors",
        kind: "counter",
        labels: &["method", "code"],
        help: "Commands of clients that were answered with an error, by its code.",
        write: |all, out| {
            for ((operation, code), count) in &all.said.errors {
                out.labelled(&[operation.name(), &code.to_string()], *count);
            }
        },
    },
    Metric {
        name: "client_num_server_unsubscribes",
        kind: "counter",
        labels: &["code"],
        help: "Subscriptions that the server has ended, and told the client so.",
        write: |all, out| {
            for (code, count) in &all.said.unsubscribed {
                out.labelled(&[&code.to_string()], *count);
            }
        },
    },
    Metric {
        name: "client_recover",
        kind: "counter",
        labels: &["recovered", "has_recovered_publications"],
        help: "Subscriptions whose client came back and asked for what it had missed: whether it could have all of that, and \
               whether there was anything.",
        write: |all, out| {
            for (recovered, counts) in all.said.recoveries.iter().enumerate() {
                for (has_publications, count) in counts.iter().enumerate() {
                    out.labelled(&[YES[recovered], YES[has_publications]], *count);
                }
            }
        },
    },
    Metric {
        name: "client_ping_pong_duration_seconds",
        kind: "histogram",
        labels: &["transport"],
        help: "How long clients took to answer pings. While more than 1,024 of a worker are under way, of some.",
        write: |all, out| {
            for (name, transport) in &all.said.transports {
                histogram(out, name, &transport.pongs);
            }
        },
    },
    Metric {
        name: "transport_messages_sent",
        kind: "counter",
        labels: &["transport", "frame_type"],
        help: "Messages for clients, from when they wait to be written: pushes, answers by what they answer, and `error` for \
               those to commands that have failed.",
        write: |all, out| {
            for ((transport, what), traffic) in &all.spoken {
                out.labelled(&[transport, what], traffic.messages);
            }
        },
    },
    Metric {
        name: "transport_messages_sent_size",
        kind: "counter",
        labels: &["transport", "frame_type"],
        help: "Bytes of those, without what a transport puts around them.",
        write: |all, out| {
            for ((transport, what), traffic) in &all.spoken {
                out.labelled(&[transport, what], traffic.bytes);
            }
        },
    },
    Metric {
        name: "transport_messages_received",
        kind: "counter",
        labels: &["transport", "frame_type"],
        help: "Commands of clients, by what they are; `other` for those that can't be read. Who comes by a door that takes no \
               commands has its connect command written by the door.",
        write: |all, out| received(all, out, |traffic| traffic.messages),
    },
    Metric {
        name: "transport_messages_received_size",
        kind: "counter",
        labels: &["transport", "frame_type"],
        help: "Bytes of those, without what a transport puts around them.",
        write: |all, out| received(all, out, |traffic| traffic.bytes),
    },
    Metric {
        name: "transport_outgoing_close_count",
        kind: "counter",
        labels: &["transport", "code"],
        help: "Connections that the server has ended, as `client_num_server_disconnects`, by transport.",
        write: |all, out| {
            for (name, transport) in &all.said.transports {
                for (code, count) in &transport.closes {
                    out.labelled(&[name, &code.to_string()], *count);
                }
            }
        },
    },
    Metric {
        name: "node_messages_sent_count",
        kind: "counter",
        labels: &["type"],
        help: "What was published and announced on this node: publications that had an effect, and who came and left.",
        write: |all, out| messages(out, all.said.sent),
    },
    Metric {
        name: "node_messages_received_count",
        kind: "counter",
        labels: &["type"],
        help: "The same as it reached workers with subscribers: once for each of them.",
        write: |all, out| messages(out, all.said.received),
    },
    Metric {
        name: "node_broadcast_duration_seconds",
        kind: "histogram",
        labels: &[],
        help: "How long a worker took to hand what it had got at once to all who are subscribed on it. Of one publication in 64, \
               with what came together with it.",
        write: |all, out| {
            if !all.broadcasts.is_empty() {
                out.histogram(&[], &all.broadcasts);
            }
        },
    },
    Metric {
        name: "broker_publish_suppressed_count",
        kind: "counter",
        labels: &["reason"],
        help: "Publications without an effect: `idempotency` for a key that was known, `version` for one that was as new.",
        write: |all, out| {
            out.labelled(&["idempotency"], all.said.suppressed.idempotency);
            out.labelled(&["version"], all.said.suppressed.version);
        },
    },
];

const YES: [&str; 2] = ["no", "yes"];

fn by_client(
    all: &Snapshot,
    out: &mut Samples<'_>,
    counts: impl Fn(&tautline_hub::TransportCounters) -> &[u64; ClientName::COUNT],
) {
    for (name, transport) in &all.said.transports {
        for client in ClientName::ALL {
            // One that was never here is left out: most are not.
            if transport.accepted[client.index()] > 0 {
                out.labelled(&[name, client.name()], counts(transport)[client.index()]);
            }
        }
    }
}

fn received(all: &Snapshot, out: &mut Samples<'_>, number: impl Fn(&tautline_hub::Traffic) -> u64) {
    for (name, transport) in &all.said.transports {
        for what in FrameType::ALL {
            let traffic = &transport.received[what.index()];
            if traffic.messages > 0 {
                out.labelled(&[name, what.name()], number(traffic));
            }
        }
    }
}

fn histogram(out: &mut Samples<'_>, label: &str, histogram: &Histogram) {
    if !histogram.is_empty() {
        out.histogram(&[label], histogram);
    }
}

fn messages(out: &mut Samples<'_>, messages: tautline_hub::Messages) {
    out.labelled(&["publication"], messages.publications);
    out.labelled(&["join"], messages.joins);
    out.labelled(&["leave"], messages.leaves);
}
