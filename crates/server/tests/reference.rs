//! What is known of the options (`config/options.json`), and by it the reference in the book, is made from the
//! code: from the structs that a file is read into, and their doc comments.
//!
//! To take over a change, after having read it:
//! `UPDATE_REFERENCE=1 cargo test -p tautline --test reference`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tautline::config::{Config, OptionEntry, OptionTable, Reference};

/// One table of the file, and the struct that it is read into.
struct Table {
    name: &'static str,
    source: &'static str,
    structure: &'static str,
}

const fn table(name: &'static str, source: &'static str, structure: &'static str) -> Table {
    Table {
        name,
        source,
        structure,
    }
}

const SERVER: &str = "crates/server/src/config/http_server.rs";
const API: &str = "crates/server/src/config/api.rs";
const DOORS: &str = "crates/server/src/config/doors.rs";
const LOG: &str = "crates/server/src/config/log.rs";
const NODE: &str = "crates/server/src/config/node.rs";
const TOKEN: &str = "crates/server/src/config/token.rs";
const CONNECTIONS: &str = "crates/server/src/config/client.rs";
const CLIENT: &str = "crates/hub/src/config/client.rs";
const UNI: &str = "crates/server/src/config/uni.rs";
const ADMIN: &str = "crates/server/src/config/admin.rs";
const EVENTS: &str = "crates/server/src/config/events.rs";
const PROXY: &str = "crates/server/src/config/proxy.rs";
const RATES: &str = "crates/hub/src/config/rate_limit.rs";
const CHANNEL: &str = "crates/hub/src/config/channel.rs";
const TELEMETRY: &str = "crates/server/src/config/telemetry.rs";
const TUNNEL: &str = "crates/server/src/config/tunnel.rs";
const ACME: &str = "crates/server/src/config/acme.rs";
const LIMITS: &str = "crates/server/src/config/limits.rs";
const REVOCATION: &str = "crates/server/src/config/revocation.rs";
const MEMORY: &str = "crates/hub/src/engine/memory/mod.rs";

const TABLES: &[Table] = &[
    table("http_server", SERVER, "HttpServerOptions"),
    table("http_server.http2", SERVER, "Http2Options"),
    table("http_server.tls", SERVER, "TlsOptions"),
    table("http_server.tls.certificates", SERVER, "CertificateOptions"),
    table("http_server.tls.acme", ACME, "AcmeOptions"),
    table("limits", LIMITS, "LimitOptions"),
    table("limits.address", LIMITS, "AddressLimitOptions"),
    table("limits.memory", LIMITS, "MemoryLimitOptions"),
    table("revocation", REVOCATION, "RevocationOptions"),
    table("node", NODE, "NodeOptions"),
    table("client", CLIENT, "ClientOptions"),
    table("client.token", TOKEN, "TokenOptions"),
    table("client.subscription_token", TOKEN, "TokenOptions"),
    table(
        "client.subscribe_to_user_personal_channel",
        CLIENT,
        "PersonalChannelOptions",
    ),
    table(UNI_DISCONNECTS, UNI, "DisconnectTransforms"),
    table(UNI_DISCONNECT, UNI, "DisconnectTransform"),
    table(
        "client.rate_limit.client_command",
        RATES,
        "ClientCommandRates",
    ),
    table("client.rate_limit.user_command", RATES, "UserCommandRates"),
    table("client.rate_limit.client_error", RATES, "ErrorRate"),
    table("client.rate_limit.client_input", RATES, "InputRate"),
    table("channel", CHANNEL, "ChannelOptions"),
    table("channel.without_namespace", CHANNEL, "NamespaceOptions"),
    table("engine.memory", MEMORY, "MemoryOptions"),
    table("http_api", API, "HttpApiOptions"),
    table("http_api.keys", API, "ApiKeyOptions"),
    table("client.proxy.connect", PROXY, "ProxyOptions"),
    table("client.proxy.connect.http", PROXY, "ProxyHttpOptions"),
    table(TRANSFORMS, PROXY, "StatusTransform"),
    table("client.proxy.connect.http.tls", PROXY, "ProxyTlsOptions"),
    table("rpc", PROXY, "RpcOptions"),
    table("rpc.ping", PROXY, "RpcPingOptions"),
    table("rpc.without_namespace", PROXY, "RpcNamespaceOptions"),
    table("events", EVENTS, "EventsOptions"),
    table("events.http", EVENTS, "EventsHttpOptions"),
    table("tunnels", TUNNEL, "TunnelOptions"),
    table("websocket", DOORS, "WebSocketOptions"),
    table("doors", DOORS, "DoorOptions"),
    table(UNI_RESPONSES, UNI, "ResponseTransforms"),
    table(UNI_RESPONSE, UNI, "ResponseTransform"),
    table("admin", ADMIN, "AdminOptions"),
    table("health", NODE, "HealthOptions"),
    table("prometheus", NODE, "PrometheusOptions"),
    table("telemetry.otlp", TELEMETRY, "OtlpOptions"),
    table("shutdown", NODE, "ShutdownOptions"),
    table("log", LOG, "LogOptions"),
];

