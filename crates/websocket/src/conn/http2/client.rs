//! The client's end of an HTTP/2 connection: WebSockets, as many as the server takes.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong, RecvStream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::error::Http2Error;
use super::options::Http2Options;
use super::stream::Http2Stream;
use super::unsent::{Chunk, Lingering};
use crate::conn::client::{
    ConnectError, ConnectOptions, Connected, MAX_BODY, Opening, Rejection, open,
};
use crate::conn::http_types::lines;
use crate::proto::handshake::{ClientRequest, ResponseHead, Url};

/// A connection to a server in HTTP/2, over which any number of WebSockets is opened.
///
/// Clones are the same connection. It ends when all clones and all WebSockets are gone, when the
/// server ends it, or when it fails.
///
/// ```no_run
/// use tautline_websocket::conn::ConnectOptions;
/// use tautline_websocket::conn::http2::{Http2Client, Http2Options};
///
/// # async fn hello() -> Result<(), Box<dyn std::error::Error>> {
/// let options = ConnectOptions::default();
/// let client = Http2Client::connect("ws://127.0.0.1:9001/", &options, &Http2Options::default()).await?;
/// let mut one = client.open("ws://127.0.0.1:9001/one", &options).await?.websocket;
/// let mut two = client.open("ws://127.0.0.1:9001/two", &options).await?.websocket;
/// one.send("Hello").await?;
/// two.send("Hello to you, too").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Http2Client {
    requests: SendRequest<Chunk>,
    /// Whether the server's settings have come.
    begun: watch::Receiver<bool>,
    /// Where the connection leads, when it was made here.
    server: Option<Server>,
    lingering: Lingering,
}

/// What URLs must have in common to share a connection.
#[derive(Clone, PartialEq, Eq)]
struct Server {
    secure: bool,
    host: String,
    port: u16,
}

impl Server {
    fn of(url: &Url) -> Self {
        Self {
            secure: url.is_secure(),
            host: url.host().to_owned(),
            port: url.port(),
        }
    }
}

impl Http2Client {
    /// Connects to the server that the URL names, for `wss://` over TLS with `h2` negotiated
    /// by ALPN, for `ws://` without asking first (prior knowledge). Path and query don't matter.
    ///
    /// Of the options these count here: `connect_timeout`, `proxy` and `tls`, of which the list of
    /// protocols to negotiate is replaced. A task is started, which drives the connection.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    pub async fn connect(
        url: &str,
        options: &ConnectOptions,
        http2: &Http2Options,
    ) -> Result<Self, ConnectError> {
        let url: Url = url.parse()?;
        let stream = timeout(options.connect_timeout, open(&url, options, true)).await;
        let stream = stream.map_err(|_| ConnectError::TimedOut(options.connect_timeout))??;
        let (mut client, connection) = Self::over(stream, http2).await?;
        client.server = Some(Server::of(&url));
        // How it ends, those who use it hear.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Begins HTTP/2 over a stream that leads to the server already. Beside the client this gives a
    /// future that drives the connection: spawn it. It ends with the connection.
    ///
    /// # Errors
    ///
    /// [`Http2Error`]; the stream is gone with it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream, as it is the owner.
    pub async fn over<S>(
        stream: S,
        options: &Http2Options,
    ) -> Result<(Self, impl Future<Output = Result<(), Http2Error>> + use<S>), Http2Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = timeout(
            options.handshake_timeout,
            options.client().handshake::<_, Chunk>(stream),
        );
        let handshake = handshake.await;
        let (requests, mut connection) =
            handshake.map_err(|_| Http2Error::TimedOut(options.handshake_timeout))??;
        let (tell, begun) = watch::channel(false);
        let waiting = connection.ping_pong().map(|pings| Beginning {
            requests: requests.clone(),
            pong: Box::pin(pong(pings)),
            tell,
        });
        let client = Self {
            requests,
            begun,
            server: None,
            lingering: Lingering::default(),
        };
        let driving = drive(connection, waiting, client.lingering.clone());
        Ok((client, driving))
    }

    /// Opens a WebSocket. Waits its turn when the server takes no more of them at once.
    ///
    /// `url` says what to ask for, and what goes into `:authority`; with [`connect`](Self::connect) it
    /// must lead to the same server. Of the options all but those of `connect` count, and
    /// [`head`](ConnectOptions::head), for which [`Http2Options::max_header_list`] stands.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]. The others of the connection are not touched by it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up: the stream is reset.
    pub async fn open(
        &self,
        url: &str,
        options: &ConnectOptions,
    ) -> Result<Connected<Http2Stream>, ConnectError> {
        let url: Url = url.parse()?;
        if self
            .server
            .as_ref()
            .is_some_and(|server| *server != Server::of(&url))
        {
            return Err(ConnectError::OtherServer);
        }
        let opening = Opening::new(&url, options)?;
        let answer = timeout(options.handshake_timeout, self.exchange(&opening.request));
        let (head, send, recv) = answer
            .await
            .map_err(|_| ConnectError::HandshakeTimedOut(options.handshake_timeout))??;
        let Some(settled) = opening.settle(&head, options)? else {
            let body = read_body(recv).await;
            return Err(ConnectError::Refused(Box::new(Rejection { head, body })));
        };
        let stream = Http2Stream::new(send, recv, &self.lingering);
        let connected = opening.finish(stream, head, settled, Vec::new(), options);
        Ok(Connected {
            websocket: connected
                .websocket
                .with_writer(Http2Stream::poll_write_queue),
            ..connected
        })
    }

    /// Sends a request, and waits for the response.
    async fn exchange(
        &self,
        request: &ClientRequest,
    ) -> Result<(ResponseHead, h2::SendStream<Chunk>, RecvStream), ConnectError> {
        // That it has failed before, the next step says better.
        let _ = self.begun.clone().wait_for(|begun| *begun).await;
        let ready = self.requests.clone().ready().await;
        let mut requests = ready.map_err(Http2Error::from)?;
        //= rfc8441 3-2
        //= rfc8441 3-4
        if !requests.is_extended_connect_protocol_enabled() {
            return Err(ConnectError::NoExtendedConnect);
        }
        let sent = requests.send_request(to_http(request)?, false);
        let (response, send) = sent.map_err(Http2Error::from)?;
        let (parts, recv) = response.await.map_err(Http2Error::from)?.into_parts();
        let head = ResponseHead::from_http2(parts.status.as_u16(), lines(&parts.headers));
        Ok((head, send, recv))
    }

    /// Whether more WebSockets can be opened: not after the server has said that it goes away, or
    /// the connection has failed.
    pub async fn is_open(&self) -> bool {
        self.requests.clone().ready().await.is_ok()
    }
}

