//! HTTP/2 for tests that wait for one thing at a time: each connection is driven by a thread of its own.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use bytes::Bytes;
use http::Request;
use tautline_websocket::conn::ConnectOptions;
use tautline_websocket::conn::http2::{Http2Client, Http2Options};
use tautline_websocket::proto::Message;
use tokio::sync::mpsc;

use crate::process::{DEADLINE, Server};

/// A WebSocket over HTTP/2 (RFC 8441). Dropped, it is cut off with its connection.
pub(crate) struct Socket {
    texts: Receiver<String>,
    send: mpsc::UnboundedSender<String>,
}

impl Socket {
    pub(crate) fn open(server: &Server, path: &str) -> Self {
        let url = format!("ws://{}{path}", server.address);
        let (tell, texts) = channel();
        let (send, to_send) = mpsc::unbounded_channel();
        drive(talk(url, tell, to_send));
        Self { texts, send }
    }

    /// The next message.
    pub(crate) fn text(&self) -> String {
        let text = self.texts.recv_timeout(DEADLINE);
        text.unwrap_or_else(|error| panic!("waited for a message of a WebSocket: {error}"))
    }

    pub(crate) fn send(&self, text: &str) {
        self.send.send(text.to_owned()).expect("it is open");
    }
}

async fn talk(url: String, tell: Sender<String>, mut to_send: mpsc::UnboundedReceiver<String>) {
    let (options, http2) = (ConnectOptions::default(), Http2Options::default());
    let client = Http2Client::connect(&url, &options, &http2).await;
    let opened = client.expect("it begins").open(&url, &options).await;
    let mut socket = opened.expect("it opens").websocket;
    loop {
        tokio::select! {
            message = socket.recv() => match message.expect("it goes on") {
                Some(Message::Text(text)) => {
                    if tell.send(text.to_string()).is_err() {
                        return;
                    }
                }
                other => panic!("{other:?}"),
            },
            text = to_send.recv() => match text {
                Some(text) => socket.send(&*text).await.expect("it is taken"),
                // Nobody has it any more.
                None => return,
            },
        }
    }
}

/// A response over HTTP/2 that goes on. Dropped, it is cut off with its connection.
pub(crate) struct Response {
    chunks: Receiver<Bytes>,
    came: Vec<u8>,
    /// Its end is that of the connection.
    _keep: mpsc::UnboundedSender<()>,
}

impl Response {
    pub(crate) fn ask(server: &Server, method: &str, path: &str, body: &str) -> Self {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", server.address))
            .body(Bytes::from(body.to_owned()))
            .expect("a request");
        let (tell, chunks) = channel();
        let (keep, kept) = mpsc::unbounded_channel();
        drive(listen(server.address, request, tell, kept));
        Self {
            chunks,
            came: Vec::new(),
            _keep: keep,
        }
    }

    /// What comes up to and with `end`.
    pub(crate) fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            let found = self.came.windows(end.len()).position(|part| part == end);
            if let Some(found) = found {
                return self.came.drain(..found + end.len()).collect();
            }
            let chunk = self.chunks.recv_timeout(DEADLINE).unwrap_or_else(|error| {
                let end = String::from_utf8_lossy(end);
                panic!("waited for {end:?} of an answer over HTTP/2: {error}")
            });
            self.came.extend_from_slice(&chunk);
        }
    }
}

async fn listen(
    address: SocketAddr,
    request: Request<Bytes>,
    tell: Sender<Bytes>,
    mut kept: mpsc::UnboundedReceiver<()>,
) {
    let listening = async {
        let io = tokio::net::TcpStream::connect(address).await;
        let io = io.expect("the server accepts");
        let (mut requests, connection) = h2::client::handshake(io).await.expect("it begins");
        tokio::spawn(connection);
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, ());
        let (response, mut sending) = requests.send_request(request, false).expect("it is sent");
        sending.send_data(body, true).expect("it is sent");
        let response = response.await.expect("it is answered");
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        while let Some(Ok(chunk)) = body.data().await {
            let released = body.flow_control().release_capacity(chunk.len());
            released.expect("it was received");
            if tell.send(chunk).is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = listening => {}
        _ = kept.recv() => {}
    }
}

/// A connection for requests whose answers are whole. Dropped, it ends.
pub(crate) struct Requests {
    address: SocketAddr,
    asked: mpsc::UnboundedSender<Asked>,
}

type Asked = (Request<Bytes>, Sender<(u16, Vec<u8>)>);

impl Requests {
    pub(crate) fn open(server: &Server) -> Self {
        let (asked, to_ask) = mpsc::unbounded_channel();
        drive(answer(server.address, to_ask));
        Self {
            address: server.address,
            asked,
        }
    }

    /// Status and body of the answer.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .body(Bytes::from(body.to_owned()))
            .expect("a request");
        let (tell, answered) = channel();
        self.asked.send((request, tell)).expect("it is open");
        let answer = answered.recv_timeout(DEADLINE);
        let (status, body) = answer.unwrap_or_else(|error| {
            panic!("waited for the answer to {method} {path} over HTTP/2: {error}")
        });
        (status, String::from_utf8(body).expect("text"))
    }
}

async fn answer(address: SocketAddr, mut asked: mpsc::UnboundedReceiver<Asked>) {
    let io = tokio::net::TcpStream::connect(address).await;
    let io = io.expect("the server accepts");
    let (mut requests, connection) = h2::client::handshake(io).await.expect("it begins");
    tokio::spawn(connection);
    while let Some((request, tell)) = asked.recv().await {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, ());
        let (response, mut sending) = requests.send_request(request, false).expect("it is sent");
        sending.send_data(body, true).expect("it is sent");
        let response = response.await.expect("it is answered");
        let status = response.status().as_u16();
        let (mut stream, mut body) = (response.into_body(), Vec::new());
        while let Some(chunk) = stream.data().await {
            let chunk = chunk.expect("it goes on");
            let released = stream.flow_control().release_capacity(chunk.len());
            released.expect("it was received");
            body.extend_from_slice(&chunk);
        }
        // Nobody waits any more where the test has failed.
        let _ = tell.send((status, body));
        requests = requests.ready().await.expect("it goes on");
    }
}

/// Runs something on a thread of its own.
fn drive(work: impl Future<Output = ()> + Send + 'static) {
    thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("an event loop");
        runtime.block_on(work);
    });
}
