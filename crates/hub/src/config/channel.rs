//! Options of channels: the `[channel]` table.
//!
//! A channel's options are those of its namespace, the part of its name before the first `:`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tautline_auth::Pattern;

use super::{ChannelPattern, TagsFilterTemplate, duration};
use crate::engine::{HistoryOptions, JoinLevel};
use crate::hub::Operation;
use crate::rate::{self, Rate};

/// Namespaces, and what is common to them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChannelOptions {
    /// Longest channel name, in bytes; between 1 and 4,096. Default: 255.
    pub max_length: usize,
    /// How long a channel's position (epoch and top offset) is remembered after it was last used,
    /// where the namespace says nothing else; at most 87600h, in whole seconds. Default: 720 h.
    #[serde(deserialize_with = "duration::deserialize")]
    pub history_meta_ttl: Duration,
    /// What the names of channels begin with for which a token is needed, whatever else is allowed; empty
    /// for none. Default: `$`.
    pub private_prefix: String,
    /// What ends the name of the namespace in the name of a channel. Default: `:`.
    pub namespace_boundary: String,
    /// What begins the list of users in the name of a channel that is for listed users only; empty for
    /// no such channels. Default: `#`.
    pub user_boundary: String,
    /// What stands between those users. Default: `,`.
    pub user_separator: String,
    /// What may be published where the namespace says nothing else: see there. Default: `json`.
    pub publication_data_format: DataFormat,
    /// Channels whose names begin with `/` belong to the namespace whose `pattern` they match, and those
    /// that match none are unknown. Default: no.
    pub patterns: bool,
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
            private_prefix: "$".into(),
            namespace_boundary: ":".into(),
            user_boundary: "#".into(),
            user_separator: ",".into(),
            publication_data_format: DataFormat::Json,
            patterns: false,
            without_namespace: NamespaceOptions::default(),
            namespaces: Vec::new(),
        }
    }
}

