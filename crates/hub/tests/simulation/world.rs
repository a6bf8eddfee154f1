//! A node with its clients, and everything that may happen to them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::Value;
use tautline_auth::Verifier;
use tautline_hub::engine::memory::{MemoryEngine, MemoryOptions};
use tautline_hub::engine::testkit::{DelayedEngine, Seeded};
use tautline_hub::engine::{Delivery, Engine, Started, Ticket, WorkerId};
use tautline_hub::{Pings, SessionId};
use tautline_protocol::Encoding;

use crate::accounts::{ChannelAccounts, UserAccounts};
use crate::client::ClientModel;
use crate::code::Code;
use crate::draining::Draining;
use crate::log::Log;
use crate::network::{Down, Link, Node, Sent};
use crate::rules::{Rules, Seats, config, verifier};
use crate::support::Inbox;
use crate::tokens::Mint;
use crate::view::View;
use crate::wire::{self, Up};
use crate::{
    BYTES, CHANNELS, CLIENTS, HIDDEN, KNOWN_CACHE, PUSHED, SERVER_SIDE, STEPS, USED, USERS,
    WORKERS, Weather,
};

pub(crate) struct Simulation {
    pub(crate) node: Node,
    pub(crate) memory: Arc<dyn Engine>,
    pub(crate) weather: Weather,
    pub(crate) random: Seeded,
    pub(crate) clients: Vec<ClientModel>,
    /// By client.
    pub(crate) links: Vec<Option<Link>>,
    /// Connections that are gone, of which the node doesn't know yet.
    pub(crate) ghosts: Vec<Ghost>,
    /// Of all connections that the node knows.
    pub(crate) views: BTreeMap<Who, View>,
    pub(crate) logs: Vec<Log>,
    pub(crate) tap: Arc<Inbox>,
    /// What operators were told since the checker looked.
    pub(crate) told: Rc<RefCell<Vec<Told>>>,
    pub(crate) rules: Rules,
    pub(crate) mint: Mint,
    /// What users may still do.
    pub(crate) users: UserAccounts,
    /// What may still be done in channels.
    pub(crate) channels: ChannelAccounts,
    /// Once the node drains.
    pub(crate) draining: Option<Draining>,
    /// Who has left a channel since the checker looked: its index, connection id, and user.
    pub(crate) left: Vec<(usize, String, String)>,
    /// The numbers of each user's connections that were let in; where that can't be known, of those that asked.
    pub(crate) seated: BTreeMap<&'static str, Vec<u64>>,
    /// How many connections have asked to be let in.
    connects: u64,
    /// Who is not to get a publication, by its number.
    pub(crate) excluded: BTreeMap<u64, String>,
    /// The channels of this run.
    pub(crate) used: Vec<usize>,
    pub(crate) next_number: u64,
}

/// A connection: its worker and session.
pub(crate) type Who = (usize, SessionId);

pub(crate) struct Ghost {
    pub(crate) link: Link,
    pub(crate) died_at: Duration,
}

/// How something ended that an operator asked for.
pub(crate) enum Told {
    Published {
        channel: usize,
        number: u64,
        is_stale: bool,
    },
    Removed {
        channel: usize,
    },
}

