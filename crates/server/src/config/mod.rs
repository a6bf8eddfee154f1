//! The configuration: what an operator wrote, checked as a whole before anything starts.
//!
//! `tautline serve` reads a file of TOML, YAML or JSON ([`Config::load_with`]); `tautline dev` needs none
//! ([`Config::dev`]). Either way what comes out has been checked: no part of the server meets
//! options that contradict each other. Secrets are never printed, in errors neither.
//!
//! The tables of the file:
//!
//! | table | options | what for |
//! |---|---|---|
//! | `[http_server]` | [`HttpServerOptions`] | where the server listens |
//! | `[http_server.http2]` | [`Http2Options`] | HTTP/2 |
//! | `[http_server.tls]`, `[[http_server.tls.certificates]]` | [`TlsOptions`] | TLS |
//! | `[http_server.tls.acme]` | [`AcmeOptions`] | certificates that the server gets by itself |
//! | `[limits]`, `[limits.address]`, `[limits.memory]` | [`LimitOptions`] | how much may come from an address, and until when |
//! | `[node]` | [`NodeOptions`] | its name, its threads |
//! | `[client]` | [`ClientOptions`](tautline_hub::config::ClientOptions), `allowed_origins` | connections: limits, time-outs, whose pages may connect |
//! | `[client.token]` | [`TokenOptions`] | keys that tokens are verified with |
//! | `[channel]` | [`ChannelOptions`](tautline_hub::config::ChannelOptions) | limits of channel names |
//! | `[channel.without_namespace]`, `[[channel.namespaces]]` | [`NamespaceOptions`](tautline_hub::config::NamespaceOptions) | what channels keep, and who may do what |
//! | `[engine.memory]` | [`MemoryOptions`] | how much is kept |
//! | `[http_api]` | [`HttpApiOptions`] | the application's backend |
//! | `[[http_api.keys]]` | [`ApiKeyOptions`] | what each of its keys is good for |
//! | `[websocket]` | [`WebSocketOptions`] | limits of messages |
//! | `[doors]` | [`DoorOptions`] | the ways in beside the WebSocket |
//! | `[client.proxy]`, `[channel.proxy]`, `[[proxies]]` | [`ProxyOptions`] | endpoints of the application's backend |
//! | `[[tunnels]]` | [`TunnelOptions`] | WebSocket servers of the operator's own |
//! | `[rpc]` | [`RpcOptions`] | who answers calls |
//! | `[events]` | [`EventsOptions`] | what the application's backend is told of |
//! | `[revocation]` | [`RevocationOptions`] | tokens that were revoked |
//! | `[telemetry.otlp]` | [`OtlpOptions`] | traces |
//! | `[admin]` | [`AdminOptions`] | the admin's page |
//! | `[health]` | [`HealthOptions`] | `/health` |
//! | `[prometheus]` | [`PrometheusOptions`] | `/metrics` |
//! | `[shutdown]` | [`ShutdownOptions`] | how a stop is spread over time |
//! | `[log]` | [`LogOptions`] | what is told on standard error |
//!
//! Durations are texts such as `"25s"`, `"10m"` or `"1h30m"`.

mod acme;
mod admin;
mod api;
mod client;
mod dev;
mod elsewhere;
mod events;
mod file;
mod json;
mod limits;
mod options;
mod place;
mod proxy;
mod revocation;
mod share;
mod show;
mod source;
mod suggest;
mod telemetry;
mod token;
mod tunnel;
mod uni;
mod values;
mod yaml;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use serde::Deserialize;
use tautline_auth::{Pattern, Secret};
use tautline_hub::config::{HubConfig, duration};
use tautline_hub::engine::memory::MemoryOptions;
use thiserror::Error;

use crate::client_address::ForwardedHeader;
use crate::door::UniRules;
use crate::door::admission::Rules;
use crate::door::tunnel::Tunnels;
use crate::events::settings::Settings as EventSettings;
use crate::http::Settings;
use crate::http::api::{ApiLimits, AuditLog, ErrorMode};
use crate::keys::KeySource;
use crate::proxy::settings::Settings as ProxySettings;
use crate::telemetry::Telemetry;
use crate::tls::Tls;
use crate::worker::queues::QueueRules;

