//! Echo and broadcast over sockudo-ws, without its keep-alive timers (none of the others has any running), compressed at
//! level 1 like the others.

use std::process::ExitCode;

use peer_kit::{Deflate, run, serve, upgrade};
use sockudo_ws::deflate::DeflateConfig;
use sockudo_ws::protocol::Message;
use sockudo_ws::{CompressedWebSocketStream, Config, Error, WebSocketStream};

fn main() -> ExitCode {
    run(|mut stream, setup| async move {
        if upgrade(&mut stream, setup.deflate).await.is_err() {
            return;
        }
        let config = Config {
            auto_ping: false,
            idle_timeout: 0,
            ..Config::default()
        };
        if setup.deflate == Deflate::Off {
            let socket = WebSocketStream::server(stream, config);
            serve(socket, setup, answer).await;
        } else {
            let alone = setup.deflate == Deflate::Alone;
            let deflate = DeflateConfig {
                server_no_context_takeover: alone,
                client_no_context_takeover: alone,
                compression_level: 1,
                ..DeflateConfig::default()
            };
            let socket = CompressedWebSocketStream::server(stream, config, deflate);
            serve(socket, setup, answer).await;
        }
    })
}

fn answer(item: Result<Message, Error>) -> Option<Message> {
    match item {
        Ok(message @ (Message::Text(_) | Message::Binary(_))) => Some(message),
        _ => None,
    }
}
