//! What the node has said on one connection, in the order in which it said it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use tautline_protocol::Encoding;

use crate::{CHANNELS, SERVER_SIDE};

/// The connection's state as the node has told it; the client may learn of it later, or never.
pub(crate) struct View {
    pub(crate) encoding: Encoding,
    /// Id of the connection; empty until it is connected.
    pub(crate) client: String,
    /// Subscriptions, each with its position.
    pub(crate) subscribed: BTreeMap<usize, Position>,
    /// When the connection was opened.
    opened_at: Duration,
    /// When it was last pinged.
    pub(crate) pinged_at: Option<Duration>,
    /// The node has ended it, with this code.
    pub(crate) ended: Option<u32>,
    /// Commands that the node has, in order.
    asked: VecDeque<Value>,
}

pub(crate) type Position = (u64, String);

/// Something that must be true when the node says it.
pub(crate) enum Claim {
    /// A subscription was asked for with a position. Either all behind it is there, or not.
    Recovery(Recovery),
    /// A subscription can't go on from its position.
    Lost { channel: usize, position: Position },
    /// Who is in a channel.
    Presence {
        channel: usize,
        who: BTreeSet<String>,
    },
    /// Nobody answers.
    NoPong { pinged_at: Option<Duration> },
    /// Nobody has connected.
    Stale {
        opened_at: Duration,
        is_connected: bool,
    },
}

pub(crate) struct Recovery {
    pub(crate) channel: usize,
    pub(crate) since: Position,
    pub(crate) filter: Option<String>,
    pub(crate) epoch: String,
    pub(crate) recovered: bool,
    /// Offsets of what came with that.
    pub(crate) offsets: Vec<u64>,
}

impl View {
    pub(crate) fn new(encoding: Encoding, now: Duration) -> Self {
        Self {
            encoding,
            opened_at: now,
            client: String::new(),
            subscribed: BTreeMap::new(),
            pinged_at: None,
            ended: None,
            asked: VecDeque::new(),
        }
    }

    /// The node gets commands.
    pub(crate) fn asked(&mut self, commands: &[Value]) {
        let commands = commands.iter().filter(|command| command["id"].is_u64());
        self.asked.extend(commands.cloned());
    }

    /// The node ended the session.
    pub(crate) fn end(&mut self, code: u32) -> Option<Claim> {
        self.ended = Some(code);
        let mut subscribed = std::mem::take(&mut self.subscribed);
        match code {
            // Only what the client can't subscribe to again by itself ends the connection.
            3010 => Some(Claim::Lost {
                channel: SERVER_SIDE,
                position: subscribed.remove(&SERVER_SIDE).expect("subscribed"),
            }),
            3012 => Some(Claim::NoPong {
                pinged_at: self.pinged_at,
            }),
            3502 => Some(Claim::Stale {
                opened_at: self.opened_at,
                is_connected: !self.client.is_empty(),
            }),
            _ => None,
        }
    }

    /// The node says something at a time.
    pub(crate) fn said(&mut self, now: Duration, message: &Value) -> Vec<Claim> {
        if message["id"].is_u64() {
            let asked = self.asked.pop_front().expect("an answer to nothing");
            return self.answered(&asked, message);
        }
        let push = &message["push"];
        if push.is_null() {
            self.pinged_at = Some(now);
            return Vec::new();
        }
        let channel = crate::index(&push["channel"]);
        let position = self.subscribed.get_mut(&channel).expect("not subscribed");
        if push["pub"].is_object() {
            position.0 = push["pub"]["offset"].as_u64().unwrap_or(0).max(position.0);
        } else if push["unsubscribe"].is_object() {
            let position = self.subscribed.remove(&channel).expect("subscribed");
            return vec![Claim::Lost { channel, position }];
        }
        Vec::new()
    }

    fn answered(&mut self, asked: &Value, message: &Value) -> Vec<Claim> {
        if let Some(client) = message["connect"]["client"].as_str() {
            self.client = client.to_owned();
            let name = CHANNELS[SERVER_SIDE];
            if let Some(result) = message["connect"]["subs"].get(name) {
                let request = &asked["connect"]["subs"][name];
                return self.subscribed(SERVER_SIDE, request, result);
            }
        } else if message["unsubscribe"].is_object() {
            self.subscribed
                .remove(&crate::index(&asked["unsubscribe"]["channel"]));
        } else if message["presence"].is_object() {
            let presence = message["presence"]["presence"].as_object();
            return vec![Claim::Presence {
                channel: crate::index(&asked["presence"]["channel"]),
                who: presence
                    .into_iter()
                    .flat_map(|who| who.keys().cloned())
                    .collect(),
            }];
        } else if message["subscribe"].is_object() {
            let request = &asked["subscribe"];
            let channel = crate::index(&request["channel"]);
            return self.subscribed(channel, request, &message["subscribe"]);
        }
        Vec::new()
    }

    fn subscribed(&mut self, channel: usize, request: &Value, result: &Value) -> Vec<Claim> {
        let publications = result["publications"].as_array().into_iter().flatten();
        let offsets: Vec<u64> = publications
            .map(|publication| publication["offset"].as_u64().unwrap())
            .collect();
        let told = result["offset"].as_u64().unwrap_or(0);
        let epoch = result["epoch"].as_str().unwrap_or_default().to_owned();
        let position = offsets.last().copied().unwrap_or(told);
        self.subscribed.insert(channel, (position, epoch.clone()));
        if request["recover"] != json!(true) {
            return Vec::new();
        }
        let since = request["offset"].as_u64().unwrap_or(0);
        vec![Claim::Recovery(Recovery {
            channel,
            since: (since, request["epoch"].as_str().unwrap().to_owned()),
            filter: request["tf"]["val"].as_str().map(str::to_owned),
            epoch,
            recovered: result["recovered"] == json!(true),
            offsets,
        })]
    }
}
