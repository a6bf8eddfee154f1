//! The chapter for those who come from Centrifugo: every option of it is here under the same name, or the chapter
//! says where it went. To take over a change, after having read it:
//! `UPDATE_REFERENCE=1 cargo test -p tautline --test centrifugo`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use tautline::Config;
use tautline::config::{ELSEWHERE, Elsewhere, Here, Reference};

/// All options that are ours, as `table.option`.
fn ours() -> BTreeSet<String> {
    let reference = Reference::built_in();
    let mut ours = BTreeSet::new();
    for table in &reference.tables {
        for option in reference.options(table) {
            ours.insert(format!("{}.{}", table.name, option.name));
        }
        ours.insert(table.name.clone());
    }
    ours
}

/// The options of Centrifugo 6.9, as its documentation has them.
const THEIRS: &[(&str, &[&str])] = &[
    (
        "client",
        &[
            "allowed_origins",
            "token",
            "subscription_token",
            "allow_anonymous_connect_without_token",
            "disallow_anonymous_connection_tokens",
            "insecure",
            "insecure_skip_token_signature_verify",
            "user_id_http_header",
            "ping_interval",
            "pong_timeout",
            "stale_close_delay",
            "expired_close_delay",
            "expired_sub_close_delay",
            "channel_limit",
            "queue_max_size",
            "presence_update_interval",
            "concurrency",
            "channel_position_check_delay",
            "channel_position_max_time_lag",
            "connection_limit",
            "connection_rate_limit",
            "user_connection_limit",
            "connect_include_server_time",
            "history_max_publication_limit",
            "recovery_max_publication_limit",
            "subscribe_to_user_personal_channel",
            "connect_code_to_unidirectional_disconnect",
            "write_delay",
            "max_messages_in_frame",
            "reply_without_queue",
            "write_with_timer",
            "queue_shrink_delay",
        ],
    ),
    ("client.proxy", &["connect", "refresh"]),
    (
        "client.subscribe_to_user_personal_channel",
        &["enabled", "personal_channel_namespace", "single_connection"],
    ),
    (
        "client.connect_code_to_unidirectional_disconnect",
        &["enabled", "transforms"],
    ),
    (
        "client.token",
        &[
            "hmac_secret_key",
            "hmac_previous_secret_key",
            "hmac_previous_secret_key_valid_until",
            "rsa_public_key",
            "ecdsa_public_key",
            "jwks_public_endpoint",
            "audience",
            "audience_regex",
            "issuer",
            "issuer_regex",
            "user_id_claim",
            "insecure_skip_jwks_endpoint_safety_check",
        ],
    ),
    (
        "client.subscription_token",
        &[
            "enabled",
            "hmac_secret_key",
            "insecure_skip_jwks_endpoint_safety_check",
        ],
    ),
    (
        "channel",
        &[
            "history_meta_ttl",
            "max_length",
            "private_prefix",
            "namespace_boundary",
            "user_boundary",
            "user_separator",
            "publication_data_format",
            "without_namespace",
            "namespaces",
        ],
    ),
    (
        "channel.namespaces",
        &[
            "name",
            "presence",
            "join_leave",
            "force_push_join_leave",
            "history_size",
            "history_ttl",
            "history_meta_ttl",
            "force_positioning",
            "allow_positioning",
            "force_recovery",
            "allow_recovery",
            "force_recovery_mode",
            "auto_cache_recover",
            "allowed_delta_types",
            "delta_publish",
            "allow_tags_filter",
            "allow_subscribe_for_client",
            "allow_subscribe_for_anonymous",
            "allow_publish_for_client",
            "allow_publish_for_subscriber",
            "allow_publish_for_anonymous",
            "allow_presence_for_client",
            "allow_presence_for_subscriber",
            "allow_presence_for_anonymous",
            "allow_history_for_client",
            "allow_history_for_subscriber",
            "allow_history_for_anonymous",
            "allow_user_limited_channels",
            "channel_regex",
            "publication_data_format",
            "subscribe_proxy_enabled",
            "subscribe_proxy_name",
            "publish_proxy_enabled",
            "publish_proxy_name",
            "sub_refresh_proxy_enabled",
            "sub_refresh_proxy_name",
            "subscribe_stream_proxy_enabled",
            "subscribe_stream_proxy_name",
            "subscribe_stream_proxy_bidirectional",
            "subscription_type",
            "map_clients_presence_channel_prefix",
            "map_users_presence_channel_prefix",
            "map",
            "shared_poll",
        ],
    ),
    (
        "channel.proxy",
        &[
            "subscribe",
            "publish",
            "sub_refresh",
            "subscribe_stream",
            "map_publish",
            "map_remove",
            "shared_poll_refresh",
        ],
    ),
    (
        "proxies",
        &[
            "name",
            "endpoint",
            "timeout",
            "http_headers",
            "emulated_headers",
            "grpc_metadata",
            "binary_encoding",
            "include_connection_meta",
            "http",
            "grpc",
        ],
    ),
    (
        "proxies.http",
        &["static_headers", "status_to_code_transforms", "tls"],
    ),
    (
        "proxies.http.tls",
        &[
            "enabled",
            "cert_pem",
            "key_pem",
            "server_ca_pem",
            "client_ca_pem",
            "insecure_skip_verify",
            "server_name",
        ],
    ),
    (
        "websocket",
        &[
            "disabled",
            "handler_prefix",
            "message_size_limit",
            "write_timeout",
            "compression",
            "compression_min_size",
            "compression_level",
            "decompressed_message_size_limit",
            "read_buffer_size",
            "write_buffer_size",
            "use_write_buffer_pool",
        ],
    ),
    (
        "rpc",
        &[
            "namespace_boundary",
            "without_namespace",
            "namespaces",
            "proxy",
            "ping",
        ],
    ),
    ("rpc.ping", &["enabled", "method"]),
    ("rpc.namespaces", &["name", "proxy_enabled", "proxy_name"]),
    (
        "http_server",
        &[
            "address",
            "port",
            "internal_address",
            "internal_port",
            "tls",
            "internal_tls",
            "tls_external",
            "tls_autocert",
            "http3",
            "h2c_external",
        ],
    ),
    (
        "http_server.tls",
        &[
            "enabled",
            "cert_pem",
            "key_pem",
            "client_ca_pem",
            "server_ca_pem",
            "insecure_skip_verify",
            "server_name",
        ],
    ),
    (
        "http_api",
        &[
            "disabled",
            "handler_prefix",
            "key",
            "insecure",
            "external",
            "error_mode",
        ],
    ),
    (
        "admin",
        &[
            "enabled",
            "password",
            "secret",
            "insecure",
            "handler_prefix",
            "external",
            "web_path",
            "web_proxy_address",
        ],
    ),
    ("health", &["enabled", "handler_prefix"]),
    (
        "prometheus",
        &[
            "enabled",
            "handler_prefix",
            "instrument_http_handlers",
            "recovered_publications_histogram",
            "native_histograms",
        ],
    ),
    ("node", &["name", "info_metrics_aggregate_interval"]),
    ("shutdown", &["timeout"]),
    ("log", &["level", "file"]),
    ("engine", &["type", "redis"]),
    (
        "",
        &[
            "http_stream",
            "sse",
            "emulation",
            "webtransport",
            "uni_websocket",
            "uni_sse",
            "uni_http_stream",
            "uni_grpc",
            "init",
            "enable_unreleased_features",
            "grpc_api",
            "swagger",
            "debug",
            "pid_file",
            "broker",
            "presence_manager",
            "map_broker",
            "controller",
            "shared_poll",
            "opentelemetry",
            "graphite",
            "usage_stats",
            "consumers",
        ],
    ),
];

