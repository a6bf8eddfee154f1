//! `[events]`: what the application's backend is told of what has happened.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tautline_auth::Secret;
use tautline_hub::config::{ChannelOptions, duration};

use super::file::Unusable;
use super::suggest;
use super::{ProxyHttpOptions, ProxyOptions, ProxyTlsOptions};
use crate::events::settings::Settings;
use crate::events::{Kind, Patience};
use crate::proxy::endpoint::{Endpoint, EndpointError};

/// `[events]`: the application's backend is told who comes and goes, and which channels are in use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsOptions {
    /// Whether it is told. Default: no.
    pub enabled: bool,
    /// URL to which batches of events are posted, such as `https://app.example.com/tautline/events`. Required
    /// where `enabled`, unless a program that embeds the server takes events in code.
    pub endpoint: String,
    /// Which kinds: `connected`, `disconnected`, `subscribed`, `unsubscribed`, `channel_occupied`,
    /// `channel_vacated`, `cache_miss`. Default: none are named, which means all.
    pub kinds: Vec<String>,
    /// Channels of which namespaces are told of, by name; `""` for those without one. Default: none are named, which
    /// means all.
    pub namespaces: Vec<String>,
    /// How long a user who has gone has to come back before anybody is told, as a page that is loaded again does; at
    /// most 10m. Default: 5 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub debounce: Duration,
    /// The same for those who were there when the server before this one ended, from the start of this one; at most
    /// 1h. Default: 30 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub restart_debounce: Duration,
    /// When the server is stopped, those who are there are expected back by the next start with the same `directory`,
    /// instead of being told gone. Default: no.
    pub keep_on_shutdown: bool,
    /// Most events in a batch, between 1 and 10,000. Default: 1,000.
    pub batch_size: usize,
    /// Most bytes of the events in a batch, between 1 KiB and 64 MiB. Default: 256 KiB.
    pub batch_max_size: usize,
    /// How long an event waits for others to come with it, at most 1m. Default: 100 ms.
    #[serde(deserialize_with = "duration::deserialize")]
    pub batch_time: Duration,
    /// Directory of the queue, of this server alone. It is made if it isn't there. Needs a restart. Required where `enabled`.
    pub directory: String,
    /// Most bytes of events that wait there, between 4 MiB and 1 TiB. While there is no room, what comes and goes is not told
    /// of, and what is different afterwards is. Default: 256 MiB.
    pub queue_max_size: usize,
    /// How long what was written may be lost by a loss of power (the end of the process loses nothing); 0s for not at
    /// all, at most 1m. Default: 1 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub sync_interval: Duration,
    /// How long an answer may take; between 1ms and 30s. Default: 10 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// How long after a failure the next attempt is; after each further one twice as long. Between 1ms and 1h.
    /// Default: 500 ms.
    #[serde(deserialize_with = "duration::deserialize")]
    pub retry_min: Duration,
    /// The longest that becomes, between 1ms and 1h. Default: 30 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub retry_max: Duration,
    /// For how long events are tried before they are dead letters, at most 8760h (a year). Default: 24 h.
    #[serde(deserialize_with = "duration::deserialize")]
    pub retry_for: Duration,
    /// Most dead letters that are kept, between 1 and 100,000; the oldest go first. Default: 10,000.
    pub dead_max_events: usize,
    /// Signs the batches, so that the backend can tell them from a stranger's.
    pub hmac_secret_key: Option<Secret>,
    /// The secret before the last change: batches are then signed with both.
    pub hmac_previous_secret_key: Option<Secret>,
    /// More about how the endpoint is spoken to.
    pub http: EventsHttpOptions,
}

impl Default for EventsOptions {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoint: String::new(),
            kinds: Vec::new(),
            namespaces: Vec::new(),
            debounce: Duration::from_secs(5),
            restart_debounce: Duration::from_secs(30),
            keep_on_shutdown: false,
            batch_size: 1000,
            batch_max_size: 256 * 1024,
            batch_time: Duration::from_millis(100),
            directory: String::new(),
            queue_max_size: 256 * 1024 * 1024,
            sync_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            retry_for: Duration::from_secs(24 * 3600),
            dead_max_events: 10_000,
            hmac_secret_key: None,
            hmac_previous_secret_key: None,
            http: EventsHttpOptions::default(),
        }
    }
}

/// `[events.http]`: how the endpoint is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsHttpOptions {
    /// Header fields that go with each batch, by their names.
    pub static_headers: BTreeMap<String, String>,
    /// Certificates, for `https://`.
    pub tls: ProxyTlsOptions,
}

