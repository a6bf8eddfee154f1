//! Going the way to a server: TLS, requests whose answers may go on, WebSockets.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tautline_websocket::conn::http2::{Http2Client, Http2Options};
use tautline_websocket::conn::{
    ClientStream, ConnectError, ConnectOptions, WebSocket, connect, tls_config,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::cli::client::call::Server;
use crate::client_address::FORGED;
use crate::http::DOCTOR;

/// How to go.
pub(super) struct Visit<'a> {
    pub(super) token: Option<&'a str>,
    /// How long to keep a line on which nobody speaks.
    pub(super) idle: Duration,
}

/// What comes back of a request.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// What came of the body while it was waited for.
    pub(super) body: Vec<u8>,
    /// When the first of it came.
    pub(super) first: Option<Duration>,
    /// Whether that was all.
    pub(super) is_over: bool,
}

/// A connection in TLS, with HTTP/2 on offer.
pub(super) async fn shake_hands(server: &Server) -> io::Result<TlsStream<TcpStream>> {
    let mut config = (*tls_config()?).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    open_tls(server, TlsConnector::from(Arc::new(config))).await
}

/// Sends a request, and listens to the answer until it is over, or for `time`.
pub(super) async fn ask(
    server: &Server,
    method: Method,
    path: &str,
    body: &str,
    time: Duration,
) -> io::Result<Answer> {
    ask_with(server, method, path, &[], body, time).await
}

async fn ask_with(
    server: &Server,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    time: Duration,
) -> io::Result<Answer> {
    let mut request = Request::builder()
        .method(method)
        .uri(server.path(path))
        .header(header::HOST, server.authority())
        .header(header::CONTENT_TYPE, "text/plain");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::from(body.to_owned())))
        .map_err(io::Error::other)?;
    if server.is_https() {
        let connector = TlsConnector::from(tls_config()?);
        return ask_over(open_tls(server, connector).await?, request, time).await;
    }
    ask_over(open_tcp(server).await?, request, time).await
}

/// How the server knows whom a request is from; `None` if it doesn't say. With `forged`, the client writes itself what
/// a proxy would.
pub(super) async fn seen(server: &Server, forged: bool) -> Option<String> {
    let address = FORGED.to_string();
    let forwarded = format!("for={address}");
    let more = [("x-forwarded-for", &*address), ("forwarded", &*forwarded)];
    let doctor = DOCTOR;
    let mut headers = vec![(doctor.as_str(), "1")];
    headers.extend(more.into_iter().filter(|_| forged));
    let answer = ask_with(server, Method::GET, "/health", &headers, "", PATIENCE).await;
    let answer = answer.ok()?;
    let seen = answer.headers.get(DOCTOR)?.to_str().ok()?;
    Some(seen.to_owned())
}

/// Opens a WebSocket over HTTP/2 (RFC 8441).
pub(super) async fn open_over_http2(
    server: &Server,
    origin: Option<&str>,
) -> Result<(), ConnectError> {
    let (url, options) = (server.websocket_url(), options(origin));
    let client = Http2Client::connect(&url, &options, &Http2Options::default()).await?;
    client.open(&url, &options).await.map(drop)
}

/// Opens a WebSocket as a page of that origin would, or as a program that is no page.
pub(super) async fn open(
    server: &Server,
    origin: Option<&str>,
) -> Result<WebSocket<ClientStream>, ConnectError> {
    let connected = connect(&server.websocket_url(), &options(origin)).await?;
    Ok(connected.websocket)
}

fn options(origin: Option<&str>) -> ConnectOptions {
    let origin = origin.map(|origin| ("Origin".to_owned(), origin.to_owned()));
    ConnectOptions {
        headers: origin.into_iter().collect(),
        ..ConnectOptions::default()
    }
}

async fn open_tcp(server: &Server) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect((server.host(), server.port()));
    in_time(connecting).await
}

async fn open_tls(server: &Server, connector: TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(server.host().to_owned()).map_err(io::Error::other)?;
    let stream = open_tcp(server).await?;
    in_time(connector.connect(name, stream)).await
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let outcome = tokio::time::timeout(PATIENCE, work).await;
    outcome.unwrap_or_else(|_| {
        let text = format!("nothing came within {} s", PATIENCE.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

async fn ask_over<S>(stream: S, request: Request<Full<Bytes>>, time: Duration) -> io::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let begin = Instant::now();
    let ask = async {
        let response = in_time(async {
            let response = sender.send_request(request).await;
            response.map_err(io::Error::other)
        });
        let response = response.await?;
        let mut answer = Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: Vec::new(),
            first: None,
            is_over: false,
        };
        let mut body = response.into_body();
        let listen = async {
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data() {
                    answer.first.get_or_insert_with(|| begin.elapsed());
                    answer.body.extend_from_slice(&data);
                }
                if answer.body.len() > MAX_BODY {
                    return;
                }
            }
            answer.is_over = true;
        };
        let _ = tokio::time::timeout(time, listen).await;
        Ok(answer)
    };
    let mut ask = std::pin::pin!(ask);
    tokio::select! {
        biased;
        answer = &mut ask => answer,
        // It has to be driven for the answer to come, which may be there when it ends.
        _ = connection => ask.await,
    }
}

/// How long anything may take that should take no time.
const PATIENCE: Duration = Duration::from_secs(10);

/// More of an answer says nothing more.
const MAX_BODY: usize = 64 * 1024;
