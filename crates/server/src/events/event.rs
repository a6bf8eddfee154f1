//! An event, as it is stored and sent.

use serde::{Deserialize, Serialize};

/// What can have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A visit begins.
    Connected,
    /// A visit is over.
    Disconnected,
    /// A subscription has begun.
    Subscribed,
    /// A subscription has ended.
    Unsubscribed,
    /// The first subscriber on this server.
    ChannelOccupied,
    /// No subscriber any more.
    ChannelVacated,
    /// Somebody wanted the newest publication of a channel, and there was none.
    CacheMiss,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Connected,
        Self::Disconnected,
        Self::Subscribed,
        Self::Unsubscribed,
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::CacheMiss,
    ];

    /// As it is called in options and in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Subscribed => "subscribed",
            Self::Unsubscribed => "unsubscribed",
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::CacheMiss => "cache_miss",
        }
    }
}

/// One event. `docs/events.md` has which kind has which fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Unique among all events. Whoever has seen it has seen the event.
    pub id: String,
    /// Grows with every event of a server's directory, across restarts.
    pub seq: u64,
    /// What has happened.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// When, in Unix milliseconds.
    pub time: u64,
    /// What it is in order with.
    pub key: String,
    /// Whose connection; empty for an anonymous one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The connection that the visit is at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The visit: the id of the connection that it began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visit: Option<String>,
    /// How it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Why it ended, as the client was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it lasted, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<u64>,
    /// It is one of the dead letters that somebody has sent again: it comes out of order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redelivered: bool,
}

impl Event {
    /// An event with nothing but what all have. Its number comes when it is stored.
    pub(super) fn new(kind: Kind, time: u64, key: String) -> Self {
        Self {
            id: String::new(),
            seq: 0,
            kind,
            time,
            key,
            user: None,
            client: None,
            visit: None,
            transport: None,
            channel: None,
            code: None,
            reason: None,
            duration: None,
            redelivered: false,
        }
    }
}
