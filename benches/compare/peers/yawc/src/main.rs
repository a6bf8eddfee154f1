//! Echo and broadcast over yawc, with text checked like everybody's, and compressed at level 1, with a pool where
//! messages stand by themselves: its cheapest ways.

use std::process::ExitCode;

use peer_kit::{Deflate, run, serve, upgrade};
use yawc::{DeflatePool, Frame, OpCode, Options, Role, WebSocket};

const MESSAGE_LIMIT: usize = 64 * 1024 * 1024;
const POOL: usize = 64;

fn main() -> ExitCode {
    let pool = DeflatePool::new(POOL);
    run(move |mut stream, setup| {
        let pool = pool.clone();
        async move {
            if upgrade(&mut stream, setup.deflate).await.is_err() {
                return;
            }
            let options = Options::default()
                .with_utf8()
                .with_limits(MESSAGE_LIMIT, MESSAGE_LIMIT);
            let options = match setup.deflate {
                Deflate::Off => options.without_compression(),
                Deflate::Alone => options
                    .with_low_latency_compression()
                    .server_no_context_takeover()
                    .client_no_context_takeover()
                    .with_deflate_pool(pool),
                Deflate::Takeover => options.with_low_latency_compression(),
            };
            let agreed = setup.deflate.agreed();
            let Ok(socket) =
                WebSocket::from_stream_with_extensions(stream, Role::Server, agreed, options)
            else {
                return;
            };
            serve(socket, setup, |frame: Frame| {
                matches!(frame.opcode(), OpCode::Text | OpCode::Binary).then_some(frame)
            })
            .await;
        }
    })
}
