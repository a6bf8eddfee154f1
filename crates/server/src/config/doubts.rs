//! What a configuration leaves open to strangers that is closed by default: nothing that can't be meant, but nothing that
//! should go unsaid.

use tautline_hub::config::ClientOptions;
use toml::de::{DeTable, DeValue};

use super::client::ConnectionOptions;
use super::options::Reference;
use super::{AdminOptions, HttpServerOptions, LimitOptions, PrometheusOptions};

/// The tables that have to do with that.
pub(super) struct Open<'a> {
    pub(super) client: &'a ClientOptions,
    pub(super) connections: &'a ConnectionOptions,
    pub(super) http_server: &'a HttpServerOptions,
    pub(super) limits: &'a LimitOptions,
    pub(super) admin: &'a AdminOptions,
    pub(super) prometheus: &'a PrometheusOptions,
}

impl Open<'_> {
    /// Adds a sentence for each thing, which begins with the option.
    pub(super) fn warn(&self, warnings: &mut Vec<String>) {
        let server = self.http_server;
        for (option, networks, what) in [
            (
                "http_server.trusted_proxies",
                &server.trusted_proxies,
                "whoever connects says himself which address he has, so no limit by address holds and no log is true",
            ),
            (
                "limits.exempt",
                &self.limits.exempt,
                "nobody has a limit by address",
            ),
        ] {
            if let Some(network) = networks.iter().find(|network| is_all(network)) {
                warnings.push(format!("{option} has {network}: {what}"));
            }
        }
        let is_public = !server.address.is_loopback();
        let is_apart = !server.internal_listen.is_empty();
        if is_public && !is_apart && self.prometheus.enabled {
            warnings.push(
                "prometheus.enabled is on, on the port that everybody reaches: set http_server.internal_listen, or let a \
                 proxy keep strangers from /metrics"
                    .to_owned(),
            );
        }
        if is_public && !is_apart && self.admin.enabled {
            warnings.push(
                "admin.enabled is on, on the port that everybody reaches: set http_server.internal_listen, or let a proxy \
                 keep strangers from /admin"
                    .to_owned(),
            );
        }
        if is_public
            && !self.connections.user_id_http_header.is_empty()
            && server.trusted_proxies.is_empty()
        {
            warnings.push(format!(
                "client.user_id_http_header is {}: whoever reaches this port may be any user. Let nobody reach it but the \
                 proxy that sets the field, and name that in http_server.trusted_proxies",
                self.connections.user_id_http_header
            ));
        }
        self.warn_of_limits(warnings);
    }

    fn warn_of_limits(&self, warnings: &mut Vec<String>) {
        let LimitOptions {
            address, memory, ..
        } = self.limits;
        let rates = &self.client.rate_limit;
        let off = [
            ("limits.memory.enabled", !memory.enabled),
            ("limits.address.connections", address.connections == 0),
            ("limits.address.handshakes", address.handshakes == 0),
            (
                "client.user_connection_limit",
                self.client.user_connection_limit == 0,
            ),
            ("limits.address.connect", address.connect.is_none()),
            ("limits.address.requests", address.requests.is_none()),
            (
                "limits.address.failed_authentications",
                address.failed_authentications.is_none(),
            ),
            (
                "client.rate_limit.client_command.enabled",
                !rates.client_command.enabled,
            ),
        ];
        let off: Vec<_> = off
            .iter()
            .filter_map(|(option, is_off)| is_off.then_some(*option))
            .collect();
        if !off.is_empty() {
            warnings.push(format!(
                "{}: switched off, so a stranger may have as much of it as he likes",
                off.join(", ")
            ));
        }
        let tried = [
            ("limits.dry_run", self.limits.dry_run),
            ("limits.address.dry_run", address.dry_run),
            ("limits.memory.dry_run", memory.dry_run),
        ];
        for (option, is_tried) in tried {
            if is_tried {
                warnings.push(format!(
                    "{option} is on: what is beyond these limits is counted, and happens"
                ));
            }
        }
    }
}

/// Whether a network is all of the internet.
fn is_all(network: &str) -> bool {
    network
        .split_once('/')
        .is_some_and(|(_, prefix)| prefix.trim() == "0")
}

/// What may be guessed of what is secret, wherever it stands: each with its place, and a sentence.
pub(super) fn secrets(root: &DeTable<'_>) -> Vec<(usize, String)> {
    let mut doubts = Vec::new();
    look_at("", "", root, &mut doubts);
    doubts.sort_by_key(|(offset, _)| *offset);
    doubts
}

/// `path` is what a table is called in texts, `name` whatever element of a list it is in.
fn look_at(path: &str, name: &str, table: &DeTable<'_>, doubts: &mut Vec<(usize, String)>) {
    for (key, value) in table {
        let below = |table: &str| match table {
            "" => key.get_ref().to_string(),
            table => format!("{table}.{}", key.get_ref()),
        };
        let (path, option) = (below(path), below(name));
        match value.get_ref() {
            DeValue::Table(table) => look_at(&path, &option, table, doubts),
            DeValue::Array(list) => {
                for (index, element) in list.iter().enumerate() {
                    if let DeValue::Table(table) = element.get_ref() {
                        look_at(&format!("{path}[{index}]"), &option, table, doubts);
                    }
                }
            }
            DeValue::String(secret) if is_secret(&option) => {
                if let Some(doubt) = doubt(key.get_ref(), secret) {
                    doubts.push((key.span().start, format!("{path} {doubt}")));
                }
            }
            _ => {}
        }
    }
}

/// Whether an option is a secret that somebody has made up: not a key in PEM, nor one that an authority has given.
fn is_secret(option: &str) -> bool {
    let name = option.rsplit_once('.').map_or(option, |(_, name)| name);
    let entry = Reference::built_in().find(option);
    let is_made_up =
        !name.ends_with("_pem") && !["external_account_hmac_key", "password_hash"].contains(&name);
    is_made_up && entry.is_some_and(|entry| entry.kind == "secret text")
}

fn doubt(name: &str, secret: &str) -> Option<&'static str> {
    let plain: String = secret.to_lowercase().split(['-', '_', ' ']).collect();
    if PLACEHOLDERS
        .iter()
        .any(|placeholder| plain.contains(placeholder))
    {
        return Some("is a placeholder, which others know, too; use at least 32 random bytes");
    }
    let is_short = match name {
        // Passwords have a limit of their own; an API key can't be tried without anybody's knowing.
        "password" => false,
        "key" => secret.len() < GOOD_KEY_LEN,
        _ => secret.len() < GOOD_SECRET_LEN,
    };
    is_short.then_some(match name {
        "key" => {
            "is short and may be guessed; use a long random text, such as `tautline key` makes"
        }
        _ => "is short and may be guessed; use at least 32 random bytes (RFC 7518 §3.2)",
    })
}

/// What texts have that somebody was to replace, in lower case and without what stands between words.
const PLACEHOLDERS: [&str; 9] = [
    "changeme",
    "changethis",
    "replaceme",
    "replacethis",
    "placeholder",
    "yoursecret",
    "mysecret",
    "randombytes",
    "longrandom",
];
/// What RFC 7518 §3.2 asks of a key for HS256.
const GOOD_SECRET_LEN: usize = 32;
const GOOD_KEY_LEN: usize = 16;
