//! What a client knows and does, as an SDK would.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::Pings;
use tautline_hub::engine::testkit::Seeded;
use tautline_protocol::Encoding;

use crate::log::Log;
use crate::payload;
use crate::subscription::Subscription;
use crate::tokens::Mint;
use crate::{BY_USER, BYTES, CHANNELS, PUSHED, SERVER_SIDE, TICKET, TOKEN_SUBSCRIBED};

pub(crate) struct ClientModel {
    /// Whether there is a connection, as far as the client knows.
    pub(crate) is_connected: bool,
    /// Its connect command was refused: the connection is good for nothing.
    pub(crate) is_refused: bool,
    pub(crate) encoding: Encoding,
    /// How each end of the connection knows that the other is there.
    pings: Pings,
    pub(crate) user: &'static str,
    /// Whether the server subscribes it to its user's own channel.
    has_personal: bool,
    /// When the connection has to be refreshed, if it has an end.
    refresh_at: Option<Duration>,
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
    Refresh,
    SubRefresh {
        channel: usize,
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
    pub(crate) fn new(encoding: Encoding, user: &'static str, has_personal: bool) -> Self {
        let mut subscriptions: Vec<Subscription> = Vec::new();
        subscriptions.resize_with(CHANNELS.len(), Subscription::default);
        Self {
            is_connected: false,
            is_refused: false,
            encoding,
            pings: Pings::Protocol,
            user,
            has_personal,
            refresh_at: None,
            id: String::new(),
            pending: VecDeque::new(),
            next_id: 0,
            subscriptions,
        }
    }

    /// Whether its token subscribes it to a channel.
    fn is_subscribed_by_token(&self) -> bool {
        self.user == TOKEN_SUBSCRIBED
    }

    fn command(&mut self, command: Command, name: &str, request: Value) -> Value {
        self.next_id += 1;
        self.pending.push_back((self.next_id, command));
        json!({"id": self.next_id, name: request})
    }

    /// The first frame of a connection: connects, and subscribes to all that is wanted.
    pub(crate) fn connect(&mut self, pings: Pings, mint: &mut Mint, now: Duration) -> Vec<Value> {
        self.is_connected = true;
        self.pings = pings;
        let mut request = json!({"token": mint.connection(self.user, now)});
        let mut since = None;
        if self.is_subscribed_by_token() {
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
                commands.push(self.subscribe(channel, mint, now));
            }
        }
        commands
    }

    pub(crate) fn disconnected(&mut self) {
        self.is_connected = false;
        self.is_refused = false;
        self.refresh_at = None;
        self.id.clear();
        self.pending.clear();
        for subscription in &mut self.subscriptions {
            subscription.end();
        }
    }

    /// The application stops asking for what this client can't be sent.
    pub(crate) fn give_up(&mut self, channel: usize) {
        self.subscriptions[channel].wanted = false;
        self.subscriptions[channel].epoch.clear();
    }

    /// Refreshes what has to be by now; some forget it.
    pub(crate) fn refresh(
        &mut self,
        mint: &mut Mint,
        now: Duration,
        random: &mut Seeded,
    ) -> Vec<Value> {
        let mut commands = Vec::new();
        if self.refresh_at.take_if(|at| now >= *at).is_some() && random.chance(80) {
            let request = json!({"token": mint.connection(self.user, now)});
            commands.push(self.command(Command::Refresh, "refresh", request));
        }
        for (channel, name) in CHANNELS.iter().enumerate() {
            let at = &mut self.subscriptions[channel].refresh_at;
            if at.take_if(|at| now >= *at).is_some() && random.chance(80) {
                let token = mint.subscription(self.user, now);
                let request = json!({"channel": name, "token": token});
                let command = Command::SubRefresh { channel };
                commands.push(self.command(command, "sub_refresh", request));
            }
        }
        commands
    }

    fn subscribe(&mut self, channel: usize, mint: &mut Mint, now: Duration) -> Value {
        let subscription = &mut self.subscriptions[channel];
        subscription.state = State::Begun;
        let mut request = json!({"channel": CHANNELS[channel]});
        subscription.ask(&mut request);
        let since = subscription.since();
        if channel == TICKET {
            request["token"] = json!(mint.subscription(self.user, now));
        }
        self.command(Command::Subscribe { channel, since }, "subscribe", request)
    }

