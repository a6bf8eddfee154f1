//! What a client knows and does, as an SDK would.

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Value, json};
use tautline_hub::engine::testkit::Seeded;
use tautline_protocol::Encoding;

use crate::log::Log;
use crate::payload;
use crate::subscription::Subscription;
use crate::{CACHE, CHANNELS, SERVER_SIDE};

pub(crate) struct ClientModel {
    /// Whether there is a connection, as far as the client knows.
    pub(crate) is_connected: bool,
    /// Its connect command was refused: the connection is good for nothing.
    pub(crate) is_refused: bool,
    pub(crate) encoding: Encoding,
    /// Whether its token subscribes it to a channel.
    pub(crate) is_subscribed_by_token: bool,
    /// Id of the connection.
    pub(crate) id: String,
    /// Commands that are not answered yet, in order.
    pending: VecDeque<(u64, Command)>,
    next_id: u64,
    pub(crate) subscriptions: Vec<Subscription>,
}

enum Command {
    Connect {
        since: Option<(u64, String)>,
    },
    Subscribe {
        channel: usize,
        since: Option<(u64, String)>,
    },
    Unsubscribe {
        channel: usize,
    },
    Publish {
        channel: usize,
        number: u64,
    },
    Presence,
    History {
        channel: usize,
        since: u64,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum State {
    #[default]
    Off,
    /// A subscribe command is under way.
    Begun,
    On,
    /// An unsubscribe command is under way.
    Ending,
}

impl ClientModel {
    pub(crate) fn new(encoding: Encoding, is_subscribed_by_token: bool) -> Self {
        let mut subscriptions: Vec<Subscription> = Vec::new();
        subscriptions.resize_with(CHANNELS.len(), Subscription::default);
        Self {
            is_connected: false,
            is_refused: false,
            encoding,
            is_subscribed_by_token,
            id: String::new(),
            pending: VecDeque::new(),
            next_id: 0,
            subscriptions,
        }
    }

    fn command(&mut self, command: Command, name: &str, request: Value) -> Value {
        self.next_id += 1;
        self.pending.push_back((self.next_id, command));
        json!({"id": self.next_id, name: request})
    }

    /// The first frame of a connection: connects, and subscribes to all that is wanted.
    pub(crate) fn connect(&mut self, token: &str) -> Vec<Value> {
        self.is_connected = true;
        let mut request = json!({"token": token});
        let mut since = None;
        if self.is_subscribed_by_token {
            let own = &mut self.subscriptions[SERVER_SIDE];
            own.state = State::Begun;
            since = own.since();
            let mut had = json!({});
            own.ask(&mut had);
            request["subs"][CHANNELS[SERVER_SIDE]] = had;
        }
        let mut commands = vec![self.command(Command::Connect { since }, "connect", request)];
        for channel in 0..self.subscriptions.len() {
            if self.subscriptions[channel].wanted {
                commands.push(self.subscribe(channel));
            }
        }
        commands
    }

    pub(crate) fn disconnected(&mut self) {
        self.is_connected = false;
        self.is_refused = false;
        self.id.clear();
        self.pending.clear();
        for subscription in &mut self.subscriptions {
            subscription.end();
        }
    }

    fn subscribe(&mut self, channel: usize) -> Value {
        let subscription = &mut self.subscriptions[channel];
        subscription.state = State::Begun;
        let mut request = json!({"channel": CHANNELS[channel]});
        subscription.ask(&mut request);
        let since = subscription.since();
        self.command(Command::Subscribe { channel, since }, "subscribe", request)
    }

    /// Subscribes or unsubscribes, if nothing of the kind is under way.
    pub(crate) fn toggle(&mut self, channel: usize, random: &mut Seeded) -> Option<Value> {
        if channel == SERVER_SIDE {
            return None;
        }
        let subscription = &mut self.subscriptions[channel];
        match subscription.state {
            State::Off => {
                subscription.wanted = true;
                if subscription.epoch.is_empty() || random.chance(30) {
                    // Begins without a position, like an application that starts anew.
                    subscription.epoch.clear();
                    subscription.patched = random.chance(50);
                    subscription.filter = random
                        .chance(40)
                        .then(|| payload::KINDS[random.below(payload::KINDS.len())]);
                }
                Some(self.subscribe(channel))
            }
            State::On => {
                subscription.wanted = false;
                subscription.state = State::Ending;
                let request = json!({"channel": CHANNELS[channel]});
                Some(self.command(Command::Unsubscribe { channel }, "unsubscribe", request))
            }
            State::Begun | State::Ending => None,
        }
    }

    /// Subscribes again to one channel which the server ended.
    pub(crate) fn resubscribe(&mut self) -> Option<Value> {
        if self.id.is_empty() {
            return None;
        }
        let channel = self
            .subscriptions
            .iter()
            .position(|subscription| subscription.wanted && subscription.state == State::Off)?;
        Some(self.subscribe(channel))
    }

    pub(crate) fn publish(&mut self, channel: usize, number: u64) -> Value {
        let request = json!({"channel": CHANNELS[channel], "data": payload::payload(number)});
        self.command(Command::Publish { channel, number }, "publish", request)
    }

    pub(crate) fn ask(&mut self, channel: usize, history: bool, since: u64) -> Value {
        let mut request = json!({"channel": CHANNELS[channel]});
        if history {
            request["since"] = json!({"offset": since});
            request["limit"] = json!(5);
            self.command(Command::History { channel, since }, "history", request)
        } else {
            self.command(Command::Presence, "presence", request)
        }
    }

    /// Hears one reply, and returns what it has to say to that at once.
    pub(crate) fn hear(&mut self, message: &Value, logs: &mut [Log], fails: bool) -> Option<Value> {
        if let Some(id) = message["id"].as_u64() {
            self.hear_answer(id, message, logs, fails);
            return None;
        }
        let push = &message["push"];
        if push.is_null() {
            assert_eq!(*message, json!({}), "neither an answer nor a push");
            return Some(json!({}));
        }
        let channel = crate::index(&push["channel"]);
        let subscription = &mut self.subscriptions[channel];
        assert!(
            subscription.is_live(),
            "a push for {push}, which is {:?}",
            subscription.state
        );
        if push["pub"].is_object() {
            subscription.hear_publication(self.encoding, &push["pub"], &logs[channel]);
        } else if let Some(client) = push["join"]["info"]["client"].as_str() {
            let before = subscription.company.insert(client.to_owned(), true);
            assert!(
                before != Some(true) || client == self.id,
                "{client} joined twice"
            );
        } else if let Some(client) = push["leave"]["info"]["client"].as_str() {
            assert_ne!(client, self.id, "told of its own leaving");
            let before = subscription.company.insert(client.to_owned(), false);
            assert_ne!(before, Some(false), "{client} left twice");
        } else {
            assert_eq!(push["unsubscribe"]["code"], json!(2500), "{message}");
            assert_ne!(channel, SERVER_SIDE, "ended with the connection");
            subscription.end();
        }
        None
    }

    fn hear_answer(&mut self, id: u64, message: &Value, logs: &mut [Log], fails: bool) {
        let (expected, command) = self.pending.pop_front().expect("an answer to nothing");
        assert_eq!(id, expected, "answers out of order: {message}");
        if !message["error"].is_null() {
            let is_temporary = message["error"]["temporary"] == json!(true);
            assert!(fails && is_temporary, "{message}");
            match command {
                Command::Subscribe { channel, .. } => self.subscriptions[channel].end(),
                Command::Connect { .. } => self.is_refused = true,
                _ => {}
            }
            return;
        }
        match command {
            Command::Connect { since } => {
                self.id = message["connect"]["client"].as_str().unwrap().to_owned();
                assert_eq!(message["connect"]["pong"], json!(true));
                let subs = &message["connect"]["subs"];
                assert_eq!(subs.is_object(), self.is_subscribed_by_token);
                if let Some(result) = subs.get(CHANNELS[SERVER_SIDE]) {
                    self.begin(SERVER_SIDE, result, since.as_ref(), logs);
                }
            }
            Command::Publish { channel, number } => {
                assert_eq!(message["publish"], json!({}));
                logs[channel].acknowledged.push(number);
            }
            Command::Subscribe { channel, since } => {
                self.begin(channel, &message["subscribe"], since.as_ref(), logs);
            }
            Command::Unsubscribe { channel } => {
                assert_eq!(message["unsubscribe"], json!({}));
                // The server may have ended it first, and the client begun anew.
                if self.subscriptions[channel].state == State::Ending {
                    self.subscriptions[channel].end();
                }
            }
            Command::Presence => assert!(message["presence"].is_object()),
            Command::History { channel, since } => {
                let page = &message["history"];
                let epoch = page["epoch"].as_str().unwrap();
                let mut before = since;
                let mut is_first = true;
                for publication in page["publications"].as_array().into_iter().flatten() {
                    let offset = publication["offset"].as_u64().unwrap();
                    let data = crate::wire::data(self.encoding, false, publication);
                    let entry = logs[channel].at(epoch, offset).expect("never published");
                    assert_eq!(entry.number, payload::number(&data));
                    assert!(entry.passes(None), "a page has what is hidden");
                    let next = logs[channel].next(epoch, before, |entry| entry.passes(None));
                    assert!(is_first || next == Some(offset), "a hole in a page");
                    is_first = false;
                    before = offset;
                }
            }
        }
    }

    fn begin(
        &mut self,
        channel: usize,
        result: &Value,
        since: Option<&(u64, String)>,
        logs: &[Log],
    ) {
        let is_cache = channel == CACHE;
        let subscription = &mut self.subscriptions[channel];
        subscription.begin(
            (&self.id, self.encoding),
            result,
            since,
            is_cache,
            &logs[channel],
        );
    }

    pub(crate) fn is_settled(&self) -> bool {
        let subscriptions = self.subscriptions.iter();
        let mut open = subscriptions.filter(|subscription| {
            subscription.wanted && subscription.state == State::Off && self.is_connected
        });
        self.pending.is_empty() && open.next().is_none()
    }

    /// What joins and leaves said must be the truth in the end.
    pub(crate) fn check_company(&self, channel: usize, members: &BTreeSet<String>) {
        let subscription = &self.subscriptions[channel];
        for (client, is_there) in &subscription.company {
            assert_eq!(members.contains(client), *is_there, "{client} in {channel}");
        }
    }
}
