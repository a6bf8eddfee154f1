//! What an operator has set: the options of a run, and what differs from run to run.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tautline_auth::{Verifier, VerifierConfig};
use tautline_hub::HubConfig;
use tautline_hub::config::{
    ChannelOptions, ClientOptions, DataFormat, DeltaType, NamespaceOptions, PersonalChannelOptions,
    RateLimitOptions, RecoveryMode, SlowConsumerOption, TagsFilterTemplate,
};
use tautline_hub::engine::testkit::Seeded;
use tautline_hub::engine::{HistoryOptions, JoinLevel};
use tautline_hub::rate::Rate;

use crate::faults::Fault;
use crate::payload;
use crate::support::SECRET;
use crate::{CHANNELS, QUEUE};

/// What differs from run to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) seats: Seats,
    /// Clients may do some things only so often.
    pub(crate) rates: bool,
    /// Tokens expire.
    pub(crate) expiry: bool,
    /// In the end, the node drains.
    pub(crate) drains: bool,
}

/// How many connections a user may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seats {
    Any,
    Most(usize),
    /// The newest ends those before it.
    Single,
}

impl Rules {
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Seeded::new(!seed);
        Self {
            seats: match random.below(6) {
                0 => Seats::Most(1),
                1 => Seats::Most(2),
                2 => Seats::Single,
                _ => Seats::Any,
            },
            rates: random.chance(50),
            expiry: random.chance(50),
            drains: random.chance(40),
        }
    }
}

/// So many times in so much time, and so many at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    pub(crate) count: u32,
    pub(crate) time: Duration,
    pub(crate) at_once: u32,
}

impl Allowance {
    const fn new(count: u32, seconds: u64) -> Self {
        Self {
            count,
            time: Duration::from_secs(seconds),
            at_once: count,
        }
    }

    fn rate(self) -> Rate {
        Rate::new(self.count, self.time)
    }
}

/// Of each connection.
pub(crate) const HISTORY_CALLS: Allowance = Allowance::new(2, 3);
pub(crate) const PRESENCE_CALLS: Allowance = Allowance::new(2, 3);
/// Errors, of which a client may have one for each of its channels at once.
pub(crate) const ERRORS: Allowance = Allowance {
    at_once: CHANNELS.len() as u32 + 1,
    ..Allowance::new(10, 20)
};
/// Of all connections of a user.
pub(crate) const PUBLISHES: Allowance = Allowance::new(6, 3);
pub(crate) const CONNECTS: Allowance = Allowance::new(4, 10);

/// The namespace that has rates of its own.
pub(crate) const RATED: &str = "room";
/// Of each connection, in that namespace.
pub(crate) const RATED_PUBLISHES: Allowance = Allowance::new(4, 3);
pub(crate) const RATED_PRESENCE_CALLS: Allowance = Allowance::new(1, 2);
/// Of all connections together, in each of its channels.
pub(crate) const CHANNEL_PUBLISHES: Allowance = Allowance::new(5, 3);
pub(crate) const CHANNEL_HISTORY_CALLS: Allowance = Allowance::new(2, 3);

pub(crate) const PONG_TIMEOUT: Duration = Duration::from_secs(8);
pub(crate) const STALE_CLOSE_DELAY: Duration = Duration::from_secs(10);
/// How long what has expired lives on.
pub(crate) const EXPIRED_CLOSE_DELAY: Duration = Duration::from_secs(6);
pub(crate) const EXPIRED_SUB_CLOSE_DELAY: Duration = Duration::from_secs(4);

pub(crate) const HISTORY: HistoryOptions = HistoryOptions {
    size: 40,
    ttl: Duration::from_secs(60),
    meta_ttl: Duration::from_secs(300),
};

/// The options of one run: buckets and seats of users are with them.
pub(crate) fn config(
    rules: Rules,
    verifier: &Arc<Verifier>,
    fault: Option<Fault>,
) -> Arc<HubConfig> {
    let client = client_options(rules, fault);
    let verifier = Some(verifier.clone());
    Arc::new(HubConfig::new(client, channel_options(rules, fault), verifier).unwrap())
}

pub(crate) fn verifier() -> Arc<Verifier> {
    let verifier = Verifier::new(VerifierConfig {
        hmac_secret: Some(SECRET.into()),
        ..VerifierConfig::default()
    });
    Arc::new(verifier.unwrap())
}