fn theirs() -> BTreeSet<String> {
    let all = THEIRS.iter().flat_map(|(table, options)| {
        options.iter().map(move |option| match *table {
            "" => (*option).to_owned(),
            table => format!("{table}.{option}"),
        })
    });
    all.collect()
}

#[test]
fn each_of_their_options_is_here_or_said_to_be_elsewhere() {
    let (ours, theirs) = (ours(), theirs());
    let elsewhere: BTreeSet<_> = ELSEWHERE
        .iter()
        .map(|known| known.option.to_owned())
        .collect();
    assert_eq!(elsewhere.len(), ELSEWHERE.len(), "one is there twice");
    // A table that is ours has options.
    let is_ours = |option: &str| {
        ours.contains(option)
            || ours
                .iter()
                .any(|ours| ours.starts_with(&format!("{option}.")))
    };
    for option in &theirs {
        assert!(
            is_ours(option) != elsewhere.contains(option),
            "`{option}` is {}",
            if is_ours(option) {
                "here, and said to be elsewhere"
            } else {
                "nowhere"
            }
        );
    }
    for Elsewhere { option, here } in ELSEWHERE {
        assert!(theirs.contains(*option), "`{option}` is none of theirs");
        if let Here::Is(names) = here {
            for name in *names {
                assert!(
                    is_ours(name),
                    "`{option}` can't be `{name}`, which isn't there"
                );
            }
        }
    }
}

#[test]
fn who_uses_one_that_is_elsewhere_is_told_so() {
    for Elsewhere { option, here } in ELSEWHERE {
        let expected = match here {
            Here::Is(names) => names[0],
            Here::Not(why) => why,
        };
        let text = match option.strip_prefix("channel.namespaces.") {
            Some(option) => format!("[[channel.namespaces]]\nname = \"chat\"\n{option} = 1\n"),
            None => format!("{option} = 1\n"),
        };
        let text = match option.strip_prefix("proxies.") {
            Some(option) => format!("[client.proxy.connect]\n{option} = 1\n"),
            None => text,
        };
        let error = Config::from_toml(&text).err().expect(option).to_string();
        assert!(
            error.contains("unknown key ") && error.contains(expected),
            "{option}: {error}"
        );
    }
    let close = Config::from_toml("client.concurency = 1\n")
        .err()
        .expect("unknown");
    assert!(close.to_string().contains("unknown key"), "{close}");
}

