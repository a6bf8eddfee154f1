//! One fetch of a key set: HTTP/1.1 over TCP or TLS, within limits.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tautline_auth::{JwkSet, JwkSetError, MAX_JWK_SET_LEN};
use tautline_websocket::conn::tls_config;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Fetches the key set at a URL. How long that may take is the caller's business.
///
/// # Errors
///
/// When there is no set, or nobody to trust. Redirections are not followed.
pub(super) async fn fetch(url: &Uri, tls: Option<Arc<ClientConfig>>) -> Result<JwkSet, FetchError> {
    let is_https = url.scheme_str() == Some("https");
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    if !is_https {
        return fetch_over(url, stream).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let tls = tls.map_or_else(tls_config, Ok)?;
    let secure = TlsConnector::from(tls).connect(name, stream).await;
    let secure = secure.map_err(|error| FetchError::Tls {
        host: host.to_owned(),
        error,
    })?;
    fetch_over(url, secure).await
}

async fn fetch_over<S>(url: &Uri, stream: S) -> Result<JwkSet, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or("", |authority| authority.as_str());
    // What stands before an @ is nobody's name.
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let mut request = Request::get(path).body(Empty::<Bytes>::new())?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_str(authority)?);
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let ask = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(FetchError::Status(status));
        }
        let body = Limited::new(response.into_body(), MAX_JWK_SET_LEN).collect();
        let body = body.await.map_err(FetchError::Body)?.to_bytes();
        Ok(JwkSet::parse(&body)?)
    };
    // The connection has to be driven for the answer to come.
    let mut ask = std::pin::pin!(ask);
    tokio::select! {
        biased;
        answer = &mut ask => answer,
        ended = connection => {
            ended?;
            ask.await
        }
    }
}

/// Why a set is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(
        "no TLS with {host}: {error}; its certificate must be for that name, and of an authority that this \
         system trusts (or that is in the file which SSL_CERT_FILE names)"
    )]
    Tls { host: String, error: io::Error },
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Request(#[from] http::Error),
    #[error("the URL's host can't be a header: {0}")]
    Host(#[from] header::InvalidHeaderValue),
    #[error("the answer has the status {0}, expected 200; redirections are not followed")]
    Status(StatusCode),
    #[error("the answer can't be read, or is longer than {MAX_JWK_SET_LEN} bytes: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Set(#[from] JwkSetError),
}
