//! What the peers' servers have in common, so that they differ in the library alone: one thread, a current-thread
//! runtime, one task a connection outside Tokio's co-operative budget, TCP_NODELAY, and the same two echo loops.

mod corked;
mod handshake;
mod room;
mod setup;

use std::future::{Future, poll_fn};
use std::iter;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::unconstrained;

pub use corked::Corked;
pub use handshake::upgrade;
pub use room::Room;
use setup::Arguments;
pub use setup::{Batching, Deflate};

/// Messages answered by one write at most.
const BATCH_LIMIT: usize = 256;

/// What a connection is to do, with messages of type `M`.
#[derive(Debug)]
pub struct Setup<M> {
    /// When replies are written.
    pub batching: Batching,
    /// What was asked for in the way of compression.
    pub deflate: Deflate,
    /// Where messages go that are for everybody; `None` to echo them.
    pub room: Option<Arc<Room<M>>>,
}

/// Runs `connection` for each connection, for ever. Arguments of the process: `--listen ADDRESS:PORT`, `--send`,
/// `--deflate alone|takeover`, `--broadcast`.
pub fn run<M, F>(connection: impl Fn(TcpStream, Setup<M>) -> F) -> ExitCode
where
    M: Clone,
    F: Future<Output = ()> + Send + 'static,
{
    let arguments = match Arguments::of_process() {
        Ok(arguments) => arguments,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let room = arguments.broadcast.then(|| Arc::new(Room::new()));
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| {
            runtime.block_on(async {
                let listener = TcpListener::bind(arguments.address).await?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    let setup = Setup {
                        batching: arguments.batching,
                        deflate: arguments.deflate,
                        room: room.clone(),
                    };
                    tokio::spawn(unconstrained(connection(stream, setup)));
                }
            })
        });
    let Err::<(), std::io::Error>(error) = served else {
        return ExitCode::SUCCESS;
    };
    eprintln!("cannot serve on {}: {error}", arguments.address);
    ExitCode::FAILURE
}

/// Serves one connection over any `Stream` + `Sink` until either ends: echoes, or takes part in the room. `reply` turns
/// a received message into its answer, `None` for what wants none; an error of the library ends the connection.
pub async fn serve<W, I, M>(socket: W, setup: Setup<M>, reply: impl Fn(I) -> Option<M>)
where
    W: Stream<Item = I> + Sink<M> + Unpin,
    M: Clone,
{
    match setup.room {
        Some(room) => room::take_part(socket, &room, reply).await,
        None => echo(socket, setup.batching, reply).await,
    }
}

/// As [`serve`], for a library that flushes by itself whenever it is asked for input: all that is there is read first,
/// and only then answered.
pub async fn serve_after_reading<W, I, M>(
    socket: W,
    setup: Setup<M>,
    reply: impl Fn(I) -> Option<M>,
) where
    W: Stream<Item = I> + Sink<M> + Unpin,
    M: Clone,
{
    match setup.room {
        Some(room) => room::take_part(socket, &room, reply).await,
        None => echo_after_reading(socket, setup.batching, reply).await,
    }
}

async fn echo<W, I, M>(mut socket: W, batching: Batching, reply: impl Fn(I) -> Option<M>)
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

async fn echo_after_reading<W, I, M>(
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
