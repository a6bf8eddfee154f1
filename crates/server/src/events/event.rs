//! An event, as it is stored and sent.

use serde::{Deserialize, Serialize};

/// What can have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Connected,
    Disconnected,
    Subscribed,
    Unsubscribed,
    ChannelOccupied,
    ChannelVacated,
    CacheMiss,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Connected,
        Self::Disconnected,
        Self::Subscribed,
        Self::Unsubscribed,
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::CacheMiss,
    ];

    /// As it is called in options and in events.
    pub(crate) const fn name(self) -> &'static str {
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

/// One event. `docs/events.md` has what each field means, and which kind has which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) seq: u64,
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    /// Unix time in milliseconds.
    pub(crate) time: u64,
    pub(crate) key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) visit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) transport: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// How long it lasted, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) duration: Option<u64>,
    /// It is one of the dead letters that somebody has sent again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) redelivered: bool,
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