pub use self::acme::AcmeOptions;
pub(crate) use self::acme::check as check_acme;
pub use self::admin::AdminOptions;
pub use self::dev::DEV_API_KEY;
pub use self::elsewhere::{ELSEWHERE, Elsewhere, Here};
pub use self::events::{EventsHttpOptions, EventsOptions};
pub use self::limits::{AddressLimitOptions, LimitOptions, MemoryLimitOptions};
pub use self::options::{OptionEntry, OptionTable, Reference};
pub use self::proxy::{
    ChannelProxies, ClientProxies, ProxyHttpOptions, ProxyOptions, ProxyTlsOptions,
    RpcNamespaceOptions, RpcOptions, RpcPingOptions, StatusTransform, ToDisconnect, ToError,
};
pub use self::revocation::RevocationOptions;
pub use self::share::{Share, ShareError};
pub use self::show::Shown;
pub use self::source::{ConfigFile, Overrides};
use self::source::{Format, Source};
pub use self::telemetry::{OtlpOptions, TelemetryOptions};
pub use self::tunnel::TunnelOptions;
pub use self::uni::{
    DisconnectTransform, DisconnectTransforms, ResponseTransform, ResponseTransforms, ToResponse,
};
pub use self::values::{Change, Values};

/// A configuration that has been checked.
pub struct Config {
    /// Where to listen. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where the server API, metrics and the admin page are, if they are apart.
    pub(crate) internal: Option<SocketAddr>,
    /// Whether clients may speak HTTP/2, and how much of it.
    pub http2: Http2Options,
    /// What connections are encrypted with; `None` for nothing.
    pub(crate) tls: Option<Arc<Tls>>,
    /// How many may come in, and who is believed to know their addresses.
    pub(crate) admission: Arc<Rules>,
    /// How much may wait for all clients.
    pub(crate) queues: QueueRules,
    /// Its name, its threads.
    pub node: NodeOptions,
    /// What the workers' hubs go by, verifier included.
    pub hub: Arc<HubConfig>,
    /// How much the memory engine may keep.
    pub engine: MemoryOptions,
    /// What the HTTP side goes by. The WebSocket door finds here whose pages may connect.
    pub http: Arc<Settings>,
    /// Limits of the WebSocket.
    pub websocket: WebSocketOptions,
    /// The ways in beside it.
    pub doors: DoorOptions,
    /// Servers of the operator's own that are reached through this one.
    pub(crate) tunnels: Tunnels,
    /// What the unidirectional ones say.
    pub(crate) uni: Arc<UniRules>,
    /// How long what others publish may wait for more of its kind.
    pub write_delay: Duration,
    /// The header field that names the user of a client without a token.
    pub user_header: Option<HeaderName>,
    /// Keys of tokens, for `tautline token`.
    pub token: TokenOptions,
    /// Keys that are to be fetched; the verifier has them already.
    pub keys: Vec<KeySource>,
    /// What the application's backend is asked; `None` for nothing.
    pub(crate) proxies: Option<ProxySettings>,
    /// What it is told of; `None` for nothing.
    pub(crate) events: Option<EventSettings>,
    /// Tokens that were revoked: how many, and where they are kept.
    pub revocation: RevocationOptions,
    /// Where traces go; `None` for nowhere.
    pub(crate) telemetry: Option<Arc<Telemetry>>,
    /// How a stop is spread over time.
    pub shutdown: ShutdownOptions,
    /// What is told on standard error.
    pub log: LogOptions,
    /// What can be as it is, but may not be what was meant. One sentence each.
    pub warnings: Vec<String>,
    /// What each option is set to; empty for a configuration that was not read.
    pub values: Values,
}

