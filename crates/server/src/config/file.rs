//! From the text of a file to a checked configuration.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use tautline_auth::Verifier;
use tautline_hub::config::{ChannelOptions, ClientOptions, HubConfig};
use tautline_hub::engine::memory::MemoryOptions;
use toml::de::{DeTable, DeValue};

use super::client::ConnectionOptions;
use super::error::Problems;
use super::place::{self, Entry};
use super::source::Source;
use super::{
    AdminOptions, Config, DoorOptions, EventsOptions, HealthOptions, HttpApiOptions,
    HttpServerOptions, LimitOptions, LogOptions, NodeOptions, Problem, PrometheusOptions,
    ProxyOptions, RevocationOptions, RpcOptions, ShutdownOptions, TelemetryOptions, TokenOptions,
    TunnelOptions, Values, WebSocketOptions,
};
use super::{doubts, elsewhere, proxy, suggest, token, uni, validate};
use crate::http::Settings;
use crate::http::origin::OriginPolicy;
use crate::tls::{CHECK_INTERVALS, Tls, unix_time};

/// Reads a file that is at most [`MAX_FILE_LEN`] bytes long.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE_LEN + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_LEN {
        let error = format!("longer than {MAX_FILE_LEN} bytes; is this the right file?");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
    }
    Ok(bytes)
}

/// The text that these bytes are.
///
/// # Errors
///
/// Where they are none.
pub(super) fn text(bytes: Vec<u8>) -> Result<String, Problem> {
    let is_utf16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..good]);
        let (line, column) = place::line_and_column(&before, good);
        let message = match is_utf16 {
            true => "this is UTF-16, expected UTF-8; save the file as that",
            false => "this is no UTF-8, which a configuration is written in",
        };
        Problem {
            line: Some(line),
            column,
            message: message.to_owned(),
        }
    })
}

/// Parses and checks.
pub(super) fn parse(source: &Source<'_>) -> Result<Config, Problems> {
    let root = source.root()?;
    let entries = place::entries(root.get_ref());
    let mut problems = validate::problems(root.get_ref(), source).into_iter();
    if let Some(first) = problems.next() {
        let others = problems.collect();
        return Err(Problems { first, others });
    }
    let values = Values::of(root.get_ref());
    let secrets = doubts::secrets(root.get_ref());
    let written = written(root).map_err(|error| source.explain(&error, &entries))?;
    let config = check(written).map_err(|Unusable { option, problem }| {
        let offset = place::offset_of(&entries, &option);
        source.problem(offset, format!("{option}: {problem}"))
    });
    let mut config = config?;
    let is_set = values.iter().any(|(path, _)| path == ENGINE_BYTES);
    let ceiling = config.admission.memory.ceiling;
    let doubt = super::limits::engine(&mut config.engine, is_set, ceiling);
    config.warnings.extend(doubt);
    for warning in &mut config.warnings {
        if let Some(offset) = place::named_in(&entries, warning) {
            let at = source.problem(Some(offset), std::mem::take(warning));
            *warning = match at.line {
                Some(line) => format!("{} (line {line}, column {})", at.message, at.column),
                None => at.message,
            };
        }
    }
    for (offset, doubt) in secrets {
        let at = source.problem(Some(offset), doubt);
        config.warnings.push(match at.line {
            Some(line) => format!("{} (line {line}, column {})", at.message, at.column),
            None => at.message,
        });
    }
    config.warnings.extend(source.warnings());
    config.values = values;
    Ok(config)
}

const ENGINE_BYTES: &str = "engine.memory.max_bytes";

/// Parses, and checks nothing.
#[cfg(test)]
pub(super) fn tables(source: &Source<'_>) -> Result<Written, Problem> {
    let root = source.root()?;
    let entries = place::entries(root.get_ref());
    written(root).map_err(|error| source.explain(&error, &entries))
}

