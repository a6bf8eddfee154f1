//! Key sets of identity providers: fetched over HTTP when a token needs them, and now and then.
//!
//! When a fetch is due is [`RemoteKeys`]' part. Here is how it is done, on the runtime of the main
//! thread, one at a time: no worker waits for it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tautline_auth::{JwkSet, JwkSetError, MAX_JWK_SET_LEN, RemoteKeys};
use tautline_websocket::conn::tls_config;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Where a key set is, and what is known of it.
#[derive(Debug)]
pub struct KeySource {
    url: Uri,
    keys: Arc<RemoteKeys>,
    asked: Arc<Notify>,
    /// Whom to trust; `None` for the certificate roots of the system.
    tls: Option<Arc<ClientConfig>>,
}

impl KeySource {
    /// A key set at a URL. Nothing is fetched yet.
    pub(crate) fn new(url: &str) -> Result<Self, UrlError> {
        Self::with(url, PAUSE, None)
    }

    fn with(url: &str, pause: Duration, tls: Option<Arc<ClientConfig>>) -> Result<Self, UrlError> {
        if url.contains("{{") {
            return Err(UrlError::Template);
        }
        let url: Uri = url.parse().map_err(|_| UrlError::NoUrl)?;
        let is_known = matches!(url.scheme_str(), Some("http" | "https"));
        if !is_known || url.host().is_none_or(str::is_empty) {
            return Err(UrlError::NoUrl);
        }
        let asked = Arc::new(Notify::new());
        let ask = Arc::clone(&asked);
        let keys = RemoteKeys::new(pause, MAX_AGE, Box::new(move || ask.notify_one()));
        Ok(Self {
            url,
            keys: Arc::new(keys),
            asked,
            tls,
        })
    }

    /// The keys, as a verifier takes them.
    pub(crate) fn keys(&self) -> Arc<RemoteKeys> {
        Arc::clone(&self.keys)
    }

    /// Whether anybody on the way could put keys of his own in the place of the set's.
    pub(crate) fn is_open_to_forgery(&self) -> bool {
        let host = self.url.host().unwrap_or_default();
        let is_loopback =
            host == "localhost" || host.starts_with("127.") || matches!(host, "[::1]" | "::1");
        self.url.scheme_str() == Some("http") && !is_loopback
    }

    /// Fetches whenever it is asked for. Never ends; dropping it loses a fetch at most.
    pub(crate) async fn run(&self) {
        loop {
            self.keys.refresh(now());
            if tokio::time::timeout(LOOK, self.asked.notified())
                .await
                .is_err()
            {
                continue;
            }
            let fetched = match tokio::time::timeout(TIMEOUT, self.fetch()).await {
                Ok(fetched) => fetched,
                Err(_) => Err(FetchError::TimedOut),
            };
            match fetched {
                Ok(set) => {
                    tracing::info!(
                        url = %self.url, keys = set.len(), skipped = set.skipped(), "fetched the key set"
                    );
                    self.keys.replace(set, now());
                }
                Err(error) => {
                    tracing::warn!(url = %self.url, %error, "the key set can't be fetched");
                    self.keys.failed(now());
                }
            }
        }
    }

    async fn fetch(&self) -> Result<JwkSet, FetchError> {
        let is_https = self.url.scheme_str() == Some("https");
        let host = self.url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self
            .url
            .port_u16()
            .unwrap_or(if is_https { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await?;
        if !is_https {
            return self.fetch_over(stream).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let tls = self.tls.clone().map_or_else(tls_config, Ok)?;
        let secure = TlsConnector::from(tls).connect(name, stream).await;
        let secure = secure.map_err(|error| FetchError::Tls {
            host: host.to_owned(),
            error,
        })?;
        self.fetch_over(secure).await
    }

    async fn fetch_over<S>(&self, stream: S) -> Result<JwkSet, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let authority = self
            .url
            .authority()
            .map_or("", |authority| authority.as_str());
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
}

/// What can't be a key set's address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("is not a URL of a key set, such as https://id.example.com/.well-known/jwks.json")]
    NoUrl,
    #[error(
        "has `{{{{` in it: nothing is filled in here, as other servers do from issuer or audience; write the \
         URL out"
    )]
    Template,
}

/// Why a set is not there.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
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

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The least time between two fetches.
const PAUSE: Duration = Duration::from_secs(10);

