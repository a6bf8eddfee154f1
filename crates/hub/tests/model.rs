//! Hubs, sessions and the engine against a naive model: random commands, drops, reconnects with
//! recovery, time, and mailboxes delivered piece by piece in any interleaving.
//!
//! The model knows two things. The *log* of a channel is what a worker of its own, attached from
//! the start, was fed: what was published, in which order. And each client keeps what any SDK does:
//! which subscriptions it has, and the position of each. From these follows what a client may hear
//! next, and what it must have heard when all is quiet:
//!
//! - every command is answered once, in order;
//! - publications come in order, none is missing, none comes twice, none is altered;
//! - `recovered` is said if and only if nothing is missing;
//! - a subscription ends as incomplete only if something was lost or the stream began anew;
//! - presence is who is subscribed; joins and leaves take turns and end with the truth;
//! - what was acknowledged is there;
//! - nothing is left when everybody is gone.
//!
//! A failing case prints its seed. `MODEL_SEED=<seed>` runs that case alone,
//! `MODEL_CASES=<number>` another number of cases.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "JSON is made where it is used"
)]

#[path = "model/client.rs"]
mod client;
#[path = "model/log.rs"]
mod log;
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tautline_hub::config::{ChannelOptions, ClientOptions, NamespaceOptions};
use tautline_hub::engine::testkit::{DelayOptions, Seeded};
use tautline_hub::engine::{Delivery, HistoryOptions, WorkerId};
use tautline_hub::{ApiPublish, HubStats};

use self::client::{ClientModel, Heard};
use self::log::Log;
use self::support::{Inbox, Setup, World, token};

/// What makes life hard in a run.
#[derive(Clone, Copy, Debug)]
struct Weather {
    delays: Option<DelayOptions>,
    /// Publications are lost on their way to a mailbox.
    lossy: bool,
    /// Time passes beyond the life of histories and of positions.
    forgetful: bool,
}

const WORKERS: usize = 3;
const CLIENTS: usize = 5;
const CHANNELS: [&str; 3] = ["room:a", "room:b", "plain:a"];

const HISTORY: HistoryOptions = HistoryOptions {
    size: 8,
    ttl: Duration::from_secs(60),
    meta_ttl: Duration::from_secs(300),
};

struct Model {
    world: World,
    weather: Weather,
    random: Seeded,
    clients: Vec<ClientModel>,
    logs: Vec<Log>,
    tap: Arc<Inbox>,
    next_number: u64,
    tokens: Arc<[String]>,
}

