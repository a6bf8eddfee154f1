//! The tables of tunnels: which WebSocket servers of the operator's own are reached through this one. What
//! has been checked is `door::tunnel`'s part.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tautline_hub::config::duration;
use tautline_websocket::conn::tls_config;
use tautline_websocket::proto::handshake::{ClientRequest, Url};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::file::{Unusable, check_size};
use crate::door::tunnel::{FORWARDED_FOR, Tunnel, Tunnels};
use crate::pem;

/// `[[tunnels]]`: a WebSocket server of your own that clients reach at `/tunnel/` and its name, by a WebSocket or,
/// where none gets through, by plain HTTP. The origins of pages are checked as at every door
/// (`client.allowed_origins`); who may do what is that server's affair.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TunnelOptions {
    /// Its name, as in `/tunnel/docs`: letters, digits, `-`, `_` or `.`. Required.
    pub name: String,
    /// Where the server is, such as `ws://127.0.0.1:1234` or `wss://docs.internal/socket`. What an address has behind the
    /// tunnel's name, and its query, is put behind that. Required.
    pub upstream: String,
    /// Header fields of the client's request that the server gets, such as `Cookie`, `Authorization` or `Origin`.
    /// Default: none.
    pub http_headers: Vec<String>,
    /// Header fields that the server gets with each request, by their names.
    pub static_headers: BTreeMap<String, String>,
    /// How long the server may take to open a connection; between 100ms and 60s. Default: 5 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
    /// Longest message, of either side, in bytes; between 1 KiB and 64 MiB. Default: 1 MiB.
    pub message_size_limit: usize,
    /// How many connections there may be at a time, on this node; at least 1. Default: 10,000.
    pub max_connections: usize,
    /// Certificates of the authorities that the server's may come from, for `wss://`: a text in PEM, that in base64,
    /// or the path of a file that has one. Default: those of the system.
    pub server_ca_pem: Option<String>,
}

impl Default for TunnelOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            upstream: String::new(),
            http_headers: Vec::new(),
            static_headers: BTreeMap::new(),
            connect_timeout: Duration::from_secs(5),
            message_size_limit: 1024 * 1024,
            max_connections: 10_000,
            server_ca_pem: None,
        }
    }
}

/// Checks all of them.
pub(super) fn tunnels(tables: Vec<TunnelOptions>) -> Result<Tunnels, Unusable> {
    let mut all = BTreeMap::new();
    for (index, options) in tables.into_iter().enumerate() {
        let name = options.name.clone();
        let path = match name.as_str() {
            "" => format!("tunnels[{index}]"),
            name => format!("tunnels[{index}] (`{name}`)"),
        };
        let tunnel = tunnel(options)
            .map_err(|(option, problem)| Unusable::new(&format!("{path}.{option}"), problem))?;
        check_size(&format!("{path}.message_size_limit"), tunnel.message_size())?;
        if all.insert(name, Arc::new(tunnel)).is_some() {
            let problem = "is there twice; names must differ";
            return Err(Unusable::new(&format!("{path}.name"), problem));
        }
    }
    Ok(Tunnels::new(all))
}

fn tunnel(options: TunnelOptions) -> Result<Tunnel, (String, String)> {
    let wrong = |option: &str, problem: &str| Err((option.to_owned(), problem.to_owned()));
    let is_known = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    if options.name.is_empty() || !options.name.chars().all(is_known) {
        return wrong("name", "must be letters, digits, `-`, `_` or `.`");
    }
    if options.name.chars().all(|char| char == '.') {
        return wrong("name", "must not be dots alone, which a path leaves out");
    }
    if options.upstream.is_empty() {
        let problem = "is required: the URL of a WebSocket server, such as ws://127.0.0.1:1234";
        return wrong("upstream", problem);
    }
    let url: Url = match options.upstream.parse() {
        Ok(url) => url,
        Err(error) => return wrong("upstream", &format!("can't be used: {error}")),
    };
    let mut request = ClientRequest::new(&url, [0; 16]);
    for name in &options.http_headers {
        if name.eq_ignore_ascii_case(FORWARDED_FOR) {
            let problem = "has X-Forwarded-For, which the server writes itself";
            return wrong("http_headers", problem);
        }
        request = match request.with_header(name, "x") {
            Ok(request) => request,
            Err(error) => return wrong("http_headers", &error.to_string()),
        };
    }
    for (name, value) in &options.static_headers {
        let option = format!("static_headers.{name}");
        if options
            .http_headers
            .iter()
            .any(|other| other.eq_ignore_ascii_case(name))
        {
            let problem = "is in http_headers, too: either the client says it, or you do";
            return wrong(&option, problem);
        }
        // What is wrong with a value isn't shown: it may well be a password.
        request = match request.with_header(name, value) {
            Ok(request) => request,
            Err(_) => return wrong(&option, "is no header field that can be sent"),
        };
    }
    if !CONNECT_TIMEOUTS.contains(&options.connect_timeout) {
        return wrong("connect_timeout", "must be between 100ms and 60s");
    }
    if options.max_connections == 0 {
        return wrong("max_connections", "must be at least 1");
    }
    let tls = match (&options.server_ca_pem, url.is_secure()) {
        (Some(_), false) => {
            return wrong("server_ca_pem", "needs an upstream with wss://");
        }
        (None, false) => None,
        (None, true) => match tls_config() {
            Ok(config) => Some(config),
            Err(error) => return wrong("upstream", &error.to_string()),
        },
        (Some(pem), true) => match trusting(pem) {
            Ok(config) => Some(Arc::new(config)),
            Err(problem) => return wrong("server_ca_pem", &problem),
        },
    };
    Ok(Tunnel::new(options, tls))
}

/// TLS that trusts these authorities, and nobody else.
fn trusting(authorities: &str) -> Result<ClientConfig, String> {
    let text = pem::read(authorities).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(&text)? {
        roots
            .add(certificate)
            .map_err(|error| format!("has a certificate that can't be used: {error}"))?;
    }
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

const CONNECT_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(60);