    /// Subscribes or unsubscribes, if nothing of the kind is under way.
    pub(crate) fn toggle(
        &mut self,
        channel: usize,
        mint: &mut Mint,
        now: Duration,
        random: &mut Seeded,
    ) -> Option<Value> {
        if matches!(channel, SERVER_SIDE | PUSHED) {
            return None;
        }
        let subscription = &mut self.subscriptions[channel];
        match subscription.state {
            State::Off => {
                subscription.wanted = true;
                if subscription.epoch.is_empty() || random.chance(30) {
                    // Begins without a position, like an application that starts anew.
                    subscription.epoch.clear();
                    subscription.patched = channel != BYTES && random.chance(50);
                    subscription.filter = random
                        .chance(40)
                        .then(|| payload::KINDS[random.below(payload::KINDS.len())]);
                }
                Some(self.subscribe(channel, mint, now))
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
    pub(crate) fn resubscribe(&mut self, mint: &mut Mint, now: Duration) -> Option<Value> {
        if self.id.is_empty() {
            return None;
        }
        let channel = self
            .subscriptions
            .iter()
            .position(|subscription| subscription.wanted && subscription.state == State::Off)?;
        Some(self.subscribe(channel, mint, now))
    }

    pub(crate) fn publish(&mut self, channel: usize, number: u64) -> Value {
        let is_binary = self.encoding == Encoding::Protobuf && is_binary(channel, number);
        let data = if is_binary {
            json!(payload::as_text(&payload::bytes(number)))
        } else {
            payload::payload(number)
        };
        let request = json!({"channel": CHANNELS[channel], "data": data});
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
    pub(crate) fn hear(
        &mut self,
        message: &Value,
        logs: &mut [Log],
        now: Duration,
        fails: bool,
    ) -> Option<Value> {
        if let Some(id) = message["id"].as_u64() {
            self.hear_answer(id, message, logs, now, fails);
            return None;
        }
        let push = &message["push"];
        if push.is_null() {
            assert_eq!(*message, json!({}), "neither an answer nor a push");
            return (self.pings == Pings::Protocol).then(|| json!({}));
        }
        if push["refresh"].is_object() {
            self.refresh_at = in_time(now, &push["refresh"]);
            return None;
        }
        let channel = crate::index(&push["channel"]);
        let subscription = &mut self.subscriptions[channel];
        if push["subscribe"].is_object() {
            subscription.begin_pushed(&self.id, &push["subscribe"], &logs[channel]);
            return None;
        }
        assert!(
            subscription.is_live(),
            "a push for {push}, which is {:?}",
            subscription.state
        );
        if push["pub"].is_object() {
            subscription.hear_publication(self.encoding, &push["pub"], &logs[channel]);
        } else if let Some(info) = push["join"].get("info") {
            let (name, is_own) = self.named(channel, info);
            let company = &mut self.subscriptions[channel].company;
            let before = company.insert(name.to_owned(), true);
            assert!(before != Some(true) || is_own, "{name} joined twice");
        } else if let Some(info) = push["leave"].get("info") {
            assert_ne!(info["client"], json!(self.id), "told of its own leaving");
            let (name, _) = self.named(channel, info);
            let company = &mut self.subscriptions[channel].company;
            let before = company.insert(name.to_owned(), false);
            assert_ne!(before, Some(false), "{name} left twice");
        } else {
            let code = &push["unsubscribe"]["code"];
            let is_expired = channel == TICKET && *code == json!(2501);
            let is_enough = channel == PUSHED && *code == json!(2000);
            assert!(is_expired || is_enough || *code == json!(2500), "{message}");
            assert!(is_enough || channel != PUSHED, "{message}");
            assert_ne!(channel, SERVER_SIDE, "ended with the connection");
            subscription.end();
        }
        None
    }

    /// By what name others are told of somebody in a channel, and whether that is this client.
    fn named<'i>(&self, channel: usize, info: &'i Value) -> (&'i str, bool) {
        let (name, own) = match channel {
            BY_USER => (&info["user"], self.user),
            _ => (&info["client"], &*self.id),
        };
        let name = name.as_str().expect("a name");
        (name, name == own)
    }

    fn hear_answer(
        &mut self,
        id: u64,
        message: &Value,
        logs: &mut [Log],
        now: Duration,
        fails: bool,
    ) {
        let (expected, command) = self.pending.pop_front().expect("an answer to nothing");
        assert_eq!(id, expected, "answers out of order: {message}");
        if !message["error"].is_null() {
            let is_temporary = message["error"]["temporary"] == json!(true);
            // Whether that is as it should be was checked when it was said.
            let is_fine = match (message["error"]["code"].as_u64(), &command) {
                (Some(100), _) => fails && is_temporary,
                (Some(109), Command::SubRefresh { .. }) => is_temporary,
                (Some(103), Command::SubRefresh { .. })
                | (Some(109), Command::Connect { .. } | Command::Subscribe { .. })
                | (Some(110), Command::Connect { .. }) => true,
                (
                    Some(111),
                    Command::Connect { .. }
                    | Command::Publish { .. }
                    | Command::Presence
                    | Command::History { .. },
                ) => is_temporary,
                _ => false,
            };
            assert!(is_fine, "{message}");
            if let Command::Publish { channel, number } = command
                && message["error"]["code"] == json!(111)
            {
                logs[channel].refused.push(number);
            }
            match command {
                Command::Subscribe { channel, .. } => self.subscriptions[channel].end(),
                Command::Connect { .. } => self.is_refused = true,
                // Tries again with another token.
                Command::SubRefresh { channel } if self.subscriptions[channel].is_live() => {
                    self.subscriptions[channel].refresh_at = Some(now + Duration::from_secs(1));
                }
                _ => {}
            }
            return;
        }
        match command {
            Command::Connect { since } => {
                self.id = message["connect"]["client"].as_str().unwrap().to_owned();
                let told = (&message["connect"]["ping"], &message["connect"]["pong"]);
                let (ping, pong) = match self.pings {
                    Pings::Protocol => (json!(25), json!(true)),
                    Pings::OneWayAndTransport => (json!(25), Value::Null),
                    _ => (Value::Null, Value::Null),
                };
                assert_eq!(told, (&ping, &pong), "how pings are");
                self.refresh_at = in_time(now, &message["connect"]);
                let subs = &message["connect"]["subs"];
                let names = subs.as_object().into_iter().flat_map(|subs| subs.keys());
                let own = self
                    .is_subscribed_by_token()
                    .then(|| CHANNELS[SERVER_SIDE].to_owned());
                let personal = self.has_personal.then(|| format!("#{}", self.user));
                let expected: BTreeSet<_> = own.into_iter().chain(personal).collect();
                assert_eq!(names.cloned().collect::<BTreeSet<_>>(), expected);
                if let Some(result) = subs.get(CHANNELS[SERVER_SIDE]) {
                    self.begin(SERVER_SIDE, result, since.as_ref(), logs);
                }
            }
            Command::Publish { channel, number } => {
                assert_eq!(message["publish"], json!({}));
                logs[channel].acknowledged.push(number);
            }
            Command::Subscribe { channel, since } => {
                let result = &message["subscribe"];
                self.begin(channel, result, since.as_ref(), logs);
                self.subscriptions[channel].refresh_at = in_time(now, result);
            }
            Command::Refresh => self.refresh_at = in_time(now, &message["refresh"]),
            Command::SubRefresh { channel } => {
                let subscription = &mut self.subscriptions[channel];
                if subscription.is_live() {
                    subscription.refresh_at = in_time(now, &message["sub_refresh"]);
                }
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
        let is_cache = crate::is_cache(channel);
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

/// When something with an end is to be refreshed.
fn in_time(now: Duration, result: &Value) -> Option<Duration> {
    let seconds = result["ttl"].as_u64()?;
    Some(now + Duration::from_secs(seconds))
}

/// Whether the publication with this number is no text, where it may be.
pub(crate) fn is_binary(channel: usize, number: u64) -> bool {
    channel == BYTES && number.is_multiple_of(3)
}
