//! Sends what any client on `/fanout` says to every client there, itself too: text as text, binary
//! as binary.
//!
//! ```text
//! cargo run --release -p tautline-websocket --example broadcast_server -- --listen 127.0.0.1:9002
//! ```
//!
//! Each thread has a runtime and a listening socket of its own, and the kernel spreads connections
//! over them; the group that all connections are in is one for all threads.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};
use tautline_websocket::conn::{AcceptOptions, Group, accept};
use tautline_websocket::proto::CloseCode;
use tautline_websocket::proto::deflate::ServerConfig;
use tautline_websocket::proto::handshake::Refusal;
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
    let group = Group::new();
    let workers: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let (options, group) = (options.accepting(), group.clone());
            thread::spawn(move || serve(listener, options, &group))
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
    println!("broadcasting on ws://{address}/fanout with {threads} thread(s)");
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

fn serve(listener: std::net::TcpListener, options: AcceptOptions, group: &Group) -> io::Result<()> {
    let options = Rc::new(options);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::task::spawn_local(broadcast(stream, Rc::clone(&options), group.clone()));
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
async fn broadcast(stream: TcpStream, options: Rc<AcceptOptions>, group: Group) {
    // Messages are gathered here; there is nothing left for the kernel to wait for.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(accepted) = accept(stream, &options).await else {
        return;
    };
    drop(options);
    let mut websocket = accepted.websocket;
    if websocket.join(&group).is_err() {
        return;
    }
    // What is published is written by one task of this thread for all its connections.
    let _ = websocket
        .serve_member(|message, replies| {
            // Only when all members together are too slow for what comes: then this one shall wait
            // for better times, and say so.
            if group.publish(message).is_err() {
                let _ = replies.close(CloseCode::TRY_AGAIN_LATER, "too much is said here");
            }
        })
        .await;
}

struct Options {
    listen: SocketAddr,
    threads: usize,
    deflate: bool,
}

impl Options {
    /// How connections are accepted.
    fn accepting(&self) -> AcceptOptions {
        AcceptOptions {
            decide: Box::new(|request, _| match request.path() {
                "/fanout" => Ok(None),
                path => Err(Refusal::new(404, format!("expected /fanout, not {path}"))),
            }),
            deflate: self.deflate.then(ServerConfig::default),
            ..AcceptOptions::default()
        }
    }

    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut listen, mut threads) = (None, 1);
        let mut deflate = false;
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--listen" => listen = Some(parse(&arg, "an address and port", &value()?)?),
                "--threads" => threads = parse(&arg, "a number from 1", &value()?)?,
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
usage: broadcast_server --listen ADDRESS:PORT [--threads N] [--deflate]

  --listen ADDRESS:PORT   where to listen; with port 0 the kernel chooses one
  --threads N             threads, each with a listening socket of its own (default 1)
  --deflate               accept permessage-deflate, and compress messages from 128 bytes on";