const TRANSFORMS: &str = "client.proxy.connect.http.status_to_code_transforms";

const UNI_DISCONNECTS: &str = "client.connect_code_to_unidirectional_disconnect";
const UNI_DISCONNECT: &str = "client.connect_code_to_unidirectional_disconnect.transforms";
const UNI_RESPONSES: &str = "doors.connect_code_to_http_response";
const UNI_RESPONSE: &str = "doors.connect_code_to_http_response.transforms";

/// Tables with the options of another.
fn likes() -> Vec<OptionTable> {
    let like = |name: String, repeated, like: &str| OptionTable {
        name,
        repeated,
        like: Some(like.to_owned()),
        ..OptionTable::default()
    };
    let mut tables = Vec::new();
    let tls = "client.proxy.connect.http.tls";
    tables.push(like("events.http.tls".to_owned(), false, tls));
    for base in [
        "client.proxy.refresh",
        "channel.proxy.subscribe",
        "channel.proxy.publish",
        "channel.proxy.sub_refresh",
        "rpc.proxy",
        "proxies",
    ] {
        let connect = "client.proxy.connect";
        tables.push(like(base.to_owned(), base == "proxies", connect));
        for (part, repeated) in [
            ("http", false),
            ("http.tls", false),
            ("http.status_to_code_transforms", true),
        ] {
            let name = format!("{base}.{part}");
            tables.push(like(name, repeated, &format!("{connect}.{part}")));
        }
    }
    let mut namespaces = like("channel.namespaces".to_owned(), true, WITHOUT_NAMESPACE);
    namespaces.options = fields(&table("channel.namespaces", CHANNEL, "NamespaceOptions"));
    namespaces
        .options
        .retain(|option| ["name", "pattern"].contains(&&*option.name));
    assert_eq!(namespaces.options.len(), 2);
    tables.push(namespaces);
    tables.push(like(
        "rpc.namespaces".to_owned(),
        true,
        "rpc.without_namespace",
    ));
    tables
}