/// How old a set gets before it is fetched again.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// How often it is looked whether a set has got that old.
const LOOK: Duration = Duration::from_secs(60);

/// How long a fetch may take.
const TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod https;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::{Value, json};
    use tautline_auth::{TokenError, Verifier, VerifierConfig};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each request with the next of the answers, the last one again and again. Where it is,
    /// and how often it was asked.
    async fn provider(answers: Vec<String>) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!(
            "http://{}/keys?a=b",
            listener.local_addr().expect("an address")
        );
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let at = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.expect("a request");
                let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
                assert!(
                    request.starts_with("get /keys?a=b http/1.1\r\n"),
                    "{request}"
                );
                assert!(request.contains("\r\nhost: 127.0.0.1:"), "{request}");
                let _ = stream.write_all(answers[at].as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        (url, asked)
    }

    pub(super) fn ok(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// The key set of a token, and the token.
    pub(super) fn case(alg: &str) -> (String, String) {
        let cases: Value = serde_json::from_str(include_str!("../../auth/tests/data/tokens.json"))
            .expect("the fixture is JSON");
        let cases = cases.as_array().expect("a list");
        let case = cases
            .iter()
            .find(|case| case["alg"] == alg)
            .expect("that algorithm");
        let token = case["token"].as_str().expect("a token").to_owned();
        (json!({"keys": [case["jwk"]]}).to_string(), token)
    }

    #[test]
    fn what_is_no_url_of_a_key_set_is_told_so() {
        for url in [
            "",
            "id.example.com/keys",
            "/keys",
            "ftp://a/b",
            "https://",
            "https:///keys",
            "a b",
            "https://{{tenant}}.example.com/keys",
            "https://id.example.com/{{tenant}}/keys",
        ] {
            assert!(KeySource::new(url).is_err(), "{url}");
        }
        for (url, open) in [
            ("https://id.example.com/keys", false),
            ("http://id.example.com/keys", true),
            ("http://localhost:8080/keys", false),
            ("http://127.0.0.1/keys", false),
            ("http://[::1]:1/keys", false),
        ] {
            let source = KeySource::new(url).expect(url);
            assert_eq!(source.is_open_to_forgery(), open, "{url}");
        }
    }

    #[tokio::test]
    async fn keys_are_there_when_a_token_needs_them() {
        let (set, token) = case("ES256");
        let (url, asked) = provider(vec![ok(&set)]).await;
        let source = KeySource::new(&url).expect("a URL");
        let verifier = Verifier::new(VerifierConfig::default()).expect("no key is wrong");
        let verifier = verifier.with_remote_keys(source.keys());
        assert_eq!(
            verifier.verify_connect(&token, now()),
            Err(TokenError::Unavailable)
        );
        let believed = async {
            loop {
                match verifier.verify_connect(&token, now()) {
                    Err(TokenError::Unavailable) => tokio::task::yield_now().await,
                    other => break other,
                }
            }
        };
        let claims = tokio::select! {
            claims = believed => claims.expect("a good token"),
            () = source.run() => unreachable!("it never ends"),
        };
        assert_eq!(claims.user, "7");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_answer_that_is_no_key_set_is_an_error() {
        let (set, _) = case("EdDSA");
        let long = " ".repeat(MAX_JWK_SET_LEN + 1);
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{long}{set}");
        for (answer, expected) in [
            (
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "404",
            ),
            (
                "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "not followed",
            ),
            (ok("<html>"), "not a JWK Set"),
            (ok(&long), "longer than"),
            (endless, "longer than"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}".to_owned(),
                "can't be read",
            ),
            ("nonsense\r\n\r\n".to_owned(), ""),
            (String::new(), ""),
        ] {
            let (url, _) = provider(vec![answer]).await;
            let error = KeySource::new(&url)
                .expect("a URL")
                .fetch()
                .await
                .expect_err("no set");
            assert!(error.to_string().contains(expected), "{error}");
        }
        let (url, _) = provider(vec![ok(&set)]).await;
        let set = KeySource::new(&url)
            .expect("a URL")
            .fetch()
            .await
            .expect("a set");
        assert_eq!(set.len(), 1);
        // Nobody is there.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        drop(listener);
        assert!(KeySource::new(&url).expect("a URL").fetch().await.is_err());
    }
}
