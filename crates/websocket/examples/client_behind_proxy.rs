//! Connects through an HTTP or a SOCKS 5 proxy, sends a message and prints the answer.
//!
//! ```text
//! cargo run -p tautline-websocket --features rustls --example client_behind_proxy -- \
//!     http 127.0.0.1:3128 wss://example.com/ "Hello"
//! ```
//!
//! Where the proxy asks for a user and a password, they come from the environment, `PROXY_USER` and
//! `PROXY_PASSWORD`: on the command line, everybody on the machine could read them.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use tautline_websocket::conn::{ConnectError, ConnectOptions, Proxy, connect};
use tautline_websocket::proto::{CloseCode, Message};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [kind, address, url, message] = &args[..] else {
        return usage();
    };
    let Some(proxy) = proxy(kind, address) else {
        return usage();
    };
    match talk(proxy, url, message).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            // The server's own words, if it had any.
            if let Some(ConnectError::Refused(rejection)) = error.downcast_ref() {
                eprintln!("{}", String::from_utf8_lossy(&rejection.body));
            }
            ExitCode::FAILURE
        }
    }
}

fn proxy(kind: &str, address: &str) -> Option<Proxy> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    let port = port.parse().ok()?;
    let proxy = match kind {
        "http" => Proxy::http(host, port),
        "socks5" => Proxy::socks5(host, port),
        _ => return None,
    };
    let credential = |name| std::env::var(name).ok();
    Some(
        match (credential("PROXY_USER"), credential("PROXY_PASSWORD")) {
            (Some(user), Some(password)) => proxy.with_credentials(user, password),
            _ => proxy,
        },
    )
}

async fn talk(proxy: Proxy, url: &str, message: &str) -> Result<(), Box<dyn Error>> {
    let options = ConnectOptions {
        proxy: Some(proxy),
        // Proxies take their time.
        connect_timeout: Duration::from_secs(30),
        ..ConnectOptions::default()
    };
    let mut ws = connect(url, &options).await?.websocket;
    ws.send(message).await?;
    match ws.recv().await? {
        Some(Message::Text(text)) => say(&text),
        Some(Message::Binary(bytes)) => say(&format!("{} bytes", bytes.len())),
        None => say("the server has closed the connection"),
    }
    ws.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

fn usage() -> ExitCode {
    eprintln!("usage: client_behind_proxy http|socks5 HOST:PORT URL MESSAGE");
    ExitCode::from(2)
}

#[expect(clippy::print_stdout, reason = "the answer is what was asked for")]
fn say(line: &str) {
    println!("{line}");
}
