//! The configuration of `tautline dev`: everything works, for this machine only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tautline_auth::{Secret, Signer, Verifier, VerifierConfig};
use tautline_hub::config::{ChannelOptions, ClientOptions, HubConfig, NamespaceOptions};
use tautline_hub::engine::memory::MemoryOptions;

use super::{
    Config, ConfigError, DoorOptions, Http2Options, HttpServerOptions, LogOptions, NodeOptions,
    ShutdownOptions, TokenOptions, Values, WebSocketOptions,
};
use crate::door::tunnel::Tunnels;
use crate::http::Settings;
use crate::http::api::{ApiKeys, ApiLimits, AuditLog, ErrorMode};
use crate::http::origin::OriginPolicy;

/// Key of the HTTP API in development. Everybody knows it, which is why the development server
/// listens on the loopback interface only.
pub const DEV_API_KEY: &str = "dev";

/// How many publications a channel keeps in development, and how many may be read at once.
const HISTORY_SIZE: usize = 1000;

impl Config {
    /// A configuration to try things with: no tokens needed, every channel open to everybody with
    /// history, recovery and presence; a namespace `typing` for events that nobody wants to keep;
    /// API key `dev`; and a secret of its own for each start, which signs the tokens of
    /// `/dev/token`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Dev`] if `listen` is not an address of the loopback interface, or if the
    /// system has no randomness for the secret.
    pub fn dev(listen: SocketAddr) -> Result<Self, ConfigError> {
        Self::dev_for(listen, &[])
    }

    /// The same, for pages of these origins as well (patterns as in `client.allowed_origins`): of the development server
    /// of whoever builds a page.
    ///
    /// # Errors
    ///
    /// As [`dev`](Self::dev), and [`ConfigError::Dev`] for what can be no origin.
    pub fn dev_for(listen: SocketAddr, origins: &[String]) -> Result<Self, ConfigError> {
        if !listen.ip().is_loopback() {
            return Err(ConfigError::Dev(format!(
                "the development server does not listen on {listen}: it lets everybody in who \
                 reaches it, so it stays on this machine. Listen on 127.0.0.1 or [::1], or write a \
                 configuration with keys of your own and use `tautline serve --config FILE`"
            )));
        }
        let failed = |error: &dyn std::fmt::Display| ConfigError::Dev(error.to_string());
        let mut secret = vec![0; 32];
        getrandom::fill(&mut secret).map_err(|error| failed(&error))?;
        let secret = Secret::from(secret);
        let signer = Signer::hs256(&secret).map_err(|error| failed(&error))?;
        let verifier = Verifier::new(VerifierConfig {
            hmac_secret: Some(secret.clone()),
            ..VerifierConfig::default()
        });
        let verifier = verifier.map_err(|error| failed(&error))?;
        let hub = HubConfig::new(client(), channel(), Some(Arc::new(verifier)));
        let admission = super::limits::defaults();
        Ok(Self {
            listen,
            queues: super::limits::queues(
                &super::MemoryLimitOptions::default(),
                admission.memory.ceiling,
            ),
            admission: Arc::new(admission),
            node: NodeOptions::default(),
            hub: Arc::new(hub.map_err(|error| failed(&error))?),
            engine: MemoryOptions::default(),
            http: Arc::new(Settings {
                api_keys: ApiKeys::single(DEV_API_KEY.as_bytes()),
                api_error_mode: ErrorMode::default(),
                api_limits: ApiLimits::default(),
                api_audit_log: AuditLog::default(),
                trace_payloads: true,
                health: true,
                metrics: true,
                admin: None,
                origins: OriginPolicy::beside_own(origins).map_err(|error| failed(&error))?,
                dev: Some(signer),
                write_timeout: Some(HttpServerOptions::default().write_timeout),
                telemetry: None,
            }),
            internal: None,
            http2: Http2Options::default(),
            tls: None,
            telemetry: None,
            former_telemetry: Vec::new(),
            websocket: WebSocketOptions::default(),
            doors: DoorOptions::default(),
            uni: Arc::default(),
            tunnels: Tunnels::default(),
            write_delay: Duration::ZERO,
            user_header: None,
            token: TokenOptions {
                hmac_secret_key: Some(secret),
                ..TokenOptions::default()
            },
            keys: Vec::new(),
            proxies: None,
            events: None,
            revocation: super::RevocationOptions::default(),
            // Somebody waits for the prompt to come back.
            shutdown: ShutdownOptions {
                timeout: Duration::from_secs(3),
                ..ShutdownOptions::default()
            },
            log: LogOptions::default(),
            warnings: Vec::new(),
            values: Values::default(),
        })
    }
}

fn client() -> ClientOptions {
    ClientOptions {
        allow_anonymous_connect_without_token: true,
        history_max_publication_limit: HISTORY_SIZE,
        ..ClientOptions::default()
    }
}

fn channel() -> ChannelOptions {
    let open = NamespaceOptions {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_client: true,
        allow_publish_for_subscriber: true,
        allow_publish_for_anonymous: true,
        ..NamespaceOptions::default()
    };
    ChannelOptions {
        without_namespace: NamespaceOptions {
            presence: true,
            join_leave: true,
            force_push_join_leave: true,
            history_size: HISTORY_SIZE,
            history_ttl: Duration::from_secs(10 * 60),
            force_positioning: true,
            force_recovery: true,
            allow_positioning: true,
            allow_recovery: true,
            allow_presence_for_client: true,
            allow_presence_for_subscriber: true,
            allow_presence_for_anonymous: true,
            allow_history_for_client: true,
            allow_history_for_subscriber: true,
            allow_history_for_anonymous: true,
            allow_user_limited_channels: true,
            ..open.clone()
        },
        namespaces: vec![NamespaceOptions {
            name: "typing".into(),
            ..open
        }],
        ..ChannelOptions::default()
    }
}
