//! Both of our ends, and each of the library below, by hand.

use std::time::Duration;

use bytes::Bytes;
use tautline_websocket::conn::http2::{
    Http2Client, Http2Options, Http2Stream, Incoming, ServerStream,
};
use tautline_websocket::conn::{AcceptError, AcceptOptions, Accepted, ConnectOptions, WebSocket};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub(crate) type Server = Incoming<DuplexStream>;
pub(crate) type Served = Accepted<ServerStream<DuplexStream>>;

/// Accepts all and sends back what comes, until the client is done.
pub(crate) async fn echo_all(
    io: DuplexStream,
    options: AcceptOptions,
) -> Result<usize, AcceptError> {
    let mut incoming = Incoming::new(io, &Http2Options::default()).await?;
    let mut count = 0;
    while let Some(accepted) = incoming.accept(&options).await? {
        count += 1;
        tokio::spawn(accepted.websocket.serve(|message, replies| {
            let _ = replies.send(message);
        }));
    }
    Ok(count)
}

/// A server whose connections come out of a channel, and the task that drives it.
pub(crate) fn serve(
    io: DuplexStream,
    http2: Http2Options,
    options: AcceptOptions,
) -> (
    mpsc::UnboundedReceiver<Served>,
    JoinHandle<Result<(), AcceptError>>,
) {
    let (tell, accepted) = mpsc::unbounded_channel();
    let driving = tokio::spawn(async move {
        let mut incoming = Server::new(io, &http2).await?;
        while let Some(served) = incoming.accept(&options).await? {
            if tell.send(served).is_err() {
                break;
            }
        }
        Ok(())
    });
    (accepted, driving)
}

/// Our client over a pipe.
pub(crate) async fn client_over(io: DuplexStream) -> Http2Client {
    let (client, connection) = Http2Client::over(io, &Http2Options::default())
        .await
        .expect("it begins");
    tokio::spawn(connection);
    client
}

/// Fails where a talk has come to a standstill, which is what a wrong window looks like. Far more
/// time than it takes: on a paused clock none passes while there is something to do.
pub(crate) async fn in_time(talk: impl Future<Output = ()>) {
    let ended = tokio::time::timeout(Duration::from_secs(60), talk).await;
    assert!(ended.is_ok(), "nothing has happened for a minute");
}

pub(crate) async fn open(client: &Http2Client) -> WebSocket<Http2Stream> {
    let opened = client.open("ws://a/", &ConnectOptions::default()).await;
    opened.expect("it opens").websocket
}

/// The library's client over a pipe, with the server's settings known to it.
pub(crate) async fn raw_client(io: DuplexStream) -> h2::client::SendRequest<Bytes> {
    let (requests, mut connection) = h2::client::handshake(io).await.expect("it begins");
    let mut pings = connection.ping_pong().expect("the first to take it");
    tokio::spawn(connection);
    pings.ping(h2::Ping::opaque()).await.expect("it answers");
    assert!(requests.is_extended_connect_protocol_enabled());
    requests
}

pub(crate) fn opening() -> http::Request<()> {
    http::Request::connect("http://a/chat")
        .version(http::Version::HTTP_2)
        .header("sec-websocket-version", "13")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .expect("a request")
}

/// Both ends of one WebSocket, the client's by hand.
pub(crate) async fn raw_stream(
    requests: &h2::client::SendRequest<Bytes>,
) -> (h2::SendStream<Bytes>, h2::RecvStream) {
    let mut requests = requests.clone().ready().await.expect("there is room");
    let (response, send) = requests.send_request(opening(), false).expect("it is sent");
    let response = response.await.expect("an answer");
    assert_eq!(response.status(), 200);
    (send, response.into_body())
}

/// A short text in a frame of a client.
pub(crate) fn frame(text: &str) -> Bytes {
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame.into()
}