const WITHOUT_NAMESPACE: &str = "channel.without_namespace";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The fields of a table, without those that are tables of their own.
fn fields(table: &Table) -> Vec<OptionEntry> {
    let source = std::fs::read_to_string(root().join(table.source)).expect("the source is there");
    let start = format!("struct {} {{\n", table.structure);
    let body = source.split_once(&start).expect("the struct is there").1;
    let body = body.split_once("\n}\n").expect("the struct ends").0;
    let mut fields = Vec::new();
    let mut docs = String::new();
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            let _ = write!(docs, "{text}");
        } else if let Some((name, kind)) =
            line.strip_prefix("pub ").and_then(|l| l.split_once(": "))
        {
            let docs = std::mem::take(&mut docs).trim().to_owned();
            assert!(
                !docs.is_empty(),
                "{}.{name} has no documentation",
                table.name
            );
            let code = kind.trim_end_matches(',');
            if let Some(kind) = type_name(code) {
                let default = default(code, kind, &docs);
                let (minimum, maximum) = bounds(code, kind, &docs);
                let mut entry = OptionEntry {
                    name: name.to_owned(),
                    kind: kind.to_owned(),
                    unit: unit(name, kind, &docs).map(str::to_owned),
                    or_zero: docs.contains(", or between "),
                    example: Value::Null,
                    needs_restart: docs.contains("Needs a restart."),
                    docs: without_links(&docs),
                    default,
                    minimum,
                    maximum,
                };
                entry.example = example(table.name, &entry);
                fields.push(entry);
            }
        }
    }
    if table.name == "client" {
        // The server takes these out of a table of the hub's.
        let own = self::fields(&self::table("", CONNECTIONS, "ConnectionOptions"));
        fields.splice(0..0, own);
    }
    if table.name == "client.subscription_token" {
        fields.insert(
            0,
            OptionEntry {
                name: "enabled".into(),
                default: json!(false),
                unit: None,
                minimum: Value::Null,
                maximum: Value::Null,
                or_zero: false,
                example: Value::Null,
                needs_restart: false,
                kind: "yes or no".into(),
                docs: "Subscription tokens are believed by these keys only. Default: no, they are believed by \
                       those of `client.token`."
                    .into(),
            },
        );
    }
    // A namespace has a name and a pattern where it is one of many, and only there.
    fields.retain(|field| {
        !(table.name == "channel.without_namespace" && matches!(&*field.name, "name" | "pattern"))
    });
    fields
}

/// What to call a type in front of somebody who writes TOML; `None` for a table.
fn type_name(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "bool" => "yes or no",
        "u32" | "usize" | "u64" | "u16" | "Option<u64>" => "number",
        "Duration" => "duration",
        "String" | "Option<String>" | "Option<ChannelPattern>" | "Option<TagsFilterTemplate>" => {
            "text"
        }
        "Option<Pattern>" => "regular expression",
        "Option<Secret>" => "secret text",
        "Option<Rate>" => "rate",
        "IpAddr" => "IP address",
        "ForwardedHeader" => "`x-forwarded-for` or `forwarded`",
        "DataFormat" => "`json`, `json_object` or `binary`",
        "JoinLevel" => "`client` or `user`",
        "RecoveryMode" => "`stream` or `cache`",
        "Vec<DeltaType>" => "list of `fossil`",
        "SlowConsumerOption" => "`auto`, `park`, `disconnect`, `drop_oldest` or `latest`",
        "ErrorMode" => "`body` or `transport`",
        "Share" => "share",
        "AuditLog" => "`none`, `changes` or `all`",
        "LogFormat" => "`text` or `json`",
        "LogLevel" => "`none`, `error`, `warn`, `info`, `debug` or `trace`",
        "Option<Vec<String>>" | "Vec<String>" => "list of texts",
        "BTreeMap<String, String>" => "table of texts",
        "Option<ToError>" | "Option<ToDisconnect>" | "Option<ToResponse>" => "table",
        "Vec<ApiKeyOptions>"
        | "NamespaceOptions"
        | "Vec<NamespaceOptions>"
        | "PersonalChannelOptions"
        | "ProxyOptions"
        | "ProxyHttpOptions"
        | "EventsHttpOptions"
        | "ProxyTlsOptions"
        | "Vec<StatusTransform>"
        | "RpcNamespaceOptions"
        | "Vec<RpcNamespaceOptions>"
        | "Http2Options"
        | "AddressLimitOptions"
        | "MemoryLimitOptions"
        | "TlsOptions"
        | "AcmeOptions"
        | "Vec<CertificateOptions>"
        | "DisconnectTransforms"
        | "Vec<DisconnectTransform>"
        | "ResponseTransforms"
        | "Vec<ResponseTransform>"
        | "RpcPingOptions"
        | "RateLimitOptions" => return None,
        other => panic!("tell the reference what to call the type {other}"),
    })
}

