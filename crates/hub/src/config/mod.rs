//! What an operator can set about sessions and channels.
//!
//! [`ClientOptions`] and [`ChannelOptions`] are the `[client]` and `[channel]` tables of a
//! configuration file as far as the hub knows them. [`HubConfig::new`] checks them and is the only
//! way to a hub, so a hub never meets options that contradict each other.

mod channel;
mod channel_checks;
mod channel_pattern;
mod client;
pub mod duration;
mod rate_limit;
mod tags_filter;

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tautline_auth::{Revocations, Verifier};

pub use channel::{
    ChannelOptions, DataFormat, DeltaType, NamespaceOptions, RecoveryMode, SlowConsumer,
    SlowConsumerOption,
};
pub(crate) use channel_checks::MAX_NAME;
pub use channel_pattern::{ChannelPattern, ChannelPatternError};
pub(crate) use client::MAX_CHANNELS;
pub use client::{ClientOptions, PersonalChannelOptions};
pub use rate_limit::{
    ClientCommandRates, ErrorRate, InputRate, RateLimitOptions, UserCommandRates,
};

pub use tags_filter::{TagsFilterError, TagsFilterTemplate};

use crate::hub::{ChannelName, Counts, Limits, Operation, SeatRules, Seats};

/// What all hubs of a process go by. Checked, and never changed: a hub takes
/// [another](crate::Hub::reconfigure) in its place.
pub struct HubConfig {
    pub(crate) client: ClientOptions,
    pub(crate) channel: ChannelOptions,
    pub(crate) verifier: Option<Arc<Verifier>>,
    /// The same for subscription tokens.
    pub(crate) subscription_verifier: Option<Arc<Verifier>>,
    /// The RPC method that the hub itself answers.
    pub(crate) ping_method: Option<Box<str>>,
    /// How often clients may do what; and how often users did, whatever hub they are with.
    pub(crate) limits: Limits,
    /// The subscriptions to channels, whatever hub they are with: those that clients make are limited.
    pub(crate) rooms: Arc<Counts>,
    /// The connections of users, whatever hub they are with.
    pub(crate) seats: Arc<Seats>,
    /// How many there may be.
    pub(crate) seat_rules: SeatRules,
    /// Whoever has too many of something is counted, and let have more.
    pub(crate) dry_run: bool,
    /// Tokens that count no more.
    pub(crate) revocations: Arc<Revocations>,
    /// Where in `channel.namespaces` a namespace is.
    namespaces: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    /// The same of namespaces with a pattern that is a single name.
    paths: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    /// Of those with another pattern.
    patterns: Vec<usize>,
}

impl HubConfig {
    /// Checks the options. Without a `verifier` every token is invalid.
    ///
    /// # Errors
    ///
    /// The first option that can't be as it is, and why.
    pub fn new(
        client: ClientOptions,
        mut channel: ChannelOptions,
        verifier: Option<Arc<Verifier>>,
    ) -> Result<Self, ConfigError> {
        client.check()?;
        channel.check()?;
        channel.inherit();
        let personal = &client
            .subscribe_to_user_personal_channel
            .personal_channel_namespace;
        let mut known = channel.namespaces.iter();
        let is_known = known.any(|known| known.name == *personal && known.pattern.is_none());
        if !personal.is_empty() && !is_known {
            return Err(ConfigError::new(
                "client.subscribe_to_user_personal_channel.personal_channel_namespace",
                format!("`{personal}` is none of channel.namespaces, or has a pattern"),
            ));
        }
        let mut namespaces = HashMap::default();
        let mut paths = HashMap::default();
        let mut patterns = Vec::new();
        for (index, options) in channel.namespaces.iter().enumerate() {
            match &options.pattern {
                None => {
                    namespaces.insert(options.name.as_str().into(), index);
                }
                Some(pattern) if pattern.is_literal() => {
                    paths.insert(pattern.as_str().into(), index);
                }
                Some(_) => patterns.push(index),
            }
        }
        Ok(Self {
            namespaces,
            paths,
            patterns,
            limits: Limits::new(&client, &channel),
            ping_method: None,
            seats: Arc::default(),
            rooms: Arc::default(),
            revocations: Arc::default(),
            seat_rules: SeatRules::new(&client),
            dry_run: false,
            client,
            channel,
            subscription_verifier: verifier.clone(),
            verifier,
        })
    }

    /// How many bytes may wait to be written to a connection: [`ClientOptions::queue_max_size`].
    pub fn queue_max_size(&self) -> usize {
        self.client.queue_max_size
    }

    /// How often clients are pinged; zero for never.
    #[must_use]
    pub fn ping_interval(&self) -> Duration {
        self.client.ping_interval
    }

