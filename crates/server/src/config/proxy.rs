//! The tables of the application's backend: which of its endpoints are asked, and how. What has been
//! checked is `proxy::settings`' part.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Deserialize;
use tautline_auth::Secret;
use tautline_hub::config::{ChannelOptions, NamespaceOptions, duration};

use super::file::Unusable;
use crate::proxy::endpoint::{Endpoint, EndpointError};
use crate::proxy::settings::{Kind, Settings};

/// `[client.proxy]`: what the backend is asked about connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientProxies {
    /// Who clients are that come without a token.
    pub connect: ProxyOptions,
    /// Whether connections that have expired live on.
    pub refresh: ProxyOptions,
}

/// `[channel.proxy]`: what the backend is asked about channels, where their namespaces say so and name no
/// other proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelProxies {
    /// Who may subscribe.
    pub subscribe: ProxyOptions,
    /// Who may publish, and what.
    pub publish: ProxyOptions,
    /// Whether subscriptions that have expired live on.
    pub sub_refresh: ProxyOptions,
}

/// `[rpc]`: who answers the calls of clients.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpcOptions {
    /// What ends the name of the namespace in the name of a method. Default: `:`.
    pub namespace_boundary: String,
    /// A method that the server itself answers.
    pub ping: RpcPingOptions,
    /// Methods without a namespace.
    pub without_namespace: RpcNamespaceOptions,
    /// Namespaces of methods, each with a `name` of its own.
    pub namespaces: Vec<RpcNamespaceOptions>,
    /// The backend, where namespaces name no other.
    pub proxy: ProxyOptions,
}

impl Default for RpcOptions {
    fn default() -> Self {
        Self {
            namespace_boundary: ":".into(),
            ping: RpcPingOptions::default(),
            without_namespace: RpcNamespaceOptions::default(),
            namespaces: Vec::new(),
            proxy: ProxyOptions::default(),
        }
    }
}

/// `[rpc.ping]`: a method that the server itself answers, with nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpcPingOptions {
    /// Whether there is one, for clients that measure how long an answer takes. Default: no.
    pub enabled: bool,
    /// Its name. Default: `ping`.
    pub method: String,
}

impl Default for RpcPingOptions {
    fn default() -> Self {
        Self {
            enabled: false,
            method: "ping".into(),
        }
    }
}

/// `[rpc.without_namespace]` and `[[rpc.namespaces]]`: who answers calls of these methods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpcNamespaceOptions {
    /// The part of a method's name before the `:`. Not set in `rpc.without_namespace`.
    pub name: String,
    /// The application's backend answers the calls. Default: no, they get error 108.
    pub proxy_enabled: bool,
    /// Which of `proxies` that is. Default: empty, as `default`: `rpc.proxy`.
    pub proxy_name: String,
}

