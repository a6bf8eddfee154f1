//! Echo over fastwebsockets. It writes each frame by itself and has no way to batch; `Corked` lends it one, which is
//! the most that a user can do for it. `--send` leaves it as it is.

use std::process::ExitCode;

use fastwebsockets::{FragmentCollector, Frame, OpCode, Role, WebSocket};
use peer_kit::{Batching, Corked, run, upgrade};
use tokio::io::{AsyncRead, AsyncWrite};

fn main() -> ExitCode {
    run(|mut stream, batching| async move {
        if upgrade(&mut stream).await.is_err() {
            return;
        }
        match batching {
            Batching::Each => echo(stream).await,
            Batching::Ready => echo(Corked::new(stream)).await,
        }
    })
}

async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut socket = FragmentCollector::new(WebSocket::after_handshake(stream, Role::Server));
    while let Ok(frame) = socket.read_frame().await {
        match frame.opcode {
            OpCode::Text | OpCode::Binary => {
                let answer = Frame::new(true, frame.opcode, None, frame.payload);
                if socket.write_frame(answer).await.is_err() {
                    return;
                }
            }
            OpCode::Close => return,
            _ => {}
        }
    }
}
