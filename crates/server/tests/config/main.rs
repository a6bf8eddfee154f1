//! What a configuration file may say, and what is said of one that is wrong.

mod backend;
mod bounds;
mod dev;
mod doors;
mod keys;
mod warnings;
mod wrong;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tautline::config::{Config, ConfigError, LogLevel};
use tautline::http::api::ErrorMode;

/// A file that is gone with the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tautline-config-{}-{}.toml",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("a temporary file");
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::load(&TempFile::new(text).0)
}

/// What is said of a wrong file, without the name of the file.
#[track_caller]
fn problem(text: &str) -> String {
    let file = TempFile::new(text);
    let Err(error) = Config::load(&file.0) else {
        panic!("this should be refused:\n{text}");
    };
    let error = error.to_string();
    let prefix = format!("{}:", file.0.display());
    error
        .strip_prefix(&prefix)
        .unwrap_or_else(|| panic!("no file name in {error}"))
        .to_owned()
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn an_empty_file_is_all_defaults() {
    let config = load("").unwrap();
    assert_eq!(config.listen, SocketAddr::from(([0, 0, 0, 0], 8000)));
    assert_eq!(config.websocket.message_size_limit, 65_536);
    assert_eq!(config.shutdown.timeout, Duration::from_secs(30));
    assert_eq!(config.log.level, LogLevel::Info);
    assert!(config.http.api_keys.is_empty() && config.http.health);
    assert!(config.http.dev.is_none());
    // Nobody can connect, nobody can publish, and nothing is encrypted.
    assert_eq!(config.warnings.len(), 3, "{:?}", config.warnings);
}

#[test]
fn every_table_is_read() {
    let text = format!(
        r#"
        [http_server]
        address = "::1"
        port = 9000

        [client]
        allowed_origins = ["https://*.example.org"]
        ping_interval = "1m30s"

        [client.token]
        hmac_secret_key = "{SECRET}"
        hmac_previous_secret_key = "{SECRET}"
        hmac_previous_secret_key_valid_until = 1900000000
        leeway = "30s"
        audience = "chat"
        issuer = "https://example.org"

        [channel]
        max_length = 100

        [channel.without_namespace]
        presence = true

        [[channel.namespaces]]
        name = "chat"
        history_size = 10
        history_ttl = "1h"

        [engine.memory]
        max_channels = 1000

        [http_api]
        key = "a key of the backend"
        error_mode = "transport"
        max_body_size = 2048

        [websocket]
        message_size_limit = 4096

        [health]
        enabled = false

        [shutdown]
        timeout = "5s"

        [log]
        level = "debug"
        "#
    );
    let config = load(&text).unwrap();
    assert_eq!(config.listen, "[::1]:9000".parse::<SocketAddr>().unwrap());
    assert_eq!(config.engine.max_channels, 1000);
    assert!(!config.http.api_keys.is_empty());
    assert_eq!(config.http.api_error_mode, ErrorMode::Transport);
    assert_eq!(config.http.api_limits.max_body_size, 2048);
    assert!(!config.http.health);
    assert_eq!(config.websocket.message_size_limit, 4096);
    assert_eq!(config.token.issuer.as_deref(), Some("https://example.org"));
    assert_eq!(config.shutdown.timeout, Duration::from_secs(5));
    assert_eq!(config.log.level, LogLevel::Debug);
    let origin = |origin: &str| {
        config
            .http
            .origins
            .check_values([origin.as_bytes()], Some(b"x"))
            .is_ok()
    };
    assert!(origin("https://a.example.org") && !origin("https://a.example.com"));
    assert_eq!(config.warnings, Vec::<String>::new());
}