/// `[client.proxy.connect]` and its like, and `[[proxies]]`: an endpoint of the application's backend.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyOptions {
    /// Whether it is asked. In `client.proxy.connect` and `client.proxy.refresh` only; elsewhere the
    /// namespaces say so. Default: no.
    pub enabled: bool,
    /// What namespaces call it by: two or more letters, digits, `-`, `_` or `.`. In `proxies` only.
    pub name: String,
    /// URL to which the questions are posted, such as `https://app.example.com/tautline/connect`. Required.
    pub endpoint: String,
    /// How long an answer may take, all attempts together; between 1ms and 30s. Default: 1 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// Header fields of the request that opened the client's connection which the backend gets, such as
    /// `Cookie`. `Tautline-Client-IP` is the client's address as the server knows it (`http_server.trusted_proxies`), whatever was
    /// in the request; `X-Forwarded-For` has the address that the request came from behind what was in it. Default: none.
    pub http_headers: Vec<String>,
    /// Header fields which the backend gets as the client's application says them (`headers` of the SDK).
    /// Anybody can write anything there. Default: none.
    pub emulated_headers: Vec<String>,
    /// Payloads go as base64, in `b64data`, as they may be any bytes. Default: no, as JSON in `data`.
    pub binary_encoding: bool,
    /// The backend gets what it has stored with the connection, in `meta`. Default: no.
    pub include_connection_meta: bool,
    /// Signs the questions, so that the backend can tell them from a stranger's.
    pub hmac_secret_key: Option<Secret>,
    /// The secret before the last change: questions are then signed with both.
    pub hmac_previous_secret_key: Option<Secret>,
    /// How many questions may be under way; what is beyond gets error 111. Between 1 and 100,000.
    /// Default: 1,000.
    pub max_in_flight: usize,
    /// Longest answer, in bytes; between 1 KiB and 64 MiB. Default: 1 MiB.
    pub max_response_size: usize,
    /// After how many failures in a row the backend is left alone for a while; 0 for never. Default: 10.
    pub breaker_failures: usize,
    /// For how long, before one question tries whether it is back; between 1ms and 10m. Default: 2 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub breaker_pause: Duration,
    /// More about how it is spoken to.
    pub http: ProxyHttpOptions,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            enabled: false,
            name: String::new(),
            endpoint: String::new(),
            timeout: Duration::from_secs(1),
            http_headers: Vec::new(),
            emulated_headers: Vec::new(),
            binary_encoding: false,
            include_connection_meta: false,
            hmac_secret_key: None,
            hmac_previous_secret_key: None,
            max_in_flight: 1000,
            max_response_size: 1024 * 1024,
            breaker_failures: 10,
            breaker_pause: Duration::from_secs(2),
            http: ProxyHttpOptions::default(),
        }
    }
}

/// `[client.proxy.connect.http]` and its like: how an endpoint is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyHttpOptions {
    /// Header fields that go with each question, by their names.
    pub static_headers: BTreeMap<String, String>,
    /// What statuses other than 200 mean to clients.
    pub status_to_code_transforms: Vec<StatusTransform>,
    /// Certificates, for `https://`.
    pub tls: ProxyTlsOptions,
}

/// `[[client.proxy.connect.http.status_to_code_transforms]]` and its like: what a status means. Either
/// `to_error` or `to_disconnect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatusTransform {
    /// The status, such as 404: between 100 and 599, but for 200.
    pub status_code: u16,
    /// An error of the command: `code` (400 to 1999 are yours), `message`, `temporary`.
    pub to_error: Option<ToError>,
    /// The end of the connection: `code` (4000 to 4999 are yours) and `reason`.
    pub to_disconnect: Option<ToDisconnect>,
}

/// An error that a status stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToError {
    /// The error's code.
    pub code: u32,
    /// For developers.
    pub message: String,
    /// Whether clients may try again.
    pub temporary: bool,
}

/// A disconnect that a status stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToDisconnect {
    /// The disconnect's code.
    pub code: u32,
    /// For developers.
    pub reason: String,
}

/// `[client.proxy.connect.http.tls]` and its like: certificates. Each is a text in PEM, that in base64, or
/// the path of a file that has one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyTlsOptions {
    /// Certificates of the authorities that the backend's may come from. Default: those of the system.
    pub server_ca_pem: Option<String>,
    /// The certificate that the server shows to the backend, with those between it and its authority.
    pub cert_pem: Option<String>,
    /// The key of that certificate.
    pub key_pem: Option<Secret>,
}

/// All there is about the backend in a file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tables {
    pub(super) client: ClientProxies,
    pub(super) channel: ChannelProxies,
    pub(super) rpc: RpcOptions,
    pub(super) named: Vec<ProxyOptions>,
}

