//! A game with an authoritative server: who holds which key is all that players say, and where everybody
//! is, is what the server says, twenty times a second.
//!
//! ```text
//! cargo run --release -p tautline --example game
//! ```
//!
//! Open <http://127.0.0.1:8000> in two windows, and collect coins with the arrow keys.
//!
//! - `arena`: the rules; knows nothing of a network;
//! - `server`: the handler which takes what players send, and the loop which owns the arena and publishes it.

mod arena;
mod server;

use std::net::SocketAddr;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = match std::env::args().nth(1) {
        Some(address) => address.parse()?,
        None => ([127, 0, 0, 1], 8000).into(),
    };
    let listener = tokio::net::TcpListener::bind(address).await?;
    let (node, app) = server::start()?;
    eprintln!("Play at http://{}", listener.local_addr()?);
    tokio::select! {
        served = axum::serve(listener, app) => served?,
        ended = node.run() => ended?,
    }
    Ok(())
}