impl fmt::Debug for Http2Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Client")
            .field("begun", &*self.begun.borrow())
            .finish_non_exhaustive()
    }
}

/// The request as the `http` crate has it.
fn to_http(request: &ClientRequest) -> Result<http::Request<()>, ConnectError> {
    let pseudo = request.pseudo_headers();
    let uri = http::Uri::builder()
        .scheme(pseudo.scheme.unwrap_or_default())
        .authority(pseudo.authority.unwrap_or_default())
        .path_and_query(pseudo.path.unwrap_or_default())
        .build();
    let unfit = |error: http::Error| Http2Error::Protocol(error.to_string());
    let mut asking = http::Request::builder()
        .method(http::Method::CONNECT)
        .version(http::Version::HTTP_2)
        .uri(uri.map_err(unfit)?);
    for (name, value) in request.http2_headers() {
        asking = asking.header(name, &*value);
    }
    let protocol = h2::ext::Protocol::from(pseudo.protocol.unwrap_or_default());
    Ok(asking.extension(protocol).body(()).map_err(unfit)?)
}

/// The beginning of the body of a refusal: what of it comes soon.
async fn read_body(mut recv: RecvStream) -> Vec<u8> {
    let mut body = Vec::new();
    let reading = async {
        while body.len() < MAX_BODY {
            let Some(Ok(bytes)) = recv.data().await else {
                return;
            };
            let _ = recv.flow_control().release_capacity(bytes.len());
            body.extend_from_slice(&bytes[..bytes.len().min(MAX_BODY - body.len())]);
        }
    };
    // What is late is left out: it is only for people to read.
    let _ = timeout(BODY_TIMEOUT, reading).await;
    body
}

/// What is kept until the server's settings have come.
struct Beginning {
    requests: SendRequest<Chunk>,
    pong: Pin<Box<dyn Future<Output = ()> + Send>>,
    tell: watch::Sender<bool>,
}

/// The answer to a ping comes behind the settings, which come first (RFC 9113 §3.4): so it is
/// known when they have come, also when they say nothing of WebSockets.
async fn pong(mut pings: PingPong) {
    let _ = pings.ping(Ping::opaque()).await;
}

async fn drive<S>(
    mut connection: Connection<S, Chunk>,
    mut beginning: Option<Beginning>,
    lingering: Lingering,
) -> Result<(), Http2Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut linger = Box::pin(sleep(Duration::ZERO));
    poll_fn(|cx| {
        let ended = Pin::new(&mut connection).poll(cx);
        lingering.poll(cx, linger.as_mut());
        if let Some(waiting) = &mut beginning
            && (waiting.requests.is_extended_connect_protocol_enabled()
                || waiting.pong.as_mut().poll(cx).is_ready())
        {
            waiting.tell.send_replace(true);
            // With its handle, so that the connection can end.
            beginning = None;
        }
        match ended {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => Poll::Ready(result.map_err(Http2Error::from)),
        }
    })
    .await
}

/// How long a refusal's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);