fn written(mut root: toml::Spanned<DeTable<'_>>) -> Result<Written, toml::de::Error> {
    // `[client]` is the hub's table, but for some keys which are the server's.
    let client = root.get_mut().get_mut("client").map(toml::Spanned::get_mut);
    let mut client = match client {
        Some(DeValue::Table(client)) => Some(client),
        _ => None,
    };
    let own = CLIENT_TABLES.map(|key| client.as_mut()?.remove(key));
    let [token, mut subscription_token, client_proxies] = own;
    let connections = ConnectionOptions::take(client)?;
    let channel = root
        .get_mut()
        .get_mut("channel")
        .map(toml::Spanned::get_mut);
    let channel_proxies = match channel {
        Some(DeValue::Table(channel)) => channel.remove("proxy"),
        _ => None,
    };
    let token: TokenOptions = match token {
        Some(value) => Deserialize::deserialize(value.into_deserializer())?,
        None => TokenOptions::default(),
    };
    let subscription_token = match &mut subscription_token {
        Some(value) => token::subscription_table(value)?,
        None => None,
    };
    let mut backend = proxy::Tables::default();
    if let Some(value) = client_proxies {
        backend.client = Deserialize::deserialize(value.into_deserializer())?;
    }
    if let Some(value) = channel_proxies {
        backend.channel = Deserialize::deserialize(value.into_deserializer())?;
    }
    let tables = Tables::deserialize(toml::Deserializer::from(root))?;
    Ok(Written {
        tables,
        token,
        subscription_token,
        connections,
        backend,
    })
}

impl Source<'_> {
    fn explain(&self, error: &toml::de::Error, entries: &[Entry]) -> Problem {
        let offset = error.span().map(|span| span.start);
        self.problem(offset, explanation(error, entries))
    }
}

/// A configuration as it is written, in its tables.
#[derive(PartialEq)]
pub(super) struct Written {
    tables: Tables,
    token: TokenOptions,
    subscription_token: Option<TokenOptions>,
    connections: ConnectionOptions,
    backend: proxy::Tables,
}

/// The file's tables, as they are written.
#[derive(Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tables {
    client: ClientOptions,
    channel: ChannelOptions,
    engine: Engines,
    http_server: HttpServerOptions,
    limits: LimitOptions,
    admin: AdminOptions,
    node: NodeOptions,
    http_api: HttpApiOptions,
    websocket: WebSocketOptions,
    doors: DoorOptions,
    health: HealthOptions,
    prometheus: PrometheusOptions,
    shutdown: ShutdownOptions,
    log: LogOptions,
    rpc: RpcOptions,
    proxies: Vec<ProxyOptions>,
    tunnels: Vec<TunnelOptions>,
    events: EventsOptions,
    revocation: RevocationOptions,
    telemetry: TelemetryOptions,
}

/// `[engine]`, in which each engine has a table.
#[derive(Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Engines {
    memory: MemoryOptions,
}

/// An option that can't be as it is, wherever it stands.
pub(super) struct Unusable {
    option: String,
    problem: String,
}

impl Unusable {
    pub(super) fn new(option: &str, problem: impl Into<String>) -> Self {
        Self {
            option: option.to_owned(),
            problem: problem.into(),
        }
    }
}

