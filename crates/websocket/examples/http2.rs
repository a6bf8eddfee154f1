//! Many WebSockets over one connection of HTTP/2 (RFC 8441): a server, and a client for it.
//!
//! ```text
//! cargo run -p tautline-websocket --features http2 --example http2 -- serve 127.0.0.1:9001
//! cargo run -p tautline-websocket --features http2 --example http2 -- ask ws://127.0.0.1:9001/ 100
//! ```
//!
//! The server takes HTTP/1.1 on the same port. The client opens as many WebSockets as it is told, sends
//! a message on each, waits for all answers, and says how long it took.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use tautline_websocket::conn::http2::{Http2Client, Http2Options, Incoming};
use tautline_websocket::conn::{AcceptOptions, ConnectOptions};
use tautline_websocket::proto::{CloseCode, Message};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["serve", address] => serve(address).await,
        ["ask", url, count] => match count.parse() {
            Ok(count) => ask(url, count).await,
            Err(_) => return usage(),
        },
        _ => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(address: &str) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(address).await?;
    say(&format!("echoing on ws://{}", listener.local_addr()?));
    let options = Arc::new(AcceptOptions::default());
    loop {
        let (stream, peer) = listener.accept().await?;
        let options = Arc::clone(&options);
        tokio::spawn(async move {
            if let Err(error) = serve_client(stream, &options).await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

/// One client: this task drives the connection, and each WebSocket has one of its own.
async fn serve_client(
    stream: TcpStream,
    options: &AcceptOptions,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let mut incoming = Incoming::new(stream, &Http2Options::default()).await?;
    while let Some(accepted) = incoming.accept(options).await? {
        // How it ends is the client's affair.
        tokio::spawn(accepted.websocket.serve(|message, replies| {
            let _ = replies.send(message);
        }));
    }
    Ok(())
}

async fn ask(url: &str, count: usize) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let options = ConnectOptions::default();
    let client = Http2Client::connect(url, &options, &Http2Options::default()).await?;
    let mut talks = JoinSet::new();
    for number in 0..count {
        let mut ws = client.open(url, &options).await?.websocket;
        talks.spawn(async move {
            let question = format!("Is number {number} there?");
            ws.send(&*question).await?;
            let answer = ws.recv().await?;
            ws.close(CloseCode::NORMAL, "").await?;
            Ok::<_, tautline_websocket::conn::Error>(answer == Some(Message::from(question)))
        });
    }
    let mut answers = 0;
    while let Some(answered) = talks.join_next().await {
        answers += usize::from(answered??);
    }
    say(&format!(
        "{answers} of {count} answers over one connection in {:?}",
        start.elapsed()
    ));
    Ok(())
}

fn usage() -> ExitCode {
    eprintln!("usage: http2 serve ADDRESS:PORT\n       http2 ask URL COUNT");
    ExitCode::from(2)
}

#[expect(
    clippy::print_stdout,
    reason = "it is what whoever starts this waits for"
)]
fn say(line: &str) {
    println!("{line}");
}
