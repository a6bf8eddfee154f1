//! `[http_api]`: what the application's backend may ask for, and what its calls go by.

use std::str::FromStr;

use serde::Deserialize;
use tautline_auth::{KeyDigest, Secret};

use super::file::Unusable;
use super::suggest;
use crate::glob::Glob;
use crate::http::api::{ApiKey, ApiKeys, ApiLimits, AuditLog, ErrorMode, Method, Scope};

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
    /// Longest body of a call, in bytes; between 1 KiB and 64 MiB. Default: 1 MiB.
    pub max_body_size: usize,
    /// Most commands in a `batch`, at least 1. Default: 1000.
    pub max_batch_commands: usize,
    /// Most channels in a `broadcast`, at least 1. Default: 10,000.
    pub max_broadcast_channels: usize,
    /// Most channels in the result of `channels`, at least 1. Default: 100,000.
    pub max_listed_channels: usize,
    /// Most calls at the same time, on each worker; what is beyond gets 503. At least 1. Default: 256.
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

/// The keys, as digests: what is in the file is needed no more.
pub(super) fn keys(options: &HttpApiOptions) -> Result<ApiKeys, Unusable> {
    let mut keys = Vec::new();
    if let Some(key) = &options.key {
        if key.is_empty() {
            let problem = "is empty; use a long random text, or leave it out";
            return Err(Unusable::new("http_api.key", problem));
        }
        let digest = KeyDigest::of(key.expose());
        keys.push(ApiKey::new("http_api.key", digest, Scope::default()));
    }
    if options.keys.len() > MAX_KEYS {
        let problem = format!(
            "has {} keys, at most {MAX_KEYS} make sense",
            options.keys.len()
        );
        return Err(Unusable::new("http_api.keys", problem));
    }
    for (index, key) in options.keys.iter().enumerate() {
        let is_taken = options.keys[..index]
            .iter()
            .any(|other| other.name == key.name);
        if key.name.is_empty() || is_taken {
            let problem = "must be there, and be another one for each key";
            return Err(Unusable::new(&option(index, "name"), problem));
        }
        keys.push(one(index, key)?);
    }
    Ok(ApiKeys::new(keys, options.insecure))
}

pub(super) fn limits(options: &HttpApiOptions) -> Result<ApiLimits, Unusable> {
    let limits = ApiLimits {
        max_body_size: options.max_body_size,
        max_batch_commands: options.max_batch_commands,
        max_broadcast_channels: options.max_broadcast_channels,
        max_listed_channels: options.max_listed_channels,
        max_concurrent_calls: options.max_concurrent_calls,
    };
    for (name, value) in [
        ("max_batch_commands", limits.max_batch_commands),
        ("max_broadcast_channels", limits.max_broadcast_channels),
        ("max_listed_channels", limits.max_listed_channels),
        ("max_concurrent_calls", limits.max_concurrent_calls),
    ] {
        if value == 0 {
            let option = format!("http_api.{name}");
            return Err(Unusable::new(&option, "must be at least 1"));
        }
    }
    Ok(limits)
}

fn one(index: usize, key: &ApiKeyOptions) -> Result<ApiKey, Unusable> {
    let digest = KeyDigest::from_hex(&key.sha256)
        .map_err(|error| Unusable::new(&option(index, "sha256"), error.to_string()))?;
    let methods = key.methods.as_ref().map(|methods| {
        let methods = methods.iter().map(|name| {
            let known = Method::from_name(name);
            known.ok_or_else(|| Unusable::new(&option(index, "methods"), unknown(name)))
        });
        methods.collect::<Result<Vec<_>, _>>()
    });
    let channels = key.channels.as_ref().map(|patterns| {
        let patterns = patterns.iter().map(|pattern| {
            let problem = |error| format!("`{pattern}` can't be read: {error}");
            Glob::from_str(pattern)
                .map_err(|error| Unusable::new(&option(index, "channels"), problem(error)))
        });
        patterns.collect::<Result<Vec<_>, _>>()
    });
    let scope = Scope {
        methods: methods.transpose()?,
        channels: channels.transpose()?,
    };
    Ok(ApiKey::new(&key.name, digest, scope))
}

/// The place of an option of one of the keys.
fn option(index: usize, name: &str) -> String {
    format!("http_api.keys[{index}].{name}")
}

fn unknown(name: &str) -> String {
    let known = Method::ALL.map(Method::name);
    match suggest::nearest(name, &known) {
        Some(near) => format!("`{name}` is no method of the API, did you mean `{near}`?"),
        None => format!(
            "`{name}` is no method of the API; it has {}",
            Method::list()
        ),
    }
}

/// Each call is compared with all of them.
const MAX_KEYS: usize = 100;