/// Everything that one table can't know about itself, or that serde can't say.
fn check(written: Written) -> Result<Config, Unusable> {
    check_ranges(&written)?;
    let Written {
        tables,
        token,
        subscription_token,
        connections,
        mut backend,
    } = written;
    let allowed_origins = &*connections.allowed_origins;
    let Tables {
        client,
        channel,
        engine,
        http_server,
        limits,
        node,
        http_api,
        websocket,
        doors,
        health,
        prometheus,
        shutdown,
        log,
        rpc,
        proxies,
        tunnels,
        events,
        revocation,
        telemetry,
        admin,
    } = tables;
    let ping = rpc.ping.enabled.then(|| rpc.ping.method.clone());
    (backend.rpc, backend.named) = (rpc, proxies);
    let origins = OriginPolicy::new(allowed_origins)
        .map_err(|error| Unusable::new("client.allowed_origins", error.to_string()))?;
    let user_header = user_header(&connections.user_id_http_header)?;
    let api_keys = super::api::keys(&http_api)?;
    let api_limits = super::api::limits(&http_api)?;
    let asks = backend.client.connect.enabled;
    let mut warnings = warnings(&client, &token, asks, &connections, &http_api);
    let open = doubts::Open {
        client: &client,
        connections: &connections,
        http_server: &http_server,
        limits: &limits,
        admin: &admin,
        prometheus: &prometheus,
    };
    open.warn(&mut warnings);
    if let Some(pattern) = origins.loose() {
        warnings.push(format!(
            "client.allowed_origins has `{pattern}`, which matches sites that anybody may have: let a `*` stand before the \
             dot of a domain of your own, as in `https://*.example.org`"
        ));
    }
    let transforms = &connections.connect_code_to_unidirectional_disconnect;
    let uni = uni::rules(transforms, &doors, &mut warnings)?;
    let tunnels = super::tunnel::tunnels(tunnels)?;
    let telemetry = super::telemetry::telemetry(telemetry)?;
    let mut proxies = proxy::settings(&backend, &channel, &mut warnings)?;
    if let Some(proxies) = &mut proxies {
        proxies.telemetry.clone_from(&telemetry);
    }
    super::revocation::check(&revocation)?;
    let mut events = super::events::settings(events, &channel, &mut warnings)?;
    if let Some(events) = &mut events {
        events.telemetry.clone_from(&telemetry);
    }
    let mut keys = Vec::new();
    let skip_signature = connections.insecure_skip_token_signature_verify;
    let verifiers = [
        (token::CONNECTION, Some(&token)),
        (token::SUBSCRIPTION, subscription_token.as_ref()),
    ]
    .map(|(table, options)| {
        let options = options?;
        let verifier = token::verifier(table, options, skip_signature, &mut keys, &mut warnings);
        Some(verifier)
    });
    let hub = hub(client, channel, verifiers, ping)?.with_dry_run(limits.dry_run);
    let admission = super::limits::rules(&http_server, &connections, &doors, &limits)?;
    let queues = super::limits::queues(&limits.memory, admission.memory.ceiling);
    let admin = super::admin::settings(&admin, &http_server)?;
    let internal = super::admin::internal(&http_server, &mut warnings)?;
    let tls = http_server.tls;
    let is_encrypted = tls.enabled;
    let tls = Tls::new(&tls, http_server.http2.enabled).map_err(|error| {
        Unusable::new(&format!("http_server.tls.{}", error.option), error.problem)
    })?;
    warnings.extend(tls.iter().flat_map(|tls| tls.doubts(unix_time())));
    if !is_encrypted && !http_server.address.is_loopback() {
        warnings.push(NOT_ENCRYPTED.to_owned());
    }
    Ok(Config {
        tls: tls.map(Arc::new),
        listen: SocketAddr::new(http_server.address, http_server.port),
        internal,
        http2: http_server.http2,
        admission: Arc::new(admission),
        queues,
        node,
        hub: Arc::new(hub),
        engine: engine.memory,
        http: Arc::new(Settings {
            api_keys,
            api_error_mode: http_api.error_mode,
            api_limits,
            api_audit_log: http_api.audit_log,
            trace_payloads: http_api.trace_payloads,
            health: health.enabled,
            metrics: prometheus.enabled,
            admin,
            origins,
            dev: None,
            write_timeout: Some(http_server.write_timeout),
            telemetry: telemetry.clone(),
        }),
        websocket,
        doors,
        uni: Arc::new(uni),
        tunnels,
        write_delay: connections.write_delay,
        user_header,
        token,
        keys,
        proxies,
        telemetry,
        former_telemetry: Vec::new(),
        events,
        revocation,
        shutdown,
        log,
        warnings,
        values: Values::default(),
    })
}