/// Checks all of it; `None` if nobody is to be asked anything.
pub(super) fn settings(
    tables: &Tables,
    channel: &ChannelOptions,
    warnings: &mut Vec<String>,
) -> Result<Option<Settings>, Unusable> {
    let mut choosing = Choosing::default();
    for (index, options) in tables.named.iter().enumerate() {
        choosing.add_named(index, options)?;
    }
    let mut settings = Settings::default();
    for (kind, path, options) in [
        (
            Kind::Connect,
            "client.proxy.connect",
            &tables.client.connect,
        ),
        (
            Kind::Refresh,
            "client.proxy.refresh",
            &tables.client.refresh,
        ),
    ] {
        check_unnamed(path, options)?;
        if options.enabled {
            let index = choosing.default_of(kind, path, options)?;
            match kind {
                Kind::Connect => settings.connect = Some(index),
                _ => settings.refresh = Some(index),
            }
        } else if !options.endpoint.is_empty() {
            warnings.push(format!(
                "{path} has an endpoint and is not enabled: nobody will be asked"
            ));
        }
    }
    for (kind, path, options) in [
        (
            Kind::Subscribe,
            "channel.proxy.subscribe",
            &tables.channel.subscribe,
        ),
        (
            Kind::Publish,
            "channel.proxy.publish",
            &tables.channel.publish,
        ),
        (
            Kind::SubRefresh,
            "channel.proxy.sub_refresh",
            &tables.channel.sub_refresh,
        ),
        (Kind::Rpc, "rpc.proxy", &tables.rpc.proxy),
    ] {
        check_unnamed(path, options)?;
        if options.enabled {
            let problem = "belongs to client.proxy.connect and client.proxy.refresh; here the namespaces say so";
            return Err(Unusable::new(&format!("{path}.enabled"), problem));
        }
        if !options.endpoint.is_empty() {
            choosing.default_of(kind, path, options)?;
        }
    }
    let namespaces = channel.namespaces.iter().enumerate();
    let namespaces = namespaces.map(|(index, options)| {
        (
            format!("channel.namespaces[{index}] (`{}`)", options.name),
            options,
        )
    });
    let without = (
        "channel.without_namespace".to_owned(),
        &channel.without_namespace,
    );
    for (path, options) in [without].into_iter().chain(namespaces) {
        choosing.add_namespace(&mut settings, &path, options, &tables.channel)?;
    }
    choosing.add_rpc(&mut settings, &tables.rpc)?;
    settings.endpoints = choosing.endpoints;
    Ok((!settings.is_idle()).then_some(settings))
}

/// Which endpoint is for what.
#[derive(Default)]
struct Choosing {
    endpoints: Vec<Endpoint>,
    named: HashMap<String, usize>,
    defaults: HashMap<Kind, usize>,
}

impl Choosing {
    fn add_named(&mut self, index: usize, options: &ProxyOptions) -> Result<(), Unusable> {
        let name = &options.name;
        let path = match name.as_str() {
            "" => format!("proxies[{index}]"),
            name => format!("proxies[{index}] (`{name}`)"),
        };
        let is_known = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
        if name.len() < 2 || !name.chars().all(is_known) || name == DEFAULT {
            let problem = "must be two or more letters, digits, `-`, `_` or `.`, and not `default`";
            return Err(Unusable::new(&format!("{path}.name"), problem));
        }
        if options.enabled {
            let problem = "belongs to client.proxy.connect and client.proxy.refresh; namespaces say so for others";
            return Err(Unusable::new(&format!("{path}.enabled"), problem));
        }
        let endpoint = endpoint(&path, name, options)?;
        if self
            .named
            .insert(name.clone(), self.endpoints.len())
            .is_some()
        {
            let problem = "is there twice; names must differ";
            return Err(Unusable::new(&format!("{path}.name"), problem));
        }
        self.endpoints.push(endpoint);
        Ok(())
    }

    /// The endpoint of a question for which none is named.
    fn default_of(
        &mut self,
        kind: Kind,
        path: &str,
        options: &ProxyOptions,
    ) -> Result<usize, Unusable> {
        if let Some(index) = self.defaults.get(&kind) {
            return Ok(*index);
        }
        self.endpoints.push(endpoint(path, DEFAULT, options)?);
        let index = self.endpoints.len() - 1;
        self.defaults.insert(kind, index);
        Ok(index)
    }

    /// The endpoint that the option at `path` names.
    fn find(
        &mut self,
        kind: Kind,
        path: &str,
        name: &str,
        (default_path, default): (&str, &ProxyOptions),
    ) -> Result<usize, Unusable> {
        match name {
            "" | DEFAULT => self.default_of(kind, default_path, default),
            name => self.named.get(name).copied().ok_or_else(|| {
                let problem = format!("`{name}` is the name of none of proxies");
                Unusable::new(path, problem)
            }),
        }
    }