fn client_options(rules: Rules, fault: Option<Fault>) -> ClientOptions {
    let mut rate_limit = RateLimitOptions::default();
    if rules.rates {
        let publishes = match fault {
            Some(Fault::LooseRate) => PUBLISHES.rate().at_once(PUBLISHES.at_once as usize + 1),
            Some(Fault::TightRate) => Rate::new(PUBLISHES.count, 2 * PUBLISHES.time),
            _ => PUBLISHES.rate(),
        };
        rate_limit.user_command.publish = Some(publishes);
        rate_limit.user_command.connect = Some(CONNECTS.rate());
        rate_limit.client_command.history = Some(HISTORY_CALLS.rate());
        rate_limit.client_command.presence = Some(PRESENCE_CALLS.rate());
        rate_limit.client_error.total = Some(ERRORS.rate());
        rate_limit.client_error.enabled = fault != Some(Fault::BearErrors);
    }
    let grace = |usual, late, early| match fault {
        Some(fault) if fault == late => 5 * usual,
        Some(fault) if fault == early => Duration::ZERO,
        _ => usual,
    };
    let extra = usize::from(fault == Some(Fault::ExtraSeat));
    let is_single = rules.seats == Seats::Single;
    ClientOptions {
        rate_limit,
        channel_limit: CHANNELS.len(),
        user_connection_limit: match rules.seats {
            Seats::Most(most) => most + extra,
            Seats::Any | Seats::Single => 0,
        },
        subscribe_to_user_personal_channel: PersonalChannelOptions {
            enabled: is_single,
            single_connection: is_single,
            ..PersonalChannelOptions::default()
        },
        pong_timeout: PONG_TIMEOUT,
        stale_close_delay: STALE_CLOSE_DELAY,
        expired_close_delay: grace(EXPIRED_CLOSE_DELAY, Fault::LateCut, Fault::EarlyCut),
        expired_sub_close_delay: grace(
            EXPIRED_SUB_CLOSE_DELAY,
            Fault::LateSubscriptionCut,
            Fault::EarlySubscriptionCut,
        ),
        queue_max_size: QUEUE,
        recovery_max_publication_limit: 5,
        ..ClientOptions::default()
    }
}

fn channel_options(rules: Rules, fault: Option<Fault>) -> ChannelOptions {
    let unbounded = NamespaceOptions::default().join_leave_deliveries_per_second;
    let base = NamespaceOptions {
        // So few that some have to wait.
        join_leave_deliveries_per_second: if rules.rates { 1 } else { unbounded },
        presence: true,
        join_leave: true,
        force_push_join_leave: true,
        allow_subscribe_for_client: true,
        allow_publish_for_client: true,
        allow_presence_for_client: true,
        allow_history_for_client: true,
        allow_tags_filter: true,
        allowed_delta_types: vec![DeltaType::Fossil],
        ..NamespaceOptions::default()
    };
    let kept = NamespaceOptions {
        history_size: HISTORY.size,
        history_ttl: HISTORY.ttl,
        history_meta_ttl: HISTORY.meta_ttl,
        force_recovery: true,
        ..base.clone()
    };
    let patched = NamespaceOptions {
        delta_publish: true,
        ..kept.clone()
    };
    let filter = json!({"key": payload::TAG, "cmp": "in", "vals": payload::KNOWN}).to_string();
    let filter = Some(TagsFilterTemplate::parse(&filter).unwrap());
    let cache = NamespaceOptions {
        force_recovery_mode: RecoveryMode::Cache,
        ..kept.clone()
    };
    let namespaces = [
        (RATED, rated(rules, fault, patched.clone())),
        ("plain", base.clone()),
        (
            "latest",
            NamespaceOptions {
                slow_consumer: SlowConsumerOption::Latest,
                ..kept.clone()
            },
        ),
        (
            "newest",
            NamespaceOptions {
                slow_consumer: SlowConsumerOption::DropOldest,
                ..base
            },
        ),
        ("cache", cache.clone()),
        ("own", kept.clone()),
        (
            "hidden",
            NamespaceOptions {
                server_tags_filter: filter.clone(),
                ..patched.clone()
            },
        ),
        (
            "mine",
            NamespaceOptions {
                exclude_publisher: true,
                ..patched
            },
        ),
        (
            "known",
            NamespaceOptions {
                server_tags_filter: filter,
                ..cache
            },
        ),
        (
            "bytes",
            NamespaceOptions {
                publication_data_format: DataFormat::Binary,
                allowed_delta_types: Vec::new(),
                ..kept.clone()
            },
        ),
        (
            "ticket",
            NamespaceOptions {
                allow_subscribe_for_client: false,
                ..kept.clone()
            },
        ),
        (
            "users",
            NamespaceOptions {
                join_leave_level: JoinLevel::User,
                ..kept.clone()
            },
        ),
        (
            "pushed",
            NamespaceOptions {
                allow_subscribe_for_client: false,
                ..kept
            },
        ),
    ];
    let named = namespaces.map(|(name, options)| NamespaceOptions {
        name: name.into(),
        ..options
    });
    ChannelOptions {
        namespaces: named.into(),
        ..ChannelOptions::default()
    }
}

/// With rates of its own.
fn rated(rules: Rules, fault: Option<Fault>, options: NamespaceOptions) -> NamespaceOptions {
    let rate = |allowance: Allowance, loose| {
        let more = usize::from(fault == Some(loose));
        let rate = allowance.rate().at_once(allowance.at_once as usize + more);
        rules.rates.then_some(rate)
    };
    NamespaceOptions {
        publish_rate_for_client: rate(RATED_PUBLISHES, Fault::LooseNamespaceRate),
        presence_rate_for_client: rate(RATED_PRESENCE_CALLS, Fault::LooseNamespaceRate),
        publish_rate_for_channel: rate(CHANNEL_PUBLISHES, Fault::LooseChannelRate),
        history_rate_for_channel: rate(CHANNEL_HISTORY_CALLS, Fault::LooseChannelRate),
        ..options
    }
}
