//! The server behind: what it does with a connection, the last part of the path says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use tautline_websocket::conn::{AcceptOptions, Accepted, WebSocket, accept};
use tautline_websocket::proto::handshake::Refusal;
use tautline_websocket::proto::{CloseCode, Limits, Message};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::process::{DEADLINE, wait_until};

/// A server that ends with the test.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// What came, over all connections.
    received: Mutex<Vec<Message>>,
    /// How connections ended: the code and reason of a Close, or `None`.
    ends: Mutex<Vec<Option<(u16, String)>>>,
    opened: AtomicUsize,
    /// How many messages of a flood were written.
    written: AtomicUsize,
    /// Who waits at `/gate` may read on.
    gate: (Mutex<bool>, Condvar),
}

impl Upstream {
    pub(crate) fn start() -> Self {
        Self::start_with(None)
    }

    /// One that speaks TLS, with a certificate for `localhost`, and that certificate in PEM.
    pub(crate) fn start_secure() -> (Self, String) {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
        let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).expect("PKCS #8");
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .expect("a certificate and its key");
        let tls = TlsAcceptor::from(Arc::new(config));
        (Self::start_with(Some(tls)), pair.cert.pem())
    }

    fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("it can be");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Shared::default());
        let its = Arc::clone(&state);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    let (its, tls) = (Arc::clone(&its), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => serve(stream, its).await,
                            // Who doesn't trust it goes.
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    serve(stream, its).await;
                                }
                            }
                        }
                    });
                }
            });
        });
        Self { address, state }
    }

    /// The configuration of a tunnel to it, with more options.
    pub(crate) fn tunnel(&self, name: &str, more: &str) -> String {
        let address = self.address;
        format!("[[tunnels]]\nname = \"{name}\"\nupstream = \"ws://{address}/\"\n{more}\n")
    }

    pub(crate) fn received(&self) -> Vec<Message> {
        self.state.received.lock().expect("nobody panics").clone()
    }

    pub(crate) fn opened(&self) -> usize {
        self.state.opened.load(Ordering::SeqCst)
    }

    pub(crate) fn written(&self) -> usize {
        self.state.written.load(Ordering::SeqCst)
    }

    /// How the first connection that ended did.
    pub(crate) fn end(&self) -> Option<(u16, String)> {
        wait_until("a connection ends", || {
            let ends = self.state.ends.lock().expect("nobody panics");
            ends.first().cloned()
        })
    }

    pub(crate) fn open_gate(&self) {
        *self.state.gate.0.lock().expect("nobody panics") = true;
        self.state.gate.1.notify_all();
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, state: Arc<Shared>) {
    let options = AcceptOptions {
        limits: Limits::for_messages(4 << 20),
        decide: Box::new(|request, opening| match request.path() {
            "/refuse" => Err(Refusal::new(403, "not you")),
            "/fail" => Err(Refusal::new(500, "broken")),
            _ => Ok(opening
                .select_subprotocol(&["mqtt", "echo"])
                .map(str::to_owned)),
        }),
        ..AcceptOptions::default()
    };
    let Ok(Accepted {
        mut websocket,
        request,
        ..
    }) = accept(stream, &options).await
    else {
        return;
    };
    state.opened.fetch_add(1, Ordering::SeqCst);
    match request.path() {
        "/request" => {
            let headers = request.headers();
            let mut lines = vec![request.target().to_owned()];
            lines.extend(headers.map(|(name, value)| {
                let name = name.to_ascii_lowercase();
                format!("{name}: {}", String::from_utf8_lossy(value))
            }));
            let _ = websocket.send(&*lines.join("\n")).await;
        }
        "/close" => {
            let _ = websocket.send("first").await;
            let _ = websocket.recv().await;
            let _ = websocket.send("last").await;
            let _ = websocket.close(CloseCode::from(4007), "enough").await;
            return;
        }
        "/drop" => {
            let _ = websocket.recv().await;
            return;
        }
        "/flood" => {
            for number in 0..FLOOD {
                if websocket.send(&*flood_message(number)).await.is_err() {
                    return;
                }
                state.written.fetch_add(1, Ordering::SeqCst);
            }
        }
        "/gate" => {
            let its = Arc::clone(&state);
            let waiting = tokio::task::spawn_blocking(move || {
                let (open, opened) = &its.gate;
                let open = open.lock().expect("nobody panics");
                drop(opened.wait_timeout_while(open, DEADLINE, |open| !*open));
            });
            let _ = waiting.await;
        }
        _ => {}
    }
    let end = listen(&mut websocket, request.path() == "/echo", &state).await;
    state.ends.lock().expect("nobody panics").push(end);
}

/// Reads to the end, and echoes if it is to.
async fn listen<S: AsyncRead + AsyncWrite + Unpin>(
    websocket: &mut WebSocket<S>,
    echoes: bool,
    state: &Shared,
) -> Option<(u16, String)> {
    while let Ok(Some(message)) = websocket.recv().await {
        if echoes {
            let _ = websocket.queue_owned(message.clone());
        }
        state.received.lock().expect("nobody panics").push(message);
    }
    let closed = websocket.closed()?;
    Some((closed.code.get(), closed.reason.clone()))
}

/// What a flood is made of.
pub(crate) fn flood_message(number: usize) -> String {
    format!("{number:01000}")
}

/// Far more than twice of what sockets and queues hold: each message is a kilobyte.
pub(crate) const FLOOD: usize = 40_000;
