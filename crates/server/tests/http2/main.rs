//! The server over HTTP/2: every door, WebSockets (RFC 8441), and what no client of good will would do.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod client;
mod doors;
mod ending;
mod floods;
mod places;
#[path = "../support/process.rs"]
mod process;
mod raw;
mod sockets;
mod windows;

/// Everybody may do everything, and it is counted.
const CONFIG: &str = r#"
[node]
workers = 2
[client]
allow_anonymous_connect_without_token = true
[http_api]
key = "dev"
[prometheus]
enabled = true
[channel.without_namespace]
history_size = 100
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
[[channel.namespaces]]
name = "live"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#;

/// Far more time than anything here takes.
async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(2 * process::DEADLINE, test)
        .await
        .expect("nothing has happened for a minute")
}
