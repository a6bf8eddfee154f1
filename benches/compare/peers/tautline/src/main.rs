//! Tautline behind TLS 1.3, and through axum, as its users would write it: for the memory of a connection. (Its plain echo is measured by
//! the example of its own.)

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use tautline_websocket::conn::axum::WebSocketUpgrade;
use tautline_websocket::conn::{AcceptOptions, WebSocket, accept};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let [_, address, way] = &words[..] else {
        eprintln!("usage: peer-tautline --listen ADDRESS:PORT --tls|--axum");
        return ExitCode::from(2);
    };
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| match way.as_str() {
            "--tls" => runtime.block_on(serve_tls(address)),
            "--axum" => runtime.block_on(serve_axum(address)),
            _ => Err(format!("{way:?} is not known here: --tls or --axum").into()),
        });
    if let Err(error) = served {
        eprintln!("cannot serve on {address}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn serve_axum(address: &str) -> Result<(), Box<dyn Error>> {
    let open = |upgrade: WebSocketUpgrade| async { upgrade.on_upgrade(echo) };
    let app = Router::new().route("/", any(open));
    axum::serve(TcpListener::bind(address).await?, app).await?;
    Ok(())
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(websocket: WebSocket<S>) {
    let _ = websocket
        .serve(|message, replies| {
            let _ = replies.send(message);
        })
        .await;
}

async fn serve_tls(address: &str) -> Result<(), Box<dyn Error>> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
        certified.signing_key.serialize_der(),
    ));
    let config =
        ServerConfig::builder_with_protocol_versions(&[&tokio_rustls::rustls::version::TLS13])
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(echo_tls(acceptor.clone(), stream));
    }
}

async fn echo_tls(acceptor: TlsAcceptor, stream: TcpStream) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let Ok(accepted) = accept(stream, &AcceptOptions::default()).await else {
        return;
    };
    let websocket = accepted.websocket;
    // What the request said is of no interest here, and so not kept.
    drop(accepted.request);
    echo(websocket).await;
}
