//! HTTP/2 for tests that wait for one thing at a time: each connection is driven by a thread of its own.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;

use bytes::Bytes;
use http::Request;
use tautline_websocket::conn::ConnectOptions;
use tautline_websocket::conn::http2::{Http2Client, Http2Options};
use tautline_websocket::proto::Message;
use tokio::sync::mpsc;

use crate::http::Broken;
use crate::process::DEADLINE;
use crate::ways::Asked;

/// A WebSocket over HTTP/2 (RFC 8441). Dropped, it is cut off with its connection.
pub(crate) struct Socket {
    messages: Receiver<Vec<u8>>,
    send: mpsc::UnboundedSender<Message>,
}

impl Socket {
    pub(crate) fn open(address: SocketAddr, path: &str) -> Self {
        let url = format!("ws://{address}{path}");
        let (tell, messages) = channel();
        let (send, to_send) = mpsc::unbounded_channel();
        drive(talk(url, tell, to_send));
        Self { messages, send }
    }

    /// The next message.
    pub(crate) fn message(&self) -> Result<Vec<u8>, Broken> {
        heard(&self.messages, "a message of a WebSocket over HTTP/2")
    }

    pub(crate) fn send(&self, payload: &[u8], is_binary: bool) {
        let message = if is_binary {
            Message::from(payload.to_vec())
        } else {
            Message::from(std::str::from_utf8(payload).expect("text"))
        };
        // If it is broken, that is seen when it is read.
        let _ = self.send.send(message);
    }
}

/// What a connection's thread tells; it ends with the connection.
fn heard<T>(told: &Receiver<T>, what: &str) -> Result<T, Broken> {
    told.recv_timeout(DEADLINE).map_err(|error| match error {
        RecvTimeoutError::Disconnected => Broken,
        RecvTimeoutError::Timeout => panic!("waited for {what}"),
    })
}

async fn talk(url: String, tell: Sender<Vec<u8>>, mut to_send: mpsc::UnboundedReceiver<Message>) {
    let (options, http2) = (ConnectOptions::default(), Http2Options::default());
    let Ok(client) = Http2Client::connect(&url, &options, &http2).await else {
        return;
    };
    let Ok(opened) = client.open(&url, &options).await else {
        return;
    };
    let mut socket = opened.websocket;
    loop {
        tokio::select! {
            message = socket.recv() => {
                let payload = match message {
                    Ok(Some(Message::Text(text))) => text.as_bytes().to_vec(),
                    Ok(Some(Message::Binary(bytes))) => bytes.to_vec(),
                    Ok(None) | Err(_) => return,
                };
                if tell.send(payload).is_err() {
                    return;
                }
            }
            message = to_send.recv() => {
                // Nobody has it any more, or it is broken.
                let Some(message) = message else { return };
                if socket.queue_owned(message).is_err() || socket.flush().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A response over HTTP/2 that goes on. Dropped, it is cut off with its connection.
pub(crate) struct Response {
    chunks: Receiver<Option<Bytes>>,
    /// Its end is that of the connection.
    _keep: mpsc::UnboundedSender<()>,
}

impl Response {
    pub(crate) fn ask(address: SocketAddr, asked: &Asked) -> Self {
        let request = request(address, asked);
        let (tell, chunks) = channel();
        let (keep, kept) = mpsc::unbounded_channel();
        drive(listen(address, request, tell, kept));
        Self {
            chunks,
            _keep: keep,
        }
    }

    /// What comes next, `None` at the end of the response.
    pub(crate) fn chunk(&self) -> Result<Option<Bytes>, Broken> {
        heard(&self.chunks, "more of an answer over HTTP/2")
    }
}

fn request(address: SocketAddr, asked: &Asked) -> Request<Bytes> {
    let mut request = Request::builder()
        .method(asked.method)
        .uri(format!("http://{address}{}", asked.path));
    if let Some(content_type) = asked.content_type() {
        request = request.header("content-type", content_type);
    }
    let body = Bytes::from(asked.body.clone());
    request.body(body).expect("a request")
}

async fn listen(
    address: SocketAddr,
    request: Request<Bytes>,
    tell: Sender<Option<Bytes>>,
    mut kept: mpsc::UnboundedReceiver<()>,
) {
    let listening = async {
        let mut requests = begin(address).await?;
        let mut response = send(&mut requests, request.clone()).await?;
        // A poll that was given up may be looked at behind this one: docs/long-polling.md has its client poll again.
        while response.status() == 409 {
            response = send(&mut requests, request.clone()).await?;
        }
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.ok()?;
            body.flow_control().release_capacity(chunk.len()).ok()?;
            tell.send(Some(chunk)).ok()?;
        }
        tell.send(None).ok()
    };
    tokio::select! {
        _ = listening => {}
        _ = kept.recv() => {}
    }
}

type Requester = h2::client::SendRequest<Bytes>;

async fn begin(address: SocketAddr) -> Option<Requester> {
    let io = tokio::net::TcpStream::connect(address).await;
    let io = io.expect("the server accepts");
    let (requests, connection) = h2::client::handshake(io).await.ok()?;
    tokio::spawn(connection);
    Some(requests)
}

async fn send(
    requests: &mut Requester,
    request: Request<Bytes>,
) -> Option<http::Response<h2::RecvStream>> {
    let (head, body) = request.into_parts();
    let request = Request::from_parts(head, ());
    let (response, mut sending) = requests.send_request(request, false).ok()?;
    sending.send_data(body, true).ok()?;
    response.await.ok()
}

/// A connection for requests whose answers are whole. Dropped, it ends.
pub(crate) struct Requests {
    address: SocketAddr,
    asked: mpsc::UnboundedSender<Asking>,
}

type Answer = (u16, Vec<u8>);
type Asking = (Request<Bytes>, Sender<Answer>);

impl Requests {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let (asked, to_ask) = mpsc::unbounded_channel();
        drive(async move {
            let _ = answer(address, to_ask).await;
        });
        Self { address, asked }
    }

    /// Status and body of the answer. Once it is broken, it stays so.
    pub(crate) fn ask(&self, asked: &Asked) -> Result<Answer, Broken> {
        let (tell, answered) = channel();
        let asking = (request(self.address, asked), tell);
        self.asked.send(asking).map_err(|_| Broken)?;
        heard(&answered, "an answer over HTTP/2")
    }
}

async fn answer(address: SocketAddr, mut asked: mpsc::UnboundedReceiver<Asking>) -> Option<()> {
    let mut requests = begin(address).await?;
    while let Some((request, tell)) = asked.recv().await {
        let response = send(&mut requests, request).await?;
        let status = response.status().as_u16();
        let (mut stream, mut body) = (response.into_body(), Vec::new());
        while let Some(chunk) = stream.data().await {
            let chunk = chunk.ok()?;
            stream.flow_control().release_capacity(chunk.len()).ok()?;
            body.extend_from_slice(&chunk);
        }
        // Nobody waits any more where the test has failed.
        let _ = tell.send((status, body));
        requests = requests.ready().await.ok()?;
    }
    Some(())
}

/// Runs something on a thread of its own.
fn drive(work: impl Future<Output = ()> + Send + 'static) {
    thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("an event loop");
        runtime.block_on(work);
    });
}