/// What channels of a namespace keep, and who may do what in them. Everything is off by default, but for limits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamespaceOptions {
    /// The part of a channel's name before the `:`. Not set in `channel.without_namespace`.
    pub name: String,
    /// Names of channels such as `/users/:user/orders`, in which each `:name` stands for anything up to
    /// the next `/`; instead of those that begin with the namespace's name. Needs `channel.patterns`. No two
    /// patterns may have a name in common, but that a pattern without variables goes before one with
    /// them. Not set in `channel.without_namespace`.
    pub pattern: Option<ChannelPattern>,
    /// What must be found in the names of channels: a regular expression (without look-around, and
    /// without classes of Unicode). Of the name, that is what stands behind the namespace's name and its
    /// boundary; all of it where there is a `pattern`. Names may then have more than ASCII in them. A whole
    /// name is `^...$`. It is for names that clients ask for: those of tokens, of the server API, of handlers
    /// and of personal channels are taken as they are, in whatever script.
    #[serde(deserialize_with = "channel_regex")]
    pub channel_regex: Option<Pattern>,
    /// It is known who is subscribed.
    pub presence: bool,
    /// Subscribers are told who comes and goes, if they ask and may read presence.
    pub join_leave: bool,
    /// Whose coming and going that is: each `client`'s, or each `user`'s, with the first of its connections
    /// and the last. (Anonymous connections have no user in common.) Default: `client`.
    pub join_leave_level: JoinLevel,
    /// They are told without asking.
    pub force_push_join_leave: bool,
    /// How many publications a channel keeps, at most 1,000,000.
    pub history_size: usize,
    /// For how long after the last publication; at most 87600h, in whole seconds.
    #[serde(deserialize_with = "duration::deserialize")]
    pub history_ttl: Duration,
    /// For how long the position is remembered; `0s` for `channel.history_meta_ttl`. At most
    /// 87600h, in whole seconds.
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
    /// Channels with a `#` are for the users who are listed behind it. Where there is a `pattern`, those
    /// who stand for its variable `:user`.
    pub allow_user_limited_channels: bool,
    /// What may be published. `binary` is for channels whose subscribers all speak Protobuf: a JSON
    /// connection to which something else than JSON would have to be sent is closed (3506). Default:
    /// empty, that of `channel.publication_data_format`.
    pub publication_data_format: DataFormat,
    /// Of which publications subscribers may know: a tags filter as JSON, such as
    /// `{"key":"owner","cmp":"eq","val":"{{user}}"}`, in which `{{user}}` stands for the subscriber's user id
    /// and `{{name}}` for the variable `:name` of the `pattern`. Where something is to be filled in and there
    /// is nothing, nobody may subscribe. Clients may narrow it with a filter of their own, and never widen it.
    pub server_tags_filter: Option<TagsFilterTemplate>,
    /// A client doesn't get what it has published itself over the same connection.
    pub exclude_publisher: bool,
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
    /// How many subscriptions clients may have to each channel of the namespace on this node, in the sense of those that they
    /// make themselves: what the server makes, by a token or the API, is neither limited nor counted. Beyond, error 106. 0 for
    /// any number. Default: 250,000.
    pub max_subscribers: usize,
    /// How often each connection may subscribe to channels of the namespace; beyond, the command is answered
    /// with error 111. Like the nine behind it, it goes beside `client.rate_limit`. As many subscriptions as
    /// `client.channel_limit` allows may always be made at once. Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub subscribe_rate_for_client: Option<Rate>,
    /// How often each connection may publish into channels of the namespace. Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub publish_rate_for_client: Option<Rate>,
    /// How often each connection may ask who is in its channels. Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub presence_rate_for_client: Option<Rate>,
    /// How often each connection may read their history. Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub history_rate_for_client: Option<Rate>,
    /// How often clients, all of this node together, may subscribe to each channel of the namespace. Default:
    /// `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub subscribe_rate_for_channel: Option<Rate>,
    /// How often they may publish into each channel; not what the server API publishes. Default: `10000/s`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub publish_rate_for_channel: Option<Rate>,
    /// How many deliveries a second clients may cause in each channel by what they publish: a publication comes to as many as
    /// the channel has subscribers on this node. Two seconds' worth may come at once; beyond, the publication is answered with
    /// error 111. 0 for any number, and at most 1,000,000,000,000. Default: 5,000,000.
    pub client_deliveries_per_second: u64,
    /// How many deliveries a second joins and leaves may come to in each channel: each is told to as many as the channel has
    /// subscribers on this node. Two seconds' worth may come at once; beyond, who comes and goes is told later, in the same
    /// order, and who has left again by then isn't told of. Presence is up to date in any case, and nobody is refused. 0 for any
    /// number, and at most 1,000,000,000,000. Default: 1,000,000.
    pub join_leave_deliveries_per_second: u64,
    /// How often they may ask who is in it. Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub presence_rate_for_channel: Option<Rate>,
    /// How often they may read its history. Default: `off`.
    #[serde(deserialize_with = "rate::deserialize")]
    pub history_rate_for_channel: Option<Rate>,
    /// Count what is beyond these ten, and let it happen. Default: no.
    pub rates_dry_run: bool,
    /// The application's backend decides who may subscribe without a token, instead of the `allow_subscribe`
    /// options; not where a `#` lists users. The hub leaves that to its application.
    pub subscribe_proxy_enabled: bool,
    /// Which of `proxies` that is. Default: empty, as `default`: `channel.proxy.subscribe`.
    pub subscribe_proxy_name: String,
    /// It decides who may publish, and what, instead of the `allow_publish` options.
    pub publish_proxy_enabled: bool,
    /// Which of `proxies` that is. Default: empty, as `default`: `channel.proxy.publish`.
    pub publish_proxy_name: String,
    /// It is asked whether subscriptions that have expired live on; clients know nothing of it.
    pub sub_refresh_proxy_enabled: bool,
    /// Which of `proxies` that is. Default: empty, as `default`: `channel.proxy.sub_refresh`.
    pub sub_refresh_proxy_name: String,
}

