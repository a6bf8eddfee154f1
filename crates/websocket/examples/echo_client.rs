//! Sends each line of its input to a server, and prints what comes back.
//!
//! ```text
//! cargo run -p tautline-websocket --example echo_client -- ws://127.0.0.1:9001
//! ```
//!
//! The connection is closed in order when the input ends. `wss://` wants `--features rustls`.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::thread;

use tautline_websocket::conn::{ClientStream, ConnectOptions, WebSocket, connect};
use tautline_websocket::proto::{CloseCode, Message};
use tokio::sync::mpsc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(url), None) = (args.next(), args.next()) else {
        eprintln!("usage: echo_client URL");
        return ExitCode::from(2);
    };
    match run(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(url: &str) -> Result<(), Box<dyn Error>> {
    let mut ws = connect(url, &ConnectOptions::default()).await?.websocket;
    let mut lines = lines_of_stdin();
    // Who pipes a file in wants all answers, so wait for as many as there were lines.
    let mut unanswered = 0_usize;
    let mut at_end = false;
    while !at_end || unanswered > 0 {
        tokio::select! {
            line = lines.recv(), if !at_end => match line {
                Some(line) => {
                    ws.send(&*line?).await?;
                    unanswered += 1;
                }
                None => at_end = true,
            },
            message = ws.recv() => {
                let Some(message) = message? else {
                    return Err(ended(&ws).into());
                };
                unanswered = unanswered.saturating_sub(1);
                print(&message)?;
            }
        }
    }
    ws.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

/// Reading from a terminal blocks, so a thread does it. It ends with the process.
fn lines_of_stdin() -> mpsc::Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn print(message: &Message) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match message {
        Message::Text(text) => writeln!(out, "{text}"),
        Message::Binary(bytes) => writeln!(out, "({} bytes)", bytes.len()),
    }
}

fn ended(ws: &WebSocket<ClientStream>) -> String {
    ws.closed().map_or_else(
        || "the server closed the connection".to_owned(),
        |closed| {
            format!(
                "the server closed the connection: {} {}",
                closed.code, closed.reason
            )
        },
    )
}
