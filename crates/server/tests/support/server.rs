//! The HTTP side on a real socket, and a client for it.

#![allow(dead_code, reason = "each test binary uses another part")]

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tautline::http::api::{ApiKeys, ApiLimits};
use tautline::http::{Service, Settings, serve_connection};
use tautline_auth::{Secret, Signer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::node::FakeNode;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) node: FakeNode,
    pub(crate) stop: watch::Sender<bool>,
}

pub(crate) fn settings() -> Settings {
    Settings {
        api_keys: ApiKeys::single(b"k"),
        api_limits: ApiLimits {
            max_body_size: 1024,
            ..ApiLimits::default()
        },
        health: true,
        ..Settings::default()
    }
}

pub(crate) fn dev_settings() -> Settings {
    Settings {
        dev: Some(Signer::hs256(&secret()).expect("not empty")),
        ..settings()
    }
}

pub(crate) fn secret() -> Secret {
    "a secret of the development server".into()
}

/// Runs `test` beside a server with these settings, on one thread and within a deadline.
pub(crate) fn with_server<F: Future<Output = ()>>(
    settings: Settings,
    test: impl FnOnce(Server) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let node = FakeNode::default();
        let service = Rc::new(Service::new(Arc::new(settings), node.clone()));
        let (stop, stopping) = watch::channel(false);
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stopping = stopping.clone();
                let shutdown = async move {
                    // An error means that the test is over.
                    let _ = stopping.wait_for(|stop| *stop).await;
                };
                tokio::task::spawn_local(serve_connection(
                    stream,
                    None,
                    Rc::clone(&service),
                    shutdown,
                ));
            }
        });
        let test = test(Server {
            address,
            node,
            stop,
        });
        tokio::time::timeout(Duration::from_secs(20), test)
            .await
            .expect("the test hangs");
    });
}

/// One answer of the server.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Server {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("the server listens")
    }

    /// Sends `head` (without the blank line) and `body` on a connection of their own.
    pub(crate) async fn send(&self, head: &str, body: &str) -> Answer {
        let mut stream = self.connect().await;
        let host = if head.contains("\r\nHost:") {
            ""
        } else {
            "\r\nHost: localhost"
        };
        let length = body.len();
        let request =
            format!("{head}{host}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        answer(&bytes)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1"), "").await
    }

    pub(crate) async fn call(&self, method: &str, body: &str) -> Answer {
        self.send(
            &format!("POST /api/{method} HTTP/1.1\r\nX-API-Key: k"),
            body,
        )
        .await
    }
}

fn answer(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

pub(crate) fn answer_status(bytes: &[u8]) -> u16 {
    answer(bytes).status
}
