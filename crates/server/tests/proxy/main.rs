//! The application's backend decides: a node with proxies, a backend that speaks real HTTP, and clients of
//! the real protocol.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../support/authority.rs"]
mod authority;
mod backend;
mod calls;
#[path = "../support/directory.rs"]
mod directory;
#[path = "../support/peer.rs"]
mod peer;
mod prolong;
#[path = "../support/run.rs"]
mod run;
mod secure;
mod streams;
mod trouble;
mod trust;

use tautline::{Config, Node};

use self::run::run;

/// A node with this configuration, on a port of its own.
fn start(config: &str) -> Node {
    Node::builder(self::config(config)).start().unwrap()
}

fn config(config: &str) -> Config {
    let config = format!(
        "http_server.address = \"127.0.0.1\"\nhttp_server.port = 0\nnode.workers = 2\n{config}"
    );
    Config::from_toml(&config).unwrap()
}

fn url(node: &Node) -> String {
    let address = node.address().unwrap();
    format!("ws://{address}/connection/websocket")
}