impl Config {
    /// Reads and checks a file: TOML, or by the ending of its name YAML (`.yaml`, `.yml`) or JSON (`.json`).
    ///
    /// # Errors
    ///
    /// [`ConfigError`], whose text names the file, the place in it, what was expected, and for an
    /// unknown key the nearest one that is known.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, &Overrides::default())
    }

    /// The same, with what the environment and the command line say over the file.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load). What is wrong with an override names that in the place of a line.
    pub fn load_with(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let text = file::read(path).map_err(failed)?;
        let source = Source::new(&text, Format::of(path), overrides);
        file::parse(&source).map_err(|problem| ConfigError::Invalid {
            path: path.to_owned(),
            problem,
        })
    }

    /// Whether events are to be told, and there is no endpoint to tell them: a program that embeds the server takes
    /// them in code ([`NodeBuilder::event_handler`](crate::NodeBuilder::event_handler)).
    pub fn wants_event_handler(&self) -> bool {
        let events = self.events.as_ref();
        events.is_some_and(|events| events.endpoint.is_none())
    }

    /// Has traces go where they went: that needs a restart.
    pub(crate) fn keep_telemetry(&mut self, before: &Self) {
        self.telemetry.clone_from(&before.telemetry);
        if let Some(http) = Arc::get_mut(&mut self.http) {
            http.telemetry.clone_from(&before.telemetry);
        }
        if let Some(proxies) = &mut self.proxies {
            proxies.telemetry.clone_from(&before.telemetry);
        }
    }

    /// Reads and checks the text of a TOML file, for servers that are built in code.
    ///
    /// ```
    /// let config = tautline::Config::from_toml(
    ///     r#"
    ///     http_server.address = "127.0.0.1"
    ///     client.allow_anonymous_connect_without_token = true
    ///     channel.without_namespace.allow_subscribe_for_client = true
    ///     "#,
    /// )?;
    /// # Ok::<(), tautline::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), with `configuration` for the name of the file.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        file::parse(&Source::toml(text)).map_err(|problem| ConfigError::Invalid {
            path: "configuration".into(),
            problem,
        })
    }
}

/// `[http_server]`: where the server listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpServerOptions {
    /// IP address of the interface. Needs a restart. Default: `0.0.0.0`, all of them.
    pub address: IpAddr,
    /// Port; 0 for any that is free. Needs a restart. Default: 8000.
    pub port: u16,
    /// Proxies in front, which are believed when they say whom a connection or a request comes from: networks such as
    /// `10.0.0.0/8`. Connections of theirs don't count in `limits.address`, what comes through them does. Default: none.
    pub trusted_proxies: Vec<String>,
    /// Their connections begin with the PROXY protocol, version 1 or 2; all of them, and nobody else's. Default: no.
    pub proxy_protocol: bool,
    /// The field in which they add the address that a request came from. The other one is not looked at, as clients can
    /// write it. Default: `x-forwarded-for`.
    pub forwarded_header: ForwardedHeader,
    /// Address and port of a listener for what isn't for clients, such as `127.0.0.1:9000`: the server API, `/metrics` and
    /// `/admin` are there then, and not on the clients' port any more. Without TLS. Needs a restart. Default: empty, for
    /// none.
    pub internal_listen: String,
    /// How long a client may take nothing of what it is answered, between 1s and 10m; then its connection is dropped, or in
    /// HTTP/2 the stream. Whoever takes a little goes on, and who listens to what has nothing to say isn't meant. For those
    /// who connect from then on. Default: 30 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub write_timeout: Duration,
    /// `[http_server.http2]`.
    pub http2: Http2Options,
    /// `[http_server.tls]`.
    pub tls: TlsOptions,
}

impl Default for HttpServerOptions {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::UNSPECIFIED.into(),
            port: 8000,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            forwarded_header: ForwardedHeader::default(),
            internal_listen: String::new(),
            write_timeout: Duration::from_secs(30),
            http2: Http2Options::default(),
            tls: TlsOptions::default(),
        }
    }
}

/// `[http_server.http2]`: HTTP/2, for all that is on the port: by ALPN over TLS, without TLS for those who begin
/// with it (prior knowledge), as proxies do. WebSockets too (RFC 8441).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http2Options {
    /// Whether clients may speak it. Default: yes.
    pub enabled: bool,
    /// Requests and WebSockets that a connection may have open at once; more are refused. Up to 64 KiB may wait for
    /// each that isn't read. Between 1 and 10,000. Default: 128.
    pub max_concurrent_streams: u32,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            enabled: true,
            max_concurrent_streams: 128,
        }
    }
}

