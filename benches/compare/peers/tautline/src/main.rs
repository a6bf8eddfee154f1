//! Tautline behind TLS 1.3, as its users would write it: for the memory of a connection. (Its plain echo is measured by
//! the example of its own.)

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use tautline_websocket::conn::{AcceptOptions, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let [_, address, way] = &words[..] else {
        eprintln!("usage: peer-tautline --listen ADDRESS:PORT --tls");
        return ExitCode::from(2);
    };
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| match way.as_str() {
            "--tls" => runtime.block_on(serve_tls(address)),
            _ => Err(format!("{way:?} is not known here: --tls").into()),
        });
    if let Err(error) = served {
        eprintln!("cannot serve on {address}: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
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
    let _ = accepted
        .websocket
        .serve(|message, replies| {
            let _ = replies.send(message);
        })
        .await;
}
