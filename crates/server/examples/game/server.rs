//! Between players and arena.

use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use serde::Deserialize;
use tautline::{
    Client, Config, ConnectEvent, ConnectReply, Disconnect, DisconnectEvent, Handler, Interests,
    MessageEvent, Node, NodeHandle, Publish, Refusal,
};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::arena::{Arena, Input};

/// Time between two steps.
const STEP: Duration = Duration::from_millis(50);

/// How many events may wait for the loop. It takes all that wait twenty times a second.
const EVENTS: usize = 4096;

/// The channel keeps one snapshot, so that who comes in sees the arena at once, and sends patches
/// to those whose SDK takes them.
const CONFIG: &str = r#"
    [[channel.namespaces]]
    name = "game"
    history_size = 1
    history_ttl = "10s"
    force_recovery = true
    force_recovery_mode = "cache"
    auto_cache_recover = true
    allowed_delta_types = ["fossil"]
    delta_publish = true
    # Who can't follow twenty snapshots a second wants the newest.
    slow_consumer = "latest"
"#;

/// Where everybody sees everybody.
pub(crate) const CHANNEL: &str = "game:arena";

/// What happens outside of the loop.
enum Event {
    Joined(String, String),
    Left(String),
    Steered(String, Input),
}

/// Starts the game: the node, and the web application that clients come by.
pub(crate) fn start() -> Result<(Node, Router), Box<dyn std::error::Error>> {
    let (events, waiting) = mpsc::channel(EVENTS);
    let node = Node::builder(Config::from_toml(CONFIG)?)
        .handler(Players { events })
        .without_listener()
        .start()?;
    tokio::spawn(play(node.handle().clone(), waiting));
    let app = Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route_service("/connection/websocket", node.handle().websocket());
    Ok((node, app))
}

/// The loop: owns the arena, and nobody else touches it.
async fn play(node: NodeHandle, mut events: mpsc::Receiver<Event>) {
    let mut arena = Arena::new();
    let mut steps = interval(STEP);
    // Late is late: two steps at once would be seen as a jump.
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = steps.tick() => {
                arena.step();
                let snapshot = Publish {
                    channel: CHANNEL.into(),
                    data: serde_json::to_vec(&arena).unwrap_or_default().into(),
                    ..Publish::default()
                };
                if let Err(error) = node.publish(snapshot).await {
                    // There will be another one soon.
                    eprintln!("a snapshot was not published: {}", error.message);
                }
            }
            event = events.recv() => match event {
                Some(Event::Joined(id, name)) => arena.join(id, name),
                Some(Event::Left(id)) => arena.leave(&id),
                Some(Event::Steered(id, input)) => arena.steer(&id, input),
                // The node has ended.
                None => return,
            },
        }
    }
}

/// Takes what players do to the loop.
struct Players {
    events: mpsc::Sender<Event>,
}

/// What a player says when it comes in.
#[derive(Deserialize)]
struct Introduction {
    name: String,
}

impl Handler for Players {
    fn interests(&self) -> Interests {
        Interests::CONNECTING | Interests::CONNECTED | Interests::MESSAGE | Interests::DISCONNECTED
    }

    async fn on_connecting(
        &self,
        _: &Client,
        event: ConnectEvent,
    ) -> Result<ConnectReply, Refusal> {
        let data = event.data.unwrap_or_default();
        let Ok(Introduction { name }) = serde_json::from_slice(&data) else {
            return Err(Refusal::error(400, r#"say who you are: {"name":"…"}"#));
        };
        let name: String = name.chars().take(20).collect();
        Ok(ConnectReply {
            // The loop hears of it in `on_connect`.
            meta: Some(serde_json::json!(name).to_string().into()),
            ..ConnectReply::anonymous().subscribe(CHANNEL)
        })
    }

    async fn on_connect(&self, client: &Client) {
        let name = client
            .meta()
            .and_then(|meta| serde_json::from_slice(meta).ok());
        let joined = Event::Joined(client.id().to_owned(), name.unwrap_or_default());
        let _ = self.events.send(joined).await;
    }

    async fn on_message(&self, client: &Client, message: MessageEvent) -> Result<(), Disconnect> {
        let input = serde_json::from_slice(&message.data).map_err(|_| Disconnect::BAD_REQUEST)?;
        // A player who says more than the loop takes waits here, and with it its connection: nobody else.
        let steered = Event::Steered(client.id().to_owned(), input);
        let _ = self.events.send(steered).await;
        Ok(())
    }

    async fn on_disconnect(&self, client: &Client, _: DisconnectEvent) {
        let _ = self.events.send(Event::Left(client.id().to_owned())).await;
    }
}
