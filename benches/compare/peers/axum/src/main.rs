//! Echo over axum's own `ws`, as its users write it. For the memory of a connection.

use std::env;
use std::process::ExitCode;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::routing::any;
use tokio::net::TcpListener;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let [_, address] = &words[..] else {
        eprintln!("usage: peer-axum --listen ADDRESS:PORT");
        return ExitCode::from(2);
    };
    let app = Router::new().route(
        "/",
        any(|upgrade: WebSocketUpgrade| async { upgrade.on_upgrade(echo) }),
    );
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| {
            runtime.block_on(async { axum::serve(TcpListener::bind(address).await?, app).await })
        });
    if let Err(error) = served {
        eprintln!("cannot serve on {address}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_) | Message::Binary(_))
            && socket.send(message).await.is_err()
        {
            return;
        }
    }
}