impl Model {
    fn new(seed: u64, weather: Weather, tokens: Arc<[String]>) -> Self {
        let client = ClientOptions {
            ping_interval: Duration::ZERO,
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
        let plain = NamespaceOptions {
            name: "plain".into(),
            ..base
        };
        let channel = ChannelOptions {
            namespaces: vec![room, plain],
            ..ChannelOptions::default()
        };
        let delays = weather.delays;
        let world = World::with(Setup {
            workers: WORKERS,
            client,
            channel,
            delays,
            seed,
        });
        let tap = Arc::new(Inbox::default());
        let worker = WorkerId(WORKERS as u16);
        world.memory.register(worker, tap.clone());
        for channel in CHANNELS {
            world.attach_directly(worker, channel);
        }
        Self {
            world,
            weather,
            random: Seeded::new(seed),
            clients: (0..CLIENTS)
                .map(|_| ClientModel::new(CHANNELS.len()))
                .collect(),
            logs: CHANNELS
                .map(|channel| Log::new(channel.starts_with("room")))
                .into(),
            tap,
            next_number: 0,
            tokens,
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
            self.listen();
        }
        self.come_to_rest();
        self.check_rest();
        self.everybody_leaves();
    }

    fn step(&mut self) {
        let client = self.random.below(CLIENTS);
        let channel = self.random.below(CHANNELS.len());
        match self.random.below(100) {
            0..8 => self.drop(client),
            8..30 => self.toggle(client, channel),
            30..55 => self.publish(client, channel),
            55..61 => self.ask(client, channel),
            61..82 => self.deliver(),
            82..92 => self.let_engine_work(),
            92..95 if self.weather.lossy => self.lose(),
            _ => self.pass_time(),
        }
    }

    /// Connects if need be; all that is wanted is subscribed to in the first frame.
    fn toggle(&mut self, client: usize, channel: usize) {
        let model = &mut self.clients[client];
        if model.connection.is_none() {
            let worker = self.random.below(WORKERS);
            let connection = self.world.open(worker);
            let token = &self.tokens[client % self.tokens.len()];
            let frame = model.connect(connection, token);
            return self.world.send_only(connection, &frame);
        }
        if let Some(frame) = model.toggle(channel, &mut self.random) {
            self.world.send_only(model.connection.unwrap(), &frame);
        }
    }

    fn drop(&mut self, client: usize) {
        if let Some(connection) = self.clients[client].connection {
            self.world.drop_connection(connection);
            self.clients[client].disconnected();
        }
    }

    fn publish(&mut self, client: usize, channel: usize) {
        self.next_number += 1;
        let number = self.next_number;
        self.logs[channel].started += 1;
        match self.clients[client].publish(channel, number) {
            Some((connection, frame)) => self.world.send_only(connection, &frame),
            None => {
                let request = ApiPublish {
                    channel: CHANNELS[channel].into(),
                    data: number.to_string().into(),
                    ..ApiPublish::default()
                };
                let now = self.world.now;
                let worker = self.random.below(WORKERS);
                let fails = self.fails();
                let done = move |result: Result<_, _>| assert!(fails || result.is_ok());
                self.world.workers[worker]
                    .hub
                    .api_publish(now, request, done);
            }
        }
    }

    /// Asks for presence or history.
    fn ask(&mut self, client: usize, channel: usize) {
        let history = self.random.chance(50) && self.logs[channel].has_history;
        let since = self.random.below(20) as u64;
        if let Some((connection, frame)) = self.clients[client].ask(channel, history, since) {
            self.world.send_only(connection, &frame);
        }
    }

    /// Delivers a part of one mailbox, from the front.
    fn deliver(&mut self) {
        let worker = self.random.below(WORKERS);
        let mut batch = self.world.workers[worker].inbox.take();
        let rest = batch.split_off(self.random.below(batch.len() + 1));
        self.world.workers[worker].inbox.put_back(rest);
        let worker = &mut self.world.workers[worker];
        worker
            .hub
            .deliver(self.world.now, &mut batch, &mut worker.out);
    }

    fn let_engine_work(&mut self) {
        let Some(delayed) = &self.world.delayed else {
            return self.deliver();
        };
        for _ in 0..self.random.below(12) {
            delayed.step(self.world.now);
        }
    }

    /// Loses one publication on its way to one worker.
    fn lose(&mut self) {
        let worker = self.random.below(WORKERS);
        let mut batch = self.world.workers[worker].inbox.take();
        let is_publication = |delivery: &Delivery| matches!(delivery, Delivery::Publication { .. });
        if let Some(place) = batch.iter().position(is_publication) {
            batch.remove(place);
        }
        self.world.workers[worker].inbox.put_back(batch);
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
        self.pass(Duration::from_millis(milliseconds));
    }

    fn pass(&mut self, time: Duration) {
        self.world.now.monotonic += time;
        self.world.now.unix += time;
        for worker in &mut self.world.workers {
            worker.hub.on_deadline(self.world.now, &mut worker.out);
        }
    }

    /// Lets every client hear what it was told, and react as an SDK does, until nobody has anything
    /// to say.
    fn listen(&mut self) {
        loop {
            self.read_tap();
            let mut is_quiet = true;
            for client in 0..CLIENTS {
                is_quiet &= !self.listen_to(client);
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Returns whether the client did something about what it heard.
    fn listen_to(&mut self, client: usize) -> bool {
        let Some(connection) = self.clients[client].connection else {
            return false;
        };
        for message in self.world.heard(connection) {
            let fails = self.fails();
            match self.clients[client].hear(&message, &mut self.logs, fails) {
                Heard::Nothing => {}
                Heard::Subscribed { channel, since } => self.check_begin(client, channel, since),
                Heard::Incomplete(channel) => self.check_incomplete(client, channel),
                Heard::Presence(channel, who) => self.check_presence(channel, &who),
            }
        }
        if let Some((code, _)) = self.world.closed(connection) {
            assert_eq!(code, 3010, "a session was ended for no good reason");
            assert!(
                self.may_be_incomplete(),
                "nothing was lost, the stream is the same"
            );
            self.clients[client].disconnected();
            return false;
        }
        let Some(frame) = self.clients[client].resubscribe() else {
            return false;
        };
        self.world.send_only(connection, &frame);
        true
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
                let number = std::str::from_utf8(&publication.data)
                    .unwrap()
                    .parse()
                    .unwrap();
                let time = self.world.now.monotonic;
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

    fn may_be_incomplete(&self) -> bool {
        self.weather.lossy || self.weather.forgetful
    }

    fn check_begin(&self, client: usize, channel: usize, since: Option<(u64, String)>) {
        let log = &self.logs[channel];
        let subscription = &self.clients[client].subscriptions[channel];
        if !self.is_exact() || !log.has_history {
            return;
        }
        if let Some((offset, epoch)) = since
            && epoch == subscription.epoch
        {
            let is_kept = log.keeps_all_behind(offset, &epoch, &HISTORY, self.world.now.monotonic);
            assert_eq!(
                subscription.recovered, is_kept,
                "recovery from {offset} in {channel}"
            );
        }
    }

    fn check_incomplete(&self, client: usize, channel: usize) {
        assert!(
            self.may_be_incomplete(),
            "client {client} lost channel {channel} for no reason"
        );
    }

    fn check_presence(&self, channel: usize, who: &BTreeSet<String>) {
        if self.is_exact() {
            // What was asked is answered at once, so nothing happened since.
            assert_eq!(
                *who,
                self.subscribers(channel),
                "presence of {}",
                CHANNELS[channel]
            );
        }
    }

    /// Connection ids of those who are subscribed.
    fn subscribers(&self, channel: usize) -> BTreeSet<String> {
        let clients = self.clients.iter();
        clients
            .filter(|client| client.subscriptions[channel].is_live())
            .map(|client| client.id.clone())
            .collect()
    }

    /// Lets everything that was begun come to its end.
    fn come_to_rest(&mut self) {
        for round in 0.. {
            assert!(round < 50, "no rest after {round} rounds");
            self.world.settle();
            self.listen();
            // Positions are checked every forty seconds, and a suspicion a little later.
            self.pass(Duration::from_secs(if self.weather.lossy { 20 } else { 1 }));
            let is_quiet =
                self.world.is_quiet() && self.clients.iter().all(ClientModel::is_settled);
            if is_quiet && (round > 5 || !self.weather.lossy) {
                return;
            }
        }
    }

    fn check_rest(&mut self) {
        for (channel, log) in self.logs.iter().enumerate() {
            let published = log.entries.len();
            assert!(
                published <= log.started,
                "more was published than was asked for"
            );
            assert!(
                self.fails() || published == log.started,
                "something was not published"
            );
            for number in &log.acknowledged {
                assert!(
                    log.place(*number).is_some(),
                    "{number} was acknowledged and is not there"
                );
            }
            for (index, client) in self.clients.iter().enumerate() {
                client.check_rest(index, channel, log, self.weather.lossy);
            }
        }
        for (channel, name) in CHANNELS.into_iter().enumerate() {
            let members = self.world.members(name);
            assert_eq!(members, self.subscribers(channel), "presence of {name}");
            for client in &self.clients {
                client.check_company(channel, &members);
            }
        }
    }

    fn everybody_leaves(&mut self) {
        for client in 0..CLIENTS {
            self.drop(client);
        }
        self.world.settle();
        for channel in 0..CHANNELS.len() {
            self.publish(0, channel);
        }
        while self
            .world
            .delayed
            .as_ref()
            .is_some_and(|delayed| delayed.step(self.world.now))
        {}
        for (index, worker) in self.world.workers.iter().enumerate() {
            assert!(worker.inbox.is_fed_nothing(), "worker {index} is still fed");
            assert_eq!(worker.hub.stats(), HubStats::default(), "worker {index}");
        }
        for channel in CHANNELS {
            assert!(
                self.world.members(channel).is_empty(),
                "somebody is left in {channel}"
            );
        }
    }
}

/// Names the seed of a case that fails.
struct Case(u64, Weather);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failing case: MODEL_SEED={} ({:?})", self.0, self.1);
        }
    }
}

fn run(cases: u64, weather: Weather) {
    let only = std::env::var("MODEL_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let tokens: Arc<[String]> = ["ann", "bob", "eve"].map(|user| token(user, None)).into();
    for seed in only.map_or(0..cases, |seed| seed..seed + 1) {
        let case = Case(seed, weather);
        Model::new(seed, weather, tokens.clone()).run(120);
        drop(case);
    }
}

const FAIR: Weather = Weather {
    delays: None,
    lossy: false,
    forgetful: false,
};
const SLOW: Option<DelayOptions> = Some(DelayOptions {
    at_once: 20,
    failures: 0,
});

#[test]
fn an_engine_that_answers_at_once() {
    run(200, FAIR);
}

#[test]
fn an_engine_that_forgets() {
    run(
        200,
        Weather {
            forgetful: true,
            ..FAIR
        },
    );
}

#[test]
fn a_feed_that_loses() {
    run(
        200,
        Weather {
            lossy: true,
            ..FAIR
        },
    );
}

#[test]
fn an_engine_that_answers_later() {
    run(
        200,
        Weather {
            delays: SLOW,
            ..FAIR
        },
    );
}

#[test]
fn an_engine_that_fails_now_and_then() {
    let delays = Some(DelayOptions {
        at_once: 20,
        failures: 10,
    });
    run(200, Weather { delays, ..FAIR });
}

#[test]
fn everything_at_once() {
    run(
        200,
        Weather {
            delays: Some(DelayOptions {
                at_once: 20,
                failures: 5,
            }),
            lossy: true,
            forgetful: true,
        },
    );
}