impl Default for NamespaceOptions {
    fn default() -> Self {
        Self {
            name: Default::default(),
            pattern: Default::default(),
            channel_regex: Default::default(),
            presence: Default::default(),
            join_leave: Default::default(),
            join_leave_level: Default::default(),
            force_push_join_leave: Default::default(),
            history_size: Default::default(),
            history_ttl: Default::default(),
            history_meta_ttl: Default::default(),
            force_positioning: Default::default(),
            allow_positioning: Default::default(),
            force_recovery: Default::default(),
            allow_recovery: Default::default(),
            force_recovery_mode: Default::default(),
            auto_cache_recover: Default::default(),
            allow_subscribe_for_client: Default::default(),
            allow_subscribe_for_anonymous: Default::default(),
            allow_publish_for_client: Default::default(),
            allow_publish_for_subscriber: Default::default(),
            allow_publish_for_anonymous: Default::default(),
            allow_presence_for_client: Default::default(),
            allow_presence_for_subscriber: Default::default(),
            allow_presence_for_anonymous: Default::default(),
            allow_history_for_client: Default::default(),
            allow_history_for_subscriber: Default::default(),
            allow_history_for_anonymous: Default::default(),
            allow_user_limited_channels: Default::default(),
            publication_data_format: Default::default(),
            server_tags_filter: Default::default(),
            exclude_publisher: Default::default(),
            allow_tags_filter: Default::default(),
            allowed_delta_types: Default::default(),
            delta_publish: Default::default(),
            slow_consumer: Default::default(),
            slow_consumer_key_tag: Default::default(),
            max_subscribers: 250_000,
            subscribe_rate_for_client: Default::default(),
            publish_rate_for_client: Default::default(),
            presence_rate_for_client: Default::default(),
            history_rate_for_client: Default::default(),
            subscribe_rate_for_channel: Default::default(),
            publish_rate_for_channel: Some(Rate::per_second(10_000)),
            client_deliveries_per_second: 5_000_000,
            join_leave_deliveries_per_second: 1_000_000,
            presence_rate_for_channel: Default::default(),
            history_rate_for_channel: Default::default(),
            rates_dry_run: Default::default(),
            subscribe_proxy_enabled: Default::default(),
            subscribe_proxy_name: Default::default(),
            publish_proxy_enabled: Default::default(),
            publish_proxy_name: Default::default(),
            sub_refresh_proxy_enabled: Default::default(),
            sub_refresh_proxy_name: Default::default(),
        }
    }
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
    /// What [`ChannelOptions::publication_data_format`] says; there, [`Json`](Self::Json).
    #[default]
    #[serde(rename = "")]
    Inherited,
    /// Any JSON value.
    #[serde(rename = "json")]
    Json,
    /// A JSON object.
    #[serde(rename = "json_object")]
    JsonObject,
    /// Any bytes, none at all included. A JSON connection can't be sent what isn't JSON: it is closed
    /// with 3506 instead.
    #[serde(rename = "binary")]
    Binary,
}

impl ChannelOptions {
    /// Gives namespaces that say nothing of it what is said for all.
    pub(super) fn inherit(&mut self) {
        if self.publication_data_format == DataFormat::Inherited {
            self.publication_data_format = DataFormat::Json;
        }
        let format = self.publication_data_format;
        for namespace in self
            .namespaces
            .iter_mut()
            .chain([&mut self.without_namespace])
        {
            if namespace.publication_data_format == DataFormat::Inherited {
                namespace.publication_data_format = format;
            }
        }
    }

    /// The options of all namespaces, and of channels without one.
    pub(crate) fn all(&self) -> impl Iterator<Item = &NamespaceOptions> {
        std::iter::once(&self.without_namespace).chain(&self.namespaces)
    }

    /// What channels of a namespace keep; `None` if nothing.
    pub(crate) fn history(&self, namespace: &NamespaceOptions) -> Option<HistoryOptions> {
        namespace.has_history().then(|| HistoryOptions {
            size: namespace.history_size,
            ttl: namespace.history_ttl,
            meta_ttl: self.meta_ttl(namespace),
        })
    }

    pub(super) fn meta_ttl(&self, namespace: &NamespaceOptions) -> Duration {
        if namespace.history_meta_ttl.is_zero() {
            self.history_meta_ttl
        } else {
            namespace.history_meta_ttl
        }
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

    /// How often something may be done in its channels: by each connection, and in each channel.
    pub(crate) fn rates(&self, operation: Operation) -> (Option<Rate>, Option<Rate>) {
        match operation {
            Operation::Subscribe => (
                self.subscribe_rate_for_client,
                self.subscribe_rate_for_channel,
            ),
            Operation::Publish => (self.publish_rate_for_client, self.publish_rate_for_channel),
            Operation::Presence | Operation::PresenceStats => (
                self.presence_rate_for_client,
                self.presence_rate_for_channel,
            ),
            Operation::History => (self.history_rate_for_client, self.history_rate_for_channel),
            _ => (None, None),
        }
    }

    pub(crate) fn has_history(&self) -> bool {
        self.history_size > 0 && !self.history_ttl.is_zero()
    }
}

/// An empty text is none.
fn channel_regex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Pattern>, D::Error> {
    let pattern = Option::<Pattern>::deserialize(deserializer)?;
    Ok(pattern.filter(|pattern| !pattern.as_str().is_empty()))
}
