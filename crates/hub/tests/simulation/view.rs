//! What the node has said on one connection, in the order in which it said it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use crate::CHANNELS;

/// The connection's state as the node has told it; the client may learn of it later, or never.
#[derive(Default)]
pub(crate) struct View {
    /// Id of the connection.
    pub(crate) client: String,
    /// Subscriptions, each with its position.
    pub(crate) subscribed: BTreeMap<usize, Position>,
    /// Commands that the node has, in order.
    asked: VecDeque<Value>,
}

pub(crate) type Position = (u64, String);

/// Something that must be true when the node says it.
pub(crate) enum Claim {
    /// A subscription was asked for with a position. Either all behind it is there, or not.
    Recovery {
        channel: usize,
        since: Position,
        epoch: String,
        recovered: bool,
    },
    /// A subscription can't go on from its position.
    Lost { channel: usize, position: Position },
    /// Who is in a channel.
    Presence {
        channel: usize,
        who: BTreeSet<String>,
    },
}

impl View {
    /// The node gets a frame.
    pub(crate) fn asked(&mut self, frame: &str) {
        let commands = frame
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        self.asked.extend(commands);
    }

    /// The node ended the session.
    pub(crate) fn end(&mut self) {
        self.subscribed.clear();
    }

    /// The node says something.
    pub(crate) fn said(&mut self, message: &Value) -> Option<Claim> {
        if message["id"].is_u64() {
            let asked = self.asked.pop_front().expect("an answer to nothing");
            return self.answered(&asked, message);
        }
        let push = &message["push"];
        let channel = index(&push["channel"]);
        let position = self.subscribed.get_mut(&channel).expect("not subscribed");
        if push["pub"].is_object() {
            position.0 = push["pub"]["offset"].as_u64().unwrap_or(0).max(position.0);
        } else if push["unsubscribe"].is_object() {
            let position = self.subscribed.remove(&channel)?;
            return Some(Claim::Lost { channel, position });
        }
        None
    }

    fn answered(&mut self, asked: &Value, message: &Value) -> Option<Claim> {
        if let Some(client) = message["connect"]["client"].as_str() {
            self.client = client.to_owned();
        } else if message["unsubscribe"].is_object() {
            self.subscribed
                .remove(&index(&asked["unsubscribe"]["channel"]));
        } else if let Some(presence) = message["presence"]["presence"].as_object() {
            return Some(Claim::Presence {
                channel: index(&asked["presence"]["channel"]),
                who: presence.keys().cloned().collect(),
            });
        } else if message["subscribe"].is_object() {
            let (request, result) = (&asked["subscribe"], &message["subscribe"]);
            let channel = index(&request["channel"]);
            let last = result["publications"].as_array().and_then(|all| all.last());
            let position = last.map_or(&result["offset"], |last| &last["offset"]);
            let epoch = result["epoch"].as_str().unwrap_or_default().to_owned();
            let position = (position.as_u64().unwrap_or(0), epoch.clone());
            self.subscribed.insert(channel, position);
            if request["recover"] == json!(true) {
                let offset = request["offset"].as_u64().unwrap_or(0);
                let since = (offset, request["epoch"].as_str().unwrap().to_owned());
                let recovered = result["recovered"] == json!(true);
                return Some(Claim::Recovery {
                    channel,
                    since,
                    epoch,
                    recovered,
                });
            }
        }
        None
    }
}

fn index(channel: &Value) -> usize {
    let mut channels = CHANNELS.iter();
    channels.position(|name| channel == name).unwrap()
}
