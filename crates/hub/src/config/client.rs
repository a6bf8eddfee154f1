//! Options of connections: the `[client]` table.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use super::{ChannelOptions, ConfigError, RateLimitOptions, duration};
use crate::hub::Pace;

/// What connections may do and how long they may take. Every field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientOptions {
    /// Clients may connect without a token, as the anonymous user (whose id is empty). Default:
    /// no.
    pub allow_anonymous_connect_without_token: bool,
    /// A token must name a user. Default: no, a token without `sub` makes an anonymous user.
    pub disallow_anonymous_connection_tokens: bool,
    /// No authentication is needed and every channel permission is given. For experiments behind
    /// a closed door. Default: no.
    pub insecure: bool,
    /// How often clients are pinged: `0s` for never, or between 1s and 8760h. Default: 25 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub ping_interval: Duration,
    /// How long a client has to answer a ping; must be shorter than `ping_interval`, and at most 8760h. `0s` takes no
    /// interest in answers. Default: 8 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub pong_timeout: Duration,
    /// How long a client has to connect successfully, once its transport is open; between 1ms and 8760h. Default:
    /// 10 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub stale_close_delay: Duration,
    /// How long a connection lives on after it has expired, waiting for a refresh; at most 8760h. Default:
    /// 25 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub expired_close_delay: Duration,
    /// The same for subscriptions; at most 8760h. Default: 25 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub expired_sub_close_delay: Duration,
    /// How many channels a connection may be subscribed to, at most 10,000. Default: 128.
    pub channel_limit: usize,
    /// How many connections a user may have on this node, not counting anonymous ones; 0 for any number. Beyond, code
    /// 3504. Where devices or servers share one user id, as many as there are of them. Default: 10,000, as from one
    /// address.
    pub user_connection_limit: usize,
    /// How many calls (RPC) of a connection may be under way, at your backend or a handler in code; between 1 and 10,000.
    /// With as many, the connection's next command waits, and it isn't read: with 1 they are answered one after the
    /// other. Default: 16.
    pub rpc_limit: usize,
    /// How many bytes may wait to be written to a connection before it is closed as too slow. When a
    /// quarter of that waits it gets no more publications until there is room, and then what its
    /// namespaces' `slow_consumer` says; and with a quarter of it in answers to its own commands it isn't read until it has
    /// taken all of them. At least 1 KiB. Default: 1 MiB.
    pub queue_max_size: usize,
    /// How many bytes of commands may wait, while one before them waits for the engine, or its client doesn't take the
    /// answers to those before, until the connection is closed. Each frame counts 64 bytes more than it has. At least 1 KiB.
    /// Default: 1 MiB.
    pub command_queue_max_size: usize,
    /// How often the position of a channel that nobody publishes into is compared with the
    /// engine's; between 1s and 8760h. Default: 40 s.
    #[serde(deserialize_with = "duration::deserialize")]
    pub channel_position_check_delay: Duration,
    /// Whether the connect result tells the server's time. Default: no.
    pub connect_include_server_time: bool,
    /// How many clients a client's presence call may list; with more of them in the channel it fails
    /// with error 106. It also fails if the answer would take more than half of `queue_max_size`.
    /// Default: 1,000.
    pub presence_max_clients: usize,
    /// How many publications a client's history call may return; fewer, if they would take more than
    /// half of `queue_max_size`. Default: 300.
    pub history_max_publication_limit: usize,
    /// How many missed publications come with the reply to a subscribe command, 500 at the most; the
    /// others follow it as the connection takes them. Default: 300.
    pub recovery_max_publication_limit: usize,
    /// Whether users are subscribed to a channel of their own.
    pub subscribe_to_user_personal_channel: PersonalChannelOptions,
    /// How often clients may do what.
    pub rate_limit: RateLimitOptions,
}

/// The channel of each user, to which all connections of that user are subscribed by the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PersonalChannelOptions {
    /// Every connection of a user (not of anonymous ones) is subscribed to the channel `#`
    /// (`channel.user_boundary`) and the user's id. Default: no.
    pub enabled: bool,
    /// The namespace of that channel; empty for none.
    pub personal_channel_namespace: String,
    /// A user's new connection ends those before it on this node, with code 3504. Needs `enabled`. Default:
    /// no.
    pub single_connection: bool,
}