    /// Believes subscription tokens only by keys of their own.
    #[must_use]
    pub fn with_subscription_verifier(self, verifier: Arc<Verifier>) -> Self {
        Self {
            subscription_verifier: Some(verifier),
            ..self
        }
    }

    /// Tokens that count no more, for all hubs that go by this. [`Hub::enforce_revocations`](crate::Hub::enforce_revocations)
    /// ends what is there by them already.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Has calls of an RPC method answered with nothing, whatever the application says: clients can measure by it
    /// how long an answer takes.
    #[must_use]
    pub fn with_ping_method(self, method: &str) -> Self {
        Self {
            ping_method: Some(method.into()),
            ..self
        }
    }

    /// Whether whoever has too many connections (`client.user_connection_limit`) or subscriptions (`client.channel_limit`), or
    /// what has too many subscribers (`max_subscribers` of a namespace), is only counted, and let have more.
    #[must_use]
    pub fn with_dry_run(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    /// Goes on with what is counted over all hubs of a process: to be called with the configuration before
    /// this one, before the first hub takes it. Users begin with full buckets where rates are others.
    pub fn inherit(&mut self, before: &Self) {
        self.seats = before.seats.clone();
        self.rooms = before.rooms.clone();
        self.revocations = before.revocations.clone();
        if self.has_rates_of(before) {
            self.limits.inherit(&before.limits);
        }
    }

    /// Whether how often clients may do what is the same in another configuration.
    pub(crate) fn has_rates_of(&self, other: &Self) -> bool {
        let of_namespaces = |config: &Self| -> Vec<_> {
            let rates = |options: &NamespaceOptions| {
                let deliveries = (
                    options.client_deliveries_per_second,
                    options.join_leave_deliveries_per_second,
                );
                (Operation::ALL.map(|it| options.rates(it)), deliveries)
            };
            let all = config.channel.all();
            all.map(|options| (options.name.clone(), rates(options)))
                .collect()
        };
        self.client.rate_limit == other.client.rate_limit
            && self.client.channel_limit == other.client.channel_limit
            && of_namespaces(self) == of_namespaces(other)
    }

    /// What the options say of a channel; `None` for one that there can't be.
    pub fn rules(&self, channel: &str) -> Option<ChannelRules<'_>> {
        let name = ChannelName::parse(self, channel).ok()?;
        Some(ChannelRules {
            namespace: name.options,
            needs_token: name.is_private,
            is_user_limited: name.is_user_limited(),
        })
    }

    /// The options of a namespace; those of channels without one for `None`.
    pub(crate) fn namespace(&self, name: Option<&str>) -> Option<&NamespaceOptions> {
        match name {
            None => Some(&self.channel.without_namespace),
            Some(name) => self
                .namespaces
                .get(name)
                .map(|&index| &self.channel.namespaces[index]),
        }
    }

    /// The options of the namespace whose pattern a channel matches.
    pub(crate) fn namespace_of_path(&self, channel: &str) -> Option<&NamespaceOptions> {
        let namespaces = &self.channel.namespaces;
        if let Some(index) = self.paths.get(channel) {
            return namespaces.get(*index);
        }
        let mut matching = self.patterns.iter().map(|index| &namespaces[*index]);
        matching.find(|options| {
            let pattern = options.pattern.as_ref();
            pattern.is_some_and(|pattern| pattern.matches(channel))
        })
    }
}

/// What the options say of a channel.
#[derive(Clone, Copy, Debug)]
pub struct ChannelRules<'c> {
    /// The options of its namespace.
    pub namespace: &'c NamespaceOptions,
    /// Nobody may subscribe without a token: its name begins with `private_prefix`.
    pub needs_token: bool,
    /// Its name lists the users who may subscribe.
    pub is_user_limited: bool,
}

