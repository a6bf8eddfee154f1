//! How often clients may do things: the `[client.rate_limit]` tables.

use serde::Deserialize;

use super::ConfigError;
use crate::rate::{self, Rate};

/// Limits of what connections and users do, as rates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitOptions {
    /// What each connection may do.
    pub client_command: ClientCommandRates,
    /// What all connections of a user together may do.
    pub user_command: UserCommandRates,
    /// How many errors a connection may cause.
    pub client_error: ErrorRate,
    /// How many bytes a connection may send.
    pub client_input: InputRate,
}

/// What each connection may do. A command beyond its rate is answered with error 111 and does
/// nothing. (`unsubscribe` is carried out in any case, and counts as an error beyond its rate; `send`,
/// which has no answer, ends the connection with code 3013.) As many subscriptions as
/// `client.channel_limit` allows may be made at once, whatever the rates.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientCommandRates {
    /// Whether these limits are there. Default: yes.
    pub enabled: bool,
    /// Count what is beyond the rates, and let it happen. Default: no.
    pub dry_run: bool,
    /// All commands together. Default: `5000/s`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub total: Option<Rate>,
    /// Default: `1000/s`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub subscribe: Option<Rate>,
    /// Default: `1000/s`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub unsubscribe: Option<Rate>,
    /// Default: `2000/s`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub publish: Option<Rate>,
    /// Default: `100/s`, because the answers can be long.
    #[serde(deserialize_with = "rate::deserialize")]
    pub presence: Option<Rate>,
    /// Default: `500/s`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub presence_stats: Option<Rate>,
    /// Default: `200/s`, because the answers can be long.
    #[serde(deserialize_with = "rate::deserialize")]
    pub history: Option<Rate>,
    /// Default: `1000/s`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub rpc: Option<Rate>,
    /// Default: `2000/s`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub send: Option<Rate>,
    /// Default: `10/s`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub refresh: Option<Rate>,
    /// Default: `500/s`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub sub_refresh: Option<Rate>,
}

/// What all connections of a user together may do on this node. Not for anonymous ones, who have no
/// user in common. Beyond its rate a command fares as with `client_command`, and a connection is
/// refused with error 111, after which clients try again later.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserCommandRates {
    /// Whether these limits are there. Default: yes.
    pub enabled: bool,
    /// Count what is beyond the rates, and let it happen. Default: no.
    pub dry_run: bool,
    /// All commands together. Default: `20000/s`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub total: Option<Rate>,
    /// New connections. Default: `500/s, burst 20000`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub connect: Option<Rate>,
    /// Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub subscribe: Option<Rate>,
    /// Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub unsubscribe: Option<Rate>,
    /// Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub publish: Option<Rate>,
    /// Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub presence: Option<Rate>,
    /// Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub presence_stats: Option<Rate>,
    /// Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub history: Option<Rate>,
    /// Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub rpc: Option<Rate>,
    /// Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub send: Option<Rate>,
    /// Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub refresh: Option<Rate>,
    /// Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub sub_refresh: Option<Rate>,
}

/// How many errors a connection may cause. Every command that is answered with an error counts, but
/// for those that are the server's fault (100).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorRate {
    /// Whether this limit is there. Default: yes.
    pub enabled: bool,
    /// Count connections that would be ended, and let them live. Default: no.
    pub dry_run: bool,
    /// Beyond it the connection is ended with code 3509, after which clients don't come back. Default:
    /// `1000/10s`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub total: Option<Rate>,
}

/// How many bytes each connection may send: over a WebSocket as they come, framing included, and in the commands of requests
/// beside a connection. Beyond it the connection is ended with code 3013, after which clients come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputRate {
    /// Whether this limit is there. Default: yes.
    pub enabled: bool,
    /// Count what is beyond it, and let it happen. Default: no.
    pub dry_run: bool,
    /// How many bytes in a second, in the long run; between 1 KiB and 1 TiB. Default: 16 MiB.
    pub bytes_per_second: u64,
    /// How many bytes at once; between 256 KiB, which is what is read at a time, and 1 TiB. Default: 64 MiB.
    pub burst: u64,
}

impl Default for InputRate {
    fn default() -> Self {
        Self {
            enabled: true,
            dry_run: false,
            bytes_per_second: 16 * 1024 * 1024,
            burst: 64 * 1024 * 1024,
        }
    }
}

impl InputRate {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let table = "client.rate_limit.client_input";
        for (option, value, least) in [
            ("bytes_per_second", self.bytes_per_second, 1024),
            ("burst", self.burst, 256 * 1024),
        ] {
            if !(least..=MOST_BYTES).contains(&value) {
                let problem = format!("must be between {least} and {MOST_BYTES} bytes");
                return Err(ConfigError::new(format!("{table}.{option}"), problem));
            }
        }
        Ok(())
    }
}

/// A TiB.
const MOST_BYTES: u64 = 1 << 40;

impl Default for ClientCommandRates {
    fn default() -> Self {
        let per_second = |count| Some(Rate::per_second(count));
        Self {
            enabled: true,
            dry_run: false,
            total: per_second(5000),
            subscribe: per_second(1000),
            unsubscribe: per_second(1000),
            publish: per_second(2000),
            presence: per_second(100),
            presence_stats: per_second(500),
            history: per_second(200),
            rpc: per_second(1000),
            send: per_second(2000),
            refresh: per_second(10),
            sub_refresh: per_second(500),
        }
    }
}

impl Default for UserCommandRates {
    fn default() -> Self {
        Self {
            enabled: true,
            dry_run: false,
            total: Some(Rate::per_second(20_000)),
            connect: Some(Rate::per_second(500).at_once(20_000)),
            subscribe: None,
            unsubscribe: None,
            publish: None,
            presence: None,
            presence_stats: None,
            history: None,
            rpc: None,
            send: None,
            refresh: None,
            sub_refresh: None,
        }
    }
}

impl Default for ErrorRate {
    fn default() -> Self {
        Self {
            enabled: true,
            dry_run: false,
            total: Some(Rate::new(1000, std::time::Duration::from_secs(10))),
        }
    }
}
