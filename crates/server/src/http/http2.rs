//! A request over HTTP/2: a stream of its own, answered like one over HTTP/1.1.
//!
//! Behind this file nothing knows the difference: the request has a `Host`, a target that begins with its path, and one
//! `Cookie`; and what an answer says of the connection is left out.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper::body::Body as _;
use tautline_websocket::conn::http2::{
    Http2Body, Http2Error, Http2Reply, Http2Request, Http2Responder,
};

use super::body::RequestBody;
use super::line::{End, HttpLine};
use super::node::Node;
use super::patience::{Patience, is_stalled};
use super::respond::{self, Reply, ReplyBody, Response, SessionOver};
use super::{CLOSING_TIME, MAX_CONNECTION_AGE, Service};

/// Bytes of answers that a connection's client hasn't taken yet.
#[derive(Debug, Default)]
pub(crate) struct Backlog(Cell<usize>);

impl Backlog {
    /// Whether there is no room for any answer.
    fn is_full(&self) -> bool {
        self.0.get() >= MAX_BACKLOG
    }

    /// Room for an answer of so many bytes. One alone always has it, however long it is.
    fn hold(self: &Rc<Self>, len: usize) -> Option<Held> {
        let waiting = self.0.get();
        if waiting > 0 && waiting.saturating_add(len) > MAX_BACKLOG {
            return None;
        }
        Some(self.hold_anyway(len))
    }

    /// Makes room, come what may.
    fn hold_anyway(self: &Rc<Self>, len: usize) -> Held {
        self.0.set(self.0.get().saturating_add(len));
        Held {
            backlog: Rc::clone(self),
            len,
        }
    }
}

/// What an answer holds of its connection's backlog, until it is dropped.
struct Held {
    backlog: Rc<Backlog>,
    len: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let waiting = &self.backlog.0;
        waiting.set(waiting.get().saturating_sub(self.len));
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// An answer, or nothing.
    Alone,
    /// The end of a session, which its client was told or has brought about.
    SessionOver,
}

/// Answers a request. Ends when the answer is on its way, when the client has given it up, or at a limit.
///
/// # Cancel safety
///
/// Dropping the future gives the stream up.
pub(crate) async fn answer<N: Node>(
    service: Rc<Service<N>>,
    request: Http2Request,
    backlog: Rc<Backlog>,
    from: SocketAddr,
) -> Answered {
    let line = Rc::new(HttpLine::new(Some(from)));
    let answering = respond(&service, request, &backlog, &line);
    let mut answering = pin!(answering);
    let result = tokio::select! {
        result = answering.as_mut() => result,
        end = line.ended(MAX_CONNECTION_AGE) => {
            // A line that has to end is that of a session.
            if end == End::Now {
                return Answered::SessionOver;
            }
            match tokio::time::timeout(CLOSING_TIME, answering).await {
                Ok(result) => result,
                Err(_elapsed) => return Answered::SessionOver,
            }
        }
    };
    result.unwrap_or_else(|error| {
        // A client that went away in the middle of something: its own business.
        tracing::debug!(%error, "a stream of HTTP/2 ended early");
        Answered::Alone
    })
}

async fn respond<N: Node>(
    service: &Rc<Service<N>>,
    request: Http2Request,
    backlog: &Rc<Backlog>,
    line: &Rc<HttpLine>,
) -> io::Result<Answered> {
    let (request, mut responder) = request.into_parts();
    let (is_head, is_safe) = (request.method() == Method::HEAD, request.method().is_safe());
    let mut response = match like_http1(request) {
        Err(refusal) => {
            let status = refusal.status();
            service
                .node
                .count_http(|counters| counters.answered(status));
            (*refusal).map(ReplyBody::Whole)
        }
        Ok(_) if backlog.is_full() => too_much().map(ReplyBody::Whole),
        Ok(request) => {
            // In a box, of which nothing is left when there is only to wait.
            let mut reply = Box::pin(service.respond(request, line));
            match unless_gone(&mut responder, reply.as_mut()).await? {
                Reply::Now(response) => response,
                Reply::Later(mut answering) => {
                    drop(reply);
                    unless_gone(&mut responder, answering.as_mut()).await?
                }
            }
        }
    };
    let mut held = None;
    if let ReplyBody::Whole(body) = response.body() {
        let len = body.size_hint().lower();
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if is_safe {
            held = backlog.hold(len);
            if held.is_none() {
                response = too_much().map(ReplyBody::Whole);
            }
        } else {
            // Something was done, which mustn't be done again for want of an answer.
            held = Some(backlog.hold_anyway(len));
        }
    }
    let is_over = matches!(response.body(), ReplyBody::Stream(_))
        || response.extensions().get::<SessionOver>().is_some();
    let patience = service.write_timeout();
    let sent = send(response, responder, is_head, patience, line).await;
    if let Err(error) = &sent
        && is_stalled(error)
    {
        service.count_stalled();
    }
    sent?;
    drop(held);
    Ok(if is_over {
        Answered::SessionOver
    } else {
        Answered::Alone
    })
}

