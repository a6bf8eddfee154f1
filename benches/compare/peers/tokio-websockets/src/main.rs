//! Echo and broadcast over tokio-websockets.

use std::process::ExitCode;

use peer_kit::{run, serve_after_reading};
use tokio_websockets::ServerBuilder;

fn main() -> ExitCode {
    run(|stream, setup| async move {
        let Ok((_request, socket)) = ServerBuilder::new().accept(stream).await else {
            return;
        };
        serve_after_reading(socket, setup, |item| {
            item.ok()
                .filter(|message| message.is_text() || message.is_binary())
        })
        .await;
    })
}
