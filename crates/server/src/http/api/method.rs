//! The methods of the API, by name.

use std::fmt;

/// What may be asked of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// Several commands in one call.
    Batch,
    /// The same publication for several channels.
    Broadcast,
    /// The channels with subscribers.
    Channels,
    /// Events that the application's backend would not have.
    DeadEvents,
    /// Throw some of them away.
    DeadEventsDrop,
    /// Send some of them again.
    DeadEventsRetry,
    /// What a server's workers are at, and where its memory is.
    Debug,
    /// End connections.
    Disconnect,
    /// A page of a channel's history.
    History,
    /// Drop a channel's history.
    HistoryRemove,
    /// The servers, and what they carry.
    Info,
    /// Have the tokens of a user count no more.
    InvalidateUserTokens,
    /// Who is in a channel.
    Presence,
    /// How many are in a channel.
    PresenceStats,
    /// Publish into a channel.
    Publish,
    /// Prolong connections, or shorten them.
    Refresh,
    /// Read the configuration again.
    Reload,
    /// Have the tokens of a connection count no more.
    RevokeClient,
    /// Have a token count no more.
    RevokeToken,
    /// Call a method of an extension.
    Rpc,
    /// Subscribe connections to a channel.
    Subscribe,
    /// Follow a user, a connection or a channel live.
    Trace,
    /// End subscriptions to a channel.
    Unsubscribe,
}

impl Method {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 23] = [
        Self::Batch,
        Self::Broadcast,
        Self::Channels,
        Self::DeadEvents,
        Self::DeadEventsDrop,
        Self::DeadEventsRetry,
        Self::Debug,
        Self::Disconnect,
        Self::History,
        Self::HistoryRemove,
        Self::Info,
        Self::InvalidateUserTokens,
        Self::Presence,
        Self::PresenceStats,
        Self::Publish,
        Self::Refresh,
        Self::Reload,
        Self::RevokeClient,
        Self::RevokeToken,
        Self::Rpc,
        Self::Subscribe,
        Self::Trace,
        Self::Unsubscribe,
    ];

    /// The name by which it is called: `presence_stats`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Broadcast => "broadcast",
            Self::Channels => "channels",
            Self::DeadEvents => "dead_events",
            Self::DeadEventsDrop => "dead_events_drop",
            Self::DeadEventsRetry => "dead_events_retry",
            Self::Debug => "debug",
            Self::Disconnect => "disconnect",
            Self::History => "history",
            Self::HistoryRemove => "history_remove",
            Self::Info => "info",
            Self::InvalidateUserTokens => "invalidate_user_tokens",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::Publish => "publish",
            Self::Refresh => "refresh",
            Self::Reload => "reload",
            Self::RevokeClient => "revoke_client",
            Self::RevokeToken => "revoke_token",
            Self::Rpc => "rpc",
            Self::Subscribe => "subscribe",
            Self::Trace => "trace",
            Self::Unsubscribe => "unsubscribe",
        }
    }

    /// The method of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// Whether it is about what has happened to anybody, in whatever channel.
    pub(super) const fn is_about_events(self) -> bool {
        matches!(
            self,
            Self::DeadEvents | Self::DeadEventsDrop | Self::DeadEventsRetry
        )
    }

    /// All names, for a person.
    pub(crate) fn list() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