/// An option that can't be as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {problem}")]
pub struct ConfigError {
    /// Path of the option in a configuration file, such as `client.pong_timeout`.
    pub option: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl ConfigError {
    fn new(option: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            option: option.into(),
            problem: problem.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(client: ClientOptions, channel: ChannelOptions) -> String {
        HubConfig::new(client, channel, None)
            .err()
            .map(|error| error.to_string())
            .unwrap()
    }

    fn namespace(options: NamespaceOptions) -> String {
        let channel = ChannelOptions {
            namespaces: vec![options],
            ..ChannelOptions::default()
        };
        refuse(ClientOptions::default(), channel)
    }

    fn named(name: &str) -> NamespaceOptions {
        NamespaceOptions {
            name: name.into(),
            ..NamespaceOptions::default()
        }
    }

    #[test]
    fn the_defaults_are_fine() {
        HubConfig::new(ClientOptions::default(), ChannelOptions::default(), None).unwrap();
    }

    #[test]
    fn options_of_clients_must_agree() {
        let seconds = Duration::from_secs;
        let default = ClientOptions::default;
        let check = |client| refuse(client, ChannelOptions::default());
        let error = check(ClientOptions {
            pong_timeout: seconds(25),
            ..default()
        });
        assert_eq!(
            error,
            "client.pong_timeout: must be shorter than client.ping_interval (25s)"
        );
        let error = check(ClientOptions {
            ping_interval: Duration::from_millis(10),
            ..default()
        });
        assert!(
            error.starts_with("client.ping_interval: must be at least 1s"),
            "{error}"
        );
        let error = check(ClientOptions {
            stale_close_delay: seconds(0),
            ..default()
        });
        assert!(error.starts_with("client.stale_close_delay"), "{error}");
        let error = check(ClientOptions {
            expired_close_delay: seconds(u64::MAX),
            ..default()
        });
        assert!(
            error.starts_with("client.expired_close_delay: must be at most"),
            "{error}"
        );
        let error = check(ClientOptions {
            queue_max_size: 1,
            ..default()
        });
        assert!(
            error.starts_with("client.queue_max_size: must be at least 1024"),
            "{error}"
        );
        let error = check(ClientOptions {
            channel_limit: 1_000_000,
            ..default()
        });
        assert!(
            error.starts_with("client.channel_limit: must be at most"),
            "{error}"
        );
        let off = ClientOptions {
            ping_interval: seconds(0),
            ..default()
        };
        HubConfig::new(off, ChannelOptions::default(), None).unwrap();
    }

    #[test]
    fn options_of_namespaces_must_agree() {
        let history = |size, ttl| NamespaceOptions {
            history_size: size,
            history_ttl: Duration::from_millis(ttl),
            ..named("chat")
        };
        let path = "channel.namespaces[0] (`chat`)";
        for (options, expected) in [
            (history(5, 0), "history_size: needs history_ttl"),
            (history(0, 5000), "history_size: needs history_ttl"),
            (history(5, 1500), "history_ttl: must be whole seconds"),
            (
                history(5, 721 * 3_600_000),
                "history_ttl: must not be longer",
            ),
            (history(2_000_000, 1000), "history_size: must be at most"),
            (
                NamespaceOptions {
                    force_recovery: true,
                    ..named("chat")
                },
                "force_recovery: needs history",
            ),
            (
                NamespaceOptions {
                    allow_positioning: true,
                    ..named("chat")
                },
                "allow_positioning: needs history",
            ),
            (
                NamespaceOptions {
                    force_push_join_leave: true,
                    ..named("chat")
                },
                "force_push_join_leave: needs join_leave",
            ),
        ] {
            let error = namespace(options);
            assert!(error.starts_with(&format!("{path}.{expected}")), "{error}");
        }
    }

    #[test]
    fn namespaces_have_names_of_their_own() {
        for name in ["", "x", "a:b", "caf\u{e9}", "a b"] {
            let error = namespace(named(name));
            assert!(
                error.contains("name: must be two or more letters"),
                "{error}"
            );
        }
        let namespaces = vec![named("chat"), named("chat")];
        let channel = ChannelOptions {
            namespaces,
            ..ChannelOptions::default()
        };
        let error = refuse(ClientOptions::default(), channel);
        assert_eq!(
            error,
            "channel.namespaces[1] (`chat`).name: is there twice; names must differ"
        );
        let without_namespace = named("chat");
        let channel = ChannelOptions {
            without_namespace,
            ..ChannelOptions::default()
        };
        let error = refuse(ClientOptions::default(), channel);
        assert!(
            error.starts_with("channel.without_namespace.name: must not be set"),
            "{error}"
        );
    }

    #[test]
    fn options_are_read_by_name_and_unknown_ones_are_errors() {
        let read = serde_json::from_str::<NamespaceOptions>;
        let options = read(
            r#"{"name":"chat","history_ttl":"1h30m","publication_data_format":"json_object"}"#,
        );
        let options = options.unwrap();
        assert_eq!(options.history_ttl, Duration::from_secs(5400));
        assert_eq!(options.publication_data_format, DataFormat::JsonObject);
        let error = read(r#"{"nmae":"chat"}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `nmae`"), "{error}");
        let error = read(r#"{"history_ttl":90}"#).unwrap_err().to_string();
        assert!(error.contains("a duration such as"), "{error}");
        let client: ClientOptions = serde_json::from_str(r#"{"ping_interval":"300ms"}"#).unwrap();
        assert_eq!(client.ping_interval, Duration::from_millis(300));
        assert_eq!(client.channel_limit, 128);
    }
}
