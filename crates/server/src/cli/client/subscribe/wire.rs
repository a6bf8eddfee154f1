//! Messages of the server, as far as they are understood here.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cli::client::show::{Publication, Stats, Who};

#[derive(Deserialize)]
pub(super) struct Reply {
    #[serde(default)]
    pub(super) id: u64,
    pub(super) error: Option<Refusal>,
    pub(super) connect: Option<Connected>,
    pub(super) subscribe: Option<Subscribed>,
    pub(super) presence: Option<Presence>,
    pub(super) presence_stats: Option<Stats>,
    pub(super) history: Option<Page>,
    pub(super) push: Option<Push>,
}

#[derive(Deserialize)]
pub(super) struct Refusal {
    pub(super) code: u32,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) temporary: bool,
}

#[derive(Deserialize)]
pub(super) struct Connected {
    #[serde(default)]
    pub(super) client: String,
    #[serde(default)]
    pub(super) ping: u64,
    #[serde(default)]
    pub(super) pong: bool,
    /// What the server has subscribed by itself.
    #[serde(default)]
    pub(super) subs: BTreeMap<String, Subscribed>,
}

#[derive(Default, Deserialize)]
pub(super) struct Subscribed {
    #[serde(default)]
    pub(super) recoverable: bool,
    #[serde(default)]
    pub(super) positioned: bool,
    #[serde(default)]
    pub(super) epoch: String,
    #[serde(default)]
    pub(super) offset: u64,
    #[serde(default)]
    pub(super) was_recovering: bool,
    #[serde(default)]
    pub(super) recovered: bool,
    #[serde(default)]
    pub(super) publications: Vec<Publication>,
}

#[derive(Deserialize)]
pub(super) struct Presence {
    #[serde(default)]
    pub(super) presence: BTreeMap<String, Who>,
}

/// Of a channel's history.
#[derive(Deserialize)]
pub(in crate::cli::client) struct Page {
    #[serde(default)]
    pub(super) publications: Vec<Publication>,
    #[serde(default)]
    pub(super) epoch: String,
    #[serde(default)]
    pub(super) offset: u64,
}

#[derive(Deserialize)]
pub(super) struct Push {
    #[serde(default)]
    pub(super) channel: String,
    pub(super) r#pub: Option<Publication>,
    pub(super) join: Option<Somebody>,
    pub(super) leave: Option<Somebody>,
    pub(super) subscribe: Option<Subscribed>,
    pub(super) unsubscribe: Option<Ended>,
}

#[derive(Deserialize)]
pub(super) struct Somebody {
    pub(super) info: Who,
}

#[derive(Deserialize)]
pub(super) struct Ended {
    pub(super) code: u32,
    #[serde(default)]
    pub(super) reason: String,
}
