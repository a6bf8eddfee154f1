//! Echo over sockudo-ws, without its keep-alive timers: none of the others has any running.

use std::process::ExitCode;

use peer_kit::{echo, run, upgrade};
use sockudo_ws::protocol::Message;
use sockudo_ws::{Config, WebSocketStream};

fn main() -> ExitCode {
    run(|mut stream, batching| async move {
        if upgrade(&mut stream).await.is_err() {
            return;
        }
        let config = Config {
            auto_ping: false,
            idle_timeout: 0,
            ..Config::default()
        };
        let socket = WebSocketStream::server(stream, config);
        echo(socket, batching, |item| match item {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => Some(message),
            _ => None,
        })
        .await;
    })
}
