//! Options of Centrifugo that are elsewhere here, or nowhere: what whoever comes with a configuration of it is told.

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere {
    /// Its name there: `channel.namespaces.map` stands for channels without a namespace, too, and
    /// `proxies.grpc` for each place in which a proxy's options can be.
    pub option: &'static str,
    /// Where it is here.
    pub here: Here,
}

/// Where an option is.
#[derive(Clone, Copy, Debug)]
pub enum Here {
    /// Under these other names.
    Is(&'static [&'static str]),
    /// Nowhere, and why.
    Not(&'static str),
}

const fn is(option: &'static str, names: &'static [&'static str]) -> Elsewhere {
    let here = Here::Is(names);
    Elsewhere { option, here }
}

const fn not(option: &'static str, why: &'static str) -> Elsewhere {
    let here = Here::Not(why);
    Elsewhere { option, here }
}

/// All that are known. Every other option of it has the same name here.
pub const ELSEWHERE: &[Elsewhere] = &[
    is(
        "http_stream",
        &["doors.http_stream", "doors.request_size_limit"],
    ),
    is("sse", &["doors.sse", "doors.request_size_limit"]),
    is("emulation", &["doors.request_size_limit"]),
    is(
        "uni_websocket",
        &[
            "doors.unidirectional",
            "doors.uni_websocket_disconnect_push",
            "doors.uni_websocket_join_messages",
            "websocket.message_size_limit",
        ],
    ),
    is(
        "uni_sse",
        &[
            "doors.unidirectional",
            "doors.connect_code_to_http_response.enabled",
            "doors.request_size_limit",
        ],
    ),
    is(
        "uni_http_stream",
        &[
            "doors.unidirectional",
            "doors.connect_code_to_http_response.enabled",
            "doors.request_size_limit",
        ],
    ),
    is("http_server.h2c_external", &["http_server.http2.enabled"]),
    not("client.presence_update_interval", RENEWING),
    not(
        "client.concurrency",
        "the commands of a connection are executed one after the other, so that their order means something",
    ),
    not(
        "client.channel_position_max_time_lag",
        "a publication that comes late comes all the same, in its place: nobody has to subscribe again for it",
    ),
    not("client.max_messages_in_frame", WRITES),
    not("client.reply_without_queue", WRITES),
    not("client.write_with_timer", WRITES),
    not("client.queue_shrink_delay", WRITES),
    not(
        "client.token.insecure_skip_jwks_endpoint_safety_check",
        SAFETY,
    ),
    not(
        "client.subscription_token.insecure_skip_jwks_endpoint_safety_check",
        SAFETY,
    ),
    not("channel.namespaces.subscription_type", STREAMS),
    not("channel.namespaces.map", STREAMS),
    not(
        "channel.namespaces.map_clients_presence_channel_prefix",
        STREAMS,
    ),
    not(
        "channel.namespaces.map_users_presence_channel_prefix",
        STREAMS,
    ),
    not("channel.namespaces.shared_poll", STREAMS),
    not(
        "channel.namespaces.subscribe_stream_proxy_enabled",
        GRPC_STREAMS,
    ),
    not(
        "channel.namespaces.subscribe_stream_proxy_name",
        GRPC_STREAMS,
    ),
    not(
        "channel.namespaces.subscribe_stream_proxy_bidirectional",
        GRPC_STREAMS,
    ),
    not("channel.proxy.subscribe_stream", GRPC_STREAMS),
    not("channel.proxy.map_publish", STREAMS),
    not("channel.proxy.map_remove", STREAMS),
    not("channel.proxy.shared_poll_refresh", STREAMS),
    not("shared_poll", STREAMS),
    not("map_broker", STREAMS),
    not("proxies.grpc", GRPC),
    not("proxies.grpc_metadata", GRPC),
    not(
        "proxies.http.tls.enabled",
        "an endpoint that begins with https:// is spoken to over TLS",
    ),
    not(
        "proxies.http.tls.client_ca_pem",
        "that is for servers: the backend's authority is server_ca_pem",
    ),
    not("proxies.http.tls.insecure_skip_verify", VERIFIED),
    not(
        "proxies.http.tls.server_name",
        "the certificate must be for the host of the endpoint",
    ),
    not(
        "websocket.disabled",
        "the WebSocket is what all clients try first",
    ),
    not("websocket.handler_prefix", PATHS),
    not(
        "websocket.write_timeout",
        "who doesn't read is parked or closed by how much waits (client.queue_max_size), or by client.pong_timeout",
    ),
    not("websocket.compression", COMPRESSION),
    not("websocket.compression_min_size", COMPRESSION),
    not("websocket.compression_level", COMPRESSION),
    not("websocket.decompressed_message_size_limit", COMPRESSION),
    not("websocket.read_buffer_size", BUFFERS),
    not("websocket.write_buffer_size", BUFFERS),
    not("websocket.use_write_buffer_pool", BUFFERS),
    not(
        "webtransport",
        "it isn't offered yet; SDKs go on to the next transport",
    ),
    not("uni_grpc", GRPC),
    not("grpc_api", GRPC),
    not("init", "GET /health answers as well"),
    is(
        "http_server.internal_address",
        &["http_server.internal_listen"],
    ),
    is(
        "http_server.internal_port",
        &["http_server.internal_listen"],
    ),
    not("http_server.internal_tls", PORT),
    not("http_server.tls_external", PORT),
    is("http_server.tls_autocert", &["http_server.tls.acme"]),
    not("http_server.http3", "HTTP/3 isn't spoken yet"),
    not(
        "http_server.tls.server_ca_pem",
        "that is for clients: the authorities of clients' certificates are client_ca_pem",
    ),
    not(
        "http_server.tls.insecure_skip_verify",
        "clients need no certificate where client_ca_pem isn't set",
    ),
    not(
        "http_server.tls.server_name",
        "each certificate is used for the names that are in it",
    ),
    not("http_api.disabled", "without a key every call is refused"),
    not("http_api.handler_prefix", PATHS),
    not("http_api.external", PORT),
    not("health.handler_prefix", PATHS),
    not("prometheus.handler_prefix", PATHS),
    not("prometheus.instrument_http_handlers", METRICS),
    not("prometheus.recovered_publications_histogram", METRICS),
    not("prometheus.native_histograms", METRICS),
    not(
        "swagger",
        "the API describes itself at /api/openapi.json, always",
    ),
    not("debug", "there is no profiler in the server"),
    not(
        "admin.secret",
        "sessions are kept by the server, and end with it",
    ),
    not(
        "admin.insecure",
        "the page shows who is there, so it needs a password",
    ),
    not("admin.handler_prefix", PATHS),
    not("admin.external", PORT),
    not("admin.web_path", PAGE),
    not("admin.web_proxy_address", PAGE),
    not("node.info_metrics_aggregate_interval", METRICS),
    not(
        "pid_file",
        "the process stays in the foreground, and whoever started it knows its id",
    ),
    not(
        "log.file",
        "the log goes to standard error, and whoever starts the server keeps it",
    ),
    not("engine.type", ENGINE),
    not("engine.redis", ENGINE),
    not("broker", ENGINE),
    not("presence_manager", ENGINE),
    not("controller", ENGINE),
    not("consumers", "publish with the server API"),
    is("opentelemetry", &["telemetry.otlp"]),
    not("graphite", METRICS),
    not("usage_stats", "nothing is sent to anybody"),
    not(
        "enable_unreleased_features",
        "what there is can be used without",
    ),
];

/// What to say of an option that isn't known, if it is one of these. `path` is where it stands in the file.
pub(super) fn explain(path: &str) -> Option<String> {
    Some(match find(path)?.here {
        Here::Is(names) => {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            format!("here that is {}", names.join(", "))
        }
        Here::Not(why) => format!("there is nothing of that here: {why}"),
    })
}

/// The one that stands at this place in the file.
pub(super) fn find(path: &str) -> Option<&'static Elsewhere> {
    let path = plain(path);
    ELSEWHERE.iter().find(|known| known.option == path)
}