/// `[http_server.tls]`: TLS for those who connect. Certificates and keys are texts in PEM, or paths of files
/// that have one; files are read again, and what is new in them is used, without a connection being lost.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsOptions {
    /// Whether there is TLS, and nothing else, on this port. Needs a restart. Default: no.
    pub enabled: bool,
    /// The certificate, with those between it and its authority behind it. Required where `enabled`, but for
    /// `acme`.
    pub cert_pem: String,
    /// Its key. Required with `cert_pem`.
    pub key_pem: Option<Secret>,
    /// Certificates of the authorities that clients must have a certificate from. Default: none, and clients
    /// need none.
    pub client_ca_pem: Option<String>,
    /// How often the files are looked at, between 100ms and 24h. Default: 1m.
    #[serde(deserialize_with = "duration::deserialize")]
    pub check_interval: Duration,
    /// Certificates for other names.
    pub certificates: Vec<CertificateOptions>,
    /// `[http_server.tls.acme]`.
    pub acme: AcmeOptions,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            enabled: false,
            cert_pem: String::new(),
            key_pem: None,
            client_ca_pem: None,
            check_interval: Duration::from_secs(60),
            certificates: Vec::new(),
            acme: AcmeOptions::default(),
        }
    }
}

/// `[[http_server.tls.certificates]]`: a certificate for other names. The first that is good for the name which a
/// client asks for (SNI) is used; `http_server.tls.cert_pem` where none is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateOptions {
    /// The certificate, with those between it and its authority behind it. Required.
    pub cert_pem: String,
    /// Its key. Required.
    pub key_pem: Option<Secret>,
}

/// `[node]`: this process among others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeOptions {
    /// Its name, for people; empty for address and port. Needs a restart. Default: empty.
    pub name: String,
    /// How many threads serve connections, at most 1024; 0 for one a core. Needs a restart. Default: 0.
    pub workers: usize,
}

impl NodeOptions {
    /// Most threads that can be asked for: more than any machine of today has cores.
    pub const MAX_WORKERS: usize = 1024;

    /// How many threads that is on this machine.
    pub fn worker_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = if self.workers == 0 {
            cores()
        } else {
            self.workers
        };
        count.min(Self::MAX_WORKERS)
    }
}

/// `[client.token]`: keys that tokens are verified with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenOptions {
    /// Secret of HS256, HS384 and HS512. Without any key, every token is invalid.
    pub hmac_secret_key: Option<Secret>,
    /// The secret before the last change, so that tokens made with it still work.
    pub hmac_previous_secret_key: Option<Secret>,
    /// Unix time in seconds from which on the previous secret doesn't count any more. Default:
    /// none.
    pub hmac_previous_secret_key_valid_until: Option<u64>,
    /// Public key of RS256, RS384, RS512, PS256, PS384 and PS512, in PEM.
    pub rsa_public_key: Option<String>,
    /// Public key of ES256 (curve P-256), ES384 (P-384) or ES512 (P-521), in PEM.
    pub ecdsa_public_key: Option<String>,
    /// Public key of EdDSA (Ed25519), in PEM.
    pub eddsa_public_key: Option<String>,
    /// Where an identity provider publishes its keys, as a JWK Set: a URL such as
    /// `https://id.example.com/.well-known/jwks.json`. Tokens say by `kid` which of them they were
    /// signed with. Fetched at the start, each hour, and when a token names a key that isn't known. Each
    /// `{{name}}` in it stands for what the named group `(?<name>...)` of `issuer_regex` or `audience_regex` finds:
    /// so each tenant of a provider can have a set of its own, which is fetched when the first token needs it.
    pub jwks_public_endpoint: Option<String>,
    /// By how much clocks may disagree: tokens are believed for so much longer, and so much earlier.
    /// At most 5m. Default: 0s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub leeway: Duration,
    /// If set, tokens must have it as `aud`.
    pub audience: Option<String>,
    /// If set, it must be found in `aud`: a regular expression such as `^app-[0-9]+$`. Not beside
    /// `audience`.
    pub audience_regex: Option<Pattern>,
    /// If set, tokens must have it as `iss`.
    pub issuer: Option<String>,
    /// If set, it must be found in `iss`: a regular expression. Not beside `issuer`.
    pub issuer_regex: Option<Pattern>,
    /// The claim that has the user id: letters and `_`. Default: `sub`.
    pub user_id_claim: Option<String>,
}

