//! WebSockets over HTTP/2, as many on a connection as is asked for.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tautline_websocket::conn::http2::{Http2Client, Http2Options, Http2Stream};
use tautline_websocket::conn::{ConnectOptions, WebSocket};
use tautline_websocket::proto::Message;

use crate::{COMMANDS, PUBLICATIONS, Result, times_in};

/// Clients that are subscribed, on a thread of their own. Dropped, they are gone.
pub(crate) struct Crowd {
    _keep: tokio::sync::oneshot::Sender<()>,
}

impl Crowd {
    /// Opens `count` clients, so many `to_each` connection.
    pub(crate) fn open(address: SocketAddr, count: usize, to_each: usize) -> Result<Self> {
        let (keep, kept) = tokio::sync::oneshot::channel();
        let (tell, open) = mpsc::channel();
        thread::spawn(move || {
            run(async {
                let all = subscribe(address, count, to_each).await;
                let all = all.map(|all| tell.send(Ok(())).map(|()| all));
                match all {
                    Ok(all) => {
                        let _ = kept.await;
                        drop(all);
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            });
        });
        open.recv()??;
        Ok(Self { _keep: keep })
    }
}

/// Has `count` clients hear all publications; `ready` is called when they are subscribed. Tells how long each
/// publication took.
pub(crate) fn listen(
    address: SocketAddr,
    count: usize,
    to_each: usize,
    start: Instant,
    ready: impl FnOnce(),
) -> Result<Vec<Duration>> {
    run(async {
        let all = subscribe(address, count, to_each).await?;
        let (sockets, clients): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        ready();
        let listeners = sockets.into_iter().map(|socket| hear(socket, start));
        let listeners: Vec<_> = listeners.map(tokio::spawn).collect();
        let mut times = Vec::new();
        for listener in listeners {
            times.extend(listener.await??);
        }
        drop(clients);
        Ok(times)
    })
}

type Client = (WebSocket<Http2Stream>, Http2Client);

async fn subscribe(address: SocketAddr, count: usize, to_each: usize) -> Result<Vec<Client>> {
    let url = format!("ws://{address}/connection/websocket");
    let options = ConnectOptions::default();
    let mut all: Vec<Client> = Vec::with_capacity(count);
    for number in 0..count {
        let client = match all.last() {
            Some((_, client)) if number % to_each != 0 => client.clone(),
            _ => Http2Client::connect(&url, &options, &Http2Options::default()).await?,
        };
        let mut socket = client.open(&url, &options).await?.websocket;
        socket.send(COMMANDS).await?;
        while !next(&mut socket).await?.contains("\"subscribe\":") {}
        all.push((socket, client));
    }
    Ok(all)
}

async fn hear(mut socket: WebSocket<Http2Stream>, start: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    while times.len() < PUBLICATIONS {
        let heard = next(&mut socket).await?;
        times_in(&heard, start.elapsed(), &mut times)?;
    }
    Ok(times)
}

async fn next(socket: &mut WebSocket<Http2Stream>) -> Result<String> {
    match socket.recv().await? {
        Some(Message::Text(text)) => Ok(text.to_string()),
        other => Err(format!("expected a text, got {other:?}").into()),
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build();
    runtime.expect("an event loop").block_on(work)
}
