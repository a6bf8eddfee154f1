//! Connections as a client: from a URL to an open [`WebSocket`].

mod dial;
mod error;
mod proxy;
mod random;
mod stream;
#[cfg(feature = "rustls")]
mod tls;

use std::fmt;
use std::io;
#[cfg(feature = "rustls")]
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::accept::hold;
use super::stream::WebSocket;
#[cfg(feature = "deflate")]
use crate::proto::deflate::ClientConfig;
use crate::proto::handshake::{
    ClientRequest, HeadLimits, ResponseError, ResponseHead, ResponseHeadError, Url,
};
use crate::proto::{Connection, Extensions, Limits, MaskKeys, Role};

pub use error::{ConnectError, Rejection};
pub use proxy::{Proxy, ProxyError};
pub use random::SecureKeys;
pub use stream::ClientStream;
#[cfg(feature = "rustls")]
pub use tls::tls_config;

/// Connects to a `ws://` URL, and with the feature `rustls` to a `wss://` one.
///
/// All addresses of the host are tried, a quarter of a second apart and both families in turn
/// (RFC 8305); the first that answers is taken, without Nagle's delay. Redirects and demands to log
/// in are not followed: [`ConnectError::Refused`] has them.
///
/// ```no_run
/// # use tautline_websocket::conn::{ConnectOptions, connect};
/// # async fn hello() -> Result<(), Box<dyn std::error::Error>> {
/// let mut ws = connect("ws://127.0.0.1:9001/chat", &ConnectOptions::default()).await?.websocket;
/// ws.send("Hello").await?;
/// if let Some(message) = ws.recv().await? {
///     println!("{message:?}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`ConnectError`].
///
/// # Cancel safety
///
/// Dropping the future gives the attempt up.
//= rfc6455 4.1-1
pub async fn connect(
    url: &str,
    options: &ConnectOptions,
) -> Result<Connected<ClientStream>, ConnectError> {
    let url: Url = url.parse()?;
    // What can't be sent is found before anybody is bothered.
    let opening = Opening::new(&url, options)?;
    let stream = timeout(options.connect_timeout, open(&url, options, false)).await;
    let stream = stream.map_err(|_| ConnectError::TimedOut(options.connect_timeout))??;
    opening.run(stream, options).await
}

/// Opens a connection over a stream that leads to the server already, such as a Unix socket, an
/// SSH channel or a TLS library of your own.
///
/// `url` says what to ask for, and what goes into `Host`; whether it is `ws` or `wss` makes no
/// difference beyond the default port that is left out there.
///
/// ```
/// # use tautline_websocket::conn::{ConnectError, ConnectOptions, client};
/// # use tokio::io::{AsyncRead, AsyncWrite};
/// # async fn opened<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Result<(), ConnectError> {
/// let options = ConnectOptions {
///     subprotocols: vec!["chat.v2".to_owned(), "chat.v1".to_owned()],
///     headers: vec![("Authorization".to_owned(), "Bearer token".to_owned())],
///     ..ConnectOptions::default()
/// };
/// let connected = client(stream, "ws://localhost/chat", &options).await?;
/// println!("we speak {:?}", connected.subprotocol);
/// let mut ws = connected.websocket;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`ConnectError`]; the stream is gone with it.
///
/// # Cancel safety
///
/// Dropping the future drops the stream, as it is the owner.
pub async fn client<S>(
    stream: S,
    url: &str,
    options: &ConnectOptions,
) -> Result<Connected<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Opening::new(&url.parse()?, options)?
        .run(stream, options)
        .await
}

/// What comes of [`connect`] and [`client`].
#[derive(Debug)]
pub struct Connected<S> {
    /// The connection.
    pub websocket: WebSocket<S>,
    /// The response that opened it.
    pub response: ResponseHead,
    /// The subprotocol that the server chose, of those that were asked for.
    pub subprotocol: Option<String>,
}

