//! What is asked where.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;
use crate::telemetry::Telemetry;

/// What a backend can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Connect,
    Refresh,
    Subscribe,
    SubRefresh,
    Publish,
    Rpc,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Connect,
        Self::Refresh,
        Self::Subscribe,
        Self::SubRefresh,
        Self::Publish,
        Self::Rpc,
    ];

    /// As it is called in options, headers and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refresh => "refresh",
            Self::Subscribe => "subscribe",
            Self::SubRefresh => "sub_refresh",
            Self::Publish => "publish",
            Self::Rpc => "rpc",
        }
    }

    /// Whether asking twice is as good as asking once: what only asks whether something may be. What does
    /// something is not asked again once the backend may have seen it.
    pub(super) const fn may_repeat(self) -> bool {
        !matches!(self, Self::Publish | Self::Rpc)
    }
}

/// Which endpoint is asked about what. Numbers are places in `endpoints`.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) connect: Option<usize>,
    pub(crate) refresh: Option<usize>,
    /// By namespace; the empty name for channels without one.
    pub(crate) subscribe: HashMap<String, usize>,
    pub(crate) publish: HashMap<String, usize>,
    pub(crate) sub_refresh: HashMap<String, usize>,
    /// All namespaces of methods, those for which nobody is asked, too.
    pub(crate) rpc: HashMap<String, Option<usize>>,
    pub(crate) rpc_boundary: String,
    /// Where traces of questions go.
    pub(crate) telemetry: Option<Arc<Telemetry>>,
}

impl Settings {
    /// Whether nobody is asked anything.
    pub(crate) fn is_idle(&self) -> bool {
        let of_clients = self.connect.or(self.refresh);
        let of_channels = [&self.subscribe, &self.publish, &self.sub_refresh];
        of_clients.is_none()
            && of_channels.iter().all(|map| map.is_empty())
            && self.rpc.values().all(Option::is_none)
    }

    /// How long the hub has to wait for an answer at the most.
    pub(crate) fn patience(&self) -> Duration {
        let longest = self.endpoints.iter().map(|endpoint| endpoint.timeout).max();
        longest.unwrap_or_default() + SLACK
    }
}

/// A call tells of its own time-out, and should get to do so.
const SLACK: Duration = Duration::from_secs(1);
