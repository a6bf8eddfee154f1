//! A server in this very process: handlers in code, the node's handle, and a node inside an application
//! of axum, all met by a real client.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../support/peer.rs"]
mod peer;

mod ahead;
mod backend;
mod handle;
mod handlers;
mod mounted;
#[path = "../support/run.rs"]
mod run;

use tautline::{Config, Handler, Node};

use self::run::run;

const CONFIG: &str = r#"
    http_server.address = "127.0.0.1"
    http_server.port = 0
    node.workers = 2
    shutdown.timeout = "10s"

    [client]
    allow_anonymous_connect_without_token = true

    [channel.without_namespace]
    presence = true
    history_size = 10
    history_ttl = "1m"
    allow_subscribe_for_client = true
    allow_subscribe_for_anonymous = true
"#;

fn config() -> Config {
    Config::from_toml(CONFIG).unwrap()
}

fn start(handler: impl Handler) -> Node {
    Node::builder(config()).handler(handler).start().unwrap()
}

fn url(node: &Node) -> String {
    let address = node.address().unwrap();
    format!("ws://{address}/connection/websocket")
}
