//! What the peers' servers have in common, so that they differ in the library alone: one thread, a current-thread
//! runtime, one task a connection outside Tokio's co-operative budget, TCP_NODELAY, and the same two echo loops.

mod corked;
mod handshake;

use std::env;
use std::future::{Future, poll_fn};
use std::iter;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::task::Poll;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::unconstrained;

pub use corked::Corked;
pub use handshake::upgrade;

/// Messages answered by one write at most.
const BATCH_LIMIT: usize = 256;

/// When replies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// Everything that one read brought in is answered by one write. The default.
    Ready,
    /// Each reply is written by itself (`--send`).
    Each,
}

/// Runs `echo` for each connection, for ever. Arguments of the process: `--listen ADDRESS:PORT`, `--send`.
pub fn run<F>(echo: impl Fn(TcpStream, Batching) -> F) -> ExitCode
where
    F: Future<Output = ()> + Send + 'static,
{
    let (address, batching) = match arguments() {
        Ok(arguments) => arguments,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| {
            runtime.block_on(async {
                let listener = TcpListener::bind(address).await?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    tokio::spawn(unconstrained(echo(stream, batching)));
                }
            })
        });
    let Err::<(), std::io::Error>(error) = served else {
        return ExitCode::SUCCESS;
    };
    eprintln!("cannot serve on {address}: {error}");
    ExitCode::FAILURE
}

/// Echoes over any `Stream` + `Sink` until either ends. `reply` turns a received message into its answer, `None` for
/// what wants none; an error of the library ends the connection.
pub async fn echo<W, I, M>(mut socket: W, batching: Batching, reply: impl Fn(I) -> Option<M>)
where
    W: Stream<Item = I> + Sink<M> + Unpin,
{
    while let Some(item) = socket.next().await {
        let Some(answer) = reply(item) else { continue };
        if socket.feed(answer).await.is_err() {
            return;
        }
        if batching == Batching::Ready {
            // Whatever else has come in already is answered by the same write.
            while let Some(item) = ready(&mut socket).await {
                let Some(answer) = reply(item) else { continue };
                if socket.feed(answer).await.is_err() {
                    return;
                }
            }
        }
        if socket.flush().await.is_err() {
            return;
        }
    }
}

/// As [`echo`], for a library that flushes by itself whenever it is asked for input: all that is there is read first,
/// and only then answered.
pub async fn echo_after_reading<W, I, M>(
    mut socket: W,
    batching: Batching,
    reply: impl Fn(I) -> Option<M>,
) where
    W: Stream<Item = I> + Sink<M> + Unpin,
{
    while let Some(item) = socket.next().await {
        let Some(first) = reply(item) else { continue };
        let mut more = Vec::new();
        while batching == Batching::Ready && more.len() < BATCH_LIMIT {
            let Some(item) = ready(&mut socket).await else {
                break;
            };
            more.extend(reply(item));
        }
        for answer in iter::once(first).chain(more) {
            if socket.feed(answer).await.is_err() {
                return;
            }
        }
        if socket.flush().await.is_err() {
            return;
        }
    }
}

/// The next item if it is there now; the end of the stream is left for `next` to report again.
async fn ready<S: Stream + Unpin>(socket: &mut S) -> Option<S::Item> {
    poll_fn(|context| match socket.poll_next_unpin(context) {
        Poll::Ready(item) => Poll::Ready(item),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

fn arguments() -> Result<(SocketAddr, Batching), String> {
    let mut address = None;
    let mut batching = Batching::Ready;
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--listen" => {
                let value = words.next().unwrap_or_default();
                let parsed = value.parse();
                address = Some(parsed.map_err(|_| {
                    format!("--listen wants ADDRESS:PORT, such as 127.0.0.1:9001, not {value:?}")
                })?);
            }
            "--send" => batching = Batching::Each,
            other => {
                return Err(format!(
                    "{other:?} is not known here: --listen ADDRESS:PORT [--send]"
                ));
            }
        }
    }
    Ok((address.ok_or("--listen ADDRESS:PORT is missing")?, batching))
}
