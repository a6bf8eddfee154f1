//! `[telemetry.otlp]`: traces for OpenTelemetry.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tautline_hub::config::duration;

use super::file::Unusable;
use super::{ProxyHttpOptions, ProxyOptions, ProxyTlsOptions};
use crate::proxy::endpoint::{Endpoint, EndpointError};
use crate::telemetry::{Settings, Telemetry};

/// `[telemetry.otlp]`: traces of calls of the server API, which go on with the trace that the caller names
/// (`traceparent`), with the way of what they and clients publish to its subscribers, and of questions to the application's backend and
/// events for it, which is told theirs. They go to a collector over HTTP (OTLP in JSON). Nobody waits for it: what has no
/// room in the queue is dropped and counted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpOptions {
    /// Whether there are traces. Default: no.
    pub enabled: bool,
    /// URL to which spans are posted. Default: `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: String,
    /// Header fields that go with each request, by their names, such as the key of a service for traces.
    pub headers: BTreeMap<String, String>,
    /// Certificates of the authorities that the collector's may come from. Default: those of the system.
    pub server_ca_pem: Option<String>,
    /// How many of a hundred traces that begin here are kept, at most 100; of those of clients' publications no more than 50 a
    /// second on each worker. Of those that a caller of the API has begun, the caller has decided. Default: 10.
    pub sampling_percent: u32,
    /// What the server is called in traces. Default: `tautline`.
    pub service_name: String,
    /// Most spans that wait, between 1 and 1,000,000. Default: 4,096.
    pub queue_size: usize,
    /// How long an answer may take; between 1ms and 30s. Default: 10 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
}

impl Default for OtlpOptions {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoint: "http://127.0.0.1:4318/v1/traces".to_owned(),
            headers: BTreeMap::new(),
            server_ca_pem: None,
            sampling_percent: 10,
            service_name: "tautline".to_owned(),
            queue_size: 4096,
            timeout: Duration::from_secs(10),
        }
    }
}

/// `[telemetry]`, in which each kind has a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryOptions {
    /// `[telemetry.otlp]`.
    pub otlp: OtlpOptions,
}

/// Checks all of it; `None` where there are no traces.
pub(super) fn telemetry(options: TelemetryOptions) -> Result<Option<Arc<Telemetry>>, Unusable> {
    let options = options.otlp;
    let made_of = options.clone();
    if !options.enabled {
        return Ok(None);
    }
    let unusable =
        |option: &str, problem: String| Unusable::new(&format!("telemetry.otlp.{option}"), problem);
    if options.sampling_percent > 100 {
        let problem = format!("is {}, must be between 0 and 100", options.sampling_percent);
        return Err(unusable("sampling_percent", problem));
    }
    if !QUEUES.contains(&options.queue_size) {
        let problem = format!(
            "is {}, must be between {} and {}",
            options.queue_size,
            QUEUES.start(),
            QUEUES.end()
        );
        return Err(unusable("queue_size", problem));
    }
    if options.service_name.is_empty() {
        return Err(unusable("service_name", "must not be empty".to_owned()));
    }
    let endpoint = ProxyOptions {
        endpoint: options.endpoint,
        timeout: options.timeout,
        http: ProxyHttpOptions {
            static_headers: options.headers,
            tls: ProxyTlsOptions {
                server_ca_pem: options.server_ca_pem,
                ..ProxyTlsOptions::default()
            },
            ..ProxyHttpOptions::default()
        },
        ..ProxyOptions::default()
    };
    let endpoint =
        Endpoint::new("telemetry", &endpoint).map_err(|EndpointError { option, problem }| {
            // There it is called by where a proxy has it.
            let option = option.replace("http.static_headers", "headers");
            unusable(option.trim_start_matches("http.tls."), problem)
        })?;
    Ok(Some(Arc::new(Telemetry::new(Settings {
        endpoint,
        service: options.service_name,
        percent: options.sampling_percent,
        queue: options.queue_size,
        made_of,
    }))))
}

const QUEUES: RangeInclusive<usize> = 1..=1_000_000;

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn what_cannot_work_is_told_with_its_option() {
        let load = |line: &str| {
            let text = format!("[telemetry.otlp]\nenabled = true\n{line}\n");
            Config::from_toml(&text).map(|config| config.telemetry.is_some())
        };
        assert!(load("headers = {\"x-key\" = \"k\"}").expect("it is good"));
        for (line, option, expected) in [
            ("endpoint = \"collector:4318\"", "endpoint", "URL"),
            (
                "sampling_percent = 101",
                "sampling_percent",
                "between 0 and 100",
            ),
            ("queue_size = 0", "queue_size", "between 1 and 1000000"),
            ("service_name = \"\"", "service_name", "empty"),
            ("timeout = \"31s\"", "timeout", "30"),
            ("headers = {\"a b\" = \"c\"}", "headers.a b", "header"),
            ("server_ca_pem = \"/nowhere.pem\"", "", "https://"),
        ] {
            let error = load(line).expect_err(line).to_string();
            assert!(
                error.contains(&format!("telemetry.otlp.{option}")),
                "{error}"
            );
            assert!(error.contains(expected), "{error}");
        }
    }
}
