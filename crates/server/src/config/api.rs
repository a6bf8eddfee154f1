//! From the options of `[http_api]` to what its calls go by.

use std::str::FromStr;

use tautline_auth::KeyDigest;

use super::file::Unusable;
use super::suggest;
use super::{ApiKeyOptions, HttpApiOptions};
use crate::glob::Glob;
use crate::http::api::{ApiKey, ApiKeys, ApiLimits, Method, Scope};

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