/// The path without what tells namespaces and proxies apart.
fn plain(path: &str) -> String {
    let mut plain = String::new();
    let mut rest = path;
    while let Some((before, behind)) = rest.split_once('[') {
        plain.push_str(before);
        let behind = behind.split_once(']').map_or("", |(_, behind)| behind);
        // The name that was given.
        rest = match behind
            .strip_prefix(" (`")
            .and_then(|name| name.split_once("`)"))
        {
            Some((_, behind)) => behind,
            None => behind,
        };
    }
    plain.push_str(rest);
    let same = [
        ("channel.without_namespace.", "channel.namespaces."),
        ("client.proxy.connect.", "proxies."),
        ("client.proxy.refresh.", "proxies."),
        ("channel.proxy.subscribe.", "proxies."),
        ("channel.proxy.publish.", "proxies."),
        ("channel.proxy.sub_refresh.", "proxies."),
        ("rpc.proxy.", "proxies."),
    ];
    let alike = same
        .iter()
        .find_map(|(from, to)| Some((to, plain.strip_prefix(from)?)));
    match alike {
        Some((to, rest)) => format!("{to}{rest}"),
        None => plain,
    }
}

const RENEWING: &str =
    "who is in a channel is known from its subscriptions, which need no renewing";
const WRITES: &str = "what waits for a connection leaves in one write (client.write_delay says how long it may wait), what a client asks for is answered at once, and an empty queue takes no memory";
const SAFETY: &str = "what tokens fill into the URL can't name another host";
const STREAMS: &str = "all channels are streams; maps and shared polls are not offered";
const GRPC: &str = "gRPC isn't spoken; the same is there over HTTP";
const GRPC_STREAMS: &str = "a backend can't be the source of a subscription; let it publish with the server API when channels have subscribers";
const VERIFIED: &str = "certificates are always verified; give the authority in server_ca_pem";
const PATHS: &str = "paths are fixed; a proxy in front can map others to them";
const PAGE: &str = "the page is in the server";
const COMPRESSION: &str =
    "the server doesn't compress WebSockets' messages yet; patches (allowed_delta_types) save more";
const BUFFERS: &str = "an idle connection has no buffers, and the others share one a thread";
const PORT: &str = "TLS is on the clients' port alone: http_server.internal_listen belongs in a network of your own";
const METRICS: &str = "what is counted is in docs/metrics.md";
const ENGINE: &str = "there is one engine, in memory, on one node (engine.memory)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_alike() {
        for (path, expected) in [
            ("sse", "sse"),
            (
                "channel.namespaces[0] (`chat`).map",
                "channel.namespaces.map",
            ),
            ("channel.namespaces[12].map", "channel.namespaces.map"),
            ("channel.without_namespace.map", "channel.namespaces.map"),
            ("proxies[1] (`a[b`).grpc", "proxies.grpc"),
            (
                "channel.proxy.publish.http.tls.enabled",
                "proxies.http.tls.enabled",
            ),
            (
                "channel.proxy.subscribe_stream",
                "channel.proxy.subscribe_stream",
            ),
        ] {
            assert_eq!(plain(path), expected, "{path}");
        }
    }
}
