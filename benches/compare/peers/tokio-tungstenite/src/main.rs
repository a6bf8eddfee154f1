//! Echo and broadcast over tokio-tungstenite.

use std::process::ExitCode;

use peer_kit::{run, serve};
use tokio_tungstenite::accept_async;

fn main() -> ExitCode {
    run(|stream, setup| async move {
        let Ok(socket) = accept_async(stream).await else {
            return;
        };
        serve(socket, setup, |item| {
            item.ok()
                .filter(|message| message.is_text() || message.is_binary())
        })
        .await;
    })
}
