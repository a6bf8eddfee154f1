//! The example `game`, played by real clients.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../examples/game/arena.rs"]
mod arena;
#[path = "support/peer.rs"]
mod peer;
#[path = "support/run.rs"]
mod run;
#[path = "../examples/game/server.rs"]
mod server;

use serde_json::{Value, json};
use tautline::protocol::delta;
use tokio::net::TcpListener;

use self::peer::Peer;
use self::run::run;

/// Runs a test beside a game, which it gets the URL of.
fn beside_a_game<F: Future<Output = ()>>(test: impl FnOnce(String) -> F) {
    run(async {
        let (_node, app) = server::start().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        test(format!("ws://{address}/connection/websocket")).await;
    });
}

/// A player who has come in, with its id.
async fn join(url: &str, name: &str) -> (Peer, String) {
    let mut peer = Peer::open(url, &[]).await;
    let reply = peer.ask("connect", json!({"data": {"name": name}})).await;
    let id = reply["connect"]["client"].as_str().unwrap().to_owned();
    assert!(
        reply["connect"]["subs"][server::CHANNEL].is_object(),
        "{reply}"
    );
    (peer, id)
}

/// Watches snapshots until one is as it should be.
async fn watch(peer: &mut Peer, is_it: impl Fn(&Value) -> bool) -> Value {
    loop {
        let snapshot = peer.push("pub").await["data"].take();
        if is_it(&snapshot) {
            return snapshot;
        }
    }
}

#[test]
fn what_players_press_moves_them_for_everybody() {
    beside_a_game(async |url| {
        let (mut ann, ann_id) = join(&url, "Ann").await;
        let (mut bob, bob_id) = join(&url, "Bob").await;
        let x = |snapshot: &Value| snapshot["players"][&ann_id]["x"].as_i64().unwrap();
        let both = |snapshot: &Value| snapshot["players"].as_object().unwrap().len() == 2;
        let before = x(&watch(&mut bob, both).await);
        ann.send(&json!({"send": {"data": {"x": 1, "y": 0}}})).await;
        let moved = watch(&mut bob, |snapshot| x(snapshot) >= before + 36).await;
        assert_eq!(moved["players"][&ann_id]["name"], json!("Ann"));
        drop(bob);
        watch(&mut ann, |snapshot| snapshot["players"][&bob_id].is_null()).await;
    });
}

#[test]
fn who_takes_patches_sees_the_same() {
    beside_a_game(async |url| {
        let (mut ann, id) = join(&url, "Ann").await;
        let mut bob = Peer::open(&url, &[]).await;
        let subs = json!({server::CHANNEL: {"delta": "fossil"}});
        let request = json!({"data": {"name": "Bob"}, "subs": subs});
        let reply = bob.ask("connect", request).await;
        let sub = &reply["connect"]["subs"][server::CHANNEL];
        assert_eq!(sub["delta"], json!(true), "{reply}");
        let text = |publication: &Value| publication["data"].as_str().unwrap().as_bytes().to_vec();
        let recovered = sub["publications"].as_array().into_iter().flatten();
        let mut known = recovered.last().map(text).unwrap_or_default();
        ann.send(&json!({"send": {"data": {"x": 1, "y": 1}}})).await;
        let mut patches = 0;
        for _ in 0..10 {
            let publication = bob.push("pub").await;
            known = if publication["delta"] == json!(true) {
                patches += 1;
                delta::apply(&known, &text(&publication), 1 << 20).unwrap()
            } else {
                text(&publication)
            };
            let snapshot: Value = serde_json::from_slice(&known).unwrap();
            assert_eq!(snapshot["players"][&id]["name"], json!("Ann"));
        }
        assert!(patches >= 5, "{patches} patches");
    });
}

#[test]
fn who_says_nonsense_is_not_played_with() {
    beside_a_game(async |url| {
        let mut nobody = Peer::open(&url, &[]).await;
        let reply = nobody.ask("connect", json!({})).await;
        assert_eq!(reply["error"]["code"], json!(400));
        let (mut ann, _) = join(&url, "Ann").await;
        ann.send(&json!({"send": {"data": "left"}})).await;
        assert_eq!(ann.closed().await, 3501);
    });
}
