//! The opening handshake on a raw stream: HTTP/1.1 over TCP, TLS or whatever carries bytes.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::scratch;
use super::stream::WebSocket;
#[cfg(feature = "deflate")]
use crate::proto::deflate::ServerConfig;
use crate::proto::handshake::{
    Acceptance, HeadLimits, Opening, OpeningError, Refusal, RequestHead,
};
use crate::proto::{Connection, Extensions, Limits, Role};

/// Reads an opening request from `io`, checks it and answers it.
///
/// A request that is refused, by the rules of RFC 6455 §4.2.1, by a limit or by
/// [`AcceptOptions::decide`], is answered with the status and text of its [`Refusal`].
///
/// ```
/// # use tautline_websocket::conn::{AcceptError, AcceptOptions, accept};
/// # use tokio::io::{AsyncRead, AsyncWrite};
/// # async fn connected<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Result<(), AcceptError> {
/// let accepted = accept(stream, &AcceptOptions::default()).await?;
/// println!("somebody is on {}", accepted.request.path());
/// let mut ws = accepted.websocket;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`AcceptError`]; the stream is gone with it.
///
/// # Cancel safety
///
/// Dropping the future drops the stream, as it is the owner.
pub async fn accept<S>(io: S, options: &AcceptOptions) -> Result<Accepted<S>, AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The handshake needs a kilobyte for as long as it takes. Within this future, and so within
    // the task, the connection would hold that for its whole life.
    match Box::pin(accept_rest(io, Vec::new(), options, Plain::Refused)).await? {
        Came::WebSocket(accepted) => Ok(accepted),
        Came::Plain { .. } => Err(OpeningError::NoUpgrade.refusal().into()),
    }
}

/// The same for a stream of which something was read already, though not all of the head.
//= rfc6455 4.2.2-1, 10.6-1
pub(super) async fn accept_rest<S>(
    mut io: S,
    seen: Vec<u8>,
    options: &AcceptOptions,
    plain: Plain,
) -> Result<Came<S>, AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = timeout(
        options.head_timeout,
        handshake(&mut io, seen, options, plain),
    )
    .await;
    match handshake.map_err(|_| AcceptError::TimedOut(options.head_timeout))? {
        Ok((HeadAndRest { head, rest }, Some(agreed))) => {
            Ok(Came::WebSocket(agreed.open(io, head, rest)))
        }
        Ok((HeadAndRest { head, rest }, None)) => Ok(Came::Plain {
            io,
            head,
            seen: rest,
        }),
        //= rfc6455 7.2.2-1, 10.7-4
        Err(AcceptError::Refused(refusal)) => {
            // Whether the client hears it is its own affair.
            let _ = timeout(options.close_timeout, refuse(&mut io, &refusal)).await;
            Err(AcceptError::Refused(refusal))
        }
        Err(error) => Err(error),
    }
}

/// What is to become of a request that doesn't ask for a WebSocket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    /// It is refused, as whatever else isn't an opening request.
    Refused,
    /// It is given back.
    #[cfg(feature = "http2")]
    GivenBack,
}

/// What a request was.
pub(super) enum Came<S> {
    WebSocket(Accepted<S>),
    /// One that doesn't ask for a WebSocket, and all that was read of the stream: its head, and maybe more.
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    Plain {
        io: S,
        head: RequestHead,
        seen: Vec<u8>,
    },
}

/// What comes of [`accept`].
#[derive(Debug)]
pub struct Accepted<S> {
    /// The connection.
    pub websocket: WebSocket<S>,
    /// The request that opened it.
    pub request: RequestHead,
    /// The subprotocol that was agreed on.
    pub subprotocol: Option<String>,
}