/// What each option can be by itself, as far as the code relies on it. Of files, [`validate`] has told all at once what the
/// reference says of them.
fn check_ranges(written: &Written) -> Result<(), Unusable> {
    let Written {
        tables:
            Tables {
                rpc,
                http_api,
                websocket,
                doors,
                engine,
                node,
                shutdown,
                http_server,
                ..
            },
        connections,
        ..
    } = written;
    if rpc.ping.enabled && rpc.ping.method.is_empty() {
        return Err(Unusable::new("rpc.ping.method", "is required"));
    }
    if connections.write_delay > MAX_WRITE_DELAY {
        let delay = connections.write_delay;
        let problem = format!("is {delay:?}, expected at most {MAX_WRITE_DELAY:?}");
        return Err(Unusable::new("client.write_delay", problem));
    }
    check_size("http_api.max_body_size", http_api.max_body_size)?;
    check_size("websocket.message_size_limit", websocket.message_size_limit)?;
    check_size("doors.request_size_limit", doors.request_size_limit)?;
    if !POLL_TIMEOUTS.contains(&doors.poll_timeout) {
        let problem = "must be between 1s and 5m";
        return Err(Unusable::new("doors.poll_timeout", problem));
    }
    let max_age = doors.history_max_age;
    if max_age.subsec_nanos() > 0 || max_age > MAX_HISTORY_AGE {
        let problem = format!("is {max_age:?}, expected whole seconds, at most a year");
        return Err(Unusable::new("doors.history_max_age", problem));
    }
    if engine.memory.max_channels == 0 {
        return Err(Unusable::new(
            "engine.memory.max_channels",
            "must be at least 1",
        ));
    }
    if node.workers > NodeOptions::MAX_WORKERS {
        let problem = format!("must be at most {}", NodeOptions::MAX_WORKERS);
        return Err(Unusable::new("node.workers", problem));
    }
    if shutdown.timeout > MAX_SHUTDOWN {
        return Err(Unusable::new("shutdown.timeout", "must be at most 1h"));
    }
    if shutdown.readiness_delay > shutdown.timeout {
        let problem = "must be at most shutdown.timeout";
        return Err(Unusable::new("shutdown.readiness_delay", problem));
    }
    if !WRITE_TIMEOUTS.contains(&http_server.write_timeout) {
        let problem = "must be between 1s and 10m";
        return Err(Unusable::new("http_server.write_timeout", problem));
    }
    if !CHECK_INTERVALS.contains(&http_server.tls.check_interval) {
        let problem = "must be between 100ms and 24h";
        return Err(Unusable::new("http_server.tls.check_interval", problem));
    }
    let streams = http_server.http2.max_concurrent_streams;
    if !STREAMS.contains(&streams) {
        let (least, most) = STREAMS.into_inner();
        let problem = format!("is {streams}, must be between {least} and {most}");
        let option = "http_server.http2.max_concurrent_streams";
        return Err(Unusable::new(option, problem));
    }
    Ok(())
}

/// The header field that says who a client is, if one does.
fn user_header(name: &str) -> Result<Option<HeaderName>, Unusable> {
    if name.is_empty() {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|_| {
        let problem =
            format!("expected the name of a header field, such as X-User-Id; got `{name}`");
        Unusable::new("client.user_id_http_header", problem)
    })
}

/// What the hubs go by. `verifiers` are for tokens of connections, and of subscriptions; `ping` is the method to measure by.
fn hub(
    client: ClientOptions,
    channel: ChannelOptions,
    verifiers: [Option<Result<Verifier, Unusable>>; 2],
    ping: Option<String>,
) -> Result<HubConfig, Unusable> {
    let [connection, subscription] = verifiers;
    let connection = connection.transpose()?.map(Arc::new);
    let subscription = subscription.transpose()?.map(Arc::new);
    let mut hub = HubConfig::new(client, channel, connection).map_err(|error| Unusable {
        option: error.option,
        problem: error.problem,
    })?;
    if let Some(verifier) = subscription {
        hub = hub.with_subscription_verifier(verifier);
    }
    if let Some(method) = ping {
        hub = hub.with_ping_method(&method);
    }
    Ok(hub)
}

/// How long messages may wait for others: pings do so, too, and have to be answered in time.
const MAX_WRITE_DELAY: Duration = Duration::from_secs(1);

const WRITE_TIMEOUTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// How many streams a connection of HTTP/2 may have.
const STREAMS: RangeInclusive<u32> = 1..=10_000;

/// Not an error: a proxy in front may do that.
const NOT_ENCRYPTED: &str = "http_server.address is reachable from outside, and http_server.tls is off: without a \
     proxy that does the encryption, everybody on the way can read and change what is sent";

pub(super) fn check_size(option: &str, size: usize) -> Result<(), Unusable> {
    if (MIN_SIZE..=MAX_SIZE).contains(&size) {
        return Ok(());
    }
    let problem = format!("is {size} bytes, must be between {MIN_SIZE} and {MAX_SIZE}");
    Err(Unusable::new(option, problem))
}

