//! Our client, in one scene with somebody else's server. What is the same for every server is
//! checked here; what the server is to have seen, its own test checks.

use std::error::Error;

use tautline_websocket::conn::{
    ClientStream, ConnectError, ConnectOptions, Connected, WebSocket, connect,
};
use tautline_websocket::proto::{CloseCode, Event, Limits, Message};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::compression;

/// Goes through the scene of this name.
///
/// # Errors
///
/// When something isn't as it should be.
pub(crate) async fn run(name: &str, compression: &str, url: &str) -> Result<(), Box<dyn Error>> {
    let options = ConnectOptions {
        limits: Limits::for_messages(4 << 20),
        deflate: compression::of_client(compression)?,
        subprotocols: vec!["chat.v2".to_owned(), "chat.v1".to_owned()],
        headers: vec![("Origin".to_owned(), "http://interop.test".to_owned())],
        ..ConnectOptions::default()
    };
    match name {
        "echo" => echo(open(url, &options, compression).await?).await,
        "ping" => ping(open(url, &options, compression).await?).await,
        "close" => {
            let mut ws = open(url, &options, compression).await?;
            Ok(ws
                .close(CloseCode::from(4001), "Auf Wiedersehen, Jürgen")
                .await?)
        }
        "closed" => closed(open(url, &options, compression).await?).await,
        "refused" => refused(connect(url, &options).await),
        _ => Err(format!("there is no scene {name}").into()),
    }
}

/// Connects; prints the subprotocol, and checks that compression was agreed on where it was offered.
async fn open(
    url: &str,
    options: &ConnectOptions,
    compression: &str,
) -> Result<WebSocket<ClientStream>, Box<dyn Error>> {
    let Connected {
        websocket,
        response,
        subprotocol,
    } = connect(url, options).await?;
    println!("subprotocol {}", subprotocol.as_deref().unwrap_or("none"));
    let extensions = response
        .header("Sec-WebSocket-Extensions")
        .unwrap_or_default();
    let agreed = extensions.starts_with(b"permessage-deflate");
    if agreed != (compression != "plain") {
        let extensions = String::from_utf8_lossy(extensions);
        return Err(format!("offered {compression}, agreed on {extensions:?}").into());
    }
    Ok(websocket)
}

/// All lengths at which a frame's header changes, text that needs all lengths of UTF-8, what
/// compresses and what doesn't, one after the other and all at once.
pub(crate) async fn echo<S>(mut ws: WebSocket<S>) -> Result<(), Box<dyn Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut messages = vec![
        Message::from("Grüße, κόσμε, 😀"),
        Message::from(vec![0xFF, 0x00]),
    ];
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
        messages.push(Message::from(words().take(len).collect::<String>()));
        messages.push(Message::from(noise(len)));
    }
    for message in &messages {
        ws.send(message).await?;
        expect(&mut ws, message).await?;
    }
    // Not the long ones: the server may wait for us to read before it reads on.
    let short: Vec<_> = messages.iter().filter(|m| m.len() < 1000).collect();
    for message in short.iter().copied().cycle().take(100) {
        ws.queue(message)?;
    }
    for message in short.iter().copied().cycle().take(100) {
        expect(&mut ws, message).await?;
    }
    ws.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

async fn expect<S>(ws: &mut WebSocket<S>, expected: &Message) -> Result<(), Box<dyn Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match ws.recv().await? {
        Some(message) if message == *expected => Ok(()),
        Some(message) => {
            let (sent, came) = (expected.len(), message.len());
            Err(format!("sent {sent} bytes, and {came} others came back").into())
        }
        None => Err("the server closed".into()),
    }
}

/// Bytes that don't compress.
fn noise(len: usize) -> Vec<u8> {
    random().take(len).collect()
}

/// The characters of words, with all lengths of UTF-8 among them.
fn words() -> impl Iterator<Item = char> {
    const WORDS: [&str; 8] = [
        "Grüße",
        "κόσμε",
        "😀",
        "{\"price\":",
        "1024",
        " ",
        "\n",
        "\0",
    ];
    random().flat_map(|byte| WORDS[usize::from(byte) % WORDS.len()].chars())
}

/// Always the same.
fn random() -> impl Iterator<Item = u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    })
}

/// A ping is answered with its payload.
async fn ping(mut ws: WebSocket<ClientStream>) -> Result<(), Box<dyn Error>> {
    ws.ping(b"are you there?")?;
    ws.flush().await?;
    let (mut stream, mut engine, _) = ws.into_parts();
    let (mut input, mut out, mut answered) = ([0; 4096], Vec::new(), false);
    while engine.wants_input() {
        let len = stream.read(&mut input).await?;
        if len == 0 {
            return Err("the server went away without a Close".into());
        }
        let mut events = engine.receive(&mut input[..len]);
        while let Some((event, mut sender)) = events.next_with_sender(&mut out) {
            match event {
                Event::Pong(b"are you there?") => {
                    answered = true;
                    sender.close(CloseCode::NORMAL, "", &mut out)?;
                }
                Event::Pong(_) => return Err("the pong has another payload".into()),
                Event::Failed(fault) => return Err(fault.into()),
                _ => {}
            }
        }
        drop(events);
        stream.write_all(&out).await?;
        out.clear();
    }
    if answered && engine.is_closed_cleanly() {
        return Ok(());
    }
    Err("there was no pong, or no clean end".into())
}

/// Prints the messages that come, then what the server's Close said.
async fn closed(mut ws: WebSocket<ClientStream>) -> Result<(), Box<dyn Error>> {
    while let Some(message) = ws.recv().await? {
        println!("message {}", String::from_utf8_lossy(&message.into_bytes()));
    }
    match ws.closed() {
        Some(closed) => println!("closed {} {}", closed.code, closed.reason),
        None => println!("closed without a code"),
    }
    Ok(())
}

/// Prints the status, and the first line of the body.
pub(crate) fn refused<S>(
    outcome: Result<Connected<S>, ConnectError>,
) -> Result<(), Box<dyn Error>> {
    match outcome {
        Ok(_) => Err("it opened".into()),
        Err(ConnectError::Refused(rejection)) => {
            let body = String::from_utf8_lossy(&rejection.body);
            let line = body.lines().next().unwrap_or_default();
            println!("refused {} {line}", rejection.head.status());
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
