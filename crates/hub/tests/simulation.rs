//! A whole node in one thread: hubs of several workers, sessions, an engine, a clock, and a network
//! which delays, holds back and breaks, with clients that behave as the SDKs do. All of it follows
//! from a seed.
//!
//! A checker knows every publication and hears every delivery, in two places. Where the node says
//! something it must be true at that moment: who is present, that a position was recovered, that a
//! subscription has lost its place. Where a client hears something it must follow on what the client
//! has heard before:
//!
//! - every command is answered once, in order;
//! - publications come in order, none is missing, none comes twice, none is altered, over any number
//!   of reconnections, for as long as history has them;
//! - `recovered` is said if and only if nothing is missing;
//! - a subscription loses its place only if history has lost it first;
//! - slow readers are parked and in the end have everything, or the newest, by their channel's policy;
//! - what waits for a reader is bounded;
//! - presence is who is subscribed; joins and leaves take turns and end with the truth;
//! - what was acknowledged is there;
//! - nothing is left when everybody is gone.
//!
//! A failing case prints its seed. `SIMULATION_SEED=<seed>` runs that case alone,
//! `SIMULATION_CASES=<number>` another number of cases of each kind.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "JSON is made where it is used"
)]

#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/log.rs"]
mod log;
#[path = "simulation/network.rs"]
mod network;
mod support;
#[path = "simulation/view.rs"]
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tautline_auth::{Verifier, VerifierConfig};
use tautline_hub::config::{
    ChannelOptions, ClientOptions, NamespaceOptions, RateLimitOptions, SlowConsumerOption,
};
use tautline_hub::engine::memory::{MemoryEngine, MemoryOptions};
use tautline_hub::engine::testkit::{DelayOptions, DelayedEngine, Seeded};
use tautline_hub::engine::{Delivery, Engine, HistoryOptions, Started, Ticket, WorkerId};
use tautline_hub::{ApiPublish, HubConfig, HubStats, SessionId};

use self::client::ClientModel;
use self::faults::Fault;
use self::log::Log;
use self::network::{Link, Node};
use self::support::{Inbox, SECRET, token};
use self::view::{Claim, View};

/// What makes life hard in a run.
#[derive(Clone, Copy, Debug)]
struct Weather {
    delays: Option<DelayOptions>,
    /// Publications are lost on their way to a mailbox.
    lossy: bool,
    /// Time passes beyond the life of histories and of positions.
    forgetful: bool,
    /// Some connections take little at a time.
    slow: bool,
    fault: Option<Fault>,
}

const WORKERS: usize = 3;
const CLIENTS: usize = 6;
const CHANNELS: [&str; 5] = ["room:a", "room:b", "plain:a", "latest:a", "newest:a"];

/// Of bytes that may wait for a connection.
const QUEUE: usize = 6000;

const HISTORY: HistoryOptions = HistoryOptions {
    size: 40,
    ttl: Duration::from_secs(60),
    meta_ttl: Duration::from_secs(300),
};

struct Simulation {
    node: Node,
    memory: Arc<dyn Engine>,
    weather: Weather,
    random: Seeded,
    clients: Vec<ClientModel>,
    /// By client.
    links: Vec<Option<Link>>,
    /// Connections that are gone, of which the node doesn't know yet.
    ghosts: Vec<Link>,
    /// Of all connections that the node knows.
    views: BTreeMap<(usize, SessionId), View>,
    logs: Vec<Log>,
    tap: Arc<Inbox>,
    next_number: u64,
    tokens: Arc<[String]>,
}

