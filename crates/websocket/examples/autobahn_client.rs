//! The client that the Autobahn test suite tests: it asks `$AUTOBAHN_URL` for the number of cases,
//! echoes every message of each, and has the report written.
//!
//! ```text
//! cargo build --release -p tautline-websocket --example autobahn_client
//! conformance/autobahn/run-client-tests OUTDIR --cases core --strict -- \
//!     target/release/examples/autobahn_client
//! ```

use std::error::Error;
use std::process::ExitCode;

use tautline_websocket::conn::{ConnectOptions, connect};
use tautline_websocket::proto::deflate::ClientConfig;
use tautline_websocket::proto::{Limits, Message};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Ok(server) = std::env::var("AUTOBAHN_URL") else {
        eprintln!("AUTOBAHN_URL is not set: start this with conformance/autobahn/run-client-tests");
        return ExitCode::from(2);
    };
    match run(server.trim_end_matches('/')).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(server: &str) -> Result<(), Box<dyn Error>> {
    let options = ConnectOptions {
        // Section 9 goes up to 16 MiB.
        limits: Limits::for_messages(64 * 1024 * 1024),
        deflate: Some(ClientConfig::default()),
        ..ConnectOptions::default()
    };
    let url = format!("{server}/getCaseCount");
    let mut ws = connect(&url, &options).await?.websocket;
    let count: u32 = match ws.recv().await? {
        Some(Message::Text(count)) => count.parse()?,
        _ => return Err("the suite did not say how many cases there are".into()),
    };
    // To its end, so that it doesn't look like a client that crashed.
    while ws.recv().await?.is_some() {}

    for case in 1..=count {
        let url = format!("{server}/runCase?case={case}&agent={AGENT}");
        let ws = connect(&url, &options).await?.websocket;
        // Errors are what most cases are about. The suite has its own view of how it ended.
        let _ = ws
            .serve(|message, replies| {
                let _ = replies.send(message);
            })
            .await;
    }

    let url = format!("{server}/updateReports?agent={AGENT}");
    let mut ws = connect(&url, &options).await?.websocket;
    while ws.recv().await?.is_some() {}
    Ok(())
}

/// The name in the report.
const AGENT: &str = "tautline";