/// How to open connections.
pub struct ConnectOptions {
    /// The limits of the connections.
    pub limits: Limits,
    /// The limits of the responses.
    pub head: HeadLimits,
    /// The subprotocols that the client can speak, the best first.
    pub subprotocols: Vec<String>,
    /// Further header lines, like `Authorization`, `Cookie` or `Origin`. Those that belong to the
    /// handshake are refused.
    pub headers: Vec<(String, String)>,
    /// How long it may take to resolve the name, connect, pass the proxy and set up TLS. Default
    /// 10 s.
    pub connect_timeout: Duration,
    /// How long the request and its response may take after that. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a server has to end the connection after the last word was said. Default 5 s.
    pub close_timeout: Duration,
    /// Makes the source of randomness of a connection, for its `Sec-WebSocket-Key` and its masking
    /// keys. The default gives [`SecureKeys`]; tests that compare bytes plug in keys that they
    /// know.
    pub mask_keys: Box<dyn Fn() -> Box<dyn MaskKeys + Send> + Send + Sync>,
    /// The permessage-deflate offer, `None` (the default) for none. Compression takes time, up to
    /// 32 KiB of memory for a connection whose server takes context over, and where secrets and what
    /// strangers wrote share a message, its length tells of the secret (as in the attack called
    /// CRIME).
    #[cfg(feature = "deflate")]
    pub deflate: Option<ClientConfig>,
    /// The proxy to go through. Default none; the environment is not looked at.
    pub proxy: Option<Proxy>,
    /// How to do TLS; `None` makes a new [`tls_config`] for each connection.
    #[cfg(feature = "rustls")]
    pub tls: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            head: HeadLimits::default(),
            subprotocols: Vec::new(),
            headers: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            mask_keys: Box::new(|| Box::new(SecureKeys)),
            #[cfg(feature = "deflate")]
            deflate: None,
            proxy: None,
            #[cfg(feature = "rustls")]
            tls: None,
        }
    }
}

/// Header values can be secrets, so none is shown.
impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("limits", &self.limits)
            .field("head", &self.head)
            .field("subprotocols", &self.subprotocols)
            .field("headers", &self.headers.len())
            .field("connect_timeout", &self.connect_timeout)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("close_timeout", &self.close_timeout)
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}

/// A stream to the server that the URL names, on which HTTP/1.1 or HTTP/2 is to be spoken.
pub(super) async fn open(
    url: &Url,
    options: &ConnectOptions,
    http2: bool,
) -> Result<ClientStream, ConnectError> {
    if url.is_secure() && cfg!(not(feature = "rustls")) {
        return Err(ConnectError::NoTls);
    }
    let stream = match &options.proxy {
        //= rfc6455 4.1-6
        None => dial::dial(url.host(), url.port()).await?,
        //= rfc6455 4.1-5
        Some(proxy) => {
            let mut stream = dial::dial(proxy.host(), proxy.port()).await?;
            proxy.open_tunnel(&mut stream, url).await?;
            stream
        }
    };
    #[cfg(feature = "rustls")]
    if url.is_secure() {
        //= rfc6455 4.1-9, 4.1-11
        return tls::secure(stream, url.host(), options.tls.as_ref(), http2).await;
    }
    // Without TLS nobody is asked.
    let _ = http2;
    Ok(ClientStream::tcp(stream))
}

/// An opening handshake that can begin.
pub(super) struct Opening {
    pub(super) request: ClientRequest,
    mask_keys: Box<dyn MaskKeys + Send>,
}

impl Opening {
    pub(super) fn new(url: &Url, options: &ConnectOptions) -> Result<Self, ConnectError> {
        let mut mask_keys = (options.mask_keys)();
        let mut request = ClientRequest::new(url, random::nonce(mask_keys.as_mut()));
        for name in &options.subprotocols {
            request = request.with_subprotocol(name)?;
        }
        #[cfg(feature = "deflate")]
        if let Some(config) = &options.deflate {
            request = request.with_extension(&config.to_string())?;
        }
        for (name, value) in &options.headers {
            request = request.with_header(name, value)?;
        }
        Ok(Self { request, mask_keys })
    }

    async fn run<S>(self, mut io: S, options: &ConnectOptions) -> Result<Connected<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let answer = timeout(
            options.handshake_timeout,
            exchange(&mut io, &self.request, &options.head),
        );
        let (response, rest) = answer
            .await
            .map_err(|_| ConnectError::HandshakeTimedOut(options.handshake_timeout))??;
        //= rfc6455 4.1-31, 7.2.1-1, 9.1-5
        let Some(settled) = self.settle(&response, options)? else {
            let body = read_body(&mut io, &response, rest).await;
            let rejection = Rejection {
                head: response,
                body,
            };
            return Err(ConnectError::Refused(Box::new(rejection)));
        };
        Ok(self.finish(io, response, settled, rest, options))
    }

    /// What a response has settled; `None` when the server has declined.
    pub(super) fn settle(
        &self,
        response: &ResponseHead,
        options: &ConnectOptions,
    ) -> Result<Option<Settled>, ConnectError> {
        let agreed = match self.request.check(response) {
            Ok(agreed) => agreed,
            Err(ResponseError::Status(_)) => return Ok(None),
            Err(error) => return Err(ConnectError::Response(error)),
        };
        #[cfg(feature = "deflate")]
        let extensions = match &options.deflate {
            Some(config) => config
                .check(agreed.extensions.iter().copied())?
                .map_or(Extensions::NONE, Extensions::deflate),
            None => Extensions::NONE,
        };
        #[cfg(not(feature = "deflate"))]
        let extensions = {
            let _ = options;
            Extensions::NONE
        };
        Ok(Some(Settled {
            subprotocol: agreed.subprotocol.map(str::to_owned),
            extensions,
        }))
    }

    /// The connection, over a stream of which `rest` was read behind the response.
    pub(super) fn finish<S>(
        self,
        io: S,
        response: ResponseHead,
        settled: Settled,
        rest: Vec<u8>,
        options: &ConnectOptions,
    ) -> Connected<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut engine = Connection::new(Role::Client(self.mask_keys), options.limits)
            .with_extensions(settled.extensions);
        if !rest.is_empty() {
            hold(&mut engine, rest);
        }
        Connected {
            websocket: WebSocket::new(io, engine).with_close_timeout(options.close_timeout),
            response,
            subprotocol: settled.subprotocol,
        }
    }
}

