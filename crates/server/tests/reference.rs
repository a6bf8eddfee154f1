//! The configuration reference in the book is made from the code: from the doc comments of the
//! structs that a file is read into.
//!
//! To take over a change, after having read it:
//! `UPDATE_REFERENCE=1 cargo test -p tautline --test reference`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tautline::config::Config;

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

const SERVER: &str = "crates/server/src/config/mod.rs";
const CLIENT: &str = "crates/hub/src/config/client.rs";
const PROXY: &str = "crates/server/src/config/proxy.rs";
const RATES: &str = "crates/hub/src/config/rate_limit.rs";
const CHANNEL: &str = "crates/hub/src/config/channel.rs";
const MEMORY: &str = "crates/hub/src/engine/memory/mod.rs";

const TABLES: &[Table] = &[
    table("http_server", SERVER, "HttpServerOptions"),
    table("http_server.tls", SERVER, "TlsOptions"),
    table("http_server.tls.certificates", SERVER, "CertificateOptions"),
    table("node", SERVER, "NodeOptions"),
    table("client", CLIENT, "ClientOptions"),
    table("client.token", SERVER, "TokenOptions"),
    table("client.subscription_token", SERVER, "TokenOptions"),
    table(
        "client.subscribe_to_user_personal_channel",
        CLIENT,
        "PersonalChannelOptions",
    ),
    table(
        "client.rate_limit.client_command",
        RATES,
        "ClientCommandRates",
    ),
    table("client.rate_limit.user_command", RATES, "UserCommandRates"),
    table("client.rate_limit.client_error", RATES, "ErrorRate"),
    table("channel", CHANNEL, "ChannelOptions"),
    table("channel.without_namespace", CHANNEL, "NamespaceOptions"),
    table("engine.memory", MEMORY, "MemoryOptions"),
    table("http_api", SERVER, "HttpApiOptions"),
    table("http_api.keys", SERVER, "ApiKeyOptions"),
    table("client.proxy.connect", PROXY, "ProxyOptions"),
    table("client.proxy.connect.http", PROXY, "ProxyHttpOptions"),
    table(TRANSFORMS, PROXY, "StatusTransform"),
    table("client.proxy.connect.http.tls", PROXY, "ProxyTlsOptions"),
    table("rpc", PROXY, "RpcOptions"),
    table("rpc.without_namespace", PROXY, "RpcNamespaceOptions"),
    table("websocket", SERVER, "WebSocketOptions"),
    table("doors", SERVER, "DoorOptions"),
    table("health", SERVER, "HealthOptions"),
    table("prometheus", SERVER, "PrometheusOptions"),
    table("shutdown", SERVER, "ShutdownOptions"),
    table("log", SERVER, "LogOptions"),
];

const TRANSFORMS: &str = "client.proxy.connect.http.status_to_code_transforms";

struct Field {
    name: String,
    kind: String,
    docs: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The fields of a table, without those that are tables of their own.
fn fields(table: &Table) -> Vec<Field> {
    let source = std::fs::read_to_string(root().join(table.source)).expect("the source is there");
    let start = format!("pub struct {} {{\n", table.structure);
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
            let kind = type_name(kind.trim_end_matches(','));
            if let Some(kind) = kind {
                fields.push(Field {
                    name: name.to_owned(),
                    kind: kind.to_owned(),
                    docs,
                });
            }
        }
    }
    if table.name == "client" {
        // The only option that no struct has: the server takes it out of a table of the hub's.
        fields.insert(
            0,
            Field {
                name: "allowed_origins".into(),
                kind: "list of texts".into(),
                docs: "Whose pages may connect: origins such as `https://app.example.com`, in which \
                       `*` stands for anything but `/`; `*` alone for any. Default: none, which means \
                       the server's own origin."
                    .into(),
            },
        );
    }
    if table.name == "client.subscription_token" {
        fields.insert(
            0,
            Field {
                name: "enabled".into(),
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
        "usize" | "u64" | "u16" | "Option<u64>" => "number",
        "Duration" => "duration",
        "String" | "Option<String>" | "Option<ChannelPattern>" | "Option<TagsFilterTemplate>" => {
            "text"
        }
        "Option<Pattern>" => "regular expression",
        "Option<Secret>" => "secret text",
        "Option<Rate>" => "rate",
        "IpAddr" => "IP address",
        "DataFormat" => "`json`, `json_object` or `binary`",
        "JoinLevel" => "`client` or `user`",
        "RecoveryMode" => "`stream` or `cache`",
        "Vec<DeltaType>" => "list of `fossil`",
        "SlowConsumerOption" => "`auto`, `park`, `disconnect`, `drop_oldest` or `latest`",
        "ErrorMode" => "`body` or `transport`",
        "LogLevel" => "`none`, `error`, `warn`, `info`, `debug` or `trace`",
        "Option<Vec<String>>" | "Vec<String>" => "list of texts",
        "BTreeMap<String, String>" => "table of texts",
        "Option<ToError>" | "Option<ToDisconnect>" => "table",
        "Vec<ApiKeyOptions>"
        | "NamespaceOptions"
        | "Vec<NamespaceOptions>"
        | "PersonalChannelOptions"
        | "ProxyOptions"
        | "ProxyHttpOptions"
        | "ProxyTlsOptions"
        | "Vec<StatusTransform>"
        | "RpcNamespaceOptions"
        | "Vec<RpcNamespaceOptions>"
        | "TlsOptions"
        | "Vec<CertificateOptions>"
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
        "client.proxy.connect" => {
            "The application's backend says who clients are that come without a token ([A backend that decides](proxy.md)). The \
             same options, but for `enabled`, are in `[channel.proxy.subscribe]`, `[channel.proxy.publish]`, \
             `[channel.proxy.sub_refresh]` and `[rpc.proxy]`, and with it in `[client.proxy.refresh]`. With a `name`, they make \
             an endpoint that namespaces can choose: one `[[proxies]]` each."
        }
        TRANSFORMS => "One table for each status that means something.",
        "rpc.without_namespace" => {
            "Methods without a namespace. The same options, and a `name`, make a namespace: one `[[rpc.namespaces]]` each, \
             for the methods whose names begin with that name and a `:`."
        }
        _ => return None,
    })
}

