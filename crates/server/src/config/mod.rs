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
mod brought;
mod client;
mod dev;
mod doors;
mod doubts;
mod elsewhere;
mod error;
mod events;
mod file;
mod http_server;
mod json;
mod limits;
mod log;
mod node;
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
mod validate;
mod values;
mod yaml;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use tautline_hub::config::HubConfig;
use tautline_hub::engine::memory::MemoryOptions;

use crate::door::UniRules;
use crate::door::admission::Rules;
use crate::door::tunnel::Tunnels;
use crate::events::settings::Settings as EventSettings;
use crate::http::Settings;
use crate::keys::KeySource;
use crate::proxy::settings::Settings as ProxySettings;
use crate::telemetry::{Former, Telemetry};
use crate::tls::Tls;
use crate::worker::queues::QueueRules;

pub use self::acme::AcmeOptions;
pub(crate) use self::acme::check as check_acme;
pub use self::admin::AdminOptions;
pub use self::api::{ApiKeyOptions, HttpApiOptions};
pub use self::dev::DEV_API_KEY;
pub use self::doors::{DoorOptions, WebSocketOptions};
pub use self::elsewhere::{ELSEWHERE, Elsewhere, Here};
use self::error::Problems;
pub use self::error::{ConfigError, Problem};
pub use self::events::{EventsHttpOptions, EventsOptions};
pub use self::http_server::{CertificateOptions, Http2Options, HttpServerOptions, TlsOptions};
pub use self::limits::{AddressLimitOptions, LimitOptions, MemoryLimitOptions};
pub use self::log::{LogFormat, LogLevel, LogOptions};
pub use self::node::{HealthOptions, NodeOptions, PrometheusOptions, ShutdownOptions};
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
pub use self::token::TokenOptions;
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
    /// Where they went before, as long as some of them are on their way there.
    pub(crate) former_telemetry: Vec<Former>,
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
        let bytes = file::read(path).map_err(failed)?;
        let unreadable = |problem| Problems::from(problem).in_file(path.to_owned());
        let text = file::text(bytes).map_err(unreadable)?;
        let source = Source::new(&text, Format::of(path), overrides);
        file::parse(&source).map_err(|problems| problems.in_file(path.to_owned()))
    }

    /// Whether events are to be told, and there is no endpoint to tell them: a program that embeds the server takes
    /// them in code ([`NodeBuilder::event_handler`](crate::NodeBuilder::event_handler)).
    pub fn wants_event_handler(&self) -> bool {
        let events = self.events.as_ref();
        events.is_some_and(|events| events.endpoint.is_none())
    }

    /// Has traces go on where they are to go where they went, and begin elsewhere where they aren't, on a node of that name.
    ///
    /// # Errors
    ///
    /// When the system gives no thread for it.
    pub(crate) fn succeed_telemetry(&mut self, before: &Self, node: &str) -> io::Result<()> {
        let running = before.telemetry.as_ref();
        let former = before.former_telemetry.iter();
        self.former_telemetry = former.filter(|one| !one.is_over()).cloned().collect();
        let replaced = running.and_then(|running| running.former());
        let Some(telemetry) = &self.telemetry else {
            self.former_telemetry.extend(replaced);
            return Ok(());
        };
        let Some(same) = running.filter(|running| telemetry.is_like(running, node)) else {
            telemetry.start(node, running.map(|running| &**running))?;
            self.former_telemetry.extend(replaced);
            return Ok(());
        };
        self.telemetry = Some(Arc::clone(same));
        if let Some(http) = Arc::get_mut(&mut self.http) {
            http.telemetry.clone_from(&self.telemetry);
        }
        if let Some(proxies) = &mut self.proxies {
            proxies.telemetry.clone_from(&self.telemetry);
        }
        if let Some(events) = &mut self.events {
            events.telemetry.clone_from(&self.telemetry);
        }
        Ok(())
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
        file::parse(&Source::toml(text))
            .map_err(|problems| problems.in_file("configuration".into()))
    }
}