    fn add_namespace(
        &mut self,
        settings: &mut Settings,
        path: &str,
        options: &NamespaceOptions,
        defaults: &ChannelProxies,
    ) -> Result<(), Unusable> {
        let subscribe = (
            Kind::Subscribe,
            options.subscribe_proxy_enabled,
            &options.subscribe_proxy_name,
            ("channel.proxy.subscribe", &defaults.subscribe),
            &mut settings.subscribe,
        );
        let publish = (
            Kind::Publish,
            options.publish_proxy_enabled,
            &options.publish_proxy_name,
            ("channel.proxy.publish", &defaults.publish),
            &mut settings.publish,
        );
        let sub_refresh = (
            Kind::SubRefresh,
            options.sub_refresh_proxy_enabled,
            &options.sub_refresh_proxy_name,
            ("channel.proxy.sub_refresh", &defaults.sub_refresh),
            &mut settings.sub_refresh,
        );
        for (kind, enabled, name, default, to) in [subscribe, publish, sub_refresh] {
            let option = format!("{path}.{}_proxy_name", kind.name());
            if enabled {
                let index = self.find(kind, &option, name, default)?;
                to.insert(options.name.clone(), index);
            } else if !name.is_empty() {
                let problem = format!("needs {}_proxy_enabled = true", kind.name());
                return Err(Unusable::new(&option, problem));
            }
        }
        Ok(())
    }

    fn add_rpc(&mut self, settings: &mut Settings, rpc: &RpcOptions) -> Result<(), Unusable> {
        let boundary = &rpc.namespace_boundary;
        let is_mark = |byte: u8| byte.is_ascii_punctuation() && !b"-_.".contains(&byte);
        if boundary.is_empty() || boundary.len() > 8 || !boundary.bytes().all(is_mark) {
            let problem = "must be 1 to 8 punctuation characters, and not `-`, `_` or `.`";
            return Err(Unusable::new("rpc.namespace_boundary", problem));
        }
        settings.rpc_boundary.clone_from(boundary);
        let namespaces = rpc.namespaces.iter().enumerate();
        let namespaces = namespaces.map(|(index, options)| {
            (
                format!("rpc.namespaces[{index}] (`{}`)", options.name),
                options,
            )
        });
        let without = ("rpc.without_namespace".to_owned(), &rpc.without_namespace);
        for (place, (path, options)) in [without].into_iter().chain(namespaces).enumerate() {
            let name = &options.name;
            let is_known = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
            let is_named = name.len() >= 2 && name.chars().all(is_known);
            if (place == 0) != name.is_empty() || place > 0 && !is_named {
                let problem = "must be two or more letters, digits, `-`, `_` or `.`; and none in rpc.without_namespace";
                return Err(Unusable::new(&format!("{path}.name"), problem));
            }
            let option = format!("{path}.proxy_name");
            let index = if options.proxy_enabled {
                let default = ("rpc.proxy", &rpc.proxy);
                Some(self.find(Kind::Rpc, &option, &options.proxy_name, default)?)
            } else if options.proxy_name.is_empty() {
                None
            } else {
                return Err(Unusable::new(&option, "needs proxy_enabled = true"));
            };
            if settings.rpc.insert(name.clone(), index).is_some() {
                let problem = "is there twice; names must differ";
                return Err(Unusable::new(&format!("{path}.name"), problem));
            }
        }
        Ok(())
    }
}

fn check_unnamed(path: &str, options: &ProxyOptions) -> Result<(), Unusable> {
    if options.name.is_empty() {
        return Ok(());
    }
    let problem = "must not be set; proxies with names are in [[proxies]]";
    Err(Unusable::new(&format!("{path}.name"), problem))
}

fn endpoint(path: &str, name: &str, options: &ProxyOptions) -> Result<Endpoint, Unusable> {
    Endpoint::new(name, options).map_err(|EndpointError { option, problem }| {
        Unusable::new(&format!("{path}.{option}"), problem)
    })
}

/// The name of a proxy that none is named for.
const DEFAULT: &str = "default";
