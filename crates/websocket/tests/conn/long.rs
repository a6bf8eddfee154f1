//! Long messages, which are written where they lie.

use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tautline_websocket::proto::MessageRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::support::{Did, Input, Scripted, frame, server};

/// Lengths on either side of what is long, in turn.
const LENGTHS: [usize; 6] = [10, 65_536, 3, 200_000, 65_535, 65_537];

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

/// A frame as a server sends it.
fn sent(len: usize) -> Vec<u8> {
    let mut frame = vec![0x82];
    match len {
        0..126 => frame.push(len as u8),
        126..65_536 => {
            frame.push(126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend(payload(len));
    frame
}

/// Streams that are vectored or not, stutter or not, and take more or less at once.
fn streams() -> impl Iterator<Item = Scripted> {
    let takes = [1000, 70_000, usize::MAX];
    takes.into_iter().flat_map(|takes| {
        [(false, false), (false, true), (true, false), (true, true)].map(|(vectored, stutters)| {
            let said = Input::Bytes(frame(0x81, b"go"));
            let close = Input::Bytes(frame(0x88, b""));
            Scripted {
                takes,
                vectored,
                stutters,
                ..Scripted::new([said, Input::Pending, close])
            }
        })
    })
}

#[tokio::test]
async fn long_and_short_replies_stay_in_order() {
    for mut io in streams() {
        let ended = server(&mut io)
            .serve(|_, replies| {
                for len in LENGTHS {
                    replies.send(&payload(len)[..]).expect("open");
                }
            })
            .await;
        assert!(matches!(ended, Ok(None)), "{ended:?}");
        let mut expected = LENGTHS.map(sent).concat();
        expected.extend([0x88, 0]);
        assert!(io.written() == expected);
    }
}

#[tokio::test]
async fn long_and_short_messages_that_are_sent_stay_in_order() {
    for mut io in streams() {
        let mut ws = server(&mut io);
        for len in LENGTHS {
            ws.queue(&payload(len)[..]).expect("open");
            ws.send(MessageRef::Binary(&payload(len)))
                .await
                .expect("open");
        }
        drop(ws);
        let expected = LENGTHS.map(|len| sent(len).repeat(2)).concat();
        assert!(io.written() == expected);
    }
}

/// What waits, the header, and the message leave in one write.
#[tokio::test]
async fn a_long_reply_is_written_with_what_waits() {
    let mut io = Scripted::new([Input::Bytes(frame(0x81, b"go"))]);
    let ended = server(&mut io)
        .serve(|_, replies| {
            for len in [10, 65_536, 3] {
                replies.send(&payload(len)[..]).expect("open");
            }
        })
        .await;
    assert!(ended.is_err(), "cut off");
    let expected = [[sent(10), sent(65_536)].concat(), sent(3)].map(Did::Wrote);
    assert!(io.did.starts_with(&expected), "{} writes", io.did.len());
}

/// A stream that holds back what was written until it is flushed, as TLS may.
#[derive(Default)]
struct HoldsBack {
    input: Option<Vec<u8>>,
    held: Vec<u8>,
    sent: Vec<u8>,
}

impl AsyncRead for HoldsBack {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.input.take() {
            Some(input) => buffer.put_slice(&input),
            None => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HoldsBack {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = mem::take(&mut self.held);
        self.sent.append(&mut held);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_long_reply_is_flushed() {
    let mut io = HoldsBack {
        input: Some(frame(0x81, b"go")),
        ..HoldsBack::default()
    };
    {
        let mut serving = pin!(server(&mut io).serve(|_, replies| {
            replies.send(&payload(65_536)[..]).expect("open");
        }));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(serving.as_mut().poll(&mut cx).is_pending());
    }
    assert!(io.sent == sent(65_536), "{} bytes", io.sent.len());
}