/// What has to be said of a table before its options.
fn introduction(table: &str) -> Option<&'static str> {
    Some(match table {
        "client.rate_limit.client_command" => {
            "What each connection may do. A command beyond its rate is answered with error 111 and does nothing; \
             clients try again where it makes sense. `unsubscribe` is carried out in any case, and counts as an error \
             beyond its rate. `send`, which has no answer, ends the connection with code 3013. As many subscriptions as \
             `client.channel_limit` allows may always be made at once, as clients do that come back."
        }
        "client.rate_limit.user_command" => {
            "What all connections of a user together may do on this node. Not for anonymous ones, who have no user in \
             common. Beyond its rate a command fares as above; a connection is refused with error 111, after which \
             clients try again later."
        }
        "client.rate_limit.client_error" => {
            "How many errors a connection may cause. Every command that is answered with an error counts, but for \
             those that are the server's fault (100)."
        }
        "client.rate_limit.client_input" => {
            "How many bytes each connection may send: over a WebSocket as they come, framing included, and in the commands of \
             requests beside a connection. Beyond it the connection is ended with code 3013, after which clients come back."
        }
        "client.proxy.connect" => {
            "The application's backend says who clients are that come without a token ([A backend that decides](proxy.md)). The \
             same options, but for `enabled`, are in `[channel.proxy.subscribe]`, `[channel.proxy.publish]`, \
             `[channel.proxy.sub_refresh]` and `[rpc.proxy]`, and with it in `[client.proxy.refresh]`. With a `name`, they make \
             an endpoint that namespaces can choose: one `[[proxies]]` each."
        }
        UNI_DISCONNECTS => {
            "How unidirectional connections end that come to nothing because of an error. Where nothing is said here, 109 \
             and 110 become 3005, 111 becomes 3013, 103 becomes 3507, and all others 3004."
        }
        UNI_RESPONSES => {
            "How `/connection/uni_sse` and `/connection/uni_http_stream` answer whom they don't let in."
        }
        UNI_DISCONNECT | UNI_RESPONSE => "One table for each code.",
        "rpc.ping" => "A method that the server itself answers, with nothing.",
        TRANSFORMS => "One table for each status that means something.",
        "tunnels" => {
            "WebSocket servers of your own that clients reach through this one, by plain HTTP where no WebSocket gets \
             through ([Tunnels](tunnel.md)). One table for each. Whose pages may connect, `client.allowed_origins` says; who \
             may do what, that server."
        }
        "http_api.keys" => {
            "One table for each key. Several may be right at a time, so a key is changed by adding the new one, and \
             taking the old one out when nobody uses it any more."
        }
        WITHOUT_NAMESPACE => {
            "Options of channels without a namespace. The same options, and a `name` of two or more letters, \
             digits, `-`, `_` or `.`, make a namespace: one `[[channel.namespaces]]` each, for the channels \
             whose names begin with that name and a `:`. Everything is off unless it is switched on."
        }
        "rpc.without_namespace" => {
            "Methods without a namespace. The same options, and a `name`, make a namespace: one `[[rpc.namespaces]]` each, \
             for the methods whose names begin with that name and a `:`."
        }
        _ => return None,
    })
}

/// What an option is where nothing is said, by its documentation; if that says nothing, what its type has.
/// That it is true is tested where the files are read.
fn default(code: &str, kind: &str, docs: &str) -> Value {
    let said = docs.rsplit_once("Default: ").map(|(_, said)| said);
    let quoted = |text: &str| text.split('`').nth(1).map(str::to_owned);
    let unset = matches!(said, Some(said) if said.starts_with("none") || said.starts_with("empty"));
    match kind {
        _ if code.starts_with("Option<") && code != "Option<Rate>" => Value::Null,
        _ if docs.ends_with("Required.") || kind == "table of texts" => Value::Null,
        "yes or no" => json!(said.is_some_and(|said| said.starts_with("yes"))),
        "number" => json!(said.map_or(0, number)),
        "duration" => {
            let said = said.unwrap_or("0s");
            let end = said.find(['.', ',', ';']).unwrap_or(said.len());
            json!(said[..end].replace(' ', ""))
        }
        kind if kind.starts_with("list of ") => json!([]),
        kind if kind.starts_with('`') && unset => json!(""),
        "text" if unset || said.is_none() => json!(""),
        _ => said
            .and_then(quoted)
            .or_else(|| quoted(kind))
            .map_or(Value::Null, |text| json!(text)),
    }
}

