//! One call of a server's HTTP API.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tautline_websocket::conn::tls_config;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::args::ApiArgs;
use crate::cli::error::CliError;
use crate::config::DEV_API_KEY;

/// Where a server is.
pub(in crate::cli) struct Server {
    url: Uri,
}

impl Server {
    /// # Errors
    ///
    /// For anything but an `http://` or `https://` URL.
    pub(in crate::cli) fn new(url: &str) -> Result<Self, CliError> {
        let parsed = url.parse::<Uri>().ok();
        let parsed = parsed.filter(|url| {
            let is_known = matches!(url.scheme_str(), Some("http" | "https"));
            is_known && url.host().is_some_and(|host| !host.is_empty()) && url.query().is_none()
        });
        let url = parsed.ok_or_else(|| {
            CliError::Usage(format!(
                "`{url}` is not where a server can be: expected a URL such as \
                 http://127.0.0.1:8000 or https://live.example.org"
            ))
        })?;
        Ok(Self { url })
    }

    pub(in crate::cli) fn is_https(&self) -> bool {
        self.url.scheme_str() == Some("https")
    }

    pub(in crate::cli) fn host(&self) -> &str {
        let host = self.url.host().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Whether it is on this machine.
    pub(in crate::cli) fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost"
            || host
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    }

    /// The path of something that the server has, behind a prefix that the URL may have.
    pub(in crate::cli) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.url.path().trim_end_matches('/'))
    }

    pub(in crate::cli) fn authority(&self) -> &str {
        let authority = self.url.authority().map_or("", |all| all.as_str());
        // What stands before an @ is nobody's name.
        authority.rsplit('@').next().unwrap_or_default()
    }

    pub(in crate::cli) fn port(&self) -> u16 {
        let usual = if self.is_https() { 443 } else { 80 };
        self.url.port_u16().unwrap_or(usual)
    }

    /// Where its clients open their WebSocket.
    pub(in crate::cli) fn websocket_url(&self) -> String {
        self.websocket_url_of(crate::http::WEBSOCKET_PATH)
    }

    /// The same for another door.
    pub(super) fn websocket_url_of(&self, path: &str) -> String {
        let scheme = if self.is_https() { "wss" } else { "ws" };
        let path = self.path(path);
        format!("{scheme}://{}{path}", self.authority())
    }

    /// A failure to reach it, in words.
    pub(in crate::cli) fn unreachable(&self, error: &dyn std::fmt::Display) -> CliError {
        CliError::Failure(format!(
            "can't reach a server at {}: {error}. Is it running? `tautline dev` starts one on this \
             machine; --url (or TAUTLINE_URL) says where another one is",
            self.url
        ))
    }
}

/// Calls a method, and gives its result.
///
/// # Errors
///
/// In words for the person at the terminal.
pub(super) async fn call(
    api: &ApiArgs,
    method: &str,
    parameters: &impl Serialize,
) -> Result<Box<RawValue>, CliError> {
    let (server, request) = prepare(api, method, parameters)?;
    let exchange = tokio::time::timeout(PATIENCE, exchange(&server, request, NOT_STREAMED));
    let (status, body) = match exchange.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(server.unreachable(&error)),
        Err(_elapsed) => {
            let seconds = PATIENCE.as_secs();
            return Err(server.unreachable(&format!("no answer within {seconds} s")));
        }
    };
    read(method, status, &body)
}

/// What a path of a server is answered with.
///
/// # Errors
///
/// In words for the person at the terminal: nothing came.
pub(super) async fn get(url: &str, path: &str) -> Result<(StatusCode, Bytes), CliError> {
    let server = Server::new(url)?;
    let request = Request::get(server.path(path))
        .header(header::HOST, server.authority())
        .body(Full::new(Bytes::new()))
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let exchange = tokio::time::timeout(CHECK_PATIENCE, exchange(&server, request, NOT_STREAMED));
    match exchange.await {
        Ok(answer) => answer.map_err(|error| server.unreachable(&error)),
        Err(_elapsed) => {
            let seconds = CHECK_PATIENCE.as_secs();
            Err(server.unreachable(&format!("no answer within {seconds} s")))
        }
    }
}

