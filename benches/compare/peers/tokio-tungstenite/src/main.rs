//! Echo over tokio-tungstenite.

use std::process::ExitCode;

use peer_kit::{Batching, echo, run};
use tokio_tungstenite::accept_async;

fn main() -> ExitCode {
    run(|stream, batching: Batching| async move {
        let Ok(socket) = accept_async(stream).await else {
            return;
        };
        echo(socket, batching, |item| {
            item.ok()
                .filter(|message| message.is_text() || message.is_binary())
        })
        .await;
    })
}
