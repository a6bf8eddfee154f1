//! Options of channels: the `[channel]` table.
//!
//! A channel's options are those of its namespace, the part of its name before the first `:`.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, duration};
use crate::engine::HistoryOptions;

/// Namespaces, and what is common to them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelOptions {
    /// Longest channel name, in bytes. Default: 255.
    pub max_length: usize,
    /// How long a channel's position (epoch and top offset) is remembered after it was last used,
    /// where the namespace says nothing else. Default: 720 h.
    #[serde(deserialize_with = "duration::deserialize")]
    pub history_meta_ttl: Duration,
    /// Options of channels without a namespace.
    pub without_namespace: NamespaceOptions,
    /// Namespaces, each with a `name` of its own.
    pub namespaces: Vec<NamespaceOptions>,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            max_length: 255,
            history_meta_ttl: Duration::from_secs(720 * 3600),
            without_namespace: NamespaceOptions::default(),
            namespaces: Vec::new(),
        }
    }
}

/// What channels of a namespace keep, and who may do what in them. Everything is off by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamespaceOptions {
    /// The part of a channel's name before the `:`. Not set in `channel.without_namespace`.
    pub name: String,
    /// It is known who is subscribed.
    pub presence: bool,
    /// Subscribers are told who comes and goes, if they ask and may read presence.
    pub join_leave: bool,
    /// They are told without asking.
    pub force_push_join_leave: bool,
    /// How many publications a channel keeps.
    pub history_size: usize,
    /// For how long after the last publication. Whole seconds.
    #[serde(deserialize_with = "duration::deserialize")]
    pub history_ttl: Duration,
    /// For how long the position is remembered; `0s` for `channel.history_meta_ttl`. Whole
    /// seconds.
    #[serde(deserialize_with = "duration::deserialize")]
    pub history_meta_ttl: Duration,
    /// All subscriptions are watched for gaps.
    pub force_positioning: bool,
    /// Clients may ask for it.
    pub allow_positioning: bool,
    /// All subscriptions can recover what they missed.
    pub force_recovery: bool,
    /// Clients may ask for it.
    pub allow_recovery: bool,
    /// What recovery means. `stream`: everything that was missed. `cache`: the newest publication,
    /// with no position needed.
    pub force_recovery_mode: RecoveryMode,
    /// Every subscription begins with the newest publication, asked for or not. Needs `force_recovery`
    /// and `force_recovery_mode = "cache"`.
    pub auto_cache_recover: bool,
    /// Users may subscribe.
    pub allow_subscribe_for_client: bool,
    /// So may anonymous ones, if users may.
    pub allow_subscribe_for_anonymous: bool,
    /// Users may publish without being subscribed.
    pub allow_publish_for_client: bool,
    /// Users may publish if subscribed.
    pub allow_publish_for_subscriber: bool,
    /// So may anonymous ones, where users may.
    pub allow_publish_for_anonymous: bool,
    /// Users may ask who is there without being subscribed.
    pub allow_presence_for_client: bool,
    /// Users may ask who is there if subscribed.
    pub allow_presence_for_subscriber: bool,
    /// So may anonymous ones, where users may.
    pub allow_presence_for_anonymous: bool,
    /// Users may read history without being subscribed.
    pub allow_history_for_client: bool,
    /// Users may read history if subscribed.
    pub allow_history_for_subscriber: bool,
    /// So may anonymous ones, where users may.
    pub allow_history_for_anonymous: bool,
    /// Channels with a `#` are for the users who are listed behind it.
    pub allow_user_limited_channels: bool,
    /// What may be published.
    pub publication_data_format: DataFormat,
    /// Clients may ask for publications with certain tags only.
    pub allow_tags_filter: bool,
    /// Ways in which clients may ask for publications as patches against the one before.
    pub allowed_delta_types: Vec<DeltaType>,
    /// Patches are made for those who asked for them. Needs history.
    pub delta_publish: bool,
    /// What becomes of a reader that can't keep up. `park`: it is read on from history as fast as it
    /// reads, and misses nothing. `disconnect`: it may fill its queue, then it is cut off. `drop_oldest`:
    /// it misses the oldest of what it has no room for. `latest`: it gets the latest publication when
    /// it has room again. Default: `auto`, which is `park` where there is history and `disconnect`
    /// elsewhere.
    pub slow_consumer: SlowConsumerOption,
    /// For `slow_consumer = "latest"`: the tag by whose values publications replace each other; empty
    /// if each replaces all before it.
    pub slow_consumer_key_tag: String,
}