/// The request as it would have come over HTTP/1.1.
fn like_http1(request: Request<Http2Body>) -> Result<Request<RequestBody>, Box<Response>> {
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority() {
        // RFC 9113, section 8.3.1.
        let named = parts.headers.get(header::HOST);
        let named_other = named.is_some_and(|host| {
            !host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes())
        });
        if named_other {
            let text =
                "Bad Request: expected a Host header that says the same as :authority, or none.\n";
            return Err(respond::text(StatusCode::BAD_REQUEST, text).into());
        }
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            parts.headers.insert(header::HOST, host);
        }
    }
    join_cookies(&mut parts.headers);
    if let Some(target) = parts.uri.path_and_query() {
        parts.uri = Uri::from(target.clone());
    }
    let body = RequestBody::http2(body, &parts.headers);
    Ok(Request::from_parts(parts, body))
}

/// Waits for something for as long as the client wants an answer.
async fn unless_gone<F: Future + ?Sized>(
    responder: &mut Http2Responder,
    mut work: Pin<&mut F>,
) -> Result<F::Output, Http2Error> {
    poll_fn(|cx| {
        if let Poll::Ready(gone) = responder.poll_gone(cx) {
            return Poll::Ready(Err(gone));
        }
        work.as_mut().poll(cx).map(Ok)
    })
    .await
}

/// Makes one field of cookies that came in several (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
    let all: Vec<_> = all.into_iter().map(HeaderValue::as_bytes).collect();
    // Of what a header may have, any sequence is.
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

async fn send(
    response: http::Response<ReplyBody>,
    responder: Http2Responder,
    is_head: bool,
    patience: Option<Duration>,
    line: &Rc<HttpLine>,
) -> io::Result<()> {
    let (mut head, body) = response.into_parts();
    // RFC 9113, section 8.2.2.
    for name in OF_CONNECTIONS {
        head.headers.remove(name);
    }
    if head.status == StatusCode::UPGRADE_REQUIRED {
        // It would have to name the protocol in a field that there isn't.
        head.status = StatusCode::BAD_REQUEST;
    }
    let date = httpdate::fmt_http_date(SystemTime::now());
    if let Ok(date) = HeaderValue::from_str(&date) {
        head.headers.insert(header::DATE, date);
    }
    let is_bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
    if let Some(len) = body.size_hint().exact()
        && !is_bodiless
    {
        head.headers.insert(header::CONTENT_LENGTH, len.into());
    }
    let is_whole = is_head || is_bodiless || body.is_end_stream();
    let reply = responder.send(http::Response::from_parts(head, ()), is_whole)?;
    let mut sending = Sending {
        reply: Some(reply),
        line,
    };
    let Some(reply) = &mut sending.reply else {
        return Ok(());
    };
    let mut patience = patience.map(Patience::new);
    let sent = async {
        if !is_whole {
            send_body(reply, body, &mut patience).await?;
            reply.finish()?;
        }
        let all = poll_fn(|cx| {
            let sent = reply.poll_sent(cx).map(Ok);
            patiently(&mut patience, cx, sent, reply.sent())
        });
        all.await
    };
    let sent = sent.await;
    if let Err(error) = &sent
        && is_stalled(error)
    {
        // What waits is thrown away, and not seen off.
        line.end(false);
    }
    sent
}

