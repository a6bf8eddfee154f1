//! What waits for more leaves in its time, and turns end although there is more to do.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::mailbox::WorkerMailbox;
use super::testing::{Peer, command, pass, publish, settle, worker};
use super::*;
use crate::door::websocket;

const DELAY: Duration = Duration::from_millis(300);

const OPEN: &str = "channel.without_namespace.allow_subscribe_for_client = true\n\
    channel.without_namespace.allow_subscribe_for_anonymous = true\n\
    client.allow_anonymous_connect_without_token = true\n";

/// A worker at work, and a subscriber of `news` with a task of its own.
async fn subscribed(config: &str) -> (Rc<Worker>, Peer) {
    let worker = worker(config);
    let at_work = Rc::clone(&worker);
    spawn_local(async move { at_work.run().await });
    let (mut peer, opened) = Peer::new();
    let served = Rc::clone(&worker);
    spawn_local(async move { websocket::serve(&served, opened).await });
    peer.send(r#"{"id":1,"connect":{}}"#).await;
    peer.send(r#"{"id":2,"subscribe":{"channel":"news"}}"#)
        .await;
    settle().await;
    let heard = peer.heard().await;
    assert!(heard[1]["subscribe"].is_object(), "{heard:?}");
    (worker, peer)
}

/// Of pushes, what was published.
fn published(heard: &[Value]) -> Vec<u64> {
    let pushes = heard.iter();
    pushes
        .filter_map(|message| message["push"]["pub"]["data"].as_u64())
        .collect()
}

/// Waits for publications, and tells how long that took.
async fn next(peer: &mut Peer) -> (Vec<u64>, Duration) {
    let begun = Instant::now();
    loop {
        let heard = published(&peer.heard().await);
        if !heard.is_empty() || begun.elapsed() > 4 * DELAY {
            return (heard, begun.elapsed());
        }
        pass(Duration::from_millis(1)).await;
    }
}

fn delayed() -> String {
    // Nothing else wakes the worker but what it does once a second.
    format!("{OPEN}client.write_delay = \"300ms\"\nclient.ping_interval = \"0s\"\n")
}

#[tokio::test(start_paused = true)]
async fn a_lone_publication_leaves_when_its_time_has_come() {
    let test = async {
        let (worker, mut peer) = subscribed(&delayed()).await;
        for (number, pause) in [(1, 0), (2, 37), (3, 450), (4, 1)] {
            pass(Duration::from_millis(pause)).await;
            publish(&worker, "news", &number.to_string());
            settle().await;
            let (heard, waited) = next(&mut peer).await;
            assert_eq!(heard, [number]);
            // The clock of timers is as coarse as that.
            let due = DELAY..=DELAY + Duration::from_millis(1);
            assert!(due.contains(&waited), "{number} came after {waited:?}");
        }
        // What is told of how long that takes has the waiting in it. Some of them are timed, the first in any case.
        let (count, sum) = worker.state.borrow().deliveries.total();
        let all = DELAY * u32::try_from(count).expect("few");
        assert!(count > 0);
        assert!(sum >= all && sum < 2 * all, "{count} took {sum:?}");
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn what_leaves_before_its_time_leaves_once() {
    let test = async {
        let (worker, mut peer) = subscribed(&delayed()).await;
        // The client's own command is answered at once, and takes along what waits.
        publish(&worker, "news", "1");
        pass(DELAY / 3).await;
        peer.send(r#"{"id":3,"unsubscribe":{"channel":"other"}}"#)
            .await;
        settle().await;
        let heard = peer.heard().await;
        assert_eq!(published(&heard), [1]);
        assert_eq!(heard.last(), Some(&json!({"id": 3, "unsubscribe": {}})));
        // What comes then waits no longer than it may.
        pass(DELAY / 3).await;
        publish(&worker, "news", "2");
        let (heard, waited) = next(&mut peer).await;
        assert_eq!(heard, [2]);
        assert!(waited <= DELAY + Duration::from_millis(1), "{waited:?}");
        // So much is a write of its own.
        publish(&worker, "news", "3");
        let much = format!("[\"{}\"]", "x".repeat(20_000));
        publish(&worker, "news", &much);
        settle().await;
        let heard = peer.heard().await;
        assert_eq!(published(&heard), [3]);
        assert_eq!(
            heard[1]["push"]["pub"]["data"][0].as_str().map(str::len),
            Some(20_000)
        );
        pass(3 * DELAY).await;
        assert_eq!(peer.heard().await, [] as [Value; 0], "nothing twice");
        publish(&worker, "news", "4");
        let (heard, waited) = next(&mut peer).await;
        assert_eq!(heard, [4]);
        assert!(waited >= DELAY, "{waited:?}");
        // What comes meanwhile puts it off no further.
        for number in 5..12 {
            publish(&worker, "news", &number.to_string());
            pass(DELAY / 3).await;
        }
        let heard = published(&peer.heard().await);
        assert!(heard.len() >= 4, "{heard:?}");
        assert!(heard.is_sorted() && heard[0] == 5, "{heard:?}");
    };
    LocalSet::new().run_until(test).await;
}

/// Puts into the mailbox what puts itself there again, so many times.
fn chain(mailbox: &Arc<WorkerMailbox>, left: usize, done: &Arc<AtomicUsize>) {
    let (again, count) = (Arc::clone(mailbox), Arc::clone(done));
    mailbox.call(Box::new(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        if left > 0 {
            chain(&again, left - 1, &count);
        }
    }));
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_is_never_empty_lets_others_have_their_turn() {
    const CALLS: usize = 10_000;
    let test = async {
        let worker = worker(OPEN);
        let done = Arc::new(AtomicUsize::new(0));
        chain(&worker.mailbox, CALLS - 1, &done);
        worker.turn(|_, _| ());
        let in_one_turn = done.load(Ordering::Relaxed);
        assert_eq!(in_one_turn, BATCHES_PER_TURN);

        let at_work = Rc::clone(&worker);
        spawn_local(async move { at_work.run().await });
        // Somebody else on this thread.
        let (longest, mut before) = (Rc::new(Cell::new(0)), in_one_turn);
        let (waited, count) = (Rc::clone(&longest), Arc::clone(&done));
        let other = spawn_local(async move {
            while before < CALLS {
                yield_now().await;
                let now = count.load(Ordering::Relaxed);
                waited.set(waited.get().max(now - before));
                before = now;
            }
        });
        other.await.expect("it does nothing wrong");
        let longest = longest.get();
        assert!(
            longest > 0 && longest <= 4 * BATCHES_PER_TURN,
            "waited for {longest}"
        );
    };
    LocalSet::new().run_until(test).await;
}

/// However much is hidden from whoever asks, others wait for no more of it than a turn has.
#[tokio::test(start_paused = true)]
async fn a_long_history_is_looked_through_in_turns() {
    const HIDDEN: usize = 4 * LOOKED_THROUGH_PER_TURN;
    let config = format!(
        "{OPEN}[channel.without_namespace]\nallow_history_for_client = true\n\
         allow_history_for_anonymous = true\nhistory_size = 100000\nhistory_ttl = \"1h\"\n\
         server_tags_filter = '{{\"key\":\"for\",\"cmp\":\"eq\",\"val\":\"nobody\"}}'\n"
    );
    let config = config.replace(
        "channel.without_namespace.allow_subscribe_for_client = true\n\
         channel.without_namespace.allow_subscribe_for_anonymous = true\n",
        "",
    );
    let test = async {
        let worker = worker(&config);
        for _ in 0..HIDDEN {
            publish(&worker, "log", "1");
        }
        let (mut reader, reads) = Peer::directly(&worker);
        let (mut other, asks) = Peer::directly(&worker);
        for id in [reads, asks] {
            command(&worker, id, r#"{"id":1,"connect":{}}"#);
        }
        assert_eq!(reader.heard().await.len() + other.heard().await.len(), 2);
        let ask = r#"{"id":2,"history":{"channel":"log","limit":5}}"#;
        command(&worker, reads, ask);
        assert!(worker.is_cut.get(), "there is more to do");
        // Their turns don't do what is left of it: each would have as much of it before it ends.
        for _ in 0..10 {
            command(&worker, asks, r#"{"id":3,"unsubscribe":{"channel":"a"}}"#);
            assert_eq!(other.heard().await, [json!({"id": 3, "unsubscribe": {}})]);
            assert_eq!(reader.heard().await, [] as [Value; 0]);
        }
        let at_work = Rc::clone(&worker);
        spawn_local(async move { at_work.run().await });
        settle().await;
        let heard = reader.heard().await;
        let page = &heard[0]["history"];
        assert_eq!(page["offset"], json!(HIDDEN), "{heard:?}");
        assert_eq!(page["publications"], json!([]), "{heard:?}");
    };
    LocalSet::new().run_until(test).await;
}