/// `[http_api]`: the application's backend.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpApiOptions {
    /// What each call has to know, and good for everything. Without this or one of `http_api.keys`,
    /// every call is refused.
    pub key: Option<Secret>,
    /// No key is needed. For experiments behind a closed door. Default: no.
    pub insecure: bool,
    /// Whether errors are told in the `body` of a 200, or as statuses of the `transport`. Default:
    /// `body`.
    pub error_mode: ErrorMode,
    /// Longest body of a call, in bytes. Default: 1 MiB.
    pub max_body_size: usize,
    /// Most commands in a `batch`. Default: 1000.
    pub max_batch_commands: usize,
    /// Most channels in a `broadcast`. Default: 10,000.
    pub max_broadcast_channels: usize,
    /// Most channels in the result of `channels`. Default: 100,000.
    pub max_listed_channels: usize,
    /// Most calls at the same time, on each worker; what is beyond gets 503. Default: 256.
    pub max_concurrent_calls: usize,
    /// Whether those who follow somebody with the method `trace` may see payloads. Default: no.
    pub trace_payloads: bool,
    /// Which calls are logged, with the target `tautline::audit`: those that change something for others (`changes`), `all`, or
    /// `none`. Refused ones are logged with either of the first two. Default: `changes`.
    pub audit_log: AuditLog,
    /// Keys that are good for a part, or that only their digest is known of.
    pub keys: Vec<ApiKeyOptions>,
}

impl Default for HttpApiOptions {
    fn default() -> Self {
        let limits = ApiLimits::default();
        Self {
            key: None,
            insecure: false,
            error_mode: ErrorMode::Body,
            max_body_size: limits.max_body_size,
            max_batch_commands: limits.max_batch_commands,
            max_broadcast_channels: limits.max_broadcast_channels,
            max_listed_channels: limits.max_listed_channels,
            max_concurrent_calls: limits.max_concurrent_calls,
            trace_payloads: false,
            audit_log: AuditLog::default(),
            keys: Vec::new(),
        }
    }
}

/// `[[http_api.keys]]`: a key of the HTTP API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiKeyOptions {
    /// What the key is called where people look, such as in the audit log. Required.
    pub name: String,
    /// SHA-256 of the key, 64 hexadecimal digits: `tautline key` makes both. Required.
    pub sha256: String,
    /// Methods that it is good for, such as `publish`. Default: all; with `channels`, all that are
    /// about channels.
    pub methods: Option<Vec<String>>,
    /// Channels that it is good for: patterns such as `chat:*`. Default: all.
    pub channels: Option<Vec<String>>,
}

/// `[websocket]`: limits of messages.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketOptions {
    /// Longest message of a client, in bytes. A longer one ends the connection with code 1009.
    /// Default: 64 KiB.
    pub message_size_limit: usize,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            message_size_limit: 64 * 1024,
        }
    }
}

