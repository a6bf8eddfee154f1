//! A backend: answers what a test wants it to, and tells what it was asked.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// A question as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) text: Bytes,
    pub(crate) body: Value,
    /// What the one who asks has shown for a certificate.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

/// What the backend does about it.
pub(crate) enum Say {
    /// A 200 with this body.
    Json(Value),
    /// Another status, and this body.
    Text(u16, String),
    /// Nothing, ever. Whoever listens hears when nobody waits for it any more.
    Never(mpsc::UnboundedSender<()>),
}

/// Tells when it is dropped.
struct TellDrop(mpsc::UnboundedSender<()>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// A backend on loopback.
pub(crate) struct Backend {
    pub(crate) url: String,
    asked: mpsc::UnboundedReceiver<Asked>,
    parted: mpsc::UnboundedReceiver<()>,
}

impl Backend {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> Self {
        Self::start_with(None, answer).await
    }

    /// With TLS, its certificate is for `localhost`.
    pub(crate) async fn start_with(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Asked) -> Say + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = match &tls {
            None => format!("http://127.0.0.1:{port}"),
            Some(_) => format!("https://localhost:{port}"),
        };
        let (tell, asked) = mpsc::unbounded_channel();
        let (tell_parted, parted) = mpsc::unbounded_channel();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tell, answer, tls) = (tell.clone(), Arc::clone(&answer), tls.clone());
                let tell_parted = tell_parted.clone();
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, None, tell, answer).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => {
                                let shown = stream.get_ref().1.peer_certificates();
                                let shown = shown.and_then(|chain| chain.first());
                                let shown = shown.map(|one| one.clone().into_owned());
                                serve(stream, shown, tell, answer).await;
                            }
                            Err(_) => drop(tell_parted.send(())),
                        },
                    }
                });
            }
        });
        Self { url, asked, parted }
    }

    /// Waits until somebody has left because one didn't trust the other's certificate.
    pub(crate) async fn parted(&mut self) {
        self.parted.recv().await.unwrap();
    }

    /// The next question.
    pub(crate) async fn next(&mut self) -> Asked {
        self.asked.recv().await.unwrap()
    }

    /// Whether somebody has left so that wasn't heard of yet.
    pub(crate) fn has_parted(&mut self) -> bool {
        self.parted.try_recv().is_ok()
    }

    /// The next question, which has come already.
    #[allow(
        dead_code,
        reason = "the tests of telemetry alone know when it must have"
    )]
    pub(crate) fn has_come(&mut self) -> Asked {
        self.asked.try_recv().expect("it was asked")
    }

    /// Nobody has asked anything that wasn't heard yet.
    pub(crate) fn assert_idle(&mut self) {
        if let Ok(asked) = self.asked.try_recv() {
            panic!("nobody should have asked {asked:?}");
        }
    }
}

async fn serve<S, A>(
    stream: S,
    certificate: Option<CertificateDer<'static>>,
    tell: mpsc::UnboundedSender<Asked>,
    answer: Arc<A>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(&Asked) -> Say + Send + Sync + 'static,
{
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (tell, answer) = (tell.clone(), Arc::clone(&answer));
        let certificate = certificate.clone();
        async move {
            assert_eq!(request.method(), "POST");
            let (parts, body) = request.into_parts();
            let text = body.collect().await.unwrap().to_bytes();
            let asked = Asked {
                path: parts.uri.path().to_owned(),
                version: parts.version,
                headers: parts.headers,
                body: serde_json::from_slice(&text).expect("the question is JSON"),
                text,
                certificate,
            };
            let said = answer(&asked);
            let _ = tell.send(asked);
            let (status, body) = match said {
                Say::Json(body) => (200, body.to_string()),
                Say::Text(status, body) => (status, body),
                Say::Never(dropped) => {
                    let _tell = TellDrop(dropped);
                    pending().await
                }
            };
            let mut response = Response::new(Full::<Bytes>::from(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// What becomes of a connection when a question has been read.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    /// `{"result":{}}`, and the next question may come on it.
    Answer,
    /// It is closed without a word.
    Drop,
    /// It is closed in the middle of the answer.
    Break,
}

/// A backend in trouble: does one after the other of `acts`, whatever it is asked, and tells of each question
/// what the path was.
pub(crate) async fn troubled(acts: Vec<Act>) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut acts = acts.into_iter();
        while let Ok((mut stream, _)) = listener.accept().await {
            while let Some(path) = read_question(&mut stream).await {
                let _ = tell.send(path);
                let act = acts
                    .next()
                    .expect("more questions than the test has acts for");
                let answer = match act {
                    Act::Drop => break,
                    Act::Answer => "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}",
                    Act::Break => "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"resu",
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
                if matches!(act, Act::Break) {
                    break;
                }
            }
        }
    });
    (url, asked)
}

/// Reads a question to its end; `None` where there is none any more.
async fn read_question(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let head = text.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(head) = head {
            let fields = String::from_utf8_lossy(&text[..head]).to_lowercase();
            let length = fields
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.expect("it says how long it is").parse().unwrap();
            if text.len() >= head + 4 + length {
                return Some(fields.split(' ').nth(1).unwrap().to_owned());
            }
        }
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    }
}
