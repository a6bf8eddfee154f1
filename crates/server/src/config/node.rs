//! `[node]`, `[health]`, `[prometheus]` and `[shutdown]`: this process, how others look after it, and how it ends.

use std::time::Duration;

use serde::Deserialize;
use tautline_hub::config::duration;

/// `[node]`: this process among others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeOptions {
    /// Its name, for people; empty for address and port. Default: empty.
    pub name: String,
    /// How many threads serve connections, at most 1024; 0 for one a core. Needs a restart. Default: 0.
    pub workers: usize,
}

impl NodeOptions {
    /// Most threads that can be asked for: more than any machine of today has cores.
    pub const MAX_WORKERS: usize = 1024;

    /// How many threads that is on this machine.
    pub fn worker_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = if self.workers == 0 {
            cores()
        } else {
            self.workers
        };
        count.min(Self::MAX_WORKERS)
    }
}

/// `[prometheus]`: whether what was counted can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrometheusOptions {
    /// `GET /metrics` answers with what was counted, to everybody who reaches the server: let your
    /// proxy keep strangers out. Default: no.
    pub enabled: bool,
}

/// `[health]`: whether load balancers can ask.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthOptions {
    /// `GET /health` answers 200 while the process serves, `GET /ready` while it takes new clients, and 503 on its way out.
    /// Default: yes.
    pub enabled: bool,
}

impl Default for HealthOptions {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `[shutdown]`: how a stop is spread over time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownOptions {
    /// How long the whole of it may take, from SIGTERM to the process's end; at most 1h. Default: 30 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// For how long everything goes on as ever while `GET /ready` answers 503 already, so that load balancers send
    /// nobody new; at most 1h, and not longer than `timeout`. Default: 0s, for none.
    #[serde(deserialize_with = "duration::deserialize")]
    pub readiness_delay: Duration,
    /// How many clients are told in a second to come back elsewhere, at the most; the others are served
    /// meanwhile. 0 for all at once. Where `timeout` is too short for it, they go faster, and the log says so. Default: 1,000.
    pub reconnect_rate: u32,
}

impl Default for ShutdownOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            readiness_delay: Duration::ZERO,
            reconnect_rate: 1000,
        }
    }
}
