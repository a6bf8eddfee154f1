//! What must hold for all that opens a WebSocket beside or over HTTP/2, whatever comes: telling the
//! versions of HTTP apart by the first bytes, and what an extended CONNECT is taken for. The fuzz
//! target `http2_opening` calls this with what it invents, and an ordinary test with the corpus.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tautline_websocket::conn::http2::{Http2Options, Incoming};
use tautline_websocket::conn::{AcceptError, AcceptOptions, Accepted, accept};
use tautline_websocket::proto::deflate::ServerConfig;
use tautline_websocket::proto::handshake::{
    ClientRequest, Opening, PseudoHeaders, RequestHead, ResponseHead,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime;

/// The first byte chooses what reads the rest.
pub(crate) fn check(data: &[u8]) {
    match data {
        [what, cuts, rest @ ..] if what % 2 == 0 => first_bytes(*cuts, rest),
        [_, rest @ ..] => connect(rest),
        [] => {}
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's first bytes, and its end. However they are cut, those of HTTP/1.1 come to what they do
/// without HTTP/2 beside it.
fn first_bytes(cuts: u8, bytes: &[u8]) {
    thread_local! {
        static RUNTIME: runtime::Runtime = runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| {
        let (is_http2, both) = runtime.block_on(through_incoming(cuts, bytes));
        assert_eq!(is_http2, bytes.starts_with(PREFACE), "taken for the other");
        if !is_http2 && !PREFACE.starts_with(bytes) {
            assert_eq!(both, runtime.block_on(through_accept(bytes)));
        }
    });
}

/// What was written, and what became of the connection.
type Outcome = (Vec<u8>, String);

async fn through_incoming(cuts: u8, bytes: &[u8]) -> (bool, Outcome) {
    let written = Arc::default();
    let io = Client::new(bytes, cuts, &written);
    let mut is_http2 = false;
    let result = async {
        let mut incoming = Incoming::new(io, &Http2Options::default()).await?;
        is_http2 = incoming.is_http2();
        // Over HTTP/2 there may be several. What they say is another target's affair.
        let mut first = None;
        while let Some(accepted) = incoming.accept(&options()).await? {
            first.get_or_insert(accepted);
        }
        Ok(first)
    };
    let outcome = match result.await {
        Ok(Some(accepted)) if !is_http2 => serve(accepted).await,
        Ok(accepted) => format!("{}", accepted.is_some()),
        Err(error) => refused(&error),
    };
    let written = written.lock().expect("not poisoned").clone();
    (is_http2, (written, outcome))
}

async fn through_accept(bytes: &[u8]) -> Outcome {
    let written = Arc::default();
    let outcome = match accept(Client::new(bytes, 0, &written), &options()).await {
        Ok(accepted) => serve(accepted).await,
        Err(error) => refused(&error),
    };
    let written = written.lock().expect("not poisoned").clone();
    (written, outcome)
}

fn options() -> AcceptOptions {
    AcceptOptions {
        deflate: Some(ServerConfig::default()),
        decide: Box::new(|_, opening| Ok(opening.subprotocols().first().map(|&name| name.into()))),
        ..AcceptOptions::default()
    }
}

fn refused(error: &AcceptError) -> String {
    format!("not accepted: {error}")
}

/// An echo, to its end.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(accepted: Accepted<S>) -> String {
    let request = format!("{:?}, {:?}", accepted.request, accepted.subprotocol);
    let echo = |message: tautline_websocket::proto::MessageRef<'_>,
                replies: &mut tautline_websocket::conn::Replies<'_>| {
        let _ = replies.send(message);
    };
    let ended = accepted.websocket.serve(echo).await;
    format!("{request}, {:?}", ended.map_err(|error| error.to_string()))
}

/// Lines: the five pseudo-header fields, of which `-` is none, then names and values.
fn connect(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let mut field = || lines.next().filter(|line| *line != "-");
    let pseudo = PseudoHeaders {
        method: field().unwrap_or_default(),
        protocol: field(),
        scheme: field(),
        authority: field(),
        path: field(),
    };
    let headers: Vec<(&str, &[u8])> = lines
        .map(|line| line.split_once(':').unwrap_or((line, "")))
        .map(|(name, value)| (name, value.as_bytes()))
        .collect();
    let head = RequestHead::from_http2(&pseudo, headers.iter().copied());
    assert_eq!(head.method(), pseudo.method);
    assert!(head.headers().eq(headers.iter().copied()), "other headers");
    let opening = Opening::from_connect(&pseudo, headers.iter().copied());
    assert_eq!(head.opening(), opening, "the copy is taken for another");
    match opening {
        Err(error) => assert!((400..600).contains(&error.status())),
        Ok(opening) => accepted(&pseudo, &opening),
    }
    answered(&headers);
}

fn accepted(pseudo: &PseudoHeaders<'_>, opening: &Opening<'_>) {
    assert_eq!(
        (pseudo.method, pseudo.protocol),
        ("CONNECT", Some("websocket"))
    );
    assert!(!opening.host().is_empty() && pseudo.path.is_some_and(|path| !path.is_empty()));
    assert_eq!(opening.key(), None);
    let subprotocol = opening.subprotocols().first().copied();
    let agreement = opening.select_deflate(&ServerConfig::default());
    let acceptance = opening.accept(subprotocol).with_deflate(agreement);
    assert_eq!(acceptance.status(), 200);
    for (name, value) in acceptance.headers() {
        assert!(["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"].contains(&name));
        assert!(!value.contains(['\r', '\n']), "{value:?}");
    }
}

/// The same headers, in a server's answer.
fn answered(headers: &[(&str, &[u8])]) {
    let url = "wss://example.com/".parse().expect("a URL");
    let request = ClientRequest::new(&url, [0; 16])
        .with_subprotocol("chat")
        .and_then(|request| request.with_extension("permessage-deflate"))
        .expect("a request");
    for status in [200, 204, 101, 403] {
        let response = ResponseHead::from_http2(status, headers.iter().copied());
        if let Ok(agreed) = request.check(&response) {
            assert!((200..300).contains(&status), "{status}");
            assert!(agreed.subprotocol.is_none_or(|name| name == "chat"));
        }
    }
}

/// A client that says what it has to say in pieces, and ends.
struct Client {
    rest: Vec<u8>,
    cuts: u8,
    waited: bool,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Client {
    fn new(bytes: &[u8], cuts: u8, written: &Arc<Mutex<Vec<u8>>>) -> Self {
        Self {
            rest: bytes.to_vec(),
            cuts,
            waited: false,
            written: Arc::clone(written),
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.waited = !self.waited && self.cuts >= 128;
        if self.waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = match usize::from(self.cuts % 128) {
            0 => usize::MAX,
            piece => piece,
        };
        let len = self.rest.len().min(piece).min(buffer.remaining());
        buffer.put_slice(&self.rest[..len]);
        self.rest.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut written = self.written.lock().expect("not poisoned");
        written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