/// Calls a method whose answer goes on, for `time` at the most, and hands each of its lines to `take`, until the answer
/// ends.
///
/// # Errors
///
/// In words for the person at the terminal, and those of `take`.
pub(super) async fn follow(
    api: &ApiArgs,
    method: &str,
    parameters: &impl Serialize,
    time: Duration,
    mut take: impl FnMut(&str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let (server, request) = prepare(api, method, parameters)?;
    let (lines, mut told) = mpsc::channel(1);
    let run = async {
        let listen = async |mut body: Incoming| {
            let mut rest = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(io::Error::other)?.into_data() else {
                    continue;
                };
                let mut data = &data[..];
                while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
                    rest.extend_from_slice(&data[..end]);
                    data = &data[end + 1..];
                    if lines.send(std::mem::take(&mut rest)).await.is_err() {
                        return Ok(());
                    }
                }
                rest.extend_from_slice(data);
                if rest.len() > MAX_LINE {
                    return Err(io::Error::other("a line without an end"));
                }
            }
            Ok(())
        };
        exchange(&server, request, Some(listen)).await
    };
    let mut run = std::pin::pin!(run);
    // Of a server that is gone without a word, nothing comes any more.
    let mut over = std::pin::pin!(tokio::time::sleep(time.saturating_add(PATIENCE)));
    loop {
        tokio::select! {
            () = &mut over => return Err(server.unreachable(&"the answer should have ended by now")),
            answer = &mut run => {
                // The last one may have come together with the end.
                while let Ok(line) = told.try_recv() {
                    take(String::from_utf8_lossy(&line).trim_end())?;
                }
                let (status, body) = answer.map_err(|error| server.unreachable(&error))?;
                if status != StatusCode::OK {
                    read(method, status, &body)?;
                }
                return Ok(());
            }
            Some(line) = told.recv() => take(String::from_utf8_lossy(&line).trim_end())?,
        }
    }
}

/// Where a call goes, and the call.
fn prepare(
    api: &ApiArgs,
    method: &str,
    parameters: &impl Serialize,
) -> Result<(Server, Request<Full<Bytes>>), CliError> {
    let server = Server::new(&api.server.url)?;
    let key = match &api.key {
        Some(key) => key.as_str(),
        None if server.is_loopback() => DEV_API_KEY,
        None => {
            return Err(CliError::Usage(
                "a server on another machine wants an API key: set TAUTLINE_API_KEY, or use --key"
                    .into(),
            ));
        }
    };
    let body = serde_json::to_vec(parameters)
        .map_err(|error| CliError::Usage(format!("the parameters can't be JSON: {error}")))?;
    let request = Request::post(server.path(&format!("/api/{method}")))
        .header(header::HOST, server.authority())
        .header(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )
        .header("x-api-key", key)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| CliError::Usage(format!("the key can't be a header: {error}")))?;
    Ok((server, request))
}

/// What the answer to a call comes to.
fn read(method: &str, status: StatusCode, body: &[u8]) -> Result<Box<RawValue>, CliError> {
    if status == StatusCode::UNAUTHORIZED {
        return Err(CliError::Failure(
            "the server knows no such API key: set TAUTLINE_API_KEY, or use --key".into(),
        ));
    }
    if status == StatusCode::NOT_FOUND {
        return Err(CliError::Failure(format!(
            "the server has no method {method}; is it an older one, or something else than Tautline?"
        )));
    }
    if status != StatusCode::OK {
        let told = super::show::beginning(body);
        return Err(CliError::Failure(format!(
            "the server answered with status {status}: {told}"
        )));
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|error| {
        CliError::Failure(format!(
            "the answer is not one of a Tautline server: {error}"
        ))
    })?;
    match answer {
        Answer {
            result: Some(result),
            ..
        } => Ok(result),
        Answer {
            error: Some(Refusal { code, message }),
            ..
        } => Err(CliError::Failure(format!(
            "the server refused: {} (error {code}){}",
            super::show::clean(&message),
            hint(method, code)
        ))),
        _ => Err(CliError::Failure(
            "the answer has neither a result nor an error".into(),
        )),
    }
}