fn config() -> Arc<HubConfig> {
    // The buckets of users are with the configuration, which all runs share, each with a clock of its own.
    let mut rate_limit = RateLimitOptions::default();
    rate_limit.user_command.enabled = false;
    let client = ClientOptions {
        rate_limit,
        ping_interval: Duration::ZERO,
        queue_max_size: QUEUE,
        recovery_max_publication_limit: 5,
        ..ClientOptions::default()
    };
    let base = NamespaceOptions {
        presence: true,
        join_leave: true,
        force_push_join_leave: true,
        allow_subscribe_for_client: true,
        allow_publish_for_client: true,
        allow_presence_for_client: true,
        allow_history_for_client: true,
        ..NamespaceOptions::default()
    };
    let room = NamespaceOptions {
        name: "room".into(),
        history_size: HISTORY.size,
        history_ttl: HISTORY.ttl,
        history_meta_ttl: HISTORY.meta_ttl,
        force_recovery: true,
        ..base.clone()
    };
    let latest = NamespaceOptions {
        name: "latest".into(),
        slow_consumer: SlowConsumerOption::Latest,
        ..room.clone()
    };
    let plain = NamespaceOptions {
        name: "plain".into(),
        ..base.clone()
    };
    let newest = NamespaceOptions {
        name: "newest".into(),
        slow_consumer: SlowConsumerOption::DropOldest,
        ..base
    };
    let channel = ChannelOptions {
        namespaces: vec![room, plain, latest, newest],
        ..ChannelOptions::default()
    };
    let verifier = Verifier::new(VerifierConfig {
        hmac_secret: Some(SECRET.into()),
        ..VerifierConfig::default()
    });
    let verifier = Some(Arc::new(verifier.unwrap()));
    Arc::new(HubConfig::new(client, channel, verifier).unwrap())
}

impl Simulation {
    fn new(seed: u64, weather: Weather, config: &Arc<HubConfig>, tokens: Arc<[String]>) -> Self {
        let memory = MemoryEngine::new(MemoryOptions::default(), Box::new(Seeded::new(seed)));
        let memory: Arc<dyn Engine> = Arc::new(memory);
        let delayed = weather
            .delays
            .map(|delays| Arc::new(DelayedEngine::new(memory.clone(), delays, seed)));
        let engine: Arc<dyn Engine> = match &delayed {
            Some(delayed) => delayed.clone(),
            None => memory.clone(),
        };
        let node = Node::new(WORKERS, config, engine, delayed, weather.fault, seed);
        let tap = Arc::new(Inbox::default());
        let worker = WorkerId(WORKERS as u16);
        memory.register(worker, tap.clone());
        for channel in CHANNELS {
            let ticket = Ticket { worker, serial: 0 };
            let started = memory.attach(node.now, ticket, &channel.into());
            assert!(matches!(started, Started::Done(Ok(()))));
        }
        let log = |channel: &str| {
            let has_history = channel.starts_with("room") || channel.starts_with("latest");
            Log::new(has_history, !channel.starts_with("room"))
        };
        Self {
            node,
            memory,
            weather,
            random: Seeded::new(seed),
            clients: (0..CLIENTS)
                .map(|_| ClientModel::new(CHANNELS.len()))
                .collect(),
            links: (0..CLIENTS).map(|_| None).collect(),
            ghosts: Vec::new(),
            views: BTreeMap::new(),
            logs: CHANNELS.map(log).into(),
            tap,
            next_number: 0,
            tokens,
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
            self.check_node();
        }
        self.come_to_rest();
        self.check_rest();
        self.everybody_leaves();
    }

    fn step(&mut self) {
        let client = self.random.below(CLIENTS);
        let channel = self.random.below(CHANNELS.len());
        match self.random.below(100) {
            0..3 => self.break_connection(client),
            3..13 => self.toggle(client, channel),
            13..35 => self.publish(client, channel),
            35..39 => self.ask(client, channel),
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
            _ => self.pass_time(),
        }
    }

    /// Connects if need be; all that is wanted is subscribed to in the first frame.
    fn toggle(&mut self, client: usize, channel: usize) {
        let model = &mut self.clients[client];
        let frame = if self.links[client].is_some() {
            model.toggle(channel, &mut self.random)
        } else {
            let worker = self.random.below(WORKERS);
            let is_slow = self.weather.slow && self.random.chance(40);
            let link = self.node.open(worker, if is_slow { 1 } else { 1000 });
            self.views.insert((worker, link.id), View::default());
            self.links[client] = Some(link);
            Some(model.connect(&self.tokens[client % self.tokens.len()]))
        };
        self.send(client, frame);
    }

    fn send(&mut self, client: usize, frame: Option<String>) {
        if let (Some(frame), Some(link)) = (frame, &mut self.links[client]) {
            link.up.push_back(frame);
        }
    }

    /// The client's connection breaks; what is on its way is lost. The node may learn of it later.
    fn break_connection(&mut self, client: usize) {
        if let Some(ghost) = self.links[client].take() {
            self.clients[client].disconnected();
            self.ghosts.push(ghost);
            if self.random.chance(70) {
                self.bury_one();
            }
        }
    }