/// What recovery means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum RecoveryMode {
    /// Everything that was missed.
    #[default]
    #[serde(rename = "stream", alias = "")]
    Stream,
    /// The newest publication.
    #[serde(rename = "cache")]
    Cache,
}

/// A way to write a publication as a patch against another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum DeltaType {
    /// That of the Fossil version control system, which all SDKs know.
    #[serde(rename = "fossil")]
    Fossil,
}

/// What becomes of a reader for which a quarter of
/// [`queue_max_size`](super::ClientOptions::queue_max_size) waits to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowConsumer {
    /// It is read on from history as fast as it reads, and misses nothing.
    Park,
    /// It may fill its queue; then the connection is closed.
    Disconnect,
    /// It misses the oldest of what it has no room for.
    DropOldest,
    /// It gets the latest publication when it has room again: of the channel, or of each key.
    Latest,
}

/// A [`SlowConsumer`], or what the namespace's history makes of nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum SlowConsumerOption {
    /// [`SlowConsumer::Park`] where there is history, [`SlowConsumer::Disconnect`] elsewhere.
    #[default]
    #[serde(rename = "auto", alias = "")]
    Auto,
    /// [`SlowConsumer::Park`]; needs history.
    #[serde(rename = "park")]
    Park,
    /// [`SlowConsumer::Disconnect`].
    #[serde(rename = "disconnect")]
    Disconnect,
    /// [`SlowConsumer::DropOldest`].
    #[serde(rename = "drop_oldest")]
    DropOldest,
    /// [`SlowConsumer::Latest`].
    #[serde(rename = "latest")]
    Latest,
}

/// What may be published into a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum DataFormat {
    /// Any JSON value. (Every connection is a JSON connection so far.)
    #[default]
    #[serde(rename = "json", alias = "")]
    Json,
    /// A JSON object.
    #[serde(rename = "json_object")]
    JsonObject,
}

impl ChannelOptions {
    /// What channels of a namespace keep; `None` if nothing.
    pub(crate) fn history(&self, namespace: &NamespaceOptions) -> Option<HistoryOptions> {
        namespace.has_history().then(|| HistoryOptions {
            size: namespace.history_size,
            ttl: namespace.history_ttl,
            meta_ttl: self.meta_ttl(namespace),
        })
    }