/// How to answer opening requests.
pub struct AcceptOptions {
    /// The limits of the connections.
    pub limits: Limits,
    /// The limits of the requests.
    pub head: HeadLimits,
    /// How long a client has to send its request and take the answer. Default 10 s.
    pub head_timeout: Duration,
    /// How long a client has to end the connection after the last word was said. Default 5 s.
    pub close_timeout: Duration,
    /// What to agree to when the client offers permessage-deflate, `None` (the default) for
    /// nothing. Compression takes time, and some 2 KiB for each connection with the
    /// defaults of [`ServerConfig`]; and where secrets and what strangers wrote share a message,
    /// its length tells of the secret (as in the attack called CRIME).
    #[cfg(feature = "deflate")]
    pub deflate: Option<ServerConfig>,
    /// Decides on requests that are well-formed: the subprotocol to speak, or a refusal. The
    /// default accepts all without a subprotocol.
    ///
    /// **A server that browsers come to with cookies must look at
    /// [`Opening::origin`] here**: any page on the web can make its visitors' browsers connect
    /// (§10.2).
    ///
    /// ```
    /// use tautline_websocket::conn::AcceptOptions;
    /// use tautline_websocket::proto::handshake::Refusal;
    ///
    /// let options = AcceptOptions {
    ///     decide: Box::new(|_request, opening| match opening.origin() {
    ///         None | Some("https://example.com") => {
    ///             Ok(opening.select_subprotocol(&["chat.v2", "chat.v1"]).map(str::to_owned))
    ///         }
    ///         Some(origin) => Err(Refusal::new(403, format!("origin {origin} is not allowed"))),
    ///     }),
    ///     ..AcceptOptions::default()
    /// };
    /// ```
    pub decide: Box<Decide>,
}

/// See [`AcceptOptions::decide`].
pub type Decide =
    dyn Fn(&RequestHead, &Opening<'_>) -> Result<Option<String>, Refusal> + Send + Sync;

impl Default for AcceptOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            head: HeadLimits::default(),
            head_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            #[cfg(feature = "deflate")]
            deflate: None,
            decide: Box::new(|_, _| Ok(None)),
        }
    }
}

impl fmt::Debug for AcceptOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptOptions")
            .field("limits", &self.limits)
            .field("head", &self.head)
            .field("head_timeout", &self.head_timeout)
            .field("close_timeout", &self.close_timeout)
            .finish_non_exhaustive()
    }
}

/// Why no connection came of a stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The stream ended before the request did.
    #[error("the client went away before its request was complete")]
    CutOff,
    /// The HTTP/2 connection, or the request's stream, is at its end.
    #[cfg(feature = "http2")]
    #[error(transparent)]
    Http2(#[from] super::http2::Http2Error),
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The request was refused, and answered so.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request, or taking the answer, took longer than [`AcceptOptions::head_timeout`].
    #[error("the opening handshake was not complete after {} s", .0.as_secs_f64())]
    TimedOut(Duration),
}

/// What was agreed with a client, by whatever way it came: all that its connection needs.
pub(super) struct Agreed {
    pub(super) subprotocol: Option<String>,
    extensions: Extensions,
    limits: Limits,
    close_timeout: Duration,
}

impl Agreed {
    /// Checks a request, asks [`AcceptOptions::decide`], and lets `respond` make the response that
    /// opens the connection.
    pub(super) fn on<R>(
        request: &RequestHead,
        options: &AcceptOptions,
        respond: impl FnOnce(&Acceptance<'_>) -> R,
    ) -> Result<(R, Self), Refusal> {
        let opening = request.opening().map_err(Refusal::from)?;
        //= rfc6455 4.2.2-3, 4.2.2-4, 4.2.2-6, 10.2-1, 10.2-2
        let subprotocol = (options.decide)(request, &opening)?;
        let acceptance = opening.accept(subprotocol.as_deref());
        #[cfg(feature = "deflate")]
        let (acceptance, extensions) = {
            let agreement = options
                .deflate
                .and_then(|wanted| opening.select_deflate(&wanted));
            let extensions = agreement.map_or(Extensions::NONE, Extensions::deflate);
            (acceptance.with_deflate(agreement), extensions)
        };
        #[cfg(not(feature = "deflate"))]
        let extensions = Extensions::NONE;
        let response = respond(&acceptance);
        let agreed = Self {
            subprotocol,
            extensions,
            limits: options.limits,
            close_timeout: options.close_timeout,
        };
        Ok((response, agreed))
    }

    /// The connection, over a stream on which the response is under way and of which `rest` was
    /// read already.
    pub(super) fn open<S>(self, io: S, request: RequestHead, rest: Vec<u8>) -> Accepted<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut engine =
            Connection::new(Role::Server, self.limits).with_extensions(self.extensions);
        if !rest.is_empty() {
            hold(&mut engine, rest);
        }
        Accepted {
            websocket: WebSocket::new(io, engine).with_close_timeout(self.close_timeout),
            request,
            subprotocol: self.subprotocol,
        }
    }
}

