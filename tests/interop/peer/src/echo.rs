//! What `WebSocket` keeps to itself: pings and pongs, by driving the engine.

use std::error::Error;

use tautline_websocket::conn::WebSocket;
use tautline_websocket::proto::Event;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Sends a ping with the text of each message that comes, and the payload of each pong as a text,
/// until the peer closes.
pub(crate) async fn pings<S>(ws: WebSocket<S>) -> Result<(), Box<dyn Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut stream, mut engine, _) = ws.into_parts();
    let mut input = [0; 4096];
    let mut out = Vec::new();
    while engine.wants_input() {
        let len = stream.read(&mut input).await?;
        if len == 0 {
            return Err("the peer went away without a Close".into());
        }
        let mut events = engine.receive(&mut input[..len]);
        while let Some((event, mut sender)) = events.next_with_sender(&mut out) {
            match event {
                Event::Text(text) => sender.ping(text.as_bytes(), &mut out)?,
                Event::Pong(payload) => {
                    sender.send_text(&String::from_utf8_lossy(payload), &mut out)?;
                }
                Event::Failed(fault) => return Err(fault.into()),
                Event::Binary(_) | Event::Ping(_) | Event::Close(_) => {}
            }
        }
        drop(events);
        stream.write_all(&out).await?;
        out.clear();
    }
    stream.shutdown().await?;
    Ok(())
}
