//! Our server for clients of both versions of HTTP, with TLS and without, and our client over
//! HTTP/2. The paths are those of `server`, and
//!
//! - `/connection`: sends the version of HTTP and the number of its connection
//! - `/page`, over HTTP/2: a page

use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tautline_websocket::conn::http2::{Http2Client, Http2Options, Incoming};
use tautline_websocket::conn::{AcceptOptions, ConnectOptions, WebSocket};
use tautline_websocket::proto::handshake::RequestHead;
use tautline_websocket::proto::{CloseCode, Limits};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::{compression, scene, server};

/// Listens, and starts a task for each client on the local set of the caller.
///
/// # Errors
///
/// When it can't listen, or can't do TLS.
pub(crate) async fn listen() -> Result<(), Box<dyn Error>> {
    let acceptor = acceptor()?;
    let options = Rc::new(server::options("deflate")?);
    for (name, acceptor) in [("http2", None), ("http2-tls", Some(acceptor))] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{name} {}", listener.local_addr()?);
        let options = Rc::clone(&options);
        tokio::task::spawn_local(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                number += 1;
                let (options, acceptor) = (Rc::clone(&options), acceptor.clone());
                tokio::task::spawn_local(async move {
                    let served = match acceptor {
                        None => serve(stream, number, &options).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => serve(stream, number, &options).await,
                            Err(error) => Err(error.into()),
                        },
                    };
                    if let Err(error) = served {
                        eprintln!("{error}");
                    }
                });
            }
        });
    }
    Ok(())
}

async fn serve<S>(io: S, number: u32, options: &AcceptOptions) -> Result<(), Box<dyn Error>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let incoming = Incoming::new(io, &Http2Options::default()).await?;
    let version = if incoming.is_http2() { 2 } else { 1 };
    let mut incoming = incoming.with_other(page);
    while let Some(accepted) = incoming.accept(options).await? {
        tokio::task::spawn_local(async move {
            let served = match accepted.request.path() {
                "/connection" => tell(accepted.websocket, version, number).await,
                _ => server::serve(accepted).await,
            };
            if let Err(error) = served {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

async fn tell<S>(mut ws: WebSocket<S>, version: u8, number: u32) -> Result<(), Box<dyn Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    ws.send(&*format!("HTTP/{version} on connection {number}"))
        .await?;
    ws.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

fn page(_: &RequestHead) -> http::Response<Bytes> {
    let mut page =
        http::Response::new(Bytes::from_static(b"<!doctype html><title>interop</title>"));
    let html = http::HeaderValue::from_static("text/html");
    page.headers_mut().insert("content-type", html);
    page
}

/// TLS with the certificate that the library's own tests have, which nobody trusts.
fn acceptor() -> Result<TlsAcceptor, Box<dyn Error>> {
    let certificate = include_bytes!("../../../../crates/websocket/tests/data/localhost.cert.der");
    let key = include_bytes!("../../../../crates/websocket/tests/data/localhost.key.der");
    let key = PrivatePkcs8KeyDer::from(key.as_slice());
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.as_slice().into()], key.into())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Our client in the scene `echo`, three times at once over one connection; and a refusal.
///
/// # Errors
///
/// When something isn't as it should be.
pub(crate) async fn run(url: &str) -> Result<(), Box<dyn Error>> {
    let options = ConnectOptions {
        limits: Limits::for_messages(4 << 20),
        deflate: compression::of_client("deflate")?,
        subprotocols: vec!["chat.v2".to_owned(), "chat.v1".to_owned()],
        headers: vec![("Origin".to_owned(), "http://interop.test".to_owned())],
        ..ConnectOptions::default()
    };
    let client = Http2Client::connect(url, &options, &Http2Options::default()).await?;
    let talk = async || -> Result<(), Box<dyn Error>> {
        let connected = client.open(url, &options).await?;
        println!(
            "subprotocol {}",
            connected.subprotocol.as_deref().unwrap_or("none")
        );
        scene::echo(connected.websocket).await
    };
    tokio::try_join!(talk(), talk(), talk())?;
    let refused = client.open(&format!("{url}refused"), &options).await;
    scene::refused(refused)
}