fn chapter() -> String {
    let mut text = String::from(
        "# Coming from Centrifugo\n\n\
         <!-- Made from the code: change crates/server/src/config/elsewhere.rs or crates/server/tests/centrifugo.rs, then run\n\
         UPDATE_REFERENCE=1 cargo test -p tautline --test centrifugo -->\n\n\
         Clients stay as they are, and so do backends: the [client protocol](sdks.md), the [server API](server-api.md) and the \
         [questions to the backend](proxy.md) are the same. The file of the configuration is the same, too, as far as it goes: TOML, \
         YAML or JSON, and options with the same names. `tautline config check FILE` goes through one and tells all that it \
         doesn't know; what it then says is what stands here.\n\n\
         This is about Centrifugo 6.9 as everybody can have it, and about each of its options. Those that are not in the tables below are here under \
         the same name ([Configuration](configuration.md)).\n\n\
         ## Elsewhere\n\n| there | here |\n|---|---|\n",
    );
    let mut missing = String::new();
    for Elsewhere { option, here } in ELSEWHERE {
        let _ = match here {
            Here::Is(names) => {
                let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
                writeln!(text, "| `{option}` | {} |", names.join(", "))
            }
            Here::Not(why) => writeln!(missing, "| `{option}` | {why} |"),
        };
    }
    let _ = write!(
        text,
        "\n## Not offered\n\n`channel.namespaces` stands for `channel.without_namespace` as well, and `proxies` for each \
         place in which a proxy's options can be.\n\n| there | why not here |\n|---|---|\n{missing}\n\
         ## Different\n\n\
         - A key that isn't known is an error, not a warning: a misspelt permission would otherwise be one that isn't given, or is.\n\
         - What is switched off there and isn't here at all may stay in the file (`uni_grpc.enabled = false`, `log.file = \"\"`, `engine.type = \"memory\"`), and so may `admin.secret`, paths that are the same here (`health.handler_prefix = \"/health\"`), and empty texts for \
         choices and addresses. Anything else of it is an error.\n\
         - Variables of the environment begin with `TAUTLINE_`; one that is left from there is warned of. Lists of tables are JSON in them, not names that have variables of their \
         own: `TAUTLINE_CHANNEL_NAMESPACES='[{{\"name\":\"chat\"}}]'`.\n\
         - `publication_data_format` is `json` where nothing else is said, not anything at all: of what is no JSON, a client of JSON could read nothing. `binary` takes \
         all bytes.\n\
         - Names of channels that the server API, tokens and the backend say may be in any script here, too, but `channel.max_length` counts for them.\n\
         - Options that need others are refused without them \
         (`force_push_join_leave` without `join_leave`, `delta_publish` without history).\n\
         - `ping_interval` and `pong_timeout` are switched off with `0s`, not with a negative number.\n\
         - Limits are on by default that are off there: `client.connection_limit`, `client.connection_rate_limit`, `client.user_connection_limit`, and [more](limits.md). `0` is for any number here, too.\n\
         - `connection_rate_limit` is a rate, such as `\"100/s\"` or `\"100/s, burst 500\"`; 0 is `\"off\"`.\n\
         - The doors beside the WebSocket are open unless `[doors]` closes them, and closed to pages of other sites, not just unreadable for \
         them. `allowed_origins` may be empty: then it is the server's own origin.\n\
         - Static keys of `client.token` count beside a key set: for tokens that name no key.\n\
         - What tokens fill into `jwks_public_endpoint` may be the first label of a host whose domain is written out, or letters, digits, `-`, `_`, `.` \
         and `~` behind it.\n\
         - `recover` is answered whatever was missed, as long as it is kept: `recovery_max_publication_limit` says how much of it comes with the reply, and the rest \
         follows.\n\
         - `connect_code_to_http_response` is one table for both doors, in `[doors]`. Its codes may be of errors or of disconnects.\n\
         - With `?cf_ws_frame_ping_pong=true`, `client.ping_interval` and `client.pong_timeout` count for control frames, too.\n\n\
         ## More\n\n\
         Paid for there, or not there at all: [rates](limits.md) for commands, users, namespaces and channels; `caps` in tokens; channel patterns; \
         `server_tags_filter`; `exclude_publisher`; join and leave of users; readers that can't keep up are parked and not cut off; histories of any \
         length to recover from.\n"
    );
    text
}

#[test]
fn the_book_says_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/centrifugo.md");
    let expected = chapter();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &expected).expect("the chapter can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == expected,
        "docs/centrifugo.md is not what the code says; to take it over: \
         UPDATE_REFERENCE=1 cargo test -p tautline --test centrifugo"
    );
}