impl Simulation {
    pub(crate) fn new(seed: u64, weather: Weather) -> Self {
        let rules = Rules::of(seed);
        let config = config(rules, &VERIFIER, weather.fault);
        let has_personal = rules.seats == Seats::Single;
        let memory = MemoryEngine::new(MemoryOptions::default(), Box::new(Seeded::new(seed)));
        let memory: Arc<dyn Engine> = Arc::new(memory);
        let delayed = weather
            .delays
            .map(|delays| Arc::new(DelayedEngine::new(memory.clone(), delays, seed)));
        let engine: Arc<dyn Engine> = match &delayed {
            Some(delayed) => delayed.clone(),
            None => memory.clone(),
        };
        let code = weather
            .code
            .then(|| Code::new(seed, weather.fault, has_personal));
        let node = Node::new(WORKERS, &config, engine, delayed, weather.fault, code, seed);
        let tap = Arc::new(Inbox::default());
        let worker = WorkerId(WORKERS as u16);
        memory.register(worker, tap.clone());
        for channel in CHANNELS {
            let ticket = Ticket { worker, serial: 0 };
            let started = memory.attach(node.now, ticket, &channel.into());
            assert!(matches!(started, Started::Done(Ok(()))));
        }
        let log = |channel: &str| {
            let has_history = !channel.starts_with("plain") && !channel.starts_with("newest");
            let skipping = ["plain", "latest", "newest"];
            let may_skip = skipping.iter().any(|name| channel.starts_with(name));
            let is_filtered = channel == CHANNELS[HIDDEN] || channel == CHANNELS[KNOWN_CACHE];
            Log::new(has_history, may_skip, is_filtered)
        };
        let client = |index: usize| {
            let encoding = [Encoding::Json, Encoding::Protobuf][index / 2 % 2];
            ClientModel::new(encoding, USERS[index % USERS.len()], has_personal)
        };
        let mut random = Seeded::new(seed);
        let mut used: Vec<usize> = (0..CHANNELS.len()).collect();
        while used.len() > USED {
            used.swap_remove(random.below(used.len()));
        }
        used.extend([SERVER_SIDE, PUSHED]);
        Self {
            node,
            memory,
            weather,
            random,
            clients: (0..CLIENTS).map(client).collect(),
            links: (0..CLIENTS).map(|_| None).collect(),
            ghosts: Vec::new(),
            views: BTreeMap::new(),
            logs: CHANNELS.map(log).into(),
            tap,
            told: Rc::default(),
            rules,
            mint: Mint::new(seed, rules.expiry),
            users: UserAccounts::default(),
            channels: ChannelAccounts::default(),
            draining: None,
            left: Vec::new(),
            seated: BTreeMap::new(),
            connects: 0,
            excluded: BTreeMap::new(),
            used,
            next_number: 0,
        }
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
            self.check_node();
        }
        self.come_to_rest();
        self.check_rest();
        if self.rules.drains {
            self.drain();
        }
        self.everybody_leaves();
    }

    pub(crate) fn step(&mut self) {
        let client = self.random.below(CLIENTS);
        let channel = self.used[self.random.below(self.used.len())];
        match self.random.below(100) {
            0..3 => self.break_connection(client),
            3..13 => self.toggle(client, channel),
            13..35 => self.publish(client, channel),
            35..38 => self.ask(client, channel),
            38..39 => self.remove_history(channel),
            39..54 => self.deliver(),
            54..62 => self.let_engine_work(),
            62..74 => {
                let most = 1 + self.random.below(4);
                self.forward(client, most);
            }
            74..94 => {
                let speed = self.links[client].as_ref().map_or(1, |link| link.speed);
                let (most, part) = (1 + self.random.below(speed), self.random.bits());
                self.carry(client, most, |all| part as usize % (all + 1));
            }
            94..96 if self.weather.lossy => self.lose(),
            96..97 => self.bury_one(),
            97..98 => self.operate(client),
            _ => self.pass_time(),
        }
    }

    /// Connects if need be; all that is wanted is subscribed to in the first frame.
    fn toggle(&mut self, client: usize, channel: usize) {
        let now = self.node.now.monotonic;
        let model = &mut self.clients[client];
        let commands = if self.links[client].is_some() {
            model
                .toggle(channel, &mut self.mint, now, &mut self.random)
                .into_iter()
                .collect()
        } else {
            let worker = self.random.below(WORKERS);
            let is_slow = self.weather.slow && self.random.chance(40);
            let speed = if is_slow { 1 } else { 1000 };
            let pings = match self.random.below(4) {
                0 => Pings::Transport,
                1 => Pings::OneWayAndTransport,
                _ => Pings::Protocol,
            };
            let link = self.node.open(worker, model.encoding, pings, speed);
            let view = View::new(model.encoding, pings, model.user, now);
            self.views.insert((worker, link.id), view);
            self.links[client] = Some(link);
            model.connect(pings, &mut self.mint, now)
        };
        self.send(client, commands);
    }

    pub(crate) fn send(&mut self, client: usize, commands: Vec<Value>) {
        if let Some(link) = &mut self.links[client]
            && !commands.is_empty()
        {
            link.up.push_back(Sent::Commands(commands));
        }
    }

    /// The client's connection breaks; what is on its way is lost. The node may learn of it later.
    pub(crate) fn break_connection(&mut self, client: usize) {
        if let Some(link) = self.links[client].take() {
            self.clients[client].disconnected();
            self.node.abandon(&link);
            let died_at = self.node.now.monotonic;
            self.ghosts.push(Ghost { link, died_at });
            if self.random.chance(70) {
                self.bury_one();
            }
        }
    }

    pub(crate) fn bury_one(&mut self) {
        if let Some(ghost) = self.ghosts.pop() {
            self.bury(&ghost.link);
        }
    }

    fn bury(&mut self, link: &Link) {
        self.node.bury(link);
        self.views.remove(&(link.worker, link.id));
        self.check_node();
    }

    /// Asks for presence or history.
    fn ask(&mut self, client: usize, channel: usize) {
        if self.clients[client].is_connected {
            let history = self.random.chance(50) && self.logs[channel].has_history;
            let since = self.random.below(20) as u64;
            let command = self.clients[client].ask(channel, history, since);
            self.send(client, vec![command]);
        }
    }

    fn deliver(&mut self) {
        let (worker, random) = (self.random.below(WORKERS), &mut self.random);
        self.node.deliver(worker, |all| random.below(all + 1));
    }

    fn let_engine_work(&mut self) {
        if self.weather.code {
            for _ in 0..self.random.below(8) {
                self.node.answer();
                self.check_node();
            }
        }
        let Some(delayed) = self.node.delayed.clone() else {
            return self.deliver();
        };
        for _ in 0..self.random.below(12) {
            delayed.step(self.node.now);
        }
    }

    /// Frames of a client reach the node.
    pub(crate) fn forward(&mut self, client: usize, most: usize) -> bool {
        let is_prompt = self.is_prompt();
        let mut any = false;
        for _ in 0..most {
            let Some(link) = &mut self.links[client] else {
                return any;
            };
            let Some(sent) = self.node.next_frame(link) else {
                return any;
            };
            any = true;
            let view = self.views.get_mut(&(link.worker, link.id)).unwrap();
            let commands = match sent {
                Sent::Commands(commands) => commands,
                Sent::Pong => {
                    view.answered_ping();
                    self.node.pong(link);
                    continue;
                }
            };
            view.asked(self.node.now.monotonic, &commands);
            if view.number == 0 {
                self.connects += 1;
                view.number = self.connects;
                if !is_prompt {
                    self.seated.entry(view.user).or_default().push(view.number);
                }
            }
            let frame = Up::new(view.encoding, &commands);
            self.node.receive(link, &frame);
            self.check_node();
        }
        any
    }

    /// Messages of the node move on towards a client, and some arrive.
    pub(crate) fn carry(
        &mut self,
        client: usize,
        most: usize,
        arrive: impl FnOnce(usize) -> usize,
    ) -> bool {
        let Some(link) = &mut self.links[client] else {
            return false;
        };
        let mut any = self.node.write(link, most);
        let arrived = arrive(link.down.len());
        let arrived: Vec<_> = link.down.drain(..arrived).collect();
        any |= !arrived.is_empty();
        self.check_node();
        self.hear(client, arrived);
        any
    }

    fn hear(&mut self, client: usize, arrived: Vec<Down>) {
        let (fails, now) = (self.fails(), self.node.now.monotonic);
        let model = &mut self.clients[client];
        let mut answers = Vec::new();
        for message in arrived {
            let message = match message {
                Down::Message(message) => message,
                Down::Ping => {
                    if let Some(link) = &mut self.links[client] {
                        link.up.push_back(Sent::Pong);
                    }
                    continue;
                }
            };
            for reply in wire::replies(model.encoding, &message) {
                answers.extend(model.hear(&reply, &mut self.logs, now, fails));
            }
        }
        for answer in answers {
            self.send(client, vec![answer]);
        }
        let Some(link) = &self.links[client] else {
            return;
        };
        let model = &mut self.clients[client];
        let ended = self.node.ended(link);
        if let Some(code) = ended {
            // What the code says was checked when it was said.
            let is_late = code == 3502 && model.id.is_empty();
            assert!(
                matches!(
                    code,
                    3001 | 3005 | 3006 | 3008 | 3010 | 3012 | 3504 | 3506 | 3509
                ) || is_late,
                "a session was ended for no good reason: {code}"
            );
        }
        if ended.is_some() || model.is_refused {
            let link = self.links[client].take().unwrap();
            model.disconnected();
            if ended == Some(3506) {
                model.give_up(BYTES);
            }
            self.bury(&link);
        } else if let Some(command) = model.resubscribe(&mut self.mint, now) {
            self.send(client, vec![command]);
        }
    }

    /// Loses one publication on its way to one worker.
    fn lose(&mut self) {
        let inbox = &self.node.workers[self.random.below(WORKERS)].inbox;
        let mut batch = inbox.take();
        let is_publication = |delivery: &Delivery| matches!(delivery, Delivery::Publication { .. });
        if let Some(place) = batch.iter().position(is_publication) {
            let lost = batch.remove(place);
            // Some engines notice.
            if self.random.chance(50)
                && let Delivery::Publication { channel, feed, .. } = lost
            {
                batch.push(Delivery::Doubt { channel, feed });
            }
        }
        inbox.put_back(batch);
    }

    fn pass_time(&mut self) {
        let milliseconds = match self
            .random
            .below(if self.weather.forgetful { 40 } else { 38 })
        {
            // As long as pings and pongs take.
            36..38 => 10_000,
            38 => 61_000,
            39 => 301_000,
            _ => self.random.below(1000) as u64,
        };
        let mut rest = Duration::from_millis(milliseconds);
        while !rest.is_zero() {
            let step = rest.min(Duration::from_secs(1));
            self.node.pass(step);
            self.check_node();
            self.refresh(50);
            rest -= step;
        }
    }

    /// Clients refresh what has come to its end. Of a hundred refreshes some reach the node at once.
    pub(crate) fn refresh(&mut self, at_once: usize) {
        let now = self.node.now.monotonic;
        for client in 0..CLIENTS {
            let model = &mut self.clients[client];
            let commands = model.refresh(&mut self.mint, now, &mut self.random);
            if !commands.is_empty() {
                self.send(client, commands);
                if self.random.chance(at_once) {
                    self.forward(client, usize::MAX);
                }
            }
        }
    }

    /// Everything is done when it is asked for.
    pub(crate) fn is_prompt(&self) -> bool {
        self.is_exact() && !self.weather.code
    }

    /// The engine does everything at once, so it is known what it had to say.
    pub(crate) fn is_exact(&self) -> bool {
        self.weather.delays.is_none()
    }

    pub(crate) fn fails(&self) -> bool {
        self.weather
            .delays
            .is_some_and(|delays| delays.failures > 0)
    }
}

/// Keys are read once.
static VERIFIER: LazyLock<Arc<Verifier>> = LazyLock::new(verifier);
