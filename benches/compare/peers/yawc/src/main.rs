//! Echo over yawc, with text checked like everybody's.

use std::process::ExitCode;

use peer_kit::{echo, run, upgrade};
use yawc::{Frame, OpCode, Options, Role, WebSocket};

const MESSAGE_LIMIT: usize = 64 * 1024 * 1024;

fn main() -> ExitCode {
    run(|mut stream, batching| async move {
        if upgrade(&mut stream).await.is_err() {
            return;
        }
        let options = Options::default()
            .with_utf8()
            .with_limits(MESSAGE_LIMIT, MESSAGE_LIMIT);
        let Ok(socket) = WebSocket::from_stream(stream, Role::Server, options) else {
            return;
        };
        echo(socket, batching, |frame: Frame| {
            matches!(frame.opcode(), OpCode::Text | OpCode::Binary).then_some(frame)
        })
        .await;
    })
}
