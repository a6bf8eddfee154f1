//! An answer in HTTP/1.1 that goes on, or has to be waited for: written here, so that its connection has no buffers of the
//! HTTP library's meanwhile.
//!
//! What the client sends meanwhile is kept, within the limit of a request's head, and then waits in the socket. When the
//! client ends its side, the answer is given up.

use std::fmt::Write as _;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Body as _;
use tautline_websocket::conn::WriteQueue;
use tautline_websocket::proto::Output as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::line::End;
use super::respond::{Answering, ReplyBody};
use super::rewind::Rewind;
use super::{CLOSING_TIME, MAX_HEAD_LEN};

/// An answer to the one request that a connection has at the moment, all of which was read.
pub(super) struct Long {
    work: Work,
    /// Whether requests may follow.
    keeps_alive: bool,
}

enum Work {
    /// There is no answer yet.
    Waiting(Answering),
    /// There is one, of which nothing was said.
    Answer(Box<Response<ReplyBody>>),
    /// Its body goes on.
    Body { body: ReplyBody, is_chunked: bool },
    /// All was said.
    Over,
}

impl Long {
    /// One that has to be waited for.
    pub(super) fn waiting(answering: Answering, keeps_alive: bool) -> Self {
        Self {
            work: Work::Waiting(answering),
            keeps_alive,
        }
    }

    /// One whose body goes on.
    pub(super) fn answer(response: Response<ReplyBody>, keeps_alive: bool) -> Self {
        Self {
            work: Work::Answer(Box::new(response)),
            keeps_alive,
        }
    }

    /// Gives the answer. Returns the connection if further requests may come, which may have been read already. It is
    /// over soon after `ending` completes, which is not polled again then.
    ///
    /// # Errors
    ///
    /// The connection failed, or the client has gone, or takes nothing; or it had to end, and there was no time left.
    pub(super) async fn finish<S>(
        self,
        stream: Rewind<S>,
        mut ending: Pin<&mut impl Future<Output = End>>,
    ) -> Result<Option<Rewind<S>>, EndOfLong>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut saying = Saying {
            stream,
            work: self.work,
            keeps_alive: self.keeps_alive,
            queue: WriteQueue::new(),
        };
        let (mut closing, mut is_closing) = (None, false);
        let said = loop {
            let closed = async {
                match closing.as_mut() {
                    None => pending().await,
                    Some(deadline) => Pin::new(deadline).await,
                }
            };
            tokio::select! {
                said = poll_fn(|cx| saying.poll(cx)) => break said,
                end = ending.as_mut(), if !is_closing => {
                    if end == End::Now {
                        return Ok(None);
                    }
                    saying.keeps_alive = false;
                    is_closing = true;
                    closing = Some(Box::pin(tokio::time::sleep(CLOSING_TIME)));
                }
                () = closed => return Err(EndOfLong::TooLong),
            }
        };
        said?;
        if saying.keeps_alive {
            return Ok(Some(saying.stream));
        }
        saying.stream.shutdown().await?;
        Ok(None)
    }
}

/// Why an answer ends before its end.
pub(super) enum EndOfLong {
    Io(io::Error),
    /// The connection had to end, and it took too long.
    TooLong,
}

impl From<io::Error> for EndOfLong {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// An answer and its connection.
struct Saying<S> {
    stream: Rewind<S>,
    work: Work,
    keeps_alive: bool,
    queue: WriteQueue,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Saying<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.listen(cx)?;
        loop {
            if self.queue.len() >= FULL {
                ready!(self.write(cx))?;
            }
            match &mut self.work {
                Work::Waiting(answering) => {
                    let response = ready!(answering.as_mut().poll(cx));
                    self.work = Work::Answer(Box::new(response));
                }
                Work::Answer(_) => self.begin(),
                Work::Body { body, is_chunked } => match Pin::new(body).poll_frame(cx)? {
                    Poll::Ready(Some(frame)) => {
                        if let Ok(bytes) = frame.into_data() {
                            put(&mut self.queue, &bytes, *is_chunked);
                        }
                    }
                    Poll::Ready(None) => {
                        if *is_chunked {
                            self.queue.put(b"0\r\n\r\n");
                        }
                        self.work = Work::Over;
                    }
                    // What there is leaves together.
                    Poll::Pending => {
                        ready!(self.write(cx))?;
                        return Poll::Pending;
                    }
                },
                Work::Over => return self.write(cx),
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.queue.poll_write(cx, &mut self.stream))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Keeps what comes, and finds out whether the client is gone.
    fn listen(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            match self.stream.poll_ahead(cx, MAX_HEAD_LEN) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
    }

    /// Says the head.
    fn begin(&mut self) {
        let Work::Answer(response) = std::mem::replace(&mut self.work, Work::Over) else {
            return;
        };
        let (head, body) = response.into_parts();
        let is_bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
        let length = body.size_hint().exact();
        self.keeps_alive &= !says_close(&head.headers);
        let mut text = String::with_capacity(HEAD_CAPACITY);
        let reason = head.status.canonical_reason().unwrap_or_default();
        let _ = write!(text, "HTTP/1.1 {} {reason}\r\n", head.status.as_u16());
        if !self.keeps_alive {
            text.push_str("connection: close\r\n");
        }
        match length {
            _ if is_bodiless => {}
            Some(length) => {
                let _ = write!(text, "content-length: {length}\r\n");
            }
            None => text.push_str("transfer-encoding: chunked\r\n"),
        }
        let date = httpdate::fmt_http_date(SystemTime::now());
        let _ = write!(text, "date: {date}\r\n");
        self.queue.put(text.as_bytes());
        for (name, value) in &head.headers {
            // What was said already.
            let is_said = [
                header::CONTENT_LENGTH,
                header::TRANSFER_ENCODING,
                header::DATE,
            ]
            .contains(name)
                || (name == header::CONNECTION && !self.keeps_alive);
            if !is_said {
                for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                    self.queue.put(part);
                }
            }
        }
        self.queue.put(b"\r\n");
        if !is_bodiless {
            self.work = Work::Body {
                body,
                is_chunked: length.is_none(),
            };
        }
    }
}

/// Queues a part of a body.
fn put(queue: &mut WriteQueue, bytes: &Bytes, is_chunked: bool) {
    if bytes.is_empty() {
        // A chunk of no bytes would be the last.
        return;
    }
    if !is_chunked {
        queue.push_shared(bytes);
        return;
    }
    let mut length = String::new();
    let _ = write!(length, "{:x}\r\n", bytes.len());
    queue.put(length.as_bytes());
    queue.push_shared(bytes);
    queue.put(b"\r\n");
}

fn says_close(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONNECTION);
    value.is_some_and(|value| value == HeaderValue::from_static("close"))
}

/// How much may be queued before it has to be written.
const FULL: usize = 16 * 1024;

/// As long as most heads.
const HEAD_CAPACITY: usize = 128;
