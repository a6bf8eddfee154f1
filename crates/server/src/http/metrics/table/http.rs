//! Metrics of what comes by HTTP, and certificates.

use super::super::Metric;

pub(super) const METRICS: &[Metric] = &[
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
        help: "Connections that ended early, most of them without a word: `head` because the head of a request did not come in \
               time (nor any further request), `tls` because of a TLS handshake that failed or did not come in time, `tls_expected` because something \
               else came where TLS is spoken (http:// instead of https://), `tls_unexpected` because TLS came where it isn't, `answer` because nothing of an \
               answer was taken, or acknowledged, for `http_server.write_timeout` (in HTTP/2 that may be one of its streams); `proxy_header` because the header of the \
               PROXY protocol did not come in time or was none; `untold` because it was refused while too many were told so; \
               `ping` for one of HTTP/2 that was not answered, and `idle` for a connection in HTTP/2 without a stream; `ending` \
               because it had to end and what went on took too long, `goodbye` because a WebSocket's closing handshake did; \
               `poll` for long-polled sessions whose client did not come back; `silence` for WebSockets that the system has \
               given up.",
        write: |all, out| {
            for (reason, count) in all.http.all_dropped() {
                out.labelled(&[reason], count);
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
        name: "http2_refused_streams_total",
        kind: "counter",
        labels: &[],
        help: "Requests over HTTP/2 that were refused (`REFUSED_STREAM`) because their connection had as many as it may \
               (`http_server.http2.max_concurrent_streams`). Clients send them again.",
        write: |all, out| out.number(all.http2.refused),
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
];
