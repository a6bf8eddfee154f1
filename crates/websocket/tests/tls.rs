//! `wss://`: a TLS server on loopback with a certificate of its own (`tests/data`).

use std::io;
use std::sync::Arc;

use tautline_websocket::conn::{
    AcceptOptions, ClientStream, ConnectError, ConnectOptions, Connected, accept, connect,
};
use tautline_websocket::proto::{CloseCode, Limits, Message};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};

fn certificate() -> CertificateDer<'static> {
    CertificateDer::from(include_bytes!("data/localhost.cert.der").as_slice())
}

/// A server's TLS, with the protocols to negotiate.
fn acceptor(protocols: &[&[u8]]) -> TlsAcceptor {
    let key = PrivatePkcs8KeyDer::from(include_bytes!("data/localhost.key.der").as_slice());
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites")
            .with_no_client_auth()
            .with_single_cert(vec![certificate()], key.into())
            .expect("the key is the certificate's");
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// An echo server for one connection on `address`, and its port. What it gives in the end is the
/// protocol that was negotiated below the WebSocket.
async fn serve(address: &str) -> (u16, JoinHandle<io::Result<Option<Vec<u8>>>>) {
    let acceptor = acceptor(&[b"h2", b"http/1.1"]);
    let listener = TcpListener::bind((address, 0)).await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let stream = acceptor.accept(stream).await?;
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let options = AcceptOptions {
            limits: Limits::for_messages(1 << 22),
            ..AcceptOptions::default()
        };
        let accepted = accept(stream, &options).await.map_err(io::Error::other)?;
        let ended = accepted.websocket.serve(|message, replies| {
            replies.send(message).expect("it is open");
        });
        ended.await.map_err(io::Error::other)?;
        Ok(protocol)
    });
    (port, server)
}

/// A client's TLS that trusts the certificate.
fn trusting() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate()).expect("a certificate");
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Connects with a configuration that trusts the certificate.
async fn connect_trusting(url: &str) -> Result<Connected<ClientStream>, ConnectError> {
    let options = ConnectOptions {
        limits: Limits::for_messages(1 << 22),
        tls: Some(trusting()),
        ..ConnectOptions::default()
    };
    connect(url, &options).await
}

//= rfc6455 4.1-9, 4.1-11, 4.1-12, 4.2.2-1, 10.6-1
#[tokio::test]
async fn messages_go_through_tls() {
    let (port, server) = serve("127.0.0.1").await;
    let connected = connect_trusting(&format!("wss://localhost:{port}/")).await;
    let mut ws = connected.unwrap().websocket;
    assert!(ws.get_ref().is_tls());
    assert!(ws.get_ref().tcp_stream().nodelay().unwrap());
    // TLS cuts at 16 KiB, and holds bytes back until it is flushed.
    for len in [0, 1, 20_000, 1 << 21] {
        let text = "x".repeat(len);
        ws.queue(text.as_str()).unwrap();
        assert_eq!(ws.recv().await.unwrap(), Some(Message::from(text)), "{len}");
    }
    ws.close(CloseCode::NORMAL, "").await.unwrap();
    drop(ws);
    assert_eq!(
        server.await.unwrap().unwrap().as_deref(),
        Some(b"http/1.1".as_slice())
    );
}

/// HTTP/2 is negotiated, and many connections go over one.
#[cfg(feature = "http2")]
#[tokio::test]
async fn http2_goes_through_tls() {
    use tautline_websocket::conn::http2::{Http2Client, Http2Options, Incoming};

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let stream = acceptor(&[b"h2", b"http/1.1"])
            .accept(stream)
            .await
            .expect("TLS");
        let mut incoming = Incoming::new(stream, &Http2Options::default()).await?;
        while let Some(accepted) = incoming.accept(&AcceptOptions::default()).await? {
            assert_eq!(accepted.request.pseudo_headers().scheme, Some("https"));
            tokio::spawn(accepted.websocket.serve(|message, replies| {
                replies.send(message).expect("it is open");
            }));
        }
        Ok::<_, tautline_websocket::conn::AcceptError>(())
    });
    let options = ConnectOptions {
        tls: Some(trusting()),
        ..ConnectOptions::default()
    };
    let url = format!("wss://localhost:{port}/");
    let client = Http2Client::connect(&url, &options, &Http2Options::default())
        .await
        .unwrap();
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(client.open(&url, &options).await.unwrap().websocket);
    }
    for ws in &mut sockets {
        let text = "x".repeat(100_000);
        ws.queue(text.as_str()).unwrap();
        assert_eq!(ws.recv().await.unwrap(), Some(Message::Text(text.into())));
    }
    let elsewhere = client.open("wss://localhost/", &options).await;
    assert!(
        matches!(elsewhere, Err(ConnectError::OtherServer)),
        "{elsewhere:?}"
    );
    drop((client, sockets));
    server.await.unwrap().unwrap();
}

/// A server that negotiates nothing, or HTTP/1.1.
#[cfg(feature = "http2")]
#[tokio::test]
async fn a_server_without_http2_is_an_error() {
    use tautline_websocket::conn::http2::{Http2Client, Http2Options};
    const OFFERED: [&[&[u8]]; 2] = [&[], &[b"http/1.1"]];
    for offered in OFFERED {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            acceptor(offered).accept(stream).await.map(|_| ())
        });
        let options = ConnectOptions {
            tls: Some(trusting()),
            ..ConnectOptions::default()
        };
        let url = format!("wss://localhost:{port}/");
        let result = Http2Client::connect(&url, &options, &Http2Options::default()).await;
        let expected = matches!(
            (&result, offered.is_empty()),
            (Err(ConnectError::NoHttp2), true) | (Err(ConnectError::Tls { .. }), false)
        );
        assert!(expected, "{result:?}");
        drop(server.await);
    }
}

/// The certificate names `localhost`, and nothing else.
//= rfc6455 4.1-10
#[tokio::test]
async fn another_host_is_not_trusted() {
    let (port, server) = serve("127.0.0.1").await;
    let result = connect_trusting(&format!("wss://127.0.0.1:{port}/")).await;
    let Err(ConnectError::Tls { host, source }) = &result else {
        panic!("{result:?}");
    };
    assert_eq!(host, "127.0.0.1");
    assert!(source.to_string().contains("certificate"), "{source}");
    assert!(server.await.unwrap().is_err());
}

/// The default trusts the roots of the system, of which the certificate isn't one. Where there are
/// none at all, that is the error.
//= rfc6455 4.1-10
#[tokio::test]
async fn an_unknown_certificate_is_not_trusted() {
    let (port, server) = serve("127.0.0.1").await;
    let url = format!("wss://localhost:{port}/");
    let result = connect(&url, &ConnectOptions::default()).await;
    assert!(
        matches!(result, Err(ConnectError::Tls { .. })),
        "{result:?}"
    );
    assert!(server.await.unwrap().is_err());
}

/// What answers there doesn't speak TLS.
#[tokio::test]
async fn a_plain_server_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        accept(stream, &AcceptOptions::default())
            .await
            .map(|_| ())
            .map_err(io::Error::other)
    });
    let result = connect_trusting(&format!("wss://localhost:{port}/")).await;
    assert!(
        matches!(result, Err(ConnectError::Tls { .. })),
        "{result:?}"
    );
    assert!(server.await.unwrap().is_err());
}