/// The least and the most that a number or a duration may be: what its documentation says (*between 1s and 10m*, *at least
/// 1 KiB*, *at most 10,000*), and what its type can hold. That both are true is tested in `tests/config/bounds.rs`.
fn bounds(code: &str, kind: &str, docs: &str) -> (Value, Value) {
    let docs = docs.to_lowercase();
    let behind = |mark: &str| docs.split_once(mark).map(|(_, behind)| behind);
    let value = |text: &str| match kind {
        "duration" => {
            let end = text.find(|c: char| !c.is_ascii_alphanumeric());
            json!(text[..end.unwrap_or(text.len())])
        }
        _ => json!(number(&text.to_uppercase().replace("IB", "iB"))),
    };
    let is_value = |text: &&str| text.starts_with(|c: char| c.is_ascii_digit());
    let (mut least, mut most) = match kind {
        "number" => (json!(0), Value::Null),
        "duration" => (json!("0s"), Value::Null),
        _ => return (Value::Null, Value::Null),
    };
    match code {
        "u16" => most = json!(u16::MAX),
        "u32" => most = json!(u32::MAX),
        _ => {}
    }
    let ranges = docs.match_indices("between ");
    let mut ranges = ranges.filter_map(|(at, mark)| docs[at + mark.len()..].split_once(" and "));
    if let Some((first, second)) = ranges.find(|(first, _)| is_value(first)) {
        return (value(first), value(second));
    }
    if let Some(text) = behind("at least ").filter(is_value) {
        least = value(text);
    }
    if let Some(text) = behind("at most ").filter(is_value) {
        most = value(text);
    }
    (least, most)
}

/// What a number counts.
fn unit(name: &str, kind: &str, docs: &str) -> Option<&'static str> {
    let has = |text: &str| docs.contains(text);
    Some(match name {
        _ if kind != "number" => return None,
        "port" | "code" | "status_code" => return None,
        _ if has("bytes") => "bytes",
        _ if has("Unix time") => "seconds since 1970",
        _ if has("in a second") => "per second",
        "sampling_percent" => "percent",
        "workers" => "threads",
        "connections"
        | "handshakes"
        | "connection_limit"
        | "user_connection_limit"
        | "max_sockets"
        | "max_connections" => "connections",
        "max_addresses" => "addresses",
        "max_concurrent_streams" => "streams",
        "max_entries" => "revocations",
        "channel_limit" | "max_channels" | "max_broadcast_channels" | "max_listed_channels" => {
            "channels"
        }
        "presence_max_clients" | "max_subscribers" => "clients",
        "history_size" | "history_max_publication_limit" | "recovery_max_publication_limit" => {
            "publications"
        }
        "max_batch_commands" => "commands",
        "max_concurrent_calls" | "rpc_limit" => "calls",
        "client_deliveries_per_second" | "join_leave_deliveries_per_second" => "deliveries",
        "max_in_flight" => "questions",
        "breaker_failures" => "failures",
        "batch_size" | "dead_max_events" => "events",
        "max_sessions" => "sessions",
        "queue_size" => "spans",
        other => panic!("tell the reference what `{other}` counts"),
    })
}

