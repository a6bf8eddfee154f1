//! Echo and broadcast over fastwebsockets. It writes each frame by itself and has no way to batch; `Corked` lends it one,
//! which is the most that a user can do for it. `--send` leaves it as it is. As its reading can't be cancelled, broadcast
//! takes a task for each half of a connection.

use std::process::ExitCode;

use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Role, WebSocket, WebSocketError,
    WebSocketWrite,
};
use peer_kit::{Batching, Corked, Room, run, upgrade};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc::UnboundedReceiver;

/// A message that many connections send.
#[derive(Debug, Clone)]
struct Shared {
    opcode: OpCode,
    payload: bytes::Bytes,
}

fn main() -> ExitCode {
    run::<Shared, _>(|mut stream, setup| async move {
        if upgrade(&mut stream, setup.deflate).await.is_err() {
            return;
        }
        match (setup.room, setup.batching) {
            (Some(room), _) => take_part(stream, &room).await,
            (None, Batching::Each) => echo(stream).await,
            (None, Batching::Ready) => echo(Corked::new(stream)).await,
        }
    })
}

async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut socket = FragmentCollector::new(WebSocket::after_handshake(stream, Role::Server));
    while let Ok(frame) = socket.read_frame().await {
        match frame.opcode {
            OpCode::Text | OpCode::Binary => {
                let answer = Frame::new(true, frame.opcode, None, frame.payload);
                if socket.write_frame(answer).await.is_err() {
                    return;
                }
            }
            OpCode::Close => {
                // It has been answered by the library, into the cork.
                let _ = socket.into_inner().flush().await;
                return;
            }
            _ => {}
        }
    }
}

async fn take_part(stream: TcpStream, room: &Room<Shared>) {
    let socket = WebSocket::after_handshake(stream, Role::Server);
    let (reader, writer) = socket.split(|stream| {
        let (read, write) = stream.into_split();
        (read, Corked::new(write))
    });
    let (id, heard) = room.enter();
    let writing = tokio::spawn(write(writer, heard));
    let mut reader = FragmentCollectorRead::new(reader);
    let mut obliged = |_: Frame<'_>| async { Ok::<(), WebSocketError>(()) };
    while let Ok(frame) = reader.read_frame(&mut obliged).await {
        match frame.opcode {
            OpCode::Text | OpCode::Binary => room.say(&Shared {
                opcode: frame.opcode,
                payload: bytes::Bytes::copy_from_slice(&frame.payload),
            }),
            OpCode::Close => break,
            _ => {}
        }
    }
    room.leave(id);
    // The channel is closed, so it ends.
    let _ = writing.await;
}

async fn write(
    mut writer: WebSocketWrite<Corked<OwnedWriteHalf>>,
    mut heard: UnboundedReceiver<Shared>,
) {
    let mut batch = Vec::new();
    while heard.recv_many(&mut batch, 256).await > 0 {
        for message in batch.drain(..) {
            let frame = Frame::new(true, message.opcode, None, (&message.payload[..]).into());
            if writer.write_frame(frame).await.is_err() {
                return;
            }
        }
        if writer.flush().await.is_err() {
            return;
        }
    }
}
