//! Sends what any client on `/fanout` says to every client there, itself too: text as text, binary
//! as binary.
//!
//! ```text
//! cargo run --release -p tautline-websocket --example broadcast_server -- --listen 127.0.0.1:9002
//! ```
//!
//! Each thread has a runtime and a listening socket of its own, and the kernel spreads connections
//! over them; the group that all connections are in is one for all threads.

#[path = "shared/workers.rs"]
mod workers;

use std::process::ExitCode;
use std::rc::Rc;

use tautline_websocket::conn::{AcceptOptions, Group, accept};
use tautline_websocket::proto::CloseCode;
use tautline_websocket::proto::deflate::ServerConfig;
use tautline_websocket::proto::handshake::Refusal;
use tokio::net::TcpStream;

fn main() -> ExitCode {
    let options = workers::Options::parse(std::env::args().skip(1), |_, _| Ok(false));
    workers::main_with(options, USAGE, |options| {
        let (deflate, threads) = (options.deflate, options.threads);
        let group = Group::new();
        workers::serve(
            options,
            |address| {
                announce(&format!(
                    "broadcasting on ws://{address}/fanout with {threads} thread(s)"
                ));
            },
            move || {
                let (accepting, group) = (Rc::new(accepting(deflate)), group.clone());
                move |stream| broadcast(stream, Rc::clone(&accepting), group.clone())
            },
        )
    })
}

/// How connections are accepted.
fn accepting(deflate: bool) -> AcceptOptions {
    AcceptOptions {
        decide: Box::new(|request, _| match request.path() {
            "/fanout" => Ok(None),
            path => Err(Refusal::new(404, format!("expected /fanout, not {path}"))),
        }),
        deflate: deflate.then(ServerConfig::default),
        ..AcceptOptions::default()
    }
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

#[expect(
    clippy::print_stdout,
    reason = "whoever starts this waits for the line"
)]
fn announce(line: &str) {
    println!("{line}");
}

const USAGE: &str = "\
usage: broadcast_server --listen ADDRESS:PORT [--threads N] [--deflate]

  --listen ADDRESS:PORT   where to listen; with port 0 the kernel chooses one
  --threads N             threads, each with a listening socket of its own (default 1)
  --deflate               accept permessage-deflate, and compress messages from 128 bytes on";