/// What an option could be: what its documentation has behind *such as*, or something else than the default. None for
/// what is yes or no.
fn example(table: &str, entry: &OptionEntry) -> Value {
    let said = entry.docs.split_once("such as `").map(|(_, said)| said);
    let said = said
        .and_then(|said| said.split_once('`'))
        .map(|(said, _)| said);
    let list = |text: &str| json!([text]);
    match (table, &*entry.name) {
        (_, "static_headers" | "headers") => return json!({"Authorization": "Bearer secret"}),
        (_, "to_error") => return json!({"code": 1001, "message": "try again", "temporary": true}),
        (UNI_RESPONSE, "to") => return json!({"status_code": 403, "body": "forbidden"}),
        (_, "to_disconnect" | "to") => return json!({"code": 4001, "reason": "go away"}),
        (_, "server_tags_filter") => return json!(said.expect("it has one")),
        (_, "code" | "status_code") => return json!(if entry.name == "code" { 109 } else { 404 }),
        (_, "hmac_previous_secret_key_valid_until") => return json!(1_900_000_000),
        ("log", "level") => return json!("debug"),
        ("http_api", "audit_log") => return json!("all"),
        (_, "kinds") => return json!(["connected", "disconnected"]),
        _ => {}
    }
    let choice = entry
        .kind
        .split('`')
        .skip(1)
        .step_by(2)
        .find(|choice| entry.default != *choice);
    match entry.kind.as_str() {
        "yes or no" => Value::Null,
        "number" => number_like(entry),
        "duration" => json!(duration_like(entry)),
        "rate" => json!("100/s, burst 500"),
        "share" => json!("1%"),
        "list of texts" => list(said.unwrap_or_else(|| text_like(table, &entry.name))),
        kind if kind.starts_with("list of ") => list(choice.expect("one")),
        kind if kind.starts_with('`') => json!(choice.expect("one")),
        "IP address" => json!("127.0.0.1"),
        _ => json!(said.unwrap_or_else(|| text_like(table, &entry.name))),
    }
}

/// Twice the default, or what is nearest to that.
fn number_like(entry: &OptionEntry) -> Value {
    let twice = match entry.default.as_u64() {
        None | Some(0) => 1000,
        Some(number) => number * 2,
    };
    let twice = match entry.unit.as_deref() {
        Some("bytes") if entry.default == 0 => 1 << 30,
        Some("threads") => 4,
        _ => twice,
    };
    json!(twice.min(entry.maximum.as_u64().unwrap_or(u64::MAX)))
}

fn duration_like(entry: &OptionEntry) -> &'static str {
    match (&*entry.name, entry.default.as_str().unwrap_or_default()) {
        ("write_delay", _) => "10ms",
        ("pong_timeout", _) => "5s",
        ("retry_max", _) => "5m",
        ("readiness_delay" | "leeway", _) => "5s",
        ("history_ttl", _) => "10m",
        ("channel_position_check_delay", _) => "1m",
        (_, "100ms" | "500ms") => "1s",
        (_, "720h" | "0s") => "24h",
        (_, "24h") => "72h",
        (_, "1m") => "10s",
        (_, "25s" | "30s") => "20s",
        _ => "15s",
    }
}

/// What texts could be whose documentation has nothing.
fn text_like(table: &str, name: &str) -> &'static str {
    match name {
        "cert_pem" => "/etc/tautline/certificate.pem",
        "key_pem" => "/etc/tautline/key.pem",
        "client_ca_pem" | "server_ca_pem" | "directory_ca_pem" => "/etc/tautline/authorities.pem",
        "domains" => "live.example.com",
        "contact" => "ops@example.com",
        "directory_url" => "https://acme-staging-v02.api.letsencrypt.org/directory",
        "cache_directory" => "/var/lib/tautline/acme",
        "directory" if table == "events" => "/var/lib/tautline/events",
        "directory" => "/var/lib/tautline/revocations",
        "external_account_key_id" => "kid-1",
        "external_account_hmac_key" => {
            "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
        }
        "hmac_secret_key" | "hmac_previous_secret_key" | "key" | "password" => {
            "a text of 32 random bytes or more"
        }
        "password_hash" => "what `tautline password` prints",
        name if name.ends_with("_public_key") => "-----BEGIN PUBLIC KEY----- ...",
        "audience" => "live",
        "issuer" => "https://id.example.com",
        "audience_regex" => "^live-[a-z]+$",
        "issuer_regex" => "^https://id[.]example[.]com/",
        "user_id_claim" => "user_id",
        "sha256" => "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "channel_regex" => "^[a-z]+$",
        "private_prefix" => "!",
        "namespace_boundary" => "::",
        "user_boundary" => "@",
        "user_separator" => "|",
        "slow_consumer_key_tag" => "symbol",
        "name" if table == "node" => "server-1",
        "name" if table == "http_api.keys" => "shop",
        "name" if table == "tunnels" => "docs",
        "name" if table == "client.proxy.connect" => "orders",
        "name" => "chat",
        "personal_channel_namespace" => "personal",
        "subscribe_proxy_name" | "publish_proxy_name" | "sub_refresh_proxy_name" | "proxy_name" => {
            "orders"
        }
        "namespaces" => "chat",
        "emulated_headers" => "Authorization",
        "trusted_proxies" | "exempt" => "10.0.0.0/8",
        "method" => "measure",
        "endpoint" => "http://collector.internal:4318/v1/traces",
        "service_name" => "live",
        other => panic!("tell the reference what `{table}.{other}` could be"),
    }
}

