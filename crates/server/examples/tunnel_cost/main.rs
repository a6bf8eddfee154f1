//! What a tunnel costs: memory while its client is idle, and how much goes through.
//!
//! ```text
//! cargo run --release -p tautline --example tunnel_cost [CLIENTS]
//! ```
//!
//! Starts itself once more as the server, one worker; the server behind, which echoes, and the clients are this process.
//! Memory is the growth of the server's resident set (Linux) by so many idle clients (1,000 if nothing is said), divided by
//! their number, with the connection to the server behind that each has. Then one client sends messages for some seconds, as
//! many at a time as there is room for, and hears their echoes; without a tunnel, too. Everything is on one machine.

#![allow(
    clippy::print_stdout,
    reason = "it is a program that tells its figures"
)]

#[path = "../door_cost/server.rs"]
mod server;

mod polled;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc;
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
    let clients = std::env::args().nth(1);
    let clients = clients.map_or(Ok(1000), |clients| clients.parse());
    let Ok(clients) = clients else {
        eprintln!("expected a number of clients");
        return ExitCode::from(2);
    };
    match measure(clients) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(clients: usize) -> Result<()> {
    let behind = echo()?;
    let start = || {
        Server::start(&format!(
            "[node]\nworkers = 1\n[http_server]\naddress = \"127.0.0.1\"\nport = 0\n[doors]\npoll_timeout = \"1m\"\n\
             [[tunnels]]\nname = \"echo\"\nupstream = \"ws://{behind}\"\n"
        ))
    };
    let kib = |bytes: usize| bytes as f64 / 1024.0;
    println!("| carried by | memory per idle client |\n|---|--:|");
    for is_polled in [false, true] {
        let server = start()?;
        // What the first clients make the allocator take.
        let first = crowd(server.address, 50, is_polled)?;
        let before = server.resident()?;
        let others = crowd(server.address, clients, is_polled)?;
        let memory = server.resident()?.saturating_sub(before) / clients;
        println!("| {} | {:.1} KiB |", carrier(is_polled), kib(memory));
        drop((first, others));
    }
    println!(
        "\n| carried by | length | messages a second, each way | MiB a second, each way |\n|---|--:|--:|--:|"
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

/// Clients with an idle tunnel each, there for as long as what is returned.
fn crowd(address: SocketAddr, count: usize, is_polled: bool) -> Result<Crowd> {
    if is_polled {
        let all = (0..count).map(|_| {
            let mut polled = Polled::open(address)?;
            polled.poll()?;
            Ok(polled)
        });
        return Ok(Crowd {
            _polled: all.collect::<Result<_>>()?,
            _keep: None,
        });
    }
    let (keep, kept) = tokio::sync::oneshot::channel::<()>();
    let (tell, open) = mpsc::channel();
    thread::spawn(move || {
        run(async {
            let url = format!("ws://{address}/tunnel/echo");
            let mut all = Vec::with_capacity(count);
            for _ in 0..count {
                match connect(&url, &ConnectOptions::default()).await {
                    Ok(connected) => all.push(connected.websocket),
                    Err(error) => return drop(tell.send(Err(error))),
                }
            }
            if tell.send(Ok(())).is_ok() {
                let _ = kept.await;
            }
        });
    });
    open.recv()??;
    Ok(Crowd {
        _polled: Vec::new(),
        _keep: Some(keep),
    })
}

struct Crowd {
    _polled: Vec<Polled>,
    _keep: Option<tokio::sync::oneshot::Sender<()>>,
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
