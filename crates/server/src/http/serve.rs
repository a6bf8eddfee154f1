//! One connection of HTTP/1.
//!
//! The HTTP library reads requests, and writes what is answered at once. It has some 16 KiB of buffers for that, which
//! would be most of what a client costs who only listens. So an answer that goes on, or has to be waited for, takes the
//! connection out of the library ([`long`](super::long)), and what comes behind it is read by the library again.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{HeaderMap, Method, Request, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::counters::Dropped;
use super::line::{End, HttpLine};
use super::long::{EndOfLong, Long};
use super::node::Node;
use super::patience::is_stalled;
use super::respond::{Reply, ReplyBody};
use super::rewind::Rewind;
use super::{CLOSING_TIME, MAX_HEAD_LEN, MAX_HEADERS, RequestBody, Service};

/// Serves the requests of one connection. `from` is whom it comes from. Ends when the peer is done, when a limit is
/// reached, or soon after `shutdown` completes: the request that is being answered is answered still.
///
/// # Cancel safety
///
/// Dropping the future drops the connection.
pub async fn serve_connection<S, N>(
    stream: S,
    from: Option<SocketAddr>,
    service: Rc<Service<N>>,
    shutdown: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    N: Node,
{
    let stream = Rewind::new(Vec::new(), stream).patient(service.write_timeout(), |_| 0);
    serve_rewound(stream, HttpLine::new(from), service, shutdown).await;
}

/// The same for a proxy that is trusted, which keeps its connections for further requests: they may idle for
/// [`KEPT_TIMEOUT`](super::KEPT_TIMEOUT), and don't grow too old.
///
/// # Cancel safety
///
/// Dropping the future drops the connection.
pub async fn serve_kept_connection<S, N>(
    stream: S,
    from: SocketAddr,
    service: Rc<Service<N>>,
    shutdown: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    N: Node,
{
    let stream = Rewind::new(Vec::new(), stream).patient(service.write_timeout(), |_| 0);
    let line = HttpLine::kept(from);
    serve_rewound(stream, line, service, shutdown).await;
}

/// The same for one whose first bytes may have been read already.
pub(crate) async fn serve_rewound<S, N>(
    mut stream: Rewind<S>,
    line: HttpLine,
    service: Rc<Service<N>>,
    shutdown: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    N: Node,
{
    let line = Rc::new(line);
    let mut ending = pin!(either(shutdown, line.ended(line.max_age())));
    loop {
        // In a box, so that nothing of the library is left while an answer goes on.
        let requests = Box::pin(requests(stream, &service, &line, ending.as_mut()));
        let Some((rest, long)) = requests.await else {
            return;
        };
        stream = match long.finish(rest, ending.as_mut()).await {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err(EndOfLong::TooLong) => return service.count_dropped(Dropped::Ending),
            Err(EndOfLong::Io(error)) => {
                if is_stalled(&error) {
                    service.count_stalled();
                }
                tracing::debug!(%error, "a client went away before its answer was over");
                return;
            }
        };
    }
}

async fn either(shutdown: impl Future<Output = ()>, ended: impl Future<Output = End>) -> End {
    tokio::select! {
        () = shutdown => End::Soon,
        end = ended => end,
    }
}

/// Has the library serve requests until one of them is answered outside of it; `None` when the connection is over.
async fn requests<S, N>(
    stream: Rewind<S>,
    service: &Rc<Service<N>>,
    line: &Rc<HttpLine>,
    ending: Pin<&mut impl Future<Output = End>>,
) -> Option<(Rewind<S>, Long)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    N: Node,
{
    let exit = Rc::new(Exit::default());
    let (stream, is_written) = stream.watched();
    let answer = {
        let (service, line, exit) = (Rc::clone(service), Rc::clone(line), Rc::clone(&exit));
        service_fn(move |request: Request<Incoming>| {
            let way = Way {
                is_open: may_leave(&request),
                keeps_alive: !wants_close(request.headers()),
                is_read: Rc::new(Cell::new(request.body().is_end_stream())),
                is_written: Arc::clone(&is_written),
                exit: Rc::clone(&exit),
            };
            let request = request.map(|body| RequestBody::watched(body, Rc::clone(&way.is_read)));
            let (service, line) = (Rc::clone(&service), Rc::clone(&line));
            way.answer(async move { service.respond(request, &line).await })
        })
    };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(line.patience())
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_LEN)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();

    let left = tokio::select! {
        left = poll_fn(|cx| exit.poll(&mut connection, cx)) => left,
        end = ending => {
            if end == End::Now {
                return None;
            }
            exit.is_shut.set(true);
            Pin::new(&mut connection).graceful_shutdown();
            let rest = poll_fn(|cx| exit.poll(&mut connection, cx));
            let Ok(left) = tokio::time::timeout(CLOSING_TIME, rest).await else {
                service.count_dropped(Dropped::Ending);
                return None;
            };
            left
        }
    };
    match left {
        Ok(Some(long)) => {
            let parts = connection.into_parts()?;
            let mut stream = parts.io.into_inner();
            stream.unread(&parts.read_buf);
            Some((stream, long))
        }
        Ok(None) => None,
        Err(error) => {
            service.count_end(&error);
            // A peer that went away in the middle of something: its own business.
            tracing::debug!(%error, "HTTP connection ended early");
            None
        }
    }
}

/// Where an answer waits that is to leave the library.
#[derive(Default)]
struct Exit {
    long: RefCell<Option<Long>>,
    /// The connection is about to end.
    is_shut: Cell<bool>,
}

impl Exit {
    /// Drives a connection until it is over, or an answer leaves it.
    fn poll<C>(&self, connection: &mut C, cx: &mut Context<'_>) -> Poll<hyper::Result<Option<Long>>>
    where
        C: Future<Output = hyper::Result<()>> + Unpin,
    {
        let polled = Pin::new(connection).poll(cx);
        if let Some(long) = self.long.take() {
            return Poll::Ready(Ok(Some(long)));
        }
        polled.map_ok(|()| None)
    }
}

/// What decides whether an answer leaves the library.
struct Way {
    /// Nothing about the request speaks against it.
    is_open: bool,
    keeps_alive: bool,
    /// All of the request was read: what comes next is another.
    is_read: Rc<Cell<bool>>,
    /// All that was answered before was written.
    is_written: Arc<AtomicBool>,
    exit: Rc<Exit>,
}

impl Way {
    /// Answers by the library, or leaves it and never answers.
    async fn answer(
        self,
        reply: impl Future<Output = Reply>,
    ) -> Result<http::Response<ReplyBody>, Infallible> {
        // In a box, of which nothing is left when there is only to wait.
        let long = match Box::pin(reply).await {
            Reply::Now(response) => {
                if !matches!(response.body(), ReplyBody::Stream(_)) || !self.may_leave() {
                    return Ok(response);
                }
                Long::answer(response, self.keeps_alive)
            }
            Reply::Later(mut answering) => {
                let polled = poll_fn(|cx| Poll::Ready(answering.as_mut().poll(cx))).await;
                match polled {
                    Poll::Ready(response) => return Ok(response),
                    Poll::Pending if !self.may_leave() => return Ok(answering.await),
                    Poll::Pending => Long::waiting(answering, self.keeps_alive),
                }
            }
        };
        *self.exit.long.borrow_mut() = Some(long);
        pending().await
    }

    fn may_leave(&self) -> bool {
        self.is_open
            && self.is_read.get()
            && self.is_written.load(Ordering::Relaxed)
            && !self.exit.is_shut.get()
    }
}

/// Whether the answer could be written by [`Long`]: of HTTP/1.0, and of what has no body or becomes another protocol, it
/// knows nothing.
fn may_leave<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11
        && matches!(*request.method(), Method::GET | Method::POST)
        && !request.headers().contains_key(header::UPGRADE)
}

/// RFC 9112, section 9.3.
fn wants_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let mut tokens = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}
