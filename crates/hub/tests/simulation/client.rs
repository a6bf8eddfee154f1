//! What a client knows and does, as an SDK would.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};
use tautline_hub::engine::testkit::Seeded;

use crate::CHANNELS;
use crate::log::Log;

pub(crate) struct ClientModel {
    /// Whether there is a connection, as far as the client knows.
    pub(crate) is_connected: bool,
    /// Id of the connection.
    pub(crate) id: String,
    /// Commands that are not answered yet, in order.
    pending: VecDeque<(u64, Command)>,
    next_id: u64,
    pub(crate) subscriptions: Vec<Subscription>,
}

enum Command {
    Connect,
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
enum State {
    #[default]
    Off,
    /// A subscribe command is under way.
    Begun,
    On,
    /// An unsubscribe command is under way.
    Ending,
}

#[derive(Default)]
pub(crate) struct Subscription {
    wanted: bool,
    state: State,
    /// The last position, kept over disconnections; an empty epoch is none.
    pub(crate) epoch: String,
    offset: u64,
    /// Without history: place in the log of the last publication heard.
    place: Option<usize>,
    /// Without history: how long the log was when the subscription began.
    began_at: usize,
    /// Whom this client believes to be there, by join and leave.
    company: BTreeMap<String, bool>,
}

impl Subscription {
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, State::On | State::Ending)
    }

    fn end(&mut self) {
        self.state = State::Off;
        self.company.clear();
        self.place = None;
    }
}

impl ClientModel {
    pub(crate) fn new(channels: usize) -> Self {
        Self {
            is_connected: false,
            id: String::new(),
            pending: VecDeque::new(),
            next_id: 0,
            subscriptions: (0..channels).map(|_| Subscription::default()).collect(),
        }
    }

    fn command(&mut self, command: Command, name: &str, request: Value) -> String {
        self.next_id += 1;
        self.pending.push_back((self.next_id, command));
        json!({"id": self.next_id, name: request}).to_string()
    }

    /// The first frame of a connection: connects, and subscribes to all that is wanted.
    pub(crate) fn connect(&mut self, token: &str) -> String {
        self.is_connected = true;
        let mut frame = self.command(Command::Connect, "connect", json!({"token": token}));
        for channel in 0..self.subscriptions.len() {
            if self.subscriptions[channel].wanted {
                frame.push('\n');
                frame.push_str(&self.subscribe(channel));
            }
        }
        frame
    }

    pub(crate) fn disconnected(&mut self) {
        self.is_connected = false;
        self.id.clear();
        self.pending.clear();
        for subscription in &mut self.subscriptions {
            subscription.end();
        }
    }

    fn subscribe(&mut self, channel: usize) -> String {
        let subscription = &mut self.subscriptions[channel];
        subscription.state = State::Begun;
        let mut request = json!({"channel": CHANNELS[channel]});
        let has_position = !subscription.epoch.is_empty();
        let since = has_position.then(|| (subscription.offset, subscription.epoch.clone()));
        if let Some((offset, epoch)) = &since {
            request["recover"] = json!(true);
            request["epoch"] = json!(epoch);
            request["offset"] = json!(offset);
        }
        self.command(Command::Subscribe { channel, since }, "subscribe", request)
    }

