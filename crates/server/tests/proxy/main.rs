//! The application's backend decides: a node with proxies, a backend that speaks real HTTP, and clients of
//! the real protocol.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../support/peer.rs"]
mod peer;

mod backend;
mod calls;
mod prolong;
#[path = "../support/run.rs"]
mod run;
mod secure;
mod trouble;
mod trust;

use tautline::{Config, Node};

use self::run::run;

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