    fn bury_one(&mut self) {
        if let Some(link) = self.ghosts.pop() {
            self.bury(&link);
        }
    }

    fn bury(&mut self, link: &Link) {
        self.node.bury(link);
        self.views.remove(&(link.worker, link.id));
        self.check_node();
    }

    fn publish(&mut self, client: usize, channel: usize) {
        // Now and then a lot at once.
        let burst = if self.random.chance(8) { 30 } else { 1 };
        for _ in 0..burst {
            self.next_number += 1;
            let number = self.next_number;
            if self.clients[client].is_connected && burst == 1 {
                let frame = self.clients[client].publish(channel, number);
                self.send(client, Some(frame));
                continue;
            }
            self.logs[channel].started += 1;
            let request = ApiPublish {
                channel: CHANNELS[channel].into(),
                data: number.to_string().into(),
                ..ApiPublish::default()
            };
            let fails = self.fails();
            let done = move |result: Result<_, _>| assert!(fails || result.is_ok());
            let worker = self.random.below(WORKERS);
            let now = self.node.now;
            let hub = &mut self.node.workers[worker].hub;
            hub.api_publish(now, request, done);
        }
    }

    /// Asks for presence or history.
    fn ask(&mut self, client: usize, channel: usize) {
        if self.clients[client].is_connected {
            let history = self.random.chance(50) && self.logs[channel].has_history;
            let since = self.random.below(20) as u64;
            let frame = self.clients[client].ask(channel, history, since);
            self.send(client, Some(frame));
        }
    }

    fn deliver(&mut self) {
        let (worker, random) = (self.random.below(WORKERS), &mut self.random);
        self.node.deliver(worker, |all| random.below(all + 1));
    }

    fn let_engine_work(&mut self) {
        let Some(delayed) = self.node.delayed.clone() else {
            return self.deliver();
        };
        for _ in 0..self.random.below(12) {
            delayed.step(self.node.now);
        }
    }

    /// Frames of a client reach the node.
    fn forward(&mut self, client: usize, most: usize) -> bool {
        let mut any = false;
        for _ in 0..most {
            let Some(link) = &mut self.links[client] else {
                return any;
            };
            let Some(frame) = self.node.next_frame(link) else {
                return any;
            };
            let view = self.views.get_mut(&(link.worker, link.id)).unwrap();
            view.asked(&frame);
            self.node.receive(link, &frame);
            self.check_node();
            any = true;
        }
        any
    }