/// A request, and what came behind it; what came in all, if it is to be given back.
struct HeadAndRest {
    head: RequestHead,
    rest: Vec<u8>,
}

/// Up to the response that opens the connection. Nothing is agreed with who has asked for something else.
async fn handshake<S>(
    io: &mut S,
    seen: Vec<u8>,
    options: &AcceptOptions,
    plain: Plain,
) -> Result<(HeadAndRest, Option<Agreed>), AcceptError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = read_head(io, seen, &options.head, plain).await?;
    if plain.gives_back(&request.head) {
        return Ok((request, None));
    }
    let (response, agreed) = Agreed::on(&request.head, options, |acceptance| {
        let mut response = Vec::with_capacity(256);
        acceptance.write_http1(&mut response);
        response
    })?;
    io.write_all(&response).await?;
    io.flush().await?;
    Ok((request, Some(agreed)))
}

impl Plain {
    fn gives_back(self, head: &RequestHead) -> bool {
        self != Self::Refused && head.opening() == Err(OpeningError::NoUpgrade)
    }
}

/// Reads the head of a request, and maybe a part of what follows.
async fn read_head(
    io: &mut (impl AsyncRead + Unpin),
    // Empty as long as one read has brought the head, as it mostly does.
    mut seen: Vec<u8>,
    limits: &HeadLimits,
    plain: Plain,
) -> Result<HeadAndRest, AcceptError> {
    // A head can be shorter than what was read to tell the versions of HTTP apart.
    if !seen.is_empty()
        && let Some(found) = find_head(&seen, limits, plain)?
    {
        return Ok(found);
    }
    loop {
        let parsed = poll_fn(|cx| {
            scratch::with(|buffer| poll_head(cx, io, buffer, &mut seen, limits, plain))
        });
        if let Some(found) = parsed.await? {
            return Ok(found);
        }
    }
}

fn poll_head(
    cx: &mut Context<'_>,
    io: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
    seen: &mut Vec<u8>,
    limits: &HeadLimits,
    plain: Plain,
) -> Poll<Result<Option<HeadAndRest>, AcceptError>> {
    let mut read = ReadBuf::new(buffer);
    ready!(Pin::new(io).poll_read(cx, &mut read))?;
    let read = read.filled();
    if read.is_empty() {
        return Poll::Ready(Err(AcceptError::CutOff));
    }
    let all_in_one = seen.is_empty();
    let bytes = if all_in_one {
        read
    } else {
        seen.extend_from_slice(read);
        &seen[..]
    };
    let found = find_head(bytes, limits, plain)?;
    if found.is_none() && all_in_one {
        seen.extend_from_slice(read);
    }
    Poll::Ready(Ok(found))
}

fn find_head(
    bytes: &[u8],
    limits: &HeadLimits,
    plain: Plain,
) -> Result<Option<HeadAndRest>, AcceptError> {
    let parsed = RequestHead::parse(bytes, limits).map_err(|error| error.refusal())?;
    Ok(parsed.map(|head| {
        let from = if plain.gives_back(&head) {
            0
        } else {
            head.len()
        };
        let rest = bytes[from..].to_vec();
        HeadAndRest { head, rest }
    }))
}

/// Keeps bytes that came with the opening handshake for the connection's first read.
pub(super) fn hold(engine: &mut Connection, mut rest: Vec<u8>) {
    // What isn't asked for is held.
    drop(engine.receive(&mut rest));
}

/// Answers with a refusal, and makes sure that it isn't lost in a reset.
async fn refuse<S>(io: &mut S, refusal: &Refusal) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut response = Vec::new();
    refusal.write_http1(&mut response);
    say_last(io, &response).await
}

/// Writes a response behind which the connection ends. What the client still sends is read and dropped: were it
/// not, its arrival at a closed socket would have the client's system throw the response away.
pub(super) async fn say_last<S>(io: &mut S, response: &[u8]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    io.write_all(response).await?;
    io.shutdown().await?;
    let mut dropped = [0; 512];
    while io.read(&mut dropped).await? > 0 {}
    Ok(())
}
