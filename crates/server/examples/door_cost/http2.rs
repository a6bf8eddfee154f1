//! Clients over HTTP/2, as many on a connection as is asked for.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::Request;
use tautline_websocket::conn::http2::{Http2Client, Http2Options, Http2Stream};
use tautline_websocket::conn::{ConnectOptions, WebSocket};
use tautline_websocket::proto::Message;
use tokio::net::TcpStream;

use crate::client::{between, poll};
use crate::heard::{Heard, find};
use crate::ways::Door;
use crate::{COMMANDS, Result};

/// A connection, of which clients have a handle each.
#[derive(Clone)]
pub(crate) enum Connection {
    Sockets(Http2Client, SocketAddr),
    Requests(SendRequest<Bytes>, SocketAddr),
}

impl Connection {
    pub(crate) async fn open(door: Door, address: SocketAddr) -> Result<Self> {
        if door == Door::WebSocket {
            let (options, http2) = (ConnectOptions::default(), Http2Options::default());
            let client = Http2Client::connect(&url(address), &options, &http2).await?;
            return Ok(Self::Sockets(client, address));
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            // Short publications come in frames of their own, which is no attack.
            .data_frame_budget(BUDGET)
            .handshake(stream)
            .await?;
        // Ends when nobody has a handle any more.
        tokio::task::spawn_local(connection);
        Ok(Self::Requests(send, address))
    }

    /// A client that is subscribed, and waits.
    pub(crate) async fn client(&self, door: Door) -> Result<Client> {
        match self {
            Self::Sockets(client, address) => Client::socket(client.clone(), *address).await,
            Self::Requests(send, address) => {
                let mut asks = Asker {
                    send: send.clone().ready().await?,
                    address: *address,
                };
                if door == Door::Poll {
                    let opening = format!("{{\"open\":1}}\n{COMMANDS}");
                    let answer = asks.whole("/connection/poll", opening).await?;
                    let session = between(&answer, "\"session\":\"", |c| c == '"')?;
                    let next = between(&answer, "\"next\":", |c| !c.is_ascii_digit())?;
                    let poll = poll(&session, &next, false);
                    let waiting = asks.begin("/connection/poll", poll).await?;
                    return Ok(Client::Poll(asks, session, waiting));
                }
                let (path, body) = match door {
                    Door::HttpStream => ("/connection/http_stream", COMMANDS),
                    Door::Sse => ("/connection/sse", COMMANDS),
                    _ => ("/events?channel=c", ""),
                };
                let response = asks.begin(path, body.to_owned()).await?.await?;
                let mut stream = Stream::new(response)?;
                let begins: &[u8] = match body {
                    "" => b"id: ",
                    _ => b"\"subscribe\":",
                };
                while find(&stream.received, begins).is_none() {
                    if !stream.read().await? {
                        return Err("an answer was cut off".into());
                    }
                }
                Ok(Client::Stream(asks, stream))
            }
        }
    }
}

/// One that hears.
pub(crate) enum Client {
    Socket(Box<WebSocket<Http2Stream>>, Http2Client),
    /// The connection is there for as long as it has a handle.
    Stream(Asker, Stream),
    Poll(Asker, String, h2::client::ResponseFuture),
}

impl Client {
    async fn socket(client: Http2Client, address: SocketAddr) -> Result<Self> {
        let options = ConnectOptions::default();
        let opened = client.open(&url(address), &options).await?;
        let mut socket = opened.websocket;
        socket.send(COMMANDS).await?;
        while !text(&mut socket).await?.contains("\"subscribe\":") {}
        Ok(Self::Socket(Box::new(socket), client))
    }

    /// Hears what comes, for as long as it is polled.
    pub(crate) async fn listen(self, heard: &Heard) -> Result<()> {
        match self {
            Self::Socket(mut socket, _client) => loop {
                let said = text(&mut socket).await?;
                heard.take(said.as_bytes(), 0)?;
            },
            Self::Stream(_asks, mut stream) => loop {
                let from = heard.take(&stream.received, 0)?;
                stream.received.drain(..from);
                if !stream.read().await? {
                    return Err("an answer was cut off".into());
                }
            },
            Self::Poll(mut asks, session, mut waiting) => loop {
                let answer = Stream::new(waiting.await?)?.whole().await?;
                let next = between(&answer, "\"next\":", |c| !c.is_ascii_digit())?;
                heard.take(answer.as_bytes(), 0)?;
                let poll = poll(&session, &next, false);
                waiting = asks.begin("/connection/poll", poll).await?;
            },
        }
    }
}

async fn text(socket: &mut WebSocket<Http2Stream>) -> Result<String> {
    match socket.recv().await? {
        Some(Message::Text(text)) => Ok(text.to_string()),
        other => Err(format!("expected a text, got {other:?}").into()),
    }
}

/// Whoever sends requests on a connection.
pub(crate) struct Asker {
    send: SendRequest<Bytes>,
    address: SocketAddr,
}

impl Asker {
    async fn begin(&mut self, path: &str, body: String) -> Result<h2::client::ResponseFuture> {
        let url = format!("http://{}{path}", self.address);
        let request = match body.is_empty() {
            true => Request::get(url),
            false => Request::post(url),
        };
        self.send = self.send.clone().ready().await?;
        let is_all = body.is_empty();
        let (response, mut sends) = self.send.send_request(request.body(())?, is_all)?;
        if !is_all {
            sends.send_data(body.into(), true)?;
        }
        Ok(response)
    }

    async fn whole(&mut self, path: &str, body: String) -> Result<String> {
        let response = self.begin(path, body).await?.await?;
        Stream::new(response)?.whole().await
    }
}

/// The body of an answer.
pub(crate) struct Stream {
    body: RecvStream,
    received: Vec<u8>,
}

impl Stream {
    fn new(response: http::Response<RecvStream>) -> Result<Self> {
        if response.status() != 200 {
            return Err(format!("answered with {}", response.status()).into());
        }
        Ok(Self {
            body: response.into_body(),
            received: Vec::new(),
        })
    }

    /// Whether there was more.
    async fn read(&mut self) -> Result<bool> {
        let Some(data) = self.body.data().await else {
            return Ok(false);
        };
        let data = data?;
        self.received.extend_from_slice(&data);
        self.body.flow_control().release_capacity(data.len())?;
        Ok(true)
    }

    async fn whole(mut self) -> Result<String> {
        while self.read().await? {}
        Ok(String::from_utf8(self.received)?)
    }
}

fn url(address: SocketAddr) -> String {
    format!("ws://{address}/connection/websocket")
}

const WINDOW: u32 = 1024 * 1024;

const BUDGET: usize = 64 * 1024 * 1024;
