//! Echo over tokio-websockets.

use std::process::ExitCode;

use peer_kit::{echo_after_reading, run};
use tokio_websockets::ServerBuilder;

fn main() -> ExitCode {
    run(|stream, batching| async move {
        let Ok((_request, socket)) = ServerBuilder::new().accept(stream).await else {
            return;
        };
        echo_after_reading(socket, batching, |item| {
            item.ok()
                .filter(|message| message.is_text() || message.is_binary())
        })
        .await;
    })
}
