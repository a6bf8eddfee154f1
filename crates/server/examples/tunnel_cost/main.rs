//! How much goes through a tunnel. What an idle client costs, and how long messages take, `door_cost` tells.
//!
//! ```text
//! cargo run --release -p tautline --example tunnel_cost
//! ```
//!
//! Starts itself once more as the server, one worker; the server behind, which echoes, and the client are this process.
//! A client sends messages for some seconds, as many at a time as there is room for, and hears their echoes; without a
//! tunnel, too. Everything is on one machine.

#![allow(
    clippy::print_stdout,
    reason = "it is a program that tells its figures"
)]

#[path = "../door_cost/server.rs"]
#[allow(dead_code, reason = "its memory is what `door_cost` asks for")]
mod server;

mod polled;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use tautline_websocket::conn::{
    AcceptOptions, ClientStream, ConnectOptions, WebSocket, accept, connect,
};
use tautline_websocket::proto::{Limits, Message};
use tokio::net::TcpListener;

use self::polled::Polled;
use self::server::{Server, is_server};

/// How long each client sends.
const TIME: Duration = Duration::from_secs(5);

/// Lengths of messages.
const LENGTHS: [usize; 2] = [100, 16 * 1024];

/// Bytes that are on their way at a time, and messages at the most.
const WINDOW: (usize, usize) = (256 * 1024, 1000);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    if is_server() {
        return tautline::cli::main();
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let behind = echo()?;
    let start = || {
        Server::start(&format!(
            "[node]\nworkers = 1\n[http_server]\naddress = \"127.0.0.1\"\nport = 0\n[doors]\npoll_timeout = \"1m\"\n\
             [[tunnels]]\nname = \"echo\"\nupstream = \"ws://{behind}\"\n"
        ))
    };
    println!(
        "| carried by | length | messages a second, each way | MiB a second, each way |\n|---|--:|--:|--:|"
    );
    for length in LENGTHS {
        let server = start()?;
        let tunnel = format!("ws://{}/tunnel/echo", server.address);
        let direct = format!("ws://{behind}/");
        for (what, count, took) in [
            row("no tunnel", run(websocket(&direct, length)))?,
            row(carrier(false), run(websocket(&tunnel, length)))?,
            row(carrier(true), Polled::open(server.address)?.echo(length))?,
        ] {
            let rate = count as f64 / took.as_secs_f64();
            let mib = rate * length as f64 / 1024.0 / 1024.0;
            println!("| {what} | {length} B | {rate:.0} | {mib:.1} |");
        }
    }
    Ok(())
}

type Echoed = Result<(usize, Duration)>;

fn row(what: &'static str, echoed: Echoed) -> Result<(&'static str, usize, Duration)> {
    let (count, took) = echoed.map_err(|error| format!("{what}: {error}"))?;
    Ok((what, count, took))
}

fn carrier(is_polled: bool) -> &'static str {
    if is_polled {
        "plain HTTP, answers that go on"
    } else {
        "a WebSocket"
    }
}

/// Sends for `TIME` and hears the echoes: how many, and how long it took.
async fn websocket(url: &str, length: usize) -> Echoed {
    let mut socket: WebSocket<ClientStream> =
        connect(url, &ConnectOptions::default()).await?.websocket;
    let payload = Message::from(vec![b'x'; length]);
    let window = window(length);
    let (start, mut sent, mut heard) = (Instant::now(), 0, 0);
    loop {
        let is_over = start.elapsed() >= TIME;
        while !is_over && sent < heard + window {
            socket.queue_owned(payload.clone())?;
            sent += 1;
        }
        socket.flush().await?;
        if is_over && heard == sent {
            return Ok((heard, start.elapsed()));
        }
        match socket.recv().await? {
            Some(message) if message.len() == length => heard += 1,
            other => return Err(format!("expected an echo, got {other:?}").into()),
        }
    }
}

/// How many messages of a length are on their way at a time.
fn window(length: usize) -> usize {
    (WINDOW.0 / length).min(WINDOW.1)
}

/// The server behind: a thread that echoes, for as long as the program runs.
fn echo() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        run(async {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(async move {
                    let options = AcceptOptions {
                        limits: Limits::for_messages(1 << 20),
                        ..AcceptOptions::default()
                    };
                    if let Ok(accepted) = accept(stream, &options).await {
                        let websocket = accepted.websocket;
                        // A reply fails where it is closing.
                        let _ = websocket
                            .serve(|message, replies| {
                                let _ = replies.send(message);
                            })
                            .await;
                    }
                });
            }
        });
    });
    Ok(address)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build();
    runtime.expect("an event loop").block_on(work)
}
