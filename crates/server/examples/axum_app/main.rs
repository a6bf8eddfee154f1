//! An application of axum that has a real-time side: its own routes, its own sessions by cookie, and
//! Tautline at `/connection/websocket`.
//!
//! ```text
//! cargo run --release -p tautline --example axum_app
//! ```
//!
//! Open <http://127.0.0.1:8000> in two windows, log in under two names, and share a shopping list.
//!
//! - `app`: the routes, the sessions, and where they meet Tautline;
//! - `live`: the handler: who may connect, and what can be called.

mod app;
mod live;

use std::net::SocketAddr;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = match std::env::args().nth(1) {
        Some(address) => address.parse()?,
        None => ([127, 0, 0, 1], 8000).into(),
    };
    let listener = tokio::net::TcpListener::bind(address).await?;
    let (node, app) = app::start()?;
    eprintln!("Go to http://{}", listener.local_addr()?);
    tokio::select! {
        served = axum::serve(listener, app) => served?,
        // Ends with Ctrl-C, once clients were told.
        ended = node.run() => ended?,
    }
    Ok(())
}
