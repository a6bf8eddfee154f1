//! Metrics of clients and their subscriptions.

use tautline_hub::{Operation, TokenRefusal};

use super::super::Metric;

pub(super) const METRICS: &[Metric] = &[
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
        help: "Connections that the server has ended, by code: 3001 for those that were sent over by a node on its way out, 3008 for slow \
               readers, 3012 for those from whom no pong came, 3500 for bad tokens, and so on.",
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
        name: "token_num_key_sets",
        kind: "gauge",
        labels: &[],
        help: "Key sets that tokens are verified with and that are fetched: those of tenants one by one.",
        write: |all, out| out.number(all.keys.sets),
    },
    Metric {
        name: "token_key_fetches_total",
        kind: "counter",
        labels: &["outcome"],
        help: "Fetches of key sets: `fetched`, or `failed`, after which the keys that were there stay in use.",
        write: |all, out| {
            out.labelled(&["fetched"], all.keys.fetched);
            out.labelled(&["failed"], all.keys.failed);
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
        help: "Revocations that are known: of a `token`, or of those of a `user`, all or for one channel. Together they may be as many as `revocation.max_entries`.",
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
        name: "publication_delivery_duration_seconds",
        kind: "histogram",
        labels: &[],
        help: "How long publications took within the server: from when one had its place in its channel to when it was \
               written to the connections of a worker, as far as these had room, `client.write_delay` included. Of one in 64.",
        write: |all, out| out.histogram(&[], &all.deliveries),
    },
];