/// What is being sent. When it has to end at once, what waits is thrown away; the library would see it off.
struct Sending<'a> {
    /// `None` only while it is dropped.
    reply: Option<Http2Reply>,
    line: &'a HttpLine,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take_if(|_| self.line.is_cut()) {
            reply.abort();
        }
    }
}

/// Passes on what came of sending something, if it wasn't waited for too long. The client has taken so much by now.
fn patiently<T>(
    patience: &mut Option<Patience>,
    cx: &mut Context<'_>,
    polled: Poll<io::Result<T>>,
    taken: u64,
) -> Poll<io::Result<T>> {
    match patience {
        Some(patience) if polled.is_pending() => {
            Poll::Ready(Err(ready!(patience.poll_stalled(cx, taken))))
        }
        Some(patience) => {
            patience.rest();
            polled
        }
        None => polled,
    }
}

/// Takes of the body as much as there is room for, so that the rest waits where it is counted.
async fn send_body(
    reply: &mut Http2Reply,
    body: ReplyBody,
    patience: &mut Option<Patience>,
) -> io::Result<()> {
    // What a body that goes on has to say next isn't known before there is room, and may be nothing.
    let is_whole = matches!(body, ReplyBody::Whole(_));
    let mut body = pin!(body);
    let mut last = 0;
    loop {
        if !is_whole && last < A_FRAME {
            // What comes meanwhile leaves in one frame: there are clients that end a connection with too many small ones.
            let left = poll_fn(|cx| {
                let sent = reply.poll_sent(cx).map(Ok);
                patiently(patience, cx, sent, reply.sent())
            });
            left.await?;
        }
        let ready = poll_fn(|cx| {
            let ready = reply.poll_ready(cx);
            if ready.is_pending() && !is_whole && !reply.has_unsent() {
                return Poll::Pending;
            }
            patiently(patience, cx, ready, reply.sent())
        });
        ready.await?;
        let next = poll_fn(|cx| {
            if let Poll::Ready(gone) = reply.poll_gone(cx) {
                return Poll::Ready(Some(Err(gone.into())));
            }
            body.as_mut().poll_frame(cx)
        });
        let Some(frame) = next.await else {
            return Ok(());
        };
        if let Ok(mut bytes) = frame?.into_data() {
            last = bytes.len();
            let sending = poll_fn(|cx| {
                let sent = reply.poll_send(cx, &mut bytes);
                patiently(patience, cx, sent, reply.sent())
            });
            sending.await?;
        }
    }
}

fn too_much() -> Response {
    let mib = MAX_BACKLOG / (1024 * 1024);
    let body = format!(
        "Answers of more than {mib} MiB wait on this connection. Read them before you ask for more.\n"
    );
    respond::with_header(
        respond::text(StatusCode::SERVICE_UNAVAILABLE, body),
        header::RETRY_AFTER,
        HeaderValue::from_static("1"),
    )
}

/// Fields that say something of a connection.
const OF_CONNECTIONS: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// So many bytes of a stream are worth a frame of their own.
const A_FRAME: usize = 8 * 1024;