fn reference() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         <!-- Made from the code: change the doc comments there, then run\n\
         UPDATE_REFERENCE=1 cargo test -p tautline --test reference -->\n\n\
         Every option of the file that `tautline serve --config FILE` reads. The file is TOML; an option that \
         is left out has its default, and one that is not in this list is an error which names the nearest \
         one that is. `tautline config check FILE` says what is wrong with a file.\n\n\
         *Yes or no* is `true` or `false`. A *duration* is a text such as `\"25s\"`, `\"10m\"` or `\"1h30m\"`. A *rate* is a text \
         such as `\"100/s\"`, `\"20/5s\"` or `\"100/s, burst 500\"` (which many at once), or `\"off\"` for no limit.\n",
    );
    for table in TABLES {
        let _ = write!(text, "\n## `{}`\n\n", heading(table.name));
        if let Some(docs) = introduction(table.name) {
            let _ = write!(text, "{docs}\n\n");
        }
        if table.name == "http_api.keys" {
            text.push_str(
                "One table for each key. Several may be right at a time, so a key is changed by adding the new one, and \
                 taking the old one out when nobody uses it any more.\n\n",
            );
        }
        if table.name == "channel.without_namespace" {
            text.push_str(
                "Options of channels without a namespace. The same options, and a `name` of two or more letters, \
                 digits, `-`, `_` or `.`, make a namespace: one `[[channel.namespaces]]` each, for the channels \
                 whose names begin with that name and a `:`. Everything is off unless it is switched on.\n\n",
            );
        }
        text.push_str("| option | type | |\n|---|---|---|\n");
        for field in fields(table) {
            let docs = without_links(&field.docs).replace('|', "\\|");
            let _ = writeln!(text, "| `{}` | {} | {docs} |", field.name, field.kind);
        }
    }
    text
}

/// A table, or one of many.
fn heading(table: &str) -> String {
    match table {
        "http_api.keys" | "http_server.tls.certificates" | TRANSFORMS => format!("[[{table}]]"),
        table => format!("[{table}]"),
    }
}

/// Links into the code mean nothing in the book.
fn without_links(docs: &str) -> String {
    docs.replace("[`", "`").replace("`]", "`")
}

#[test]
fn the_book_has_the_reference_that_the_code_gives() {
    let path = root().join("docs/configuration.md");
    let expected = reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &expected).expect("the reference can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == expected,
        "docs/configuration.md is not what the code says; to take it over: \
         UPDATE_REFERENCE=1 cargo test -p tautline --test reference"
    );
}

/// Each option is set to something that it can't be: the complaint must be about that, and not
/// about an option that nobody knows.
#[test]
fn every_option_of_the_reference_is_one_of_the_file() {
    let path = std::env::temp_dir().join(format!("tautline-reference-{}.toml", std::process::id()));
    let complaint = |table: &str, option: &str| {
        // To a reader of tables, a date is one.
        let value = if option == "static_headers" {
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
    for table in TABLES {
        for Field { name, .. } in fields(table) {
            let error = complaint(table.name, &name);
            assert!(!error.contains("unknown"), "{}.{name}: {error}", table.name);
        }
    }
    assert!(complaint("client", "no_such_option").contains("unknown"));
    let _ = std::fs::remove_file(&path);
}
