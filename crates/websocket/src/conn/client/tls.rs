//! `wss://`: rustls, with aws-lc-rs for the cryptography, and the operating system's own
//! certificate roots, so that what its administrator trusts is what we trust.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::error::ConnectError;
use super::stream::ClientStream;

/// The configuration that [`connect`](super::connect) makes when it is given none: TLS 1.2 and 1.3,
/// the certificate roots of the system, and HTTP/1.1 as the one protocol to be negotiated.
///
/// Reading the roots takes some milliseconds, so who connects often makes one and gives it to
/// [`ConnectOptions::tls`](super::ConnectOptions::tls). It also keeps sessions for resumption.
///
/// # Errors
///
/// When the system has no certificate roots that can be read.
pub fn tls_config() -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // Systems come with certificates that no parser takes; what counts is that some are left.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let reason = found.errors.first().map_or_else(
            || "no certificate roots were found on this system".to_owned(),
            |error| format!("no certificate roots could be read: {error}"),
        );
        return Err(io::Error::other(reason));
    }
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Sets up TLS with `host` on a stream that leads there, to speak HTTP/1.1 or HTTP/2.
pub(super) async fn secure(
    stream: TcpStream,
    host: &str,
    config: Option<&Arc<ClientConfig>>,
    http2: bool,
) -> Result<ClientStream, ConnectError> {
    let failed = |source| ConnectError::Tls {
        host: host.to_owned(),
        source,
    };
    let mut config = match config {
        Some(config) => Arc::clone(config),
        None => tls_config().map_err(failed)?,
    };
    if http2 {
        Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec()];
    }
    //= rfc6455 4.1-10, 4.1-12, 10.6-1
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    let stream = connected.map_err(failed)?;
    #[cfg(feature = "http2")]
    if http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(ConnectError::NoHttp2);
    }
    Ok(ClientStream::tls(stream))
}