/// Bytes of answers that may wait on a connection.
const MAX_BACKLOG: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::task::Waker;

    use bytes::Bytes;
    use hyper::body::{Body, Frame};
    use tautline_websocket::conn::http2::{Http2Options, Http2Server};
    use tokio::io::duplex;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::worker::testing::settle;

    /// Messages that come one by one, of which all that wait leave together.
    #[derive(Default)]
    struct Messages {
        waiting: VecDeque<u8>,
        is_over: bool,
        waker: Option<Waker>,
    }

    struct Told(Rc<RefCell<Messages>>);

    impl Body for Told {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            let mut messages = self.0.borrow_mut();
            if messages.waiting.is_empty() {
                messages.waker = Some(cx.waker().clone());
                return if messages.is_over {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                };
            }
            let together = messages.waiting.len().min(16 * 1024);
            let bytes: Vec<u8> = messages.waiting.drain(..together).collect();
            Poll::Ready(Some(Ok(Frame::data(bytes.into()))))
        }
    }

    /// Small messages to a client that doesn't read for a while, and then all of it.
    #[tokio::test(start_paused = true)]
    async fn what_comes_while_the_last_has_not_left_is_one_frame() {
        const MESSAGE: [u8; 50] = [b'x'; 50];
        const COUNT: usize = 2_000;
        const PIPE: usize = 1024;
        let test = async {
            let (ours, theirs) = duplex(PIPE);
            let messages = Rc::<RefCell<Messages>>::default();
            let told = Rc::clone(&messages);
            spawn_local(async move {
                let options = Http2Options::default();
                let mut server = Http2Server::new(theirs, &options).await.expect("HTTP/2");
                while let Ok(Some(request)) = server.next().await {
                    let (_, responder) = request.into_parts();
                    let body = ReplyBody::Stream(Box::pin(Told(Rc::clone(&told))));
                    spawn_local(async move {
                        let line = Rc::new(HttpLine::new(None));
                        let response = http::Response::new(body);
                        send(response, responder, false, None, &line).await
                    });
                }
            });
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(1 << 24);
            builder.initial_connection_window_size(1 << 24);
            let (mut requests, mut connection) =
                builder.handshake::<_, Bytes>(ours).await.expect("HTTP/2");
            let request = Request::get("http://localhost/").body(()).expect("right");
            let (response, _) = requests.send_request(request, true).expect("room");
            let mut body = tokio::select! {
                response = response => response.expect("an answer").into_body(),
                ended = &mut connection => panic!("{ended:?}"),
            };
            // Nobody reads now.
            for _ in 0..COUNT {
                let waker = {
                    let mut messages = messages.borrow_mut();
                    messages.waiting.extend(MESSAGE);
                    messages.waker.take()
                };
                if let Some(waker) = waker {
                    waker.wake();
                }
                settle().await;
            }
            messages.borrow_mut().is_over = true;
            let (mut frames, mut bytes) = (0, 0);
            let reading = async {
                while let Some(data) = body.data().await {
                    let data = data.expect("more");
                    let _ = body.flow_control().release_capacity(data.len());
                    frames += 1;
                    bytes += data.len();
                }
            };
            tokio::select! {
                () = reading => {}
                ended = &mut connection => panic!("{ended:?}"),
            }
            assert_eq!(bytes, COUNT * MESSAGE.len());
            // What fits into the pipe and the library's own buffer before that is seen to be full is a frame each; what comes
            // behind it is not, and nothing waits in between.
            let small = (PIPE + 16 * 1024) / (9 + MESSAGE.len());
            let large = COUNT * MESSAGE.len() / (16 * 1024);
            assert!(frames < small + large + 10, "{frames} frames");
        };
        LocalSet::new().run_until(test).await;
    }

    #[test]
    fn a_backlog_has_room_for_one_and_for_so_much() {
        let backlog = Rc::new(Backlog::default());
        let one = backlog.hold(2 * MAX_BACKLOG).expect("one alone");
        assert!(backlog.hold(1).is_none());
        drop(one);
        let first = backlog.hold(MAX_BACKLOG - 1).expect("room");
        assert!(!backlog.is_full());
        let second = backlog.hold(1).expect("room");
        assert!(backlog.is_full());
        assert!(backlog.hold(1).is_none());
        let third = backlog.hold_anyway(1);
        drop((first, second));
        assert!(!backlog.is_full());
        drop(third);
        assert_eq!(backlog.0.get(), 0);
    }

    #[test]
    fn cookies_are_one_field() {
        let mut headers = HeaderMap::new();
        join_cookies(&mut headers);
        assert!(headers.is_empty());
        for cookie in ["a=1", "b=2; c=3", "d=\u{fc}"] {
            let value = HeaderValue::from_bytes(cookie.as_bytes()).expect("a value");
            headers.append(header::COOKIE, value);
        }
        join_cookies(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(
            headers[header::COOKIE].as_bytes(),
            "a=1; b=2; c=3; d=\u{fc}".as_bytes()
        );
    }
}