impl PersonalChannelOptions {
    /// The channel of a user; `None` if there is none.
    pub(crate) fn name(&self, user: &str, channel: &ChannelOptions) -> Option<String> {
        let (boundary, mark) = (&channel.namespace_boundary, &channel.user_boundary);
        (self.enabled && !user.is_empty()).then(|| match &*self.personal_channel_namespace {
            "" => format!("{mark}{user}"),
            namespace => format!("{namespace}{boundary}{mark}{user}"),
        })
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            allow_anonymous_connect_without_token: false,
            disallow_anonymous_connection_tokens: false,
            insecure: false,
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            stale_close_delay: Duration::from_secs(10),
            expired_close_delay: Duration::from_secs(25),
            expired_sub_close_delay: Duration::from_secs(25),
            channel_limit: 128,
            user_connection_limit: 10_000,
            rpc_limit: 16,
            queue_max_size: 1024 * 1024,
            command_queue_max_size: 1024 * 1024,
            channel_position_check_delay: Duration::from_secs(40),
            connect_include_server_time: false,
            presence_max_clients: 1000,
            history_max_publication_limit: 300,
            recovery_max_publication_limit: 300,
            subscribe_to_user_personal_channel: PersonalChannelOptions::default(),
            rate_limit: RateLimitOptions::default(),
        }
    }
}

impl ClientOptions {
    /// How often clients are pinged.
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            interval: self.ping_interval,
            timeout: self.pong_timeout,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let problem = |option: &str, problem: String| {
            Err(ConfigError::new(format!("client.{option}"), problem))
        };
        for (option, value) in [
            ("ping_interval", self.ping_interval),
            ("pong_timeout", self.pong_timeout),
            ("stale_close_delay", self.stale_close_delay),
            ("expired_close_delay", self.expired_close_delay),
            ("expired_sub_close_delay", self.expired_sub_close_delay),
            (
                "channel_position_check_delay",
                self.channel_position_check_delay,
            ),
        ] {
            if value > MAX_DELAY {
                return problem(option, "must be at most 8760h (a year)".into());
            }
        }
        if !self.ping_interval.is_zero() && self.ping_interval < MIN_PING_INTERVAL {
            return problem(
                "ping_interval",
                "must be at least 1s, or 0s for no pings".into(),
            );
        }
        if !self.ping_interval.is_zero() && self.pong_timeout >= self.ping_interval {
            let interval = self.ping_interval;
            return problem(
                "pong_timeout",
                format!("must be shorter than client.ping_interval ({interval:?})"),
            );
        }
        if self.stale_close_delay.is_zero() {
            return problem(
                "stale_close_delay",
                "must be more than 0s: clients need time to connect".into(),
            );
        }
        if self.channel_position_check_delay < MIN_POSITION_CHECK {
            return problem("channel_position_check_delay", "must be at least 1s".into());
        }
        if self.queue_max_size < MIN_QUEUE {
            return problem(
                "queue_max_size",
                format!("must be at least {MIN_QUEUE} bytes"),
            );
        }
        if self.command_queue_max_size < MIN_QUEUE {
            return problem(
                "command_queue_max_size",
                format!("must be at least {MIN_QUEUE} bytes"),
            );
        }
        self.rate_limit.client_input.check()?;
        let personal = &self.subscribe_to_user_personal_channel;
        if personal.single_connection && !personal.enabled {
            let option = "subscribe_to_user_personal_channel.single_connection";
            return problem(option, "needs enabled = true".into());
        }
        if !CALLS.contains(&self.rpc_limit) {
            return problem("rpc_limit", "must be between 1 and 10000".into());
        }
        if self.channel_limit > MAX_CHANNELS {
            return problem("channel_limit", format!("must be at most {MAX_CHANNELS}"));
        }
        Ok(())
    }
}

/// Clients count the interval in whole seconds.
const MIN_PING_INTERVAL: Duration = Duration::from_secs(1);
const MIN_POSITION_CHECK: Duration = Duration::from_secs(1);
/// Long enough for anything sensible, short enough to be added to any time without an overflow.
const MAX_DELAY: Duration = Duration::from_secs(365 * 24 * 3600);
/// Less than a message or two would close connections for nothing.
const MIN_QUEUE: usize = 1024;
/// A hub's questions are bounded by themselves; no connection should have all of them.
const CALLS: RangeInclusive<usize> = 1..=10_000;
/// A connection's subscriptions are searched one by one.
pub(crate) const MAX_CHANNELS: usize = 10_000;