/// A number such as `1,000` or `64 KiB`, and what comes behind it.
fn number(text: &str) -> u64 {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != ',')
        .unwrap_or(text.len());
    let number = text[..end].replace(',', "").parse::<u64>();
    let number = number.unwrap_or_else(|_| panic!("`{text}` begins with no number"));
    let units = [(" KiB", 10), (" MiB", 20), (" GiB", 30), (" TiB", 40)];
    let unit = units.iter().find(|(unit, _)| text[end..].starts_with(unit));
    number << unit.map_or(0, |(_, shift)| *shift)
}

fn reference() -> Reference {
    let documented = TABLES.iter().map(|table| OptionTable {
        name: table.name.to_owned(),
        repeated: matches!(
            table.name,
            "http_api.keys"
                | "tunnels"
                | "http_server.tls.certificates"
                | TRANSFORMS
                | UNI_DISCONNECT
                | UNI_RESPONSE
        ),
        like: None,
        introduction: introduction(table.name).map(str::to_owned),
        options: fields(table),
    });
    Reference {
        tables: documented.chain(likes()).collect(),
    }
}

/// Links into the code mean nothing in the book.
fn without_links(docs: &str) -> String {
    docs.replace("[`", "`").replace("`]", "`")
}

/// Compares a file with what it should be, or writes it.
fn compare(path: &str, expected: &str) {
    let path = root().join(path);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, expected).expect("the reference can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == expected,
        "{} is not what the code says; to take it over: \
         UPDATE_REFERENCE=1 cargo test -p tautline --test reference",
        path.display()
    );
}

#[test]
fn the_server_and_the_book_know_the_options_that_the_code_has() {
    let reference = reference();
    let json = serde_json::to_string_pretty(&reference).expect("it is JSON");
    compare("crates/server/src/config/options.json", &(json + "\n"));
    compare("docs/configuration.md", &reference.markdown());
}

/// Each option is set to something that it can't be: the complaint must be about that, and not
/// about an option that nobody knows.
#[test]
fn every_option_of_the_reference_is_one_of_the_file() {
    let path = std::env::temp_dir().join(format!("tautline-reference-{}.toml", std::process::id()));
    let complaint = |table: &str, option: &str| {
        // To a reader of tables, a date is one.
        let value = if ["static_headers", "headers"].contains(&option) {
            "1"
        } else {
            "1979-05-27"
        };
        std::fs::write(&path, format!("[{table}]\n{option} = {value}\n"))
            .expect("a temporary file");
        match Config::load(&path) {
            Ok(_) => panic!("{table}.{option} took a date"),
            Err(error) => error.to_string(),
        }
    };
    let reference = reference();
    for table in &reference.tables {
        for OptionEntry { name, .. } in reference.options(table) {
            let error = complaint(&table.name, name);
            assert!(!error.contains("unknown"), "{}.{name}: {error}", table.name);
        }
    }
    assert!(complaint("client", "no_such_option").contains("unknown"));
    let _ = std::fs::remove_file(&path);
}
