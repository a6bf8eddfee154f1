//! Sends every message back as it came: text as text, binary as binary, on every path.
//!
//! ```text
//! cargo run --release -p tautline-websocket --example echo_server -- --listen 127.0.0.1:9001
//! ```
//!
//! Each thread has a runtime and a listening socket of its own, and the kernel spreads connections
//! over them; a connection stays on the thread that accepted it.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};
use tautline_websocket::conn::{AcceptOptions, accept};
use tautline_websocket::proto::Limits;
use tautline_websocket::proto::deflate::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::task::LocalSet;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("can't listen on {}: {error}", options.listen);
            ExitCode::FAILURE
        }
    }
}

/// Serves until the process is ended from outside.
fn run(options: &Options) -> io::Result<()> {
    // The first socket tells the port when the kernel is to choose it; the others join it.
    let first = listen(options.listen)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..options.threads {
        listeners.push(listen(address)?);
    }
    announce(address, options.threads);
    let workers: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let options = options.accepting();
            thread::spawn(move || serve(listener, options))
        })
        .collect();
    for worker in workers {
        match worker.join() {
            Ok(result) => result?,
            Err(_) => return Err(io::Error::other("a worker thread has panicked")),
        }
    }
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "whoever starts this waits for the line"
)]
fn announce(address: SocketAddr, threads: usize) {
    println!("echoing on ws://{address} with {threads} thread(s)");
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn serve(listener: std::net::TcpListener, options: AcceptOptions) -> io::Result<()> {
    let options = Rc::new(options);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::task::spawn_local(echo(stream, Rc::clone(&options)));
                }
                // Out of descriptors, or the client is gone already: neither ends the server.
                Err(error) => {
                    eprintln!("can't accept: {error}");
                    tokio::task::yield_now().await;
                }
            }
        }
    })
}

/// One connection, from its handshake to its end. How it ends is the client's affair.
async fn echo(stream: TcpStream, options: Rc<AcceptOptions>) {
    // Answers are gathered here; there is nothing left for the kernel to wait for.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(accepted) = accept(stream, &options).await else {
        return;
    };
    drop(options);
    // What the request said is of no interest here, and so not kept.
    drop(accepted.request);
    let _ = accepted
        .websocket
        .serve(|message, replies| {
            let _ = replies.send(message);
        })
        .await;
}

struct Options {
    listen: SocketAddr,
    threads: usize,
    max_message: usize,
    deflate: bool,
}

impl Options {
    /// How connections are accepted.
    fn accepting(&self) -> AcceptOptions {
        AcceptOptions {
            limits: Limits::for_messages(self.max_message),
            deflate: self.deflate.then(ServerConfig::default),
            ..AcceptOptions::default()
        }
    }

    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut listen, mut threads, mut max_message) = (None, 1, 64 * 1024 * 1024);
        let mut deflate = false;
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--listen" => listen = Some(parse(&arg, "an address and port", &value()?)?),
                "--threads" => threads = parse(&arg, "a number from 1", &value()?)?,
                "--max-message" => max_message = parse(&arg, "a number of bytes", &value()?)?,
                "--deflate" => deflate = true,
                _ => return Err(format!("there is no option {arg}")),
            }
        }
        let listen = listen.ok_or("--listen is missing")?;
        if threads == 0 {
            return Err("--threads must be 1 or more".to_owned());
        }
        Ok(Self {
            listen,
            threads,
            max_message,
            deflate,
        })
    }
}

fn parse<T: std::str::FromStr>(option: &str, expected: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{option} wants {expected}, not {value:?}"))
}

const USAGE: &str = "\
usage: echo_server --listen ADDRESS:PORT [--threads N] [--deflate] [--max-message BYTES]

  --listen ADDRESS:PORT   where to listen; with port 0 the kernel chooses one
  --threads N             threads, each with a listening socket of its own (default 1)
  --deflate               accept permessage-deflate, and compress replies from 128 bytes on
  --max-message BYTES     the largest message that is taken (default 67108864)";
