//! Publishers who are faster than a worker with subscribers: what waits for that worker is bounded, nobody else waits, and
//! all is delivered in the end.

use std::pin::{Pin, pin};
use std::task::{Context, Waker};

use tautline_hub::ApiPublish;
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::mailbox::MAX_WAITING;
use super::testing::{Peer, command, settle, workers};
use super::*;
use crate::door::websocket;

const OPEN: &str = "channel.without_namespace.allow_subscribe_for_client = true\n\
    channel.without_namespace.allow_subscribe_for_anonymous = true\n\
    channel.without_namespace.allow_publish_for_client = true\n\
    channel.without_namespace.allow_publish_for_anonymous = true\n\
    client.allow_anonymous_connect_without_token = true\n\
    client.queue_max_size = 16777216\n\
    client.ping_interval = \"0s\"\n";

const LONG: usize = 10_000;

/// More than a worker has room for.
const MANY: usize = 3 * MAX_WAITING / LONG;

/// Somebody who hears a channel of that name.
async fn subscriber(worker: &Worker, channel: &str) -> Peer {
    let (mut peer, id) = Peer::directly(worker);
    command(worker, id, r#"{"id":1,"connect":{}}"#);
    let subscribe = format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#);
    command(worker, id, &subscribe);
    assert_eq!(unconstrained(peer.heard()).await.len(), 2);
    peer
}

/// A client with a task of its own.
async fn client(worker: &Rc<Worker>) -> Peer {
    let (mut peer, opened) = Peer::new();
    let served = Rc::clone(worker);
    spawn_local(async move { websocket::serve(&served, opened).await });
    peer.send(r#"{"id":1,"connect":{}}"#).await;
    settle().await;
    assert_eq!(peer.heard().await.len(), 1);
    peer
}

fn long(number: usize) -> String {
    format!("\"{number:0>LONG$}\"")
}

async fn send_many(peer: &mut Peer, channel: &str, count: usize) {
    for number in 0..count {
        let (id, data) = (number + 2, long(number));
        let publish = format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":{data}}}}}"#);
        peer.send(&publish).await;
    }
}

/// What a subscriber has heard, as the numbers that were published.
async fn numbers(peer: &mut Peer) -> Vec<usize> {
    let heard = unconstrained(peer.heard()).await;
    let data = heard.iter().map(|message| {
        let data = message["push"]["pub"]["data"].as_str();
        data.expect("a publication").parse().expect("a number")
    });
    data.collect()
}

/// Publishes by the API, and tells when that is answered.
fn publish(worker: &Worker, channel: &str, number: usize) -> oneshot::Receiver<()> {
    let (answer, answered) = oneshot::channel();
    let request = ApiPublish {
        channel: channel.into(),
        data: long(number).into(),
        ..ApiPublish::default()
    };
    worker.turn(|now, state| {
        let done = room::when_taken(move |result: Result<_, _>| {
            assert!(result.is_ok());
            let _ = answer.send(());
        });
        state.hub.api_publish(now, request, done);
    });
    answered
}

/// A turn of its own, as the worker's task has them.
fn own_turn(worker: &Worker) {
    worker.goes_on.set(true);
    worker.turn(|_, _| ());
}

fn is_over(waiting: Pin<&mut impl Future<Output = ()>>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    waiting.poll(&mut cx).is_ready()
}

/// Has a test fail that would go on for ever.
struct Turns(usize);

impl Turns {
    /// So many are enough for all that there is.
    const ENOUGH: Self = Self(100_000);
    /// For publications, which take memory if they are not bounded.
    const FEW: Self = Self(10 * MANY);

    fn next(&mut self) {
        assert!(self.0 > 0, "it doesn't come to an end");
        self.0 -= 1;
    }
}

fn has_room(worker: &Worker) -> bool {
    worker.mailbox.memory() <= MAX_WAITING
}

#[tokio::test(start_paused = true)]
async fn a_client_is_not_read_while_another_worker_is_behind() {
    let test = async {
        let [here, behind] = workers(OPEN);
        let mut reader = subscriber(&behind, "news").await;
        let (mut publisher, mut other) = (client(&here).await, client(&here).await);
        let at_work = Rc::clone(&here);
        spawn_local(async move { at_work.run().await });
        send_many(&mut publisher, "news", MANY).await;
        for _ in 0..50 {
            settle().await;
        }
        // One more than there is room for, and no other.
        let memory = behind.mailbox.memory();
        assert!(memory <= MAX_WAITING + LONG + 1_000, "{memory}");
        assert!(!has_room(&behind));
        let answered = publisher.heard().await.len();
        assert!((MANY / 4..MANY / 2).contains(&answered), "{answered}");
        assert_eq!(here.state.borrow().hub.counters().held_up, 1);
        // Who publishes for others goes on.
        send_many(&mut other, "elsewhere", MANY).await;
        for _ in 0..50 {
            settle().await;
        }
        assert_eq!(other.heard().await.len(), MANY);
        // The worker gets its turns, and whatever it takes is followed by more.
        spawn_local(async move { behind.run().await });
        let (mut heard, mut answers) = (Vec::new(), answered);
        let mut turns = Turns::ENOUGH;
        while heard.len() < MANY {
            turns.next();
            yield_now().await;
            heard.extend(numbers(&mut reader).await);
            answers += publisher.heard().await.len();
        }
        assert!(heard.into_iter().eq(0..MANY), "all, in order");
        settle().await;
        assert_eq!(answers + publisher.heard().await.len(), MANY);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_is_answered_when_a_worker_that_is_behind_has_room() {
    let test = async {
        let [here, behind] = workers(OPEN);
        let mut reader = subscriber(&behind, "news").await;
        let (mut published, mut turns) = (0, Turns::FEW);
        let waiting = loop {
            turns.next();
            let mut answered = publish(&here, "news", published);
            published += 1;
            if answered.try_recv().is_err() {
                break answered;
            }
            assert!(has_room(&behind));
        };
        let memory = behind.mailbox.memory();
        assert!(memory <= MAX_WAITING + LONG + 1_000, "{memory}");
        assert_eq!(behind.mailbox.room().calls(), 1);
        let mut elsewhere = publish(&here, "elsewhere", 0);
        assert!(
            elsewhere.try_recv().is_ok(),
            "nobody is there who is behind"
        );
        let mut waiting = vec![waiting, publish(&here, "news", published)];
        published += 1;
        let mut turns = Turns::ENOUGH;
        while !waiting.is_empty() {
            turns.next();
            own_turn(&behind);
            waiting.retain_mut(|waiting| waiting.try_recv().is_err());
            let is_told = waiting.len() < 2;
            assert!(!is_told || behind.mailbox.memory() <= MAX_WAITING / 2);
        }
        while behind.mailbox.memory() > 0 {
            turns.next();
            own_turn(&behind);
        }
        assert!(numbers(&mut reader).await.into_iter().eq(0..published));
        assert!(publish(&here, "news", published).try_recv().is_ok());
    };
    LocalSet::new().run_until(test).await;
}

/// Each publishes for the other, and neither has had a turn for what it got.
#[tokio::test(start_paused = true)]
async fn two_workers_that_are_behind_do_not_wait_for_each_other() {
    let test = async {
        let both: [_; 2] = workers(OPEN);
        let [mut one, mut other] = [
            subscriber(&both[0], "for 0").await,
            subscriber(&both[1], "for 1").await,
        ];
        let mut publishers = [client(&both[0]).await, client(&both[1]).await];
        for (publisher, channel) in publishers.iter_mut().zip(["for 1", "for 0"]) {
            send_many(publisher, channel, MANY).await;
        }
        for worker in &both {
            let worker = Rc::clone(worker);
            spawn_local(async move { worker.run().await });
        }
        let (mut heard, mut turns) = ([0, 0], Turns::ENOUGH);
        while heard != [MANY, MANY] {
            turns.next();
            yield_now().await;
            heard[0] += numbers(&mut one).await.len();
            heard[1] += numbers(&mut other).await.len();
            assert!(
                both.iter()
                    .all(|worker| worker.mailbox.memory() < 2 * MAX_WAITING)
            );
        }
    };
    LocalSet::new().run_until(test).await;
}

/// A worker that has ended takes nothing, and nobody waits for it.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_worker_that_has_ended() {
    let test = async {
        let [here, behind] = workers(OPEN);
        let _reader = subscriber(&behind, "news").await;
        let mut turns = Turns::FEW;
        let mut waiting = loop {
            turns.next();
            let mut answered = publish(&here, "news", 0);
            if answered.try_recv().is_err() {
                break answered;
            }
        };
        behind.mailbox.close();
        assert!(waiting.try_recv().is_ok());
        for _ in 0..MANY {
            assert!(publish(&here, "news", 0).try_recv().is_ok());
        }
        assert_eq!(behind.mailbox.memory(), 0);
    };
    LocalSet::new().run_until(test).await;
}

/// Callers who don't wait to be answered get far ahead, and no further.
#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_does_not_get_ahead_without_an_end() {
    let test = async {
        let [here, behind] = workers(OPEN);
        let mut reader = subscriber(&behind, "news").await;
        let room = behind.mailbox.room();
        let (mut published, mut turns) = (0, Turns::FEW);
        while !room.is_overrun() {
            turns.next();
            drop(publish(&here, "news", published));
            published += 1;
        }
        let memory = behind.mailbox.memory();
        assert!(memory <= 5 * MAX_WAITING, "{memory}");
        let mut waiting = pin!(room.freed());
        assert!(!is_over(waiting.as_mut()));
        let (mut heard, mut turns) = (0, Turns::ENOUGH);
        while heard < published {
            turns.next();
            own_turn(&behind);
            heard += numbers(&mut reader).await.len();
        }
        assert!(is_over(waiting.as_mut()) && !room.is_overrun());
    };
    LocalSet::new().run_until(test).await;
}

/// What a message takes is more than its data.
#[tokio::test(start_paused = true)]
async fn short_messages_take_room_too() {
    let test = async {
        let [here, behind] = workers(OPEN);
        let _reader = subscriber(&behind, "news").await;
        let (mut published, mut turns) = (0, Turns::ENOUGH);
        while has_room(&behind) {
            turns.next();
            testing::publish(&here, "news", "1");
            published += 1;
        }
        assert!((2_000..10_000).contains(&published), "{published}");
    };
    LocalSet::new().run_until(test).await;
}
