//! Tests: clients that don't read what they have asked for.

use serde_json::json;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::testing::{Peer, command, publish, settle, worker};
use super::*;
use crate::door::websocket;

/// Nobody is pinged, so that nothing but its own time-out ends a connection.
const OPEN: &str = "client.allow_anonymous_connect_without_token = true\n\
    client.ping_interval = \"0s\"\n\
    client.pong_timeout = \"0s\"\n\
    [channel.without_namespace]\n\
    allow_history_for_client = true\n\
    allow_history_for_anonymous = true\n\
    history_size = 100\n\
    history_ttl = \"1h\"\n";

/// A page of the history, in bytes.
const PAGE: usize = 100_000;

/// What is on its way to a client, at the most.
const ROOM: usize = 16 * 1024;

/// A quarter of `client.queue_max_size`.
const MARK: usize = 256 * 1024;

const ASKED: u64 = 40;

/// A worker with something kept, and a client that has asked for it many times; the first so many in one frame.
async fn asked(together: u64) -> (Rc<Worker>, Peer, JoinHandle<()>) {
    let worker = worker(OPEN);
    let text = "x".repeat(PAGE / 10);
    for _ in 0..10 {
        publish(&worker, "log", &json!(text).to_string());
    }
    let at_work = Rc::clone(&worker);
    spawn_local(async move { at_work.watch_queues(|| 0).await });
    let (mut peer, opened) = Peer::with_room(ROOM);
    let served = Rc::clone(&worker);
    let serving = spawn_local(async move { websocket::serve(&served, opened).await });
    peer.send(r#"{"id":1,"connect":{}}"#).await;
    settle().await;
    assert_eq!(peer.heard().await.len(), 1);
    let ask = |id| json!({"id": id, "history": {"channel": "log", "limit": 10}}).to_string();
    let all: Vec<_> = (2..ASKED + 2).map(ask).collect();
    let (first, others) = all.split_at(together as usize);
    if !first.is_empty() {
        peer.send(&first.join("\n")).await;
    }
    for command in others {
        peer.send(command).await;
    }
    settle().await;
    (worker, peer, serving)
}

fn answered(worker: &Worker) -> u64 {
    worker.turn(|_, state| state.hub.counters().commands) - 1
}

fn queued(worker: &Worker) -> usize {
    worker.turn(|now, state| {
        let State {
            hub, connections, ..
        } = state;
        connections.look(now.monotonic, |id| hub.kept_input(id));
        connections.queues().bytes as usize
    })
}

#[tokio::test(start_paused = true)]
async fn who_doesnt_take_answers_isnt_read_until_he_does() {
    let test = async {
        for together in [0, 1, 20, ASKED] {
            let (worker, mut peer, serving) = asked(together).await;
            let mut heard = Vec::new();
            loop {
                let waits = queued(&worker);
                assert!(waits < MARK + PAGE + 1_000, "{waits}");
                let before = heard.len() as u64;
                // The one that it is in the middle of is one of them.
                let ahead = answered(&worker) - before;
                assert!(ahead <= 4 && (ahead == 3 || before > 0), "{ahead}");
                let now = peer.heard().await;
                settle().await;
                heard.extend(now);
                if heard.len() as u64 == ASKED {
                    break;
                }
            }
            let ids = heard.iter().map(|reply| reply["id"].as_u64());
            assert!(ids.eq((2..ASKED + 2).map(Some)), "in order");
            assert_eq!(queued(&worker), 0);
            assert!(!serving.is_finished());
        }
    };
    LocalSet::new().run_until(test).await;
}

/// Lets some seconds pass.
async fn seconds(count: u64) {
    for _ in 0..2 * count {
        tokio::time::advance(Duration::from_millis(500)).await;
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_for_long_is_let_go() {
    let test = async {
        let (worker, _peer, serving) = asked(0).await;
        seconds(29).await;
        assert!(!serving.is_finished());
        seconds(2).await;
        assert!(serving.is_finished());
        assert_eq!(queued(&worker), 0);
        worker.turn(|_, state| {
            assert_eq!(state.hub.disconnects().get(&3008), Some(&1));
        });
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn who_takes_a_little_at_a_time_goes_on() {
    let test = async {
        let (worker, mut peer, serving) = asked(0).await;
        for _ in 0..20 {
            seconds(25).await;
            peer.hear(1_000).await;
        }
        assert!(!serving.is_finished());
        assert!(queued(&worker) > 0);
    };
    LocalSet::new().run_until(test).await;
}

/// What a client has said that isn't listened to is memory too.
#[tokio::test(start_paused = true)]
async fn commands_that_wait_count() {
    let worker = worker(OPEN);
    let text = "x".repeat(PAGE);
    publish(&worker, "log", &json!(text).to_string());
    let (_peer, opened) = Peer::with_room(ROOM);
    let id = worker.turn(|now, state| {
        let id = state.open(now, opened.manner.transport, None, None, None);
        state.connections.insert(id, opened.link, "test");
        id
    });
    command(&worker, id, r#"{"id":1,"connect":{}}"#);
    let ask = r#"{"id":2,"history":{"channel":"log","limit":1}}"#;
    let much = format!(
        "{{\"id\":3,\"unsubscribe\":{{\"channel\":\"{}\"}}}}",
        "x".repeat(50_000)
    );
    for _ in 0..10 {
        command(&worker, id, ask);
        command(&worker, id, &much);
    }
    let held = worker.turn(|now, state| {
        state.look_at_queues(now, 0);
        state.connections.held()
    });
    // Three or four were answered, the others wait.
    assert!((650_000..900_000).contains(&held), "{held}");
    worker.turn(|now, state| state.leave(now, id));
    worker.turn(|now, state| {
        state.look_at_queues(now, 0);
        assert!(state.connections.held() < MARK + PAGE);
    });
}