/// What may help.
fn hint(method: &str, code: u32) -> &'static str {
    match (code, method) {
        (102, _) => {
            "; the part of a channel's name before the `:` is its namespace, which has to be configured"
        }
        (108, "history") => "; the channel's namespace keeps no history",
        (108, "presence" | "presence_stats") => "; the channel's namespace has no presence",
        (112, _) => "; the stream has begun anew since that position",
        _ => "",
    }
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Box<RawValue>>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u32,
    message: String,
}

/// One exchange. The body of a good answer goes to `listen`, if there is one, for as long as it goes on; otherwise it is
/// collected. All that comes before has [`PATIENCE`], and so has a body that is collected.
async fn exchange<L: AsyncFnMut(Incoming) -> io::Result<()>>(
    server: &Server,
    request: Request<Full<Bytes>>,
    listen: Option<L>,
) -> io::Result<(StatusCode, Bytes)> {
    let stream = in_time(TcpStream::connect((server.host(), server.port()))).await?;
    if !server.is_https() {
        return exchange_over(stream, request, listen).await;
    }
    let name = ServerName::try_from(server.host().to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(tls_config()?);
    let stream = in_time(connector.connect(name, stream)).await?;
    exchange_over(stream, request, listen).await
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let outcome = tokio::time::timeout(PATIENCE, work).await;
    outcome.unwrap_or_else(|_elapsed| {
        let text = format!("nothing came within {} s", PATIENCE.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

async fn exchange_over<S, L>(
    stream: S,
    request: Request<Full<Bytes>>,
    listen: Option<L>,
) -> io::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin,
    L: AsyncFnMut(Incoming) -> io::Result<()>,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let ask = async {
        let response = in_time(async {
            let response = sender.send_request(request).await;
            response.map_err(io::Error::other)
        });
        let response = response.await?;
        let status = response.status();
        if let Some(mut listen) = listen
            && status == StatusCode::OK
        {
            listen(response.into_body()).await?;
            return Ok((status, Bytes::new()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        let body = in_time(async { body.collect().await.map_err(io::Error::other) });
        Ok((status, body.await?.to_bytes()))
    };
    // The connection has to be driven for the answer to come.
    let mut ask = std::pin::pin!(ask);
    tokio::select! {
        biased;
        answer = &mut ask => answer,
        ended = connection => {
            ended.map_err(io::Error::other)?;
            ask.await
        }
    }
}

/// What would listen to an answer that ends by itself.
type Nobody = fn(Incoming) -> std::future::Ready<io::Result<()>>;

const NOT_STREAMED: Option<Nobody> = None;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long an answer to a health check may take.
const CHECK_PATIENCE: Duration = Duration::from_secs(5);

/// Longest line of an answer that goes on, in bytes.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// Longest answer, in bytes.
pub(super) const MAX_ANSWER: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::args::ServerArgs;
    use super::*;

    /// In simulated time: of a server that says so much and then nothing more.
    async fn followed(said: &[u8]) -> (Vec<String>, String, Duration) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it listens");
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            stream.set_nodelay(true).expect("a connection");
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.expect("a request");
            assert!(read > 0, "a request");
            stream.write_all(said).await.expect("it listens");
            std::future::pending::<()>().await;
        };
        let api = ApiArgs {
            server: ServerArgs::at(format!("http://{address}")),
            key: None,
        };
        let mut lines = Vec::new();
        let begin = tokio::time::Instant::now();
        let follow = follow(&api, "trace", &(), Duration::from_secs(60), |line| {
            lines.push(line.to_owned());
            Ok(())
        });
        let ended = tokio::select! {
            ended = follow => ended,
            () = serve => unreachable!("it never ends"),
        };
        let took = begin.elapsed();
        let told = ended.expect_err("it is no end").to_string();
        (lines, told, took)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_goes_on_has_a_beginning_and_an_end() {
        let (lines, told, took) = followed(b"").await;
        assert!(told.contains("nothing came within 15 s"), "{told}");
        assert!(
            lines.is_empty() && took < Duration::from_secs(60),
            "{took:?}"
        );
        let said = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\na\nb";
        let (lines, told, took) = followed(said).await;
        assert!(told.contains("should have ended by now"), "{told}");
        assert_eq!(lines, ["a"]);
        // There is no other time than that which is waited for.
        let expected = Duration::from_secs(60)..Duration::from_secs(120);
        assert!(expected.contains(&took), "{took:?}");
    }
}
