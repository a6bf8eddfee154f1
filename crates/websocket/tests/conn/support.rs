//! A stream with a script, and frames as a client sends them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use tautline_websocket::conn::WebSocket;
use tautline_websocket::proto::{Connection, Limits, Role};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;
use tokio::time::timeout;

/// Fails where nothing happens any more, which is what a forgotten wake looks like. Far more time than it
/// takes.
pub(crate) async fn in_time(test: impl Future<Output = ()>) {
    let ended = timeout(Duration::from_secs(60), test).await;
    assert!(ended.is_ok(), "nothing has happened for a minute");
}

/// The same on a paused clock, on which hours pass at once, but none while there is something to do.
pub(crate) async fn in_a_day(test: impl Future<Output = ()>) {
    let ended = timeout(Duration::from_secs(24 * 60 * 60), test).await;
    assert!(ended.is_ok(), "nothing has happened for a day");
}

/// Lets others have their turn until `done`. On a paused clock, no time passes meanwhile.
pub(crate) async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if done() {
            return;
        }
        yield_now().await;
    }
    panic!("it has not come to that");
}

/// A masked frame; `first` is its first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x11, 0xA2, 0x00, 0xFE];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(len).expect("short").to_be_bytes());
        }
    }
    frame.extend_from_slice(&key);
    frame.extend(
        payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ key[at % 4]),
    );
    frame
}

/// A server's connection over `io`.
pub(crate) fn server<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocket<S> {
    WebSocket::new(io, Connection::new(Role::Server, Limits::default()))
}

/// What one read gives.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Bytes(Vec<u8>),
    /// Nothing yet; the task is woken at once.
    Pending,
    /// The end of the stream; also what comes when the script is at its end.
    End,
    /// Nothing any more, and no wake.
    Never,
}

/// What happened to the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    Wrote(Vec<u8>),
    ShutDown,
    ReadEnd,
}

impl Did {
    /// Bytes that were written.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Wrote(bytes) => bytes.len(),
            Self::ShutDown | Self::ReadEnd => 0,
        }
    }
}

/// A stream that reads from a script and remembers what was done to it.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) input: VecDeque<Input>,
    pub(crate) did: Vec<Did>,
    /// Bytes that one write takes.
    pub(crate) takes: usize,
    /// Whether each write is pending first.
    pub(crate) stutters: bool,
    pub(crate) vectored: bool,
    pub(crate) stuttered: bool,
}

impl Scripted {
    pub(crate) fn new(input: impl IntoIterator<Item = Input>) -> Self {
        Self {
            input: input.into_iter().collect(),
            did: Vec::new(),
            takes: usize::MAX,
            stutters: false,
            vectored: true,
            stuttered: false,
        }
    }

    /// A stream that is pending before each byte it reads and each byte it writes.
    pub(crate) fn one_by_one(bytes: &[u8]) -> Self {
        let input = bytes
            .iter()
            .flat_map(|byte| [Input::Pending, Input::Bytes(vec![*byte])]);
        Self {
            takes: 1,
            stutters: true,
            ..Self::new(input)
        }
    }

    /// All bytes written so far.
    pub(crate) fn written(&self) -> Vec<u8> {
        let writes = self.did.iter().filter_map(|did| match did {
            Did::Wrote(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        writes.flatten().copied().collect()
    }
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.input.pop_front() {
            Some(Input::Bytes(bytes)) => {
                let now = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..now]);
                if now < bytes.len() {
                    self.input.push_front(Input::Bytes(bytes[now..].to_vec()));
                }
                Poll::Ready(Ok(()))
            }
            Some(Input::Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Input::End) | None => {
                self.did.push(Did::ReadEnd);
                Poll::Ready(Ok(()))
            }
            Some(Input::Never) => {
                self.input.push_front(Input::Never);
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.stutters {
            self.stuttered = !self.stuttered;
            if self.stuttered {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let taken = bytes.len().min(self.takes);
        self.did.push(Did::Wrote(bytes[..taken].to_vec()));
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(self.vectored);
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        self.poll_write(cx, &bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.did.push(Did::ShutDown);
        Poll::Ready(Ok(()))
    }
}

/// A stream of which the test keeps a handle.
#[derive(Clone)]
pub(crate) struct Watched(pub(crate) Arc<Mutex<Scripted>>);

impl Watched {
    pub(crate) fn new(input: impl IntoIterator<Item = Input>) -> Self {
        Scripted::new(input).into()
    }

    pub(crate) fn did(&self) -> Vec<Did> {
        self.lock().did.clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Scripted> {
        self.0.lock().expect("no panic")
    }
}

impl From<Scripted> for Watched {
    fn from(io: Scripted) -> Self {
        Self(Arc::new(Mutex::new(io)))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }
}
