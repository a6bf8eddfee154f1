//! What events go by, checked.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::delivery::Patience;
use super::event::Kind;
use super::ledger::{Terms, Tracked};
use super::receiver::InCode;
use crate::proxy::endpoint::Endpoint;
use crate::telemetry::Telemetry;

/// All there is to know of what is told to whom.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Where events are posted; `None` where code takes them.
    pub(crate) endpoint: Option<Endpoint>,
    /// The code that takes them.
    pub(crate) handler: Option<InCode>,
    /// How long it has for a batch.
    pub(crate) timeout: Duration,
    pub(crate) kinds: HashSet<Kind>,
    /// Names of namespaces, the empty one for channels without; `None` for all.
    pub(crate) namespaces: Option<HashSet<String>>,
    pub(crate) debounce: Duration,
    pub(crate) restart_debounce: Duration,
    pub(crate) keep_on_shutdown: bool,
    pub(crate) batch_time: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) patience: Patience,
    pub(crate) directory: PathBuf,
    pub(crate) max_bytes: u64,
    pub(crate) sync_interval: Duration,
    pub(crate) dead_most: usize,
    /// Where traces of attempts to deliver them go.
    pub(crate) telemetry: Option<Arc<Telemetry>>,
}

impl Settings {
    /// Who is told, for people.
    pub(super) fn place(&self) -> &str {
        let endpoint = self.endpoint.as_ref();
        endpoint.map_or("(the event handler)", |endpoint| &endpoint.place)
    }

    /// What of all that happens has to be kept in mind.
    pub(super) fn tracked(&self) -> Tracked {
        let wants = |kinds: &[Kind]| kinds.iter().any(|kind| self.kinds.contains(kind));
        let subscriptions = wants(&[Kind::Subscribed, Kind::Unsubscribed]);
        Tracked {
            visits: subscriptions || wants(&[Kind::Connected, Kind::Disconnected]),
            subscriptions,
            channels: wants(&[Kind::ChannelOccupied, Kind::ChannelVacated]),
            misses: wants(&[Kind::CacheMiss]),
        }
    }

    /// For how long who goes is waited for.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            debounce: self.debounce,
            restart_debounce: self.restart_debounce.max(self.debounce),
        }
    }
}