    /// Subscribes or unsubscribes, if nothing of the kind is under way.
    pub(crate) fn toggle(&mut self, channel: usize, random: &mut Seeded) -> Option<String> {
        let subscription = &mut self.subscriptions[channel];
        match subscription.state {
            State::Off => {
                subscription.wanted = true;
                if random.chance(30) {
                    // Begins without a position, like an application that starts anew.
                    subscription.epoch.clear();
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
    pub(crate) fn resubscribe(&mut self) -> Option<String> {
        if self.id.is_empty() {
            return None;
        }
        let channel = self
            .subscriptions
            .iter()
            .position(|subscription| subscription.wanted && subscription.state == State::Off)?;
        Some(self.subscribe(channel))
    }

    pub(crate) fn publish(&mut self, channel: usize, number: u64) -> String {
        let request = json!({"channel": CHANNELS[channel], "data": number});
        self.command(Command::Publish { channel, number }, "publish", request)
    }

    pub(crate) fn ask(&mut self, channel: usize, history: bool, since: u64) -> String {
        let mut request = json!({"channel": CHANNELS[channel]});
        if history {
            request["since"] = json!({"offset": since});
            request["limit"] = json!(5);
            self.command(Command::History { channel, since }, "history", request)
        } else {
            self.command(Command::Presence, "presence", request)
        }
    }

    pub(crate) fn hear(&mut self, message: &Value, logs: &mut [Log], fails: bool) {
        if let Some(id) = message["id"].as_u64() {
            return self.hear_answer(id, message, logs, fails);
        }
        let push = &message["push"];
        let name = push["channel"].as_str().expect("a push without a channel");
        let channel = CHANNELS
            .iter()
            .position(|channel| *channel == name)
            .unwrap();
        let subscription = &mut self.subscriptions[channel];
        assert!(
            subscription.is_live(),
            "a push for {name}, which is {:?}",
            subscription.state
        );
        if push["pub"].is_object() {
            subscription.hear_publication(&push["pub"], &logs[channel]);
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
            subscription.end();
        }
    }

    fn hear_answer(&mut self, id: u64, message: &Value, logs: &mut [Log], fails: bool) {
        let (expected, command) = self.pending.pop_front().expect("an answer to nothing");
        assert_eq!(id, expected, "answers out of order: {message}");
        if !message["error"].is_null() {
            let is_temporary = message["error"]["temporary"] == json!(true);
            assert!(fails && is_temporary, "{message}");
            if let Command::Subscribe { channel, .. } = command {
                self.subscriptions[channel].end();
            }
            return;
        }
        match command {
            Command::Connect => {
                self.id = message["connect"]["client"].as_str().unwrap().to_owned();
            }
            Command::Publish { channel, number } => {
                assert_eq!(message["publish"], json!({}));
                logs[channel].acknowledged.push(number);
            }
            Command::Subscribe { channel, since } => {
                let result = &message["subscribe"];
                self.subscriptions[channel].begin(result, since.as_ref(), &logs[channel]);
            }
            Command::Unsubscribe { channel } => {
                assert_eq!(message["unsubscribe"], json!({}));
                // The server may have ended it first, and the client begun anew.
                if self.subscriptions[channel].state == State::Ending {
                    self.subscriptions[channel].end();
                }
            }
            Command::Presence => assert!(message["presence"]["presence"].is_object()),
            Command::History { channel, since } => {
                let epoch = message["history"]["epoch"].as_str().unwrap();
                let mut before = since;
                for publication in message["history"]["publications"].as_array().unwrap() {
                    let offset = publication["offset"].as_u64().unwrap();
                    assert_eq!(
                        logs[channel].at(epoch, offset),
                        publication["data"].as_u64()
                    );
                    assert!(offset == before + 1 || before == since, "a hole in a page");
                    before = offset;
                }
            }
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        let subscriptions = self.subscriptions.iter();
        let mut open = subscriptions.filter(|subscription| {
            subscription.wanted && subscription.state == State::Off && self.is_connected
        });
        self.pending.is_empty() && open.next().is_none()
    }

    /// When all is quiet, whoever is subscribed has heard everything.
    pub(crate) fn check_rest(&self, index: usize, channel: usize, log: &Log, lossy: bool) {
        let subscription = &self.subscriptions[channel];
        if !subscription.is_live() {
            return;
        }
        if log.has_history {
            let top = log.top(&subscription.epoch);
            assert_eq!(
                subscription.offset, top,
                "client {index} is behind in {channel}"
            );
        } else if !lossy {
            let heard = subscription
                .place
                .map_or(subscription.began_at, |place| place + 1);
            assert_eq!(
                heard,
                log.entries.len(),
                "client {index} is behind in {channel}"
            );
        }
    }

    /// What joins and leaves said must be the truth in the end.
    pub(crate) fn check_company(&self, channel: usize, members: &BTreeSet<String>) {
        let subscription = &self.subscriptions[channel];
        for (client, is_there) in &subscription.company {
            assert_eq!(members.contains(client), *is_there, "{client} in {channel}");
        }
    }
}

impl Subscription {
    fn begin(&mut self, result: &Value, since: Option<&(u64, String)>, log: &Log) {
        assert_eq!(self.state, State::Begun);
        self.state = State::On;
        self.began_at = log.entries.len();
        let recovered = result["recovered"] == json!(true);
        if !log.has_history {
            assert!(result["epoch"].is_null() && result["publications"].is_null());
            return;
        }
        let offset = result["offset"].as_u64().unwrap_or(0);
        let epoch = result["epoch"].as_str().unwrap().to_owned();
        assert_eq!(result["was_recovering"] == json!(true), since.is_some());
        if recovered {
            let (asked, epoch_asked) = since.expect("recovered without having asked");
            assert_eq!(
                (*asked, epoch_asked),
                (offset, &epoch),
                "the position asked for is told"
            );
        } else {
            assert!(result["publications"].is_null());
        }
        assert!(
            offset <= log.top(&epoch),
            "a position that does not exist yet"
        );
        (self.offset, self.epoch) = (offset, epoch);
        for publication in result["publications"].as_array().into_iter().flatten() {
            self.hear_publication(publication, log);
        }
    }

    fn hear_publication(&mut self, publication: &Value, log: &Log) {
        let number = publication["data"]
            .as_u64()
            .expect("a number was published");
        if !log.has_history {
            assert!(publication["offset"].is_null());
            let place = log.place(number).expect("never published");
            assert!(
                self.place.is_none_or(|before| place > before),
                "out of order, or twice"
            );
            self.place = Some(place);
            return;
        }
        let offset = publication["offset"].as_u64().unwrap();
        if log.may_skip {
            assert!(offset > self.offset, "{offset} after {}", self.offset);
        } else {
            assert_eq!(
                offset,
                self.offset + 1,
                "{number} follows on {}",
                self.offset
            );
        }
        assert_eq!(
            log.at(&self.epoch, offset),
            Some(number),
            "at {offset} of {}",
            self.epoch
        );
        self.offset = offset;
    }
}