/// What may not be what was meant.
fn warnings(
    client: &ClientOptions,
    token: &TokenOptions,
    asks: bool,
    connections: &ConnectionOptions,
    http_api: &HttpApiOptions,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |condition: bool, text: &str| {
        if condition {
            warnings.push(text.to_owned());
        }
    };
    let public_keys = [
        &token.rsa_public_key,
        &token.ecdsa_public_key,
        &token.eddsa_public_key,
        &token.jwks_public_endpoint,
    ];
    let no_token = token.hmac_secret_key.is_none() && public_keys.iter().all(|key| key.is_none());
    warn(
        no_token
            && !connections.insecure_skip_token_signature_verify
            && !asks
            && !client.allow_anonymous_connect_without_token
            && !client.insecure,
        "nobody can connect: no key is set in client.token (such as hmac_secret_key), and \
         client.allow_anonymous_connect_without_token is off",
    );
    warn(
        connections.insecure_skip_token_signature_verify,
        "client.insecure_skip_token_signature_verify is on: tokens are believed whoever made them, so everybody \
         can be any user, and may do whatever tokens allow",
    );
    warn(
        client.insecure,
        "client.insecure is on: everybody may do everything in every channel",
    );
    warn(
        connections
            .allowed_origins
            .iter()
            .any(|origin| origin == "*"),
        "client.allowed_origins has `*`: pages of any site may connect with what their visitors' \
         browsers know",
    );
    warn(
        http_api.insecure,
        "http_api.insecure is on: whoever reaches the server may publish",
    );
    warn(
        http_api.key.is_none() && http_api.keys.is_empty() && !http_api.insecure,
        "neither http_api.key nor http_api.keys is set: every call of the HTTP API will be refused",
    );
    warnings
}

/// What is wrong, with the option's full name; for a name that isn't known, with the nearest one.
fn explanation(error: &toml::de::Error, entries: &[Entry]) -> String {
    let path = error
        .span()
        .and_then(|span| place::entry_at(entries, span.start))
        .map_or("", |entry| entry.path.as_str());
    let Some(mut unknown) = suggest::unknown_name(error.message()) else {
        let separator = if path.is_empty() { "" } else { ": " };
        return format!("{path}{separator}{}", error.message());
    };
    if !unknown.is_key {
        let list = list(&unknown.known);
        return match suggest::nearest(unknown.name, &unknown.known) {
            Some(near) => format!(
                "{path}: `{}` is not known, did you mean `{near}`?",
                unknown.name
            ),
            None => format!("{path}: `{}` is not known, expected {list}", unknown.name),
        };
    }
    if let Some(explanation) = elsewhere::explain(path) {
        return format!("unknown key {path}; {explanation}");
    }
    let table = path
        .strip_suffix(unknown.name)
        .map_or("", |table| table.trim_end_matches('.'));
    if table == "client" {
        unknown.known.extend(CLIENT_TABLES);
        unknown.known.extend(ConnectionOptions::KEYS);
    }
    if table == "channel" {
        unknown.known.push("proxy");
    }
    if table == token::SUBSCRIPTION {
        unknown.known.push("enabled");
    }
    let place = if table.is_empty() {
        "the file".to_owned()
    } else {
        table.to_owned()
    };
    match suggest::nearest(unknown.name, &unknown.known) {
        Some(near) => format!("unknown key {path}, did you mean `{near}`?"),
        None => format!(
            "unknown key {path}; {place} may have {}",
            list(&unknown.known)
        ),
    }
}

pub(super) fn list(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// What `Cache-Control` is ever asked to say.
const MAX_HISTORY_AGE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A client has to get a poll through in that time; and what it doesn't come for waits so long.
const POLL_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(5 * 60);

/// Tables in `[client]` that the hub has nothing to do with.
const CLIENT_TABLES: [&str; 3] = ["token", "subscription_token", "proxy"];
const MAX_FILE_LEN: u64 = 1024 * 1024;
const MIN_SIZE: usize = 1024;
const MAX_SIZE: usize = 64 * 1024 * 1024;
const MAX_SHUTDOWN: Duration = Duration::from_secs(3600);
