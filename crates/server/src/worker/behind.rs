//! A worker that has more to write than a turn is for: it writes in rounds, and what comes meanwhile gathers.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tautline_hub::Outbox as _;
use tokio::task::coop::unconstrained;
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::testing::{Peer, command, pass, publish, settle, worker};
use super::*;
use crate::door::websocket;

const OPEN: &str = "channel.without_namespace.allow_subscribe_for_client = true\n\
    channel.without_namespace.allow_subscribe_for_anonymous = true\n\
    client.allow_anonymous_connect_without_token = true\n\
    client.ping_interval = \"0s\"\n\
    client.rate_limit.client_command.total = \"1000000/s\"\n";

/// Subscribers: more than three turns are for.
const MANY: usize = 3 * WRITES_PER_TURN + 4;

/// Clients that hear `news`, and have read what there was to read.
struct Crowd {
    worker: Rc<Worker>,
    peers: Vec<Peer>,
    ids: Vec<SessionId>,
}

impl Crowd {
    async fn of(count: usize, config: &str) -> Self {
        let worker = worker(config);
        let (mut peers, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (mut peer, id) = Peer::directly(&worker);
            command(&worker, id, r#"{"id":1,"connect":{}}"#);
            command(&worker, id, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
            while worker.state.borrow().connections.is_writing() {
                own_turn(&worker);
            }
            assert_eq!(unconstrained(peer.heard()).await.len(), 2);
            peer.messages = 0;
            peers.push(peer);
            ids.push(id);
        }
        Self { worker, peers, ids }
    }

    /// What each has heard since this was last asked.
    async fn heard(&mut self) -> Vec<Vec<Value>> {
        let mut all = Vec::new();
        for peer in &mut self.peers {
            // Tokio would have the test wait for its next turn after so many reads.
            let heard = unconstrained(peer.heard()).await;
            let data = heard
                .into_iter()
                .map(|message| message["push"]["pub"]["data"].clone());
            all.push(data.collect());
        }
        all
    }

    /// How many were written to since this was last asked.
    async fn reached(&mut self) -> usize {
        let heard = self.heard().await;
        heard.iter().filter(|heard| !heard.is_empty()).count()
    }
}

/// A turn in which the worker goes on with what is left, as its own task has them.
fn own_turn(worker: &Worker) {
    worker.goes_on.set(true);
    worker.turn(|_, _| ());
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<Value> {
    range.map(Value::from).collect()
}

#[tokio::test(start_paused = true)]
async fn what_comes_within_a_round_leaves_together_behind_it() {
    let test = async {
        let mut crowd = Crowd::of(MANY, OPEN).await;
        let worker = Rc::clone(&crowd.worker);
        publish(&worker, "news", "1");
        assert_eq!(crowd.reached().await, WRITES_PER_TURN, "at once");
        for number in 2..=10 {
            publish(&worker, "news", &number.to_string());
        }
        assert_eq!(crowd.reached().await, 0, "they wait");
        spawn_local(async move { worker.run().await });
        settle().await;
        for (place, heard) in crowd.heard().await.into_iter().enumerate() {
            let first = if place < WRITES_PER_TURN { 2 } else { 1 };
            assert_eq!(heard, numbers(first..=10), "{place}");
            assert_eq!(crowd.peers[place].messages, 2, "one, and all others");
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn who_has_few_subscribers_never_waits() {
    let test = async {
        let mut crowd = Crowd::of(WRITES_PER_TURN, OPEN).await;
        for number in 1..=3 {
            publish(&crowd.worker, "news", &number.to_string());
            let heard = crowd.heard().await;
            assert!(
                heard.iter().all(|heard| *heard == numbers(number..=number)),
                "{heard:?}"
            );
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn others_have_their_turn_within_a_round() {
    let test = async {
        let count = 2 * MANY;
        let crowd = Crowd::of(count, OPEN).await;
        let worker = Rc::clone(&crowd.worker);
        let written = |worker: &Worker, ids: &[SessionId]| {
            let connections = &worker.state.borrow().connections;
            ids.iter().map(|id| connections.written(*id)).sum::<u64>()
        };
        let before = written(&worker, &crowd.ids);
        publish(&worker, "news", "1");
        let a_turn = written(&worker, &crowd.ids) - before;
        let all = before + a_turn / WRITES_PER_TURN as u64 * count as u64;
        let at_work = Rc::clone(&worker);
        spawn_local(async move { at_work.run().await });
        let (turns, ids) = (Rc::new(Cell::new(0)), crowd.ids.clone());
        let counted = Rc::clone(&turns);
        let other = spawn_local(async move {
            let mut last = written(&worker, &ids);
            while last < all {
                yield_now().await;
                let now = written(&worker, &ids);
                // Of two who wait for the next turn, now the one is first and now the other.
                assert!(now - last <= 2 * a_turn, "{} at once", now - last);
                counted.set(counted.get() + 1);
                last = now;
            }
        });
        other.await.expect("it does nothing wrong");
        assert!(turns.get() >= 3, "{} turns", turns.get());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_client_asks_is_answered_within_a_round() {
    let test = async {
        let crowd = Crowd::of(MANY, OPEN).await;
        let (mut peer, opened) = Peer::new();
        let served = Rc::clone(&crowd.worker);
        spawn_local(async move { websocket::serve(&served, opened).await });
        peer.send(r#"{"id":1,"connect":{}}"#).await;
        peer.send(r#"{"id":2,"subscribe":{"channel":"news"}}"#)
            .await;
        settle().await;
        assert_eq!(peer.heard().await.len(), 2);
        publish(&crowd.worker, "news", "1");
        assert!(crowd.worker.state.borrow().connections.is_writing());
        // Nobody goes on with the round, and it comes at its end.
        assert_eq!(peer.heard().await, [] as [Value; 0]);
        peer.send(r#"{"id":3,"unsubscribe":{"channel":"other"}}"#)
            .await;
        settle().await;
        let heard = peer.heard().await;
        assert_eq!(heard[0]["push"]["pub"]["data"], json!(1), "{heard:?}");
        assert_eq!(heard[1..], [json!({"id": 3, "unsubscribe": {}})]);
        // And nothing comes twice.
        while crowd.worker.state.borrow().connections.is_writing() {
            own_turn(&crowd.worker);
        }
        assert_eq!(peer.heard().await, [] as [Value; 0]);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_round_ends_whoever_has_something_to_say_meanwhile() {
    let test = async {
        let mut crowd = Crowd::of(MANY, OPEN).await;
        let worker = Rc::clone(&crowd.worker);
        publish(&worker, "news", "1");
        publish(&worker, "news", "2");
        let mut turns = 0;
        let second = |heard: &Vec<Value>| heard.contains(&json!(2));
        while !crowd.heard().await.iter().any(second) {
            assert!(turns <= MANY / WRITES_PER_TURN, "{turns} turns");
            for id in &crowd.ids {
                command(&worker, *id, r#"{"id":3,"unsubscribe":{"channel":"a"}}"#);
            }
            own_turn(&worker);
            turns += 1;
        }
    };
    LocalSet::new().run_until(test).await;
}

/// Somebody who publishes without an end, on a worker that can't write as much.
#[tokio::test(start_paused = true)]
async fn who_publishes_too_far_ahead_waits_for_the_round() {
    let test = async {
        let mut crowd = Crowd::of(MANY, OPEN).await;
        let worker = Rc::clone(&crowd.worker);
        let long = format!("\"{}\"", "x".repeat(10_000));
        let most = MAX_GATHERED / long.len();
        let mut published = 0;
        loop {
            publish(&worker, "news", &long);
            published += 1;
            let waiting = worker.mailbox.bytes();
            assert!(waiting <= MAX_GATHERED + 2 * long.len(), "{waiting}");
            if published > 1 && waiting == 0 {
                break;
            }
        }
        assert!(published >= most, "{published}");
        assert!(!worker.state.borrow().connections.is_writing());
        for (place, heard) in crowd.heard().await.into_iter().enumerate() {
            assert_eq!(heard.len(), published, "{place}");
        }
    };
    LocalSet::new().run_until(test).await;
}

/// A client that reads all it gets isn't taken for a slow one because much has gathered.
#[tokio::test(start_paused = true)]
async fn what_has_gathered_is_never_too_much_for_a_queue() {
    let test = async {
        let config = format!("{OPEN}client.queue_max_size = 65536\n");
        let mut crowd = Crowd::of(MANY, &config).await;
        let worker = Rc::clone(&crowd.worker);
        let long = format!("\"{}\"", "x".repeat(1_000));
        for _ in 0..150 {
            publish(&worker, "news", &long);
        }
        assert!(worker.mailbox.bytes() > 2 * 65536);
        spawn_local(async move { worker.run().await });
        for _ in 0..50 {
            settle().await;
        }
        for (place, heard) in crowd.heard().await.into_iter().enumerate() {
            assert_eq!(heard.len(), 150, "{place}");
        }
        assert!(crowd.peers.iter().all(|peer| peer.messages < 50));
    };
    LocalSet::new().run_until(test).await;
}

/// Whatever others do with their time, half of it is for writing.
#[tokio::test(start_paused = true)]
async fn the_longer_others_take_the_more_is_written() {
    let test = async {
        let mut crowd = Crowd::of(MANY + 2 * WRITES_PER_TURN, OPEN).await;
        let worker = Rc::clone(&crowd.worker);
        publish(&worker, "news", "1");
        assert_eq!(crowd.reached().await, WRITES_PER_TURN);
        own_turn(&worker);
        assert_eq!(crowd.reached().await, WRITES_PER_TURN);
        let writes = 2 * WRITES_PER_TURN + 10;
        tokio::time::advance(A_WRITE * u32::try_from(writes).expect("few")).await;
        own_turn(&worker);
        assert_eq!(crowd.reached().await, writes);
        own_turn(&worker);
        let left = MANY + 2 * WRITES_PER_TURN - 2 * WRITES_PER_TURN - writes;
        assert_eq!(crowd.reached().await, left.min(WRITES_PER_TURN));
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_publication_counts_as_written_when_all_have_it() {
    let test = async {
        let mut crowd = Crowd::of(MANY, OPEN).await;
        let worker = Rc::clone(&crowd.worker);
        let told = || worker.state.borrow().deliveries.total().0;
        let before = told();
        publish(&worker, "news", "1");
        let written = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&written);
        worker.turn(move |_, state| {
            state.when_written(Box::new(move |_, _| {
                tell.store(true, Ordering::Relaxed);
            }));
        });
        let mut reached = 0;
        while reached < MANY {
            reached += crowd.reached().await;
            let is_told = written.load(Ordering::Relaxed);
            assert_eq!(is_told, reached == MANY, "after {reached}");
            assert_eq!(told() - before, u64::from(is_told), "after {reached}");
            own_turn(&worker);
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_time_leaves_in_rounds_too() {
    const DELAY: Duration = Duration::from_millis(300);
    let test = async {
        let config = format!("{OPEN}client.write_delay = \"300ms\"\n");
        let mut crowd = Crowd::of(0, &config).await;
        let worker = Rc::clone(&crowd.worker);
        let at_work = Rc::clone(&worker);
        spawn_local(async move { at_work.run().await });
        for _ in 0..MANY {
            let (mut peer, id) = Peer::directly(&worker);
            command(&worker, id, r#"{"id":1,"connect":{}}"#);
            command(&worker, id, r#"{"id":2,"subscribe":{"channel":"news"}}"#);
            pass(2 * DELAY).await;
            assert_eq!(unconstrained(peer.heard()).await.len(), 2);
            crowd.peers.push(peer);
        }
        publish(&worker, "news", "1");
        pass(DELAY / 2).await;
        publish(&worker, "news", "2");
        assert_eq!(crowd.reached().await, 0);
        pass(DELAY).await;
        let heard = crowd.heard().await;
        assert!(
            heard.iter().all(|heard| *heard == numbers(1..=2)),
            "{heard:?}"
        );
        // What comes behind it has its own time.
        publish(&worker, "news", "3");
        pass(DELAY / 2).await;
        assert_eq!(crowd.reached().await, 0);
        pass(DELAY).await;
        assert_eq!(crowd.reached().await, MANY);
    };
    LocalSet::new().run_until(test).await;
}