/// What the response to an opening request has settled.
pub(super) struct Settled {
    subprotocol: Option<String>,
    extensions: Extensions,
}

/// Sends the request, and reads the head of the response and maybe a part of what follows.
async fn exchange<S>(
    io: &mut S,
    request: &ClientRequest,
    limits: &HeadLimits,
) -> Result<(ResponseHead, Vec<u8>), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut bytes = Vec::with_capacity(512);
    //= rfc6455 4.1-13, 4.1-30
    request.write_http1(&mut bytes);
    io.write_all(&bytes).await?;
    io.flush().await?;
    match read_head(io, limits).await {
        Ok(answer) => answer.ok_or(ConnectError::CutOff),
        Err(ReadHeadError::Head(error)) => Err(error.into()),
        Err(ReadHeadError::Io(error)) => Err(error.into()),
    }
}

/// Reads the head of a response, and maybe a part of what follows; `None` when the stream ends
/// before. Interim responses, such as hints for browsers, are passed over (RFC 9110 §15.2).
async fn read_head(
    io: &mut (impl AsyncRead + Unpin),
    limits: &HeadLimits,
) -> Result<Option<(ResponseHead, Vec<u8>)>, ReadHeadError> {
    let mut seen = Vec::new();
    let mut interim_left = MAX_INTERIM;
    loop {
        if let Some(head) = ResponseHead::parse(&seen, limits)? {
            seen.drain(..head.len());
            let is_interim = matches!(head.status(), 100 | 102..200);
            if is_interim && interim_left > 0 {
                interim_left -= 1;
                continue;
            }
            return Ok(Some((head, seen)));
        }
        seen.reserve(READ);
        if io.read_buf(&mut seen).await? == 0 {
            return Ok(None);
        }
    }
}

/// Why there is no head.
enum ReadHeadError {
    Head(ResponseHeadError),
    Io(io::Error),
}

impl From<ResponseHeadError> for ReadHeadError {
    fn from(error: ResponseHeadError) -> Self {
        Self::Head(error)
    }
}

impl From<io::Error> for ReadHeadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ReadHeadError> for ProxyError {
    fn from(error: ReadHeadError) -> Self {
        match error {
            ReadHeadError::Head(error) => error.into(),
            ReadHeadError::Io(error) => error.into(),
        }
    }
}

/// Reads the beginning of a body, of which `body` came with the head. What comes too late, or not
/// at all, is left out: it is only for people to read.
async fn read_body(
    io: &mut (impl AsyncRead + Unpin),
    head: &ResponseHead,
    mut body: Vec<u8>,
) -> Vec<u8> {
    let chunked = head.header("Transfer-Encoding").is_some();
    let announced = || {
        str::from_utf8(head.header("Content-Length")?)
            .ok()?
            .parse()
            .ok()
    };
    let wanted = match announced() {
        Some(len) if !chunked => MAX_BODY.min(len),
        _ => MAX_BODY,
    };
    let reading = async {
        while body.len() < wanted && !(chunked && body.ends_with(b"0\r\n\r\n")) {
            body.reserve(wanted);
            if !matches!(io.read_buf(&mut body).await, Ok(1..)) {
                return;
            }
        }
    };
    // An error ends the body too.
    let _ = timeout(BODY_TIMEOUT, reading).await;
    if chunked {
        body = without_chunks(&body);
    }
    body.truncate(wanted);
    body
}

/// The data of all chunks (RFC 9112 §7.1), as far as they go.
fn without_chunks(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(body.len());
    while let Ok(httparse::Status::Complete((start, len @ 1..))) = httparse::parse_chunk_size(body)
    {
        let rest = &body[start..];
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
        data.extend_from_slice(&rest[..len]);
        body = rest[len..].strip_prefix(b"\r\n").unwrap_or_default();
    }
    data
}

/// Room for a read while the head isn't whole: nearly always for all of it.
const READ: usize = 2 * 1024;

/// Interim responses that are passed over. Real servers send one.
const MAX_INTERIM: usize = 8;

/// Bytes of a refusal's body that are kept.
pub(super) const MAX_BODY: usize = 1024;

/// How long a refusal's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);
