//! Our server. Its paths:
//!
//! - `/echo`: sends everything back
//! - `/pings`: sends a ping with the text of each message, and the payload of each pong as a text
//! - `/close?CODE=REASON`: closes at once, with these
//! - `/refused`: doesn't open, with 401, a header and a body
//! - `/only?ORIGIN`: opens for pages from there alone
//! - `/torn?TEXT`: sends a text, then breaks off in the middle of a frame
//!
//! All of them choose the first of a client's subprotocols that is `chat.v2` or `chat.v1`.

use std::error::Error;
use std::rc::Rc;

use tautline_websocket::conn::{AcceptOptions, Accepted, WebSocket, accept};
use tautline_websocket::proto::handshake::{Opening, Refusal, RequestHead};
use tautline_websocket::proto::{CloseCode, Limits};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::{compression, echo, http2};

/// Serves until the process is ended.
///
/// # Errors
///
/// When it can't listen.
pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    let tasks = LocalSet::new();
    for name in compression::NAMES {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{name} {}", listener.local_addr()?);
        let options = Rc::new(options(name)?);
        tasks.spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let options = Rc::clone(&options);
                tokio::task::spawn_local(async move {
                    if let Err(error) = connection(stream, &options).await {
                        eprintln!("{error}");
                    }
                });
            }
        });
    }
    tasks.run_until(http2::listen()).await?;
    tasks.await;
    Ok(())
}

/// How connections are accepted with this form of compression.
pub(crate) fn options(compression: &str) -> Result<AcceptOptions, Box<dyn Error>> {
    Ok(AcceptOptions {
        limits: Limits::for_messages(4 << 20),
        deflate: compression::of_server(compression)?,
        decide: Box::new(decide),
        ..AcceptOptions::default()
    })
}

fn decide(request: &RequestHead, opening: &Opening<'_>) -> Result<Option<String>, Refusal> {
    match request.path() {
        "/refused" => {
            return Err(Refusal::new(401, "no token")
                .with_header("WWW-Authenticate", "Bearer realm=\"interop\""));
        }
        "/only" if opening.origin() != request.query() => {
            return Err(Refusal::new(403, "this origin is not allowed"));
        }
        _ => {}
    }
    let subprotocol = opening.select_subprotocol(&["chat.v2", "chat.v1"]);
    Ok(subprotocol.map(str::to_owned))
}

async fn connection(stream: TcpStream, options: &AcceptOptions) -> Result<(), Box<dyn Error>> {
    stream.set_nodelay(true)?;
    serve(accept(stream, options).await?).await
}

/// What the path of a request asks for.
pub(crate) async fn serve<S>(accepted: Accepted<S>) -> Result<(), Box<dyn Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut ws = accepted.websocket;
    let query = accepted.request.query().unwrap_or_default();
    match accepted.request.path() {
        "/pings" => echo::pings(ws).await?,
        "/close" => {
            let (code, reason) = query.split_once('=').ok_or("expected CODE=REASON")?;
            ws.close(CloseCode::from(code.parse::<u16>()?), reason)
                .await?;
        }
        "/torn" => torn(ws, query).await?,
        _ => {
            ws.serve(|message, replies| {
                // Fails once this side closes, which it doesn't.
                let _ = replies.send(message);
            })
            .await?;
        }
    }
    Ok(())
}

async fn torn<S>(mut ws: WebSocket<S>, text: &str) -> Result<(), Box<dyn Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    ws.send(text).await?;
    let (mut stream, ..) = ws.into_parts();
    stream.write_all(b"\x81\x05Hel").await?;
    stream.shutdown().await?;
    Ok(())
}
