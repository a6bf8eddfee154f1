//! What of all that happens on a worker is entered in the ledger; and what is made up for when that changes.
//!
//! Each worker goes by its own, from one turn of it to another, so that whoever is counted in a channel is counted out of it
//! by the same rules.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tautline_hub::config::HubConfig;
use tautline_hub::witness::{Fact, Witness};
use tautline_hub::{Hub, Now};
use tautline_protocol::UnsubscribeCode;
use tautline_protocol::message::Unsubscribe;

use super::ledger::{Ledger, Tracked};
use super::settings::Settings;
use super::{Events, lock};

/// What is of interest.
pub(super) struct Interest {
    tracked: Tracked,
    /// Names of namespaces; `None` for all.
    namespaces: Option<HashSet<String>>,
    /// By which it is known which namespace a channel belongs to.
    hub: Arc<HubConfig>,
}

impl Interest {
    pub(super) fn new(settings: &Settings, hub: Arc<HubConfig>) -> Self {
        Self {
            tracked: settings.tracked(),
            namespaces: settings.namespaces.clone(),
            hub,
        }
    }

    /// What is entered of a channel.
    fn in_channel(&self, channel: &str) -> Tracked {
        let is_wanted = self.namespaces.as_ref().is_none_or(|namespaces| {
            let rules = self.hub.rules(channel);
            rules.is_some_and(|rules| namespaces.contains(&rules.namespace.name))
        });
        if is_wanted { self.tracked } else { NOTHING }
    }

    /// Whether the same is entered by both, whatever channels there are.
    fn is_like(&self, other: &Self) -> bool {
        self.tracked == other.tracked && self.namespaces.is_none() && other.namespaces.is_none()
    }
}

/// A worker's end.
#[derive(Clone)]
pub(crate) struct Tap {
    events: Events,
    interest: Arc<Interest>,
}

impl Tap {
    pub(super) fn new(events: Events, interest: Arc<Interest>) -> Self {
        Self { events, interest }
    }

    /// Takes the place of another, or of none: enters who is there and was not of interest until now, and ends what isn't
    /// any more. Within the turn in which the hub gets this for its witness.
    pub(crate) fn take_over(&self, now: Now, before: Option<&Self>, hub: &Hub) {
        let before = before.filter(|tap| Arc::ptr_eq(&tap.events.shared, &self.events.shared));
        let before = before.map(|tap| &*tap.interest);
        if !before.is_some_and(|before| before.is_like(&self.interest)) {
            hub.recount(now, &mut Difference { tap: self, before });
        }
    }

    fn enter(&self, now: Now, tracked: Tracked, fact: Fact<'_>) {
        self.enter_as(now, |ledger, now, unix| {
            ledger.enter(now, unix, tracked, fact);
        });
    }

    fn enter_as(&self, now: Now, enter: impl FnOnce(&mut Ledger, Duration, u64)) {
        let shared = &self.events.shared;
        let unix = u64::try_from(now.unix.as_millis()).unwrap_or(u64::MAX);
        // Held for the time of a few look-ups: the thread writes and sends without it.
        enter(&mut lock(&shared.ledger), shared.now(), unix);
        if shared.asleep.swap(false, Ordering::SeqCst) {
            shared.notify.notify_one();
        }
    }
}

impl Witness for Tap {
    fn note(&mut self, now: Now, fact: Fact<'_>) {
        let tracked = match fact {
            Fact::Subscribed { channel, .. }
            | Fact::Unsubscribed { channel, .. }
            | Fact::CacheMissed { channel, .. } => self.interest.in_channel(channel),
            _ => self.interest.tracked,
        };
        let begins = !matches!(fact, Fact::Disconnected { .. } | Fact::Unsubscribed { .. });
        if begins && tracked == NOTHING {
            return;
        }
        self.enter(now, tracked, fact);
    }
}

/// Hears of all who are there, and enters what has not been entered yet.
struct Difference<'a> {
    tap: &'a Tap,
    before: Option<&'a Interest>,
}

impl Witness for Difference<'_> {
    fn note(&mut self, now: Now, fact: Fact<'_>) {
        let Fact::Subscribed { client, channel } = fact else {
            // Who is known already isn't entered again.
            return self.tap.enter(now, self.tap.interest.tracked, fact);
        };
        let before = self
            .before
            .map_or(NOTHING, |before| before.in_channel(channel));
        let after = self.tap.interest.in_channel(channel);
        let ended = Fact::Unsubscribed {
            client,
            channel,
            code: Unsubscribe::from(UnsubscribeCode::Server).code,
        };
        if after.subscriptions || after.channels {
            let begins = Tracked {
                channels: after.channels && !before.channels,
                ..after
            };
            self.tap.enter(now, begins, fact);
        } else if before.subscriptions || before.channels {
            return self.tap.enter(now, before, ended);
        }
        if before.channels && !after.channels {
            // The subscription goes on to be known.
            self.tap
                .enter_as(now, |ledger, now, unix| ledger.one_less(now, unix, channel));
        }
    }
}

/// What channels have of which nothing is told.
const NOTHING: Tracked = Tracked {
    visits: false,
    subscriptions: false,
    channels: false,
    misses: false,
};
