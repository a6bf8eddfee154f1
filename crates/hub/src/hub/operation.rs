//! What clients do, as far as it is counted and limited.

use tautline_protocol::Request;

/// What is counted and limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// A new connection of a user.
    Connect,
    /// The subscribe command.
    Subscribe,
    /// The unsubscribe command.
    Unsubscribe,
    /// The publish command.
    Publish,
    /// The presence command.
    Presence,
    /// The presence stats command.
    PresenceStats,
    /// The history command.
    History,
    /// The RPC command.
    Rpc,
    /// A message that expects no reply.
    Send,
    /// The refresh command.
    Refresh,
    /// The sub refresh command.
    SubRefresh,
}

impl Operation {
    /// How many there are.
    pub const COUNT: usize = 11;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Connect,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Publish,
        Self::Presence,
        Self::PresenceStats,
        Self::History,
        Self::Rpc,
        Self::Send,
        Self::Refresh,
        Self::SubRefresh,
    ];

    /// What to call it, such as `presence_stats`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::History => "history",
            Self::Rpc => "rpc",
            Self::Send => "send",
            Self::Refresh => "refresh",
            Self::SubRefresh => "sub_refresh",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its place among what namespaces limit, if it is one of that.
    pub(crate) const fn in_channels(self) -> Option<usize> {
        match self {
            Self::Subscribe => Some(0),
            Self::Publish => Some(1),
            Self::Presence | Self::PresenceStats => Some(2),
            Self::History => Some(3),
            _ => None,
        }
    }

    /// What a request is, if it is counted.
    pub(super) fn of(request: &Request<'_>) -> Option<Self> {
        Some(match request {
            Request::Subscribe(_) => Self::Subscribe,
            Request::Unsubscribe(_) => Self::Unsubscribe,
            Request::Publish(_) => Self::Publish,
            Request::Presence(_) => Self::Presence,
            Request::PresenceStats(_) => Self::PresenceStats,
            Request::History(_) => Self::History,
            Request::Rpc(_) => Self::Rpc,
            Request::Send(_) => Self::Send,
            Request::Refresh(_) => Self::Refresh,
            Request::SubRefresh(_) => Self::SubRefresh,
            _ => return None,
        })
    }
}

/// How often it happened that somebody did something too often, whether or not that had
/// consequences. Numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverLimit {
    /// By the limits of a connection, by [`Operation::index`].
    pub client_command: [u64; Operation::COUNT],
    /// By the limits of a user, by [`Operation::index`].
    pub user_command: [u64; Operation::COUNT],
    /// By the limits of a connection in a namespace, by [`Operation::index`].
    pub namespace: [u64; Operation::COUNT],
    /// By the limits of a channel, by [`Operation::index`].
    pub channel: [u64; Operation::COUNT],
    /// Publications beyond what all that clients publish in a channel may come to, and those of them that were let
    /// happen.
    pub deliveries: [u64; 2],
    /// Joins and leaves that had to wait, as they would come to more than may be told of a channel at the moment, and those
    /// that were told all the same.
    pub join_leave: [u64; 2],
    /// Errors.
    pub client_error: u64,
    /// Connections beyond what a user may have, and those of them that were let in all the same.
    pub user_connections: [u64; 2],
    /// Subscriptions beyond what a connection may have, and those of them that were made all the same.
    pub subscriptions: [u64; 2],
    /// Names of channels that are too long, and those of them that were taken all the same.
    pub channel_names: [u64; 2],
    /// Connections that sent too many bytes, and those of them that were let go on.
    pub input: [u64; 2],
    /// Connections for which too much waited to be written, and those of them that were let be.
    pub queue: [u64; 2],
    /// Subscriptions beyond what a channel may have, and those of them that were made all the same.
    pub subscribers: [u64; 2],
    /// Connections that did not connect in time, and those of them that were left more.
    pub unauthenticated: [u64; 2],
    /// Calls beyond those that may be under way beside other commands: the next command waits for them; and those
    /// for which none waited.
    pub calls: [u64; 2],
    /// What met one of the other limits, by [`Bound::index`].
    pub bounds: [u64; Bound::COUNT],
}

/// A limit that is neither a rate nor has a mode in which it is only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// The size of a tags filter: error 107.
    TagsFilter,
    /// Different filters in a channel: error 106.
    Filters,
    /// Publications in the answer to a client's history command: it was cut.
    History,
    /// Clients in the answer to a client's presence command: error 106.
    Presence,
    /// Questions to the application under way: error 111.
    Questions,
    /// The time of the application's answer: error 100.
    AnswerTime,
    /// Calls of the operator's API that wait for the engine: error 111.
    ApiCalls,
}

impl Bound {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::TagsFilter,
        Self::Filters,
        Self::History,
        Self::Presence,
        Self::Questions,
        Self::AnswerTime,
        Self::ApiCalls,
    ];

    /// What to call it, such as `tags_filter`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TagsFilter => "tags_filter",
            Self::Filters => "filters",
            Self::History => "history",
            Self::Presence => "presence",
            Self::Questions => "handlers",
            Self::AnswerTime => "handler_time",
            Self::ApiCalls => "engine_calls",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// How many kinds of operations namespaces limit.
pub(crate) const CHANNEL_OPERATIONS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_where_they_say() {
        for (index, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(operation.index(), index, "{}", operation.name());
        }
        for (index, bound) in Bound::ALL.iter().enumerate() {
            assert_eq!(bound.index(), index, "{}", bound.name());
        }
    }
}
