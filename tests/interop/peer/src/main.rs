//! Our end in the tests against other WebSocket implementations: a server whose paths each show one
//! thing, and a client that goes through a scene with somebody else's server.
//!
//! ```text
//! interop-peer serve                   servers on free ports, one a line: NAME ADDRESS
//! interop-peer SCENE COMPRESSION URL   one scene; prints what was seen, fails if it isn't right;
//!                                      `http2` is the scene of our client over HTTP/2
//! ```
//!
//! It ends when its standard input does, so that no test leaves it behind.

#![allow(clippy::print_stdout, reason = "the tests read what it prints")]

mod compression;
mod echo;
mod http2;
mod scene;
mod server;

use std::io::Read as _;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["serve"] => {
            std::thread::spawn(end_with_stdin);
            server::run().await
        }
        ["http2", _, url] => http2::run(url).await,
        [name, compression, url] => scene::run(name, compression, url).await,
        _ => Err("usage: interop-peer serve | SCENE COMPRESSION URL".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn end_with_stdin() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}
