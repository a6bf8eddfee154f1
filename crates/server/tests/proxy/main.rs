//! The application's backend decides: a node with proxies, a backend that speaks real HTTP, and clients of
//! the real protocol.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../support/peer.rs"]
mod peer;

mod backend;
mod calls;
mod prolong;
mod secure;
mod trouble;
mod trust;

use std::future::Future;
use std::time::Duration;

use tautline::{Config, Node};

/// Longer than anything here takes on the slowest of machines.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node with this configuration, on a port of its own.
fn start(config: &str) -> Node {
    let config = format!(
        "http_server.address = \"127.0.0.1\"\nhttp_server.port = 0\nnode.workers = 2\n{config}"
    );
    Node::builder(Config::from_toml(&config).unwrap())
        .start()
        .unwrap()
}

fn url(node: &Node) -> String {
    let address = node.address().unwrap();
    format!("ws://{address}/connection/websocket")
}

/// Runs a test on a runtime of its own, within the deadline.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let test = tokio::time::timeout(DEADLINE, test);
        test.await.expect("the test hangs");
    });
}