/// `[doors]`: the ways in beside the WebSocket, for clients that can't open one or have no SDK.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoorOptions {
    /// `/connection/http_stream`, with `/emulation`. Default: yes.
    pub http_stream: bool,
    /// `/connection/sse`, with `/emulation`. Default: yes.
    pub sse: bool,
    /// `/connection/poll`, long-polling. Default: yes.
    pub poll: bool,
    /// How long a session stays that is long-polled and isn't any more. Default: 20 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll_timeout: Duration,
    /// `/connection/uni_websocket`, `/connection/uni_sse` and `/connection/uni_http_stream`.
    /// Default: yes.
    pub unidirectional: bool,
    /// `/ws`, `/events`, `/lines`, `/history` and `/publish`, for clients with no SDK. Default: yes.
    pub plain: bool,
    /// Longest body of a client's request, in bytes. Default: 64 KiB.
    pub request_size_limit: usize,
    /// How many sessions may be there at once whose messages leave in HTTP responses, on the whole
    /// node. Default: 100,000.
    pub max_sessions: usize,
    /// Whether clients of `/connection/uni_websocket` are told in a message, too, why their connection ends, before
    /// the Close frame that says so. Default: yes.
    pub uni_websocket_disconnect_push: bool,
    /// Whether publications that leave together are one message for them, a line each. Default: no, each is a message.
    pub uni_websocket_join_messages: bool,
    /// How the other unidirectional doors answer whom they don't let in.
    pub connect_code_to_http_response: ResponseTransforms,
}

impl Default for DoorOptions {
    fn default() -> Self {
        Self {
            http_stream: true,
            sse: true,
            poll: true,
            poll_timeout: Duration::from_secs(20),
            unidirectional: true,
            plain: true,
            request_size_limit: 64 * 1024,
            max_sessions: 100_000,
            uni_websocket_disconnect_push: true,
            uni_websocket_join_messages: false,
            connect_code_to_http_response: ResponseTransforms::default(),
        }
    }
}

/// `[prometheus]`: whether what was counted can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrometheusOptions {
    /// `GET /metrics` answers with what was counted, to everybody who reaches the server: let your
    /// proxy keep strangers out. Default: no.
    pub enabled: bool,
}

/// `[health]`: whether load balancers can ask.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthOptions {
    /// `GET /health` answers 200 while the process serves, `GET /ready` while it takes new clients, and 503 on its way out.
    /// Default: yes.
    pub enabled: bool,
}

impl Default for HealthOptions {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `[shutdown]`: how a stop is spread over time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownOptions {
    /// How long the whole of it may take, from SIGTERM to the process's end. Default: 30 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// For how long everything goes on as ever while `GET /ready` answers 503 already, so that load balancers send
    /// nobody new. Default: 0, for none.
    #[serde(deserialize_with = "duration::deserialize")]
    pub readiness_delay: Duration,
    /// How many clients are told in a second to come back elsewhere, at the most; the others are served
    /// meanwhile. 0 for all at once. Where `timeout` is too short for it, they go faster, and the log says so. Default: 1,000.
    pub reconnect_rate: u32,
}

impl Default for ShutdownOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            readiness_delay: Duration::ZERO,
            reconnect_rate: 1000,
        }
    }
}

/// `[log]`: what is told on standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// How much. Default: `info`.
    pub level: LogLevel,
    /// As text for people, or as a JSON object a line for programs. Needs a restart. Default: `text`.
    pub format: LogFormat,
    /// Which connections are logged, with a line when they come in and one when they end (level `info`, target
    /// `tautline::connections`): `off`, `all`, or a percentage of them such as `1%`. Default: `off`.
    pub connections: Share,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How much is logged; each level has those above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogLevel {
    /// Nothing.
    None,
    /// What an operator has to look after.
    Error,
    /// What may become that.
    Warn,
    /// Start, stop, changes.
    #[default]
    Info,
    /// What connections do.
    Debug,
    /// Everything.
    Trace,
}

/// A configuration that can't be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file has something in it that can't be used.
    #[error("{path}:{problem}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What and where.
        problem: Problem,
    },
    /// Something that the environment or the command line says can't be used.
    #[error("{from}: {problem}")]
    Override {
        /// The variable, or the argument.
        from: String,
        /// What was expected, what came, what to do.
        problem: String,
    },
    /// The development server can't be set up.
    #[error("{0}")]
    Dev(String),
}

/// What can't be used, and where it stands: `3:1: unknown key …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; `None` if it is about something that is not there.
    pub line: Option<usize>,
    /// Character in the line, from 1.
    pub column: usize,
    /// What was expected, what came, what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "{line}:{}:", self.column)?;
        }
        write!(f, " {}", self.message)
    }
}