/// Checks all of it; `None` if nobody is told anything.
pub(super) fn settings(
    options: EventsOptions,
    channel: &ChannelOptions,
    warnings: &mut Vec<String>,
) -> Result<Option<Settings>, Unusable> {
    if !options.enabled {
        if !options.endpoint.is_empty() {
            warnings
                .push("events has an endpoint and is not enabled: nobody will be told".to_owned());
        }
        return Ok(None);
    }
    for (name, value, range) in [
        ("debounce", options.debounce, NO_TIME..=MAX_DEBOUNCE),
        ("restart_debounce", options.restart_debounce, NO_TIME..=HOUR),
        ("batch_time", options.batch_time, NO_TIME..=MINUTE),
        ("sync_interval", options.sync_interval, NO_TIME..=MINUTE),
        ("retry_min", options.retry_min, MIN_RETRY..=HOUR),
        ("retry_max", options.retry_max, options.retry_min..=HOUR),
        ("retry_for", options.retry_for, NO_TIME..=YEAR),
    ] {
        check(name, &value, &range, |value| {
            format!("{}ms", value.as_millis())
        })?;
    }
    for (name, value, range) in [
        ("batch_size", options.batch_size, 1..=10_000),
        ("batch_max_size", options.batch_max_size, 1 << 10..=64 << 20),
        ("queue_max_size", options.queue_max_size, 4 << 20..=1 << 40),
        ("dead_max_events", options.dead_max_events, 1..=100_000),
    ] {
        check(name, &value, &range, usize::to_string)?;
    }
    if options.directory.is_empty() {
        let problem = "must be set, to a directory that the server may write to, such as /var/lib/tautline/events";
        return Err(Unusable::new("events.directory", problem));
    }
    // Without an endpoint it is for code to take them, which needs no proof.
    if options.hmac_secret_key.is_none() && !options.endpoint.is_empty() {
        warnings.push(
            "events.hmac_secret_key is not set: the backend can't tell events from what strangers send it"
                .to_owned(),
        );
    }
    let kinds = kinds(&options.kinds)?;
    let namespaces = namespaces(&options.namespaces, channel)?;
    let (timeout, has_endpoint) = (options.timeout, !options.endpoint.is_empty());
    let endpoint = ProxyOptions {
        // What is said beside it is checked all the same.
        endpoint: if has_endpoint {
            options.endpoint
        } else {
            "http://localhost".to_owned()
        },
        timeout: options.timeout,
        hmac_secret_key: options.hmac_secret_key,
        hmac_previous_secret_key: options.hmac_previous_secret_key,
        http: ProxyHttpOptions {
            static_headers: options.http.static_headers,
            tls: options.http.tls,
            ..ProxyHttpOptions::default()
        },
        ..ProxyOptions::default()
    };
    let endpoint =
        Endpoint::new("events", &endpoint).map_err(|EndpointError { option, problem }| {
            Unusable::new(&format!("events.{option}"), problem)
        })?;
    Ok(Some(Settings {
        endpoint: has_endpoint.then_some(endpoint),
        handler: None,
        timeout,
        kinds,
        namespaces,
        debounce: options.debounce,
        restart_debounce: options.restart_debounce,
        keep_on_shutdown: options.keep_on_shutdown,
        batch_time: options.batch_time,
        batch_bytes: options.batch_max_size,
        patience: Patience {
            batch: options.batch_size,
            min: options.retry_min,
            max: options.retry_max,
            all: options.retry_for,
        },
        directory: PathBuf::from(options.directory),
        max_bytes: options.queue_max_size as u64,
        sync_interval: options.sync_interval,
        dead_most: options.dead_max_events,
        telemetry: None,
    }))
}

fn kinds(names: &[String]) -> Result<HashSet<Kind>, Unusable> {
    if names.is_empty() {
        return Ok(Kind::ALL.into_iter().collect());
    }
    let known = Kind::ALL.map(Kind::name);
    let find = |name: &String| {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| {
            let problem = match suggest::nearest(name, &known) {
                Some(near) => format!("`{name}` is not known, did you mean `{near}`?"),
                None => format!(
                    "`{name}` is not known, expected one of {}",
                    known.join(", ")
                ),
            };
            Unusable::new("events.kinds", problem)
        })
    };
    names.iter().map(find).collect()
}

fn namespaces(
    names: &[String],
    channel: &ChannelOptions,
) -> Result<Option<HashSet<String>>, Unusable> {
    for name in names {
        let known = channel.namespaces.iter();
        if !name.is_empty() && !known.map(|one| &one.name).any(|known| known == name) {
            let problem = format!("`{name}` is the name of none of channel.namespaces");
            return Err(Unusable::new("events.namespaces", problem));
        }
    }
    Ok((!names.is_empty()).then(|| names.iter().cloned().collect()))
}

fn check<T: PartialOrd>(
    name: &str,
    value: &T,
    range: &RangeInclusive<T>,
    print: impl Fn(&T) -> String,
) -> Result<(), Unusable> {
    if range.contains(value) {
        return Ok(());
    }
    let [value, least, most] = [value, range.start(), range.end()].map(print);
    let problem = format!("is {value}, must be between {least} and {most}");
    Err(Unusable::new(&format!("events.{name}"), problem))
}

const NO_TIME: Duration = Duration::ZERO;
const MIN_RETRY: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const MAX_DEBOUNCE: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
