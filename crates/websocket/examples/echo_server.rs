//! Sends every message back as it came: text as text, binary as binary, on every path.
//!
//! ```text
//! cargo run --release -p tautline-websocket --example echo_server -- --listen 127.0.0.1:9001
//! ```
//!
//! Each thread has a runtime and a listening socket of its own, and the kernel spreads connections
//! over them; a connection stays on the thread that accepted it.

#[path = "shared/workers.rs"]
mod workers;

use std::process::ExitCode;
use std::rc::Rc;

use tautline_websocket::conn::{AcceptOptions, accept};
use tautline_websocket::proto::Limits;
use tautline_websocket::proto::deflate::ServerConfig;
use tokio::net::TcpStream;

fn main() -> ExitCode {
    let options = Options::parse(std::env::args().skip(1));
    workers::main_with(options, USAGE, |options| {
        let Options {
            shared,
            max_message,
        } = options;
        let (max_message, deflate) = (*max_message, shared.deflate);
        workers::serve(
            shared,
            |address| {
                announce(&format!(
                    "echoing on ws://{address} with {} thread(s)",
                    shared.threads
                ));
            },
            move || {
                let accepting = Rc::new(accepting(max_message, deflate));
                move |stream| echo(stream, Rc::clone(&accepting))
            },
        )
    })
}

/// How connections are accepted.
fn accepting(max_message: usize, deflate: bool) -> AcceptOptions {
    AcceptOptions {
        limits: Limits::for_messages(max_message),
        deflate: deflate.then(ServerConfig::default),
        ..AcceptOptions::default()
    }
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

#[expect(
    clippy::print_stdout,
    reason = "whoever starts this waits for the line"
)]
fn announce(line: &str) {
    println!("{line}");
}

struct Options {
    shared: workers::Options,
    max_message: usize,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut max_message = 64 * 1024 * 1024;
        let shared = workers::Options::parse(args, |option, value| {
            if option != "--max-message" {
                return Ok(false);
            }
            max_message = value.parse("a number of bytes")?;
            Ok(true)
        })?;
        Ok(Self {
            shared,
            max_message,
        })
    }
}

const USAGE: &str = "\
usage: echo_server --listen ADDRESS:PORT [--threads N] [--deflate] [--max-message BYTES]

  --listen ADDRESS:PORT   where to listen; with port 0 the kernel chooses one
  --threads N             threads, each with a listening socket of its own (default 1)
  --deflate               accept permessage-deflate, and compress replies from 128 bytes on
  --max-message BYTES     the largest message that is taken (default 67108864)";