    /// Messages of the node move on towards a client, and some arrive.
    fn carry(&mut self, client: usize, most: usize, arrive: impl FnOnce(usize) -> usize) -> bool {
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

    fn hear(&mut self, client: usize, messages: Vec<Arc<[u8]>>) {
        let fails = self.fails();
        for message in messages {
            for reply in support::replies(&message) {
                self.clients[client].hear(&reply, &mut self.logs, fails);
            }
        }
        let Some(link) = &self.links[client] else {
            return;
        };
        if let Some(code) = self.node.ended(link) {
            // The network has checked whether it had to be. A connect command may come too late.
            let is_due = code == 3008 || code == 3502 && self.weather.forgetful;
            assert!(is_due, "a session was ended for no good reason: {code}");
            let link = self.links[client].take().unwrap();
            self.clients[client].disconnected();
            self.bury(&link);
        } else if let Some(frame) = self.clients[client].resubscribe() {
            self.send(client, Some(frame));
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
            38 => 61_000,
            39 => 301_000,
            _ => self.random.below(1000) as u64,
        };
        self.node.pass(Duration::from_millis(milliseconds));
    }

    fn read_tap(&mut self) {
        for delivery in self.tap.take() {
            if let Delivery::Publication {
                channel,
                publication,
                epoch,
                ..
            } = delivery
            {
                let index = CHANNELS.iter().position(|name| **name == *channel).unwrap();
                let number = std::str::from_utf8(&publication.data).unwrap();
                let number = number.parse().unwrap();
                let time = self.node.now.monotonic;
                self.logs[index].append(&epoch, publication.offset, number, time);
            }
        }
    }

    /// The engine does everything at once, so it is known what it had to say.
    fn is_exact(&self) -> bool {
        self.weather.delays.is_none()
    }

    fn fails(&self) -> bool {
        self.weather
            .delays
            .is_some_and(|delays| delays.failures > 0)
    }

    /// What the node has said just now must be true now.
    fn check_node(&mut self) {
        self.read_tap();
        let mut claims = Vec::new();
        for (index, worker) in self.node.workers.iter_mut().enumerate() {
            for (id, message) in worker.net.said.drain(..) {
                let view = self.views.get_mut(&(index, id)).unwrap();
                for reply in support::replies(&message) {
                    claims.extend(view.said(&reply));
                }
            }
            for id in worker.net.ended.drain(..) {
                self.views.get_mut(&(index, id)).unwrap().end();
            }
        }
        for claim in claims {
            self.check_claim(claim);
        }
        if self.is_exact() {
            for channel in 0..CHANNELS.len() {
                let members = self.members(channel);
                assert_eq!(members, self.subscribers(channel), "who is in {channel}");
            }
        }
    }

    fn check_claim(&self, claim: Claim) {
        let now = self.node.now.monotonic;
        match claim {
            Claim::Recovery {
                channel,
                since: (offset, epoch),
                epoch: current,
                recovered,
            } => {
                let log = &self.logs[channel];
                if log.has_history && self.is_exact() {
                    let is_kept =
                        epoch == current && log.keeps_all_behind(offset, &epoch, &HISTORY, now);
                    assert_eq!(recovered, is_kept, "recovery from {offset} in {channel}");
                }
            }
            Claim::Lost {
                channel,
                position: (offset, epoch),
            } => {
                let log = &self.logs[channel];
                let is_kept =
                    epoch == log.epoch() && log.keeps_all_behind(offset, &epoch, &HISTORY, now);
                assert!(
                    !is_kept || self.weather.forgetful,
                    "position {offset} in {channel} is kept and was lost"
                );
            }
            Claim::Presence { channel, who } => {
                if self.is_exact() {
                    assert_eq!(who, self.subscribers(channel), "who is in {channel}");
                }
            }
        }
    }

    /// Connection ids of those whom the node holds to be subscribed.
    fn subscribers(&self, channel: usize) -> BTreeSet<String> {
        let views = self.views.values();
        views
            .filter(|view| view.subscribed.contains_key(&channel))
            .map(|view| view.client.clone())
            .collect()
    }

    /// Who the engine says is in a channel.
    fn members(&self, channel: usize) -> BTreeSet<String> {
        let ticket = Ticket {
            worker: WorkerId(0),
            serial: 0,
        };
        let everybody = support::everybody(CHANNELS[channel]);
        match self.memory.presence(self.node.now, ticket, everybody) {
            Started::Done(page) => {
                let members = page.unwrap().members;
                members.keys().map(ToString::to_string).collect()
            }
            Started::Later => panic!("the memory engine does everything at once"),
        }
    }

    /// Lets everything that was begun come to its end.
    fn come_to_rest(&mut self) {
        while !self.ghosts.is_empty() {
            self.bury_one();
        }
        // An engine in trouble is asked again after a second. A loss at the end is found by the second
        // check of the position, which takes 45.
        let patience = Duration::from_secs(if self.weather.lossy { 120 } else { 5 });
        let end = self.node.now.monotonic + patience;
        for round in 0.. {
            assert!(round < 20_000, "no rest after {round} rounds");
            if self.move_everything() {
                continue;
            }
            let is_settled = self.clients.iter().all(ClientModel::is_settled);
            if is_settled && self.node.now.monotonic >= end {
                break;
            }
            self.node.pass(Duration::from_secs(1));
            self.check_node();
        }
    }

    fn move_everything(&mut self) -> bool {
        let delayed = self.node.delayed.clone();
        let mut any = delayed.is_some_and(|delayed| delayed.step(self.node.now));
        for worker in 0..WORKERS {
            any |= self.node.deliver(worker, |all| all);
            self.check_node();
        }
        for client in 0..CLIENTS {
            any |= self.forward(client, usize::MAX);
            any |= self.carry(client, usize::MAX, |all| all);
        }
        any
    }

    fn check_rest(&self) {
        for (channel, log) in self.logs.iter().enumerate() {
            for number in &log.acknowledged {
                assert!(
                    log.place(*number).is_some(),
                    "{number} was acknowledged and is not there"
                );
            }
            assert!(
                self.fails() || log.entries.len() >= log.started,
                "something was not published"
            );
            for (index, client) in self.clients.iter().enumerate() {
                client.check_rest(index, channel, log, self.weather.lossy);
            }
        }
        for channel in 0..CHANNELS.len() {
            let members = self.members(channel);
            assert_eq!(members, self.subscribers(channel), "who is in {channel}");
            for client in &self.clients {
                client.check_company(channel, &members);
            }
        }
    }

    fn everybody_leaves(&mut self) {
        for client in 0..CLIENTS {
            self.break_connection(client);
        }
        while !self.ghosts.is_empty() {
            self.bury_one();
        }
        while self.move_everything() {}
        for channel in 0..CHANNELS.len() {
            self.publish(0, channel);
        }
        let delayed = self.node.delayed.clone();
        while delayed
            .as_ref()
            .is_some_and(|delayed| delayed.step(self.node.now))
        {}
        for (index, worker) in self.node.workers.iter().enumerate() {
            assert!(worker.inbox.is_fed_nothing(), "worker {index} is still fed");
            assert_eq!(worker.hub.stats(), HubStats::default(), "worker {index}");
        }
        for channel in 0..CHANNELS.len() {
            assert!(self.members(channel).is_empty(), "somebody is left");
        }
    }
}

/// Names the seed of a case that fails.
struct Case(u64, Weather);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() && self.1.fault.is_none() {
            eprintln!("failing case: SIMULATION_SEED={} ({:?})", self.0, self.1);
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

fn tokens() -> Arc<[String]> {
    ["ann", "bob", "eve"].map(|user| token(user, None)).into()
}

fn run(weather: Weather) {
    let (config, tokens) = (config(), tokens());
    let cases = variable("SIMULATION_CASES").unwrap_or(CASES);
    let only = variable("SIMULATION_SEED");
    for seed in only.map_or(0..cases, |seed| seed..seed + 1) {
        let case = Case(seed, weather);
        Simulation::new(seed, weather, &config, tokens.clone()).run(STEPS);
        drop(case);
    }
}

/// Of each kind. All together take some seconds.
const CASES: u64 = 300;
const STEPS: usize = 200;

const FAIR: Weather = Weather {
    delays: None,
    lossy: false,
    forgetful: false,
    slow: false,
    fault: None,
};
const SLOW: Weather = Weather { slow: true, ..FAIR };
const LATER: Option<DelayOptions> = Some(DelayOptions {
    at_once: 20,
    failures: 0,
});

#[test]
fn an_engine_that_answers_at_once() {
    run(FAIR);
}

#[test]
fn readers_that_are_slow() {
    run(SLOW);
}

#[test]
fn an_engine_that_forgets() {
    run(Weather {
        forgetful: true,
        ..SLOW
    });
}

#[test]
fn a_feed_that_loses() {
    run(Weather {
        lossy: true,
        ..SLOW
    });
}

#[test]
fn an_engine_that_answers_later() {
    run(Weather {
        delays: LATER,
        ..SLOW
    });
}

#[test]
fn an_engine_that_fails_now_and_then() {
    let delays = Some(DelayOptions {
        at_once: 20,
        failures: 10,
    });
    run(Weather { delays, ..SLOW });
}

#[test]
fn everything_at_once() {
    run(Weather {
        delays: Some(DelayOptions {
            at_once: 20,
            failures: 5,
        }),
        lossy: true,
        forgetful: true,
        ..SLOW
    });
}

/// What the simulation is good for: each of these faults makes a case of the usual kind fail.
#[test]
fn planted_faults_are_found() {
    let (config, tokens) = (config(), tokens());
    for fault in Fault::ALL {
        let weather = Weather {
            fault: Some(fault),
            ..SLOW
        };
        let is_found = |seed: &u64| {
            let run = || Simulation::new(*seed, weather, &config, tokens.clone()).run(STEPS);
            // On a thread of its own: what it says of its panic belongs to no test that failed.
            std::thread::scope(|scope| scope.spawn(run).join().is_err())
        };
        let found = (0..CASES).find(is_found);
        assert!(found.is_some(), "{fault:?} was not found");
        println!("{fault:?}: found by seed {}", found.unwrap());
    }
}