    fn meta_ttl(&self, namespace: &NamespaceOptions) -> Duration {
        if namespace.history_meta_ttl.is_zero() {
            self.history_meta_ttl
        } else {
            namespace.history_meta_ttl
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(1..=MAX_NAME).contains(&self.max_length) {
            let problem = format!("must be between 1 and {MAX_NAME}");
            return Err(ConfigError::new("channel.max_length", problem));
        }
        check_ttl("channel.history_meta_ttl", self.history_meta_ttl)?;
        let path = "channel.without_namespace";
        if !self.without_namespace.name.is_empty() {
            return Err(ConfigError::new(
                format!("{path}.name"),
                "must not be set; name namespaces in channel.namespaces",
            ));
        }
        self.check_namespace(path, &self.without_namespace)?;
        let mut names = HashSet::new();
        for (index, namespace) in self.namespaces.iter().enumerate() {
            let name = namespace.name.as_str();
            let path = if name.is_empty() {
                format!("channel.namespaces[{index}]")
            } else {
                format!("channel.namespaces[{index}] (`{name}`)")
            };
            if !is_namespace_name(name) {
                return Err(ConfigError::new(
                    format!("{path}.name"),
                    "must be two or more letters, digits, `-`, `_` or `.`",
                ));
            }
            if !names.insert(name) {
                return Err(ConfigError::new(
                    format!("{path}.name"),
                    "is there twice; names must differ",
                ));
            }
            self.check_namespace(&path, namespace)?;
        }
        Ok(())
    }

    fn check_namespace(&self, path: &str, namespace: &NamespaceOptions) -> Result<(), ConfigError> {
        let option = |option: &str| format!("{path}.{option}");
        if (namespace.history_size == 0) != namespace.history_ttl.is_zero() {
            return Err(ConfigError::new(
                option("history_size"),
                "needs history_ttl, and the other way round: set both, or neither",
            ));
        }
        check_ttl(&option("history_ttl"), namespace.history_ttl)?;
        check_ttl(&option("history_meta_ttl"), namespace.history_meta_ttl)?;
        if namespace.history_ttl > self.meta_ttl(namespace) {
            return Err(ConfigError::new(
                option("history_ttl"),
                "must not be longer than history_meta_ttl (or channel.history_meta_ttl): publications without a position can't be recovered",
            ));
        }
        if namespace.history_size > MAX_HISTORY {
            return Err(ConfigError::new(
                option("history_size"),
                format!("must be at most {MAX_HISTORY}"),
            ));
        }
        for (set, name) in [
            (namespace.force_recovery, "force_recovery"),
            (namespace.allow_recovery, "allow_recovery"),
            (namespace.force_positioning, "force_positioning"),
            (namespace.allow_positioning, "allow_positioning"),
            (namespace.delta_publish, "delta_publish"),
        ] {
            if set && !namespace.has_history() {
                return Err(ConfigError::new(
                    option(name),
                    "needs history: set history_size and history_ttl",
                ));
            }
        }
        if namespace.auto_cache_recover
            && !(namespace.force_recovery && namespace.force_recovery_mode == RecoveryMode::Cache)
        {
            return Err(ConfigError::new(
                option("auto_cache_recover"),
                "needs force_recovery and force_recovery_mode = \"cache\"",
            ));
        }
        if namespace.slow_consumer == SlowConsumerOption::Park && !namespace.has_history() {
            return Err(ConfigError::new(
                option("slow_consumer"),
                "`park` needs history: set history_size and history_ttl, or choose `disconnect`, `drop_oldest` or `latest`",
            ));
        }
        if !namespace.slow_consumer_key_tag.is_empty()
            && namespace.slow_consumer != SlowConsumerOption::Latest
        {
            return Err(ConfigError::new(
                option("slow_consumer_key_tag"),
                "needs slow_consumer = \"latest\"",
            ));
        }
        if namespace.force_push_join_leave && !namespace.join_leave {
            return Err(ConfigError::new(
                option("force_push_join_leave"),
                "needs join_leave",
            ));
        }
        Ok(())
    }
}

impl NamespaceOptions {
    /// What becomes of a reader that can't keep up.
    pub(crate) fn slow_consumer(&self) -> SlowConsumer {
        match self.slow_consumer {
            SlowConsumerOption::Auto if self.has_history() => SlowConsumer::Park,
            SlowConsumerOption::Park => SlowConsumer::Park,
            SlowConsumerOption::Auto | SlowConsumerOption::Disconnect => SlowConsumer::Disconnect,
            SlowConsumerOption::DropOldest => SlowConsumer::DropOldest,
            SlowConsumerOption::Latest => SlowConsumer::Latest,
        }
    }

    pub(crate) fn has_history(&self) -> bool {
        self.history_size > 0 && !self.history_ttl.is_zero()
    }
}

fn check_ttl(option: &str, ttl: Duration) -> Result<(), ConfigError> {
    if ttl.subsec_nanos() != 0 {
        return Err(ConfigError::new(option, "must be whole seconds"));
    }
    if ttl > MAX_TTL {
        return Err(ConfigError::new(
            option,
            "must be at most 87600h (ten years)",
        ));
    }
    Ok(())
}

fn is_namespace_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() >= 2 && name.bytes().all(allowed)
}

const MAX_NAME: usize = 4096;
const MAX_HISTORY: usize = 1_000_000;
/// Short enough to be added to any time without an overflow.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
