//! A chat room on axum: a page, and a WebSocket for everybody who has it open.
//!
//! ```text
//! cargo run -p tautline-websocket --features axum --example axum_chat -- 127.0.0.1:3000
//! ```
//!
//! Open the address in two tabs. Ctrl-C ends it in order: nobody new is let in, everybody is told, and the
//! pages come back by themselves when it runs again.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{Html, Response};
use axum::routing::{any, get};
use tautline_websocket::conn::axum::WebSocketUpgrade;
use tautline_websocket::conn::hyper::UpgradedStream;
use tautline_websocket::conn::{Group, Tracker, WebSocket};
use tautline_websocket::proto::{CloseCode, MessageRef};
use tokio::net::TcpListener;

/// Everybody.
#[derive(Clone, Default)]
struct Room {
    members: Group,
    connections: Tracker,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(address), None) = (args.next(), args.next()) else {
        eprintln!("usage: axum_chat ADDRESS:PORT");
        return ExitCode::from(2);
    };
    match run(&address).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(address: &str) -> Result<(), Box<dyn Error>> {
    let room = Room::default();
    let app = Router::new()
        .route("/", get(Html(include_str!("page.html"))))
        .route("/chat", any(enter))
        .with_state(room.clone());
    let listener = TcpListener::bind(address).await?;
    announce(listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async {
            // Without the signal there is no graceful end; serve on.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await?;
    let patience = Duration::from_secs(5);
    let left = room
        .connections
        .shutdown(CloseCode::GOING_AWAY, "restarting", patience);
    left.await??;
    Ok(())
}

/// The request for a WebSocket. Only this server's own page is let in.
async fn enter(State(room): State<Room>, upgrade: WebSocketUpgrade) -> Response {
    let own = upgrade.request().header("Host").unwrap_or_default();
    let own = format!("http://{}", String::from_utf8_lossy(own));
    upgrade
        .allow_origins([own])
        .max_message_size(4 * 1024)
        .on_upgrade(move |ws| async move { talk(ws, &room).await })
}

/// One person: what they say goes to all, themselves included.
async fn talk(mut ws: WebSocket<UpgradedStream>, room: &Room) {
    ws.track(&room.connections);
    if ws.join(&room.members).is_err() {
        let _ = ws
            .close(CloseCode::TRY_AGAIN_LATER, "the room is full")
            .await;
        return;
    }
    // What is said here is written to all members of a thread by one task; each member's own is left to
    // rest. How it ends is their own affair.
    let members = &room.members;
    let _ = ws
        .serve_member(|message, _| {
            // The page writes and reads the texts; here they are only passed on.
            if let MessageRef::Text(text) = message
                && members.publish(text).is_err()
            {
                eprintln!("a message was not passed on: too much is waiting");
            }
        })
        .await;
}

#[expect(clippy::print_stdout, reason = "it is where to go")]
fn announce(address: std::net::SocketAddr) {
    println!("http://{address}/");
}
