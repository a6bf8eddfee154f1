//! Shows what permessage-deflate saves: sends the same ticks over a connection without it, and over
//! two with it, and counts the bytes that go through the socket.
//!
//! ```text
//! cargo run --release -p tautline-websocket --example compression
//! ```

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tautline_websocket::conn::{AcceptOptions, ConnectOptions, accept, client};
use tautline_websocket::proto::CloseCode;
use tautline_websocket::proto::deflate::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let without_context = ServerConfig {
        server_no_context_takeover: true,
        ..ServerConfig::default()
    };
    let plain = bytes_sent(None).await?;
    for (what, config) in [
        ("no compression", None),
        ("each message by itself", Some(without_context)),
        ("with the messages before it", Some(ServerConfig::default())),
    ] {
        let sent = bytes_sent(config).await?;
        say(&format!(
            "{what:<28} {sent:>9} bytes {:>6.1} %",
            100.0 * sent as f64 / plain as f64
        ));
    }
    Ok(())
}

/// How many bytes the server puts into its socket for all ticks, agreed on `deflate`.
async fn bytes_sent(deflate: Option<ServerConfig>) -> Result<u64, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/", listener.local_addr()?);
    let stream = TcpStream::connect(listener.local_addr()?).await?;
    let sent = Arc::new(AtomicU64::new(0));
    let io = Counting {
        io: listener.accept().await?.0,
        sent: Arc::clone(&sent),
    };
    let server = async move {
        let options = AcceptOptions {
            deflate,
            ..AcceptOptions::default()
        };
        let mut ws = accept(io, &options).await?.websocket;
        for number in 0..TICKS {
            ws.send(&*tick(number)).await?;
        }
        ws.close(CloseCode::NORMAL, "").await?;
        Ok::<(), Box<dyn Error>>(())
    };
    let reader = async move {
        let options = ConnectOptions {
            deflate: Some(ClientConfig::default()),
            ..ConnectOptions::default()
        };
        let mut ws = client(stream, &url, &options).await?.websocket;
        while ws.recv().await?.is_some() {}
        Ok::<(), Box<dyn Error>>(())
    };
    tokio::try_join!(server, reader)?;
    Ok(sent.load(Ordering::Relaxed))
}

/// A message as a market would send it.
fn tick(number: u32) -> String {
    let trades: Vec<_> = (0..4)
        .map(|n| {
            let (price, size) = (40_000 + (number * 7 + n * 13) % 900, (number + n) % 50 + 1);
            let side = if (number + n).is_multiple_of(3) {
                "buy"
            } else {
                "sell"
            };
            format!(
                r#"{{"symbol":"BTC-USD","side":"{side}","price":"{price}.5","size":"0.{size:03}"}}"#
            )
        })
        .collect();
    format!(
        r#"{{"type":"trades","sequence":{number},"trades":[{}]}}"#,
        trades.join(",")
    )
}

/// A stream that counts what is written to it.
struct Counting {
    io: TcpStream,
    sent: Arc<AtomicU64>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[expect(clippy::print_stdout, reason = "the table is what this is for")]
fn say(line: &str) {
    println!("{line}");
}

/// Messages.
const TICKS: u32 = 1000;
