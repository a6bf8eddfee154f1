//! Key sets over TLS: a provider with a certificate of an authority that is made up for the test.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::json;
use tautline_auth::{ConnectClaims, InvalidToken, TokenError, Verifier, VerifierConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

use super::tests::{case, ok};
use super::*;

/// Who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// What trusts it, and nobody else.
    client: Arc<ClientConfig>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are fine");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a root");
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            issuer: Issuer::new(params, key),
            client: Arc::new(client),
        }
    }

    /// Certificate and key of a server with this name.
    fn server(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS #8");
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate and its key");
        TlsAcceptor::from(Arc::new(config))
    }
}

fn provider() -> Arc<crypto::CryptoProvider> {
    Arc::new(crypto::aws_lc_rs::default_provider())
}

/// An identity provider.
#[derive(Default)]
struct Provider {
    answer: Mutex<String>,
    /// How often somebody came.
    asked: AtomicUsize,
    /// Whoever comes is hung up on.
    is_down: AtomicBool,
}

impl Provider {
    /// Where it is.
    async fn start(answer: &str, tls: TlsAcceptor) -> (Arc<Self>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let provider = Arc::new(Self {
            answer: Mutex::new(answer.to_owned()),
            ..Self::default()
        });
        let this = Arc::clone(&provider);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                this.asked.fetch_add(1, Ordering::SeqCst);
                if this.is_down.load(Ordering::SeqCst) {
                    continue;
                }
                // Who doesn't trust it goes.
                let Ok(mut stream) = tls.accept(stream).await else {
                    continue;
                };
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = this.answer.lock().expect("nobody panics").clone();
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        (provider, port)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn answers(&self, answer: &str) {
        answer.clone_into(&mut self.answer.lock().expect("nobody panics"));
    }
}

fn verifier(source: &KeySource) -> Verifier {
    let verifier = Verifier::new(VerifierConfig::default()).expect("no key is wrong");
    verifier.with_remote_keys(source.keys())
}

/// What is thought of a token once its key has been looked for.
async fn judged(verifier: &Verifier, token: &str) -> Result<ConnectClaims, TokenError> {
    loop {
        match verifier.verify_connect(token, now()) {
            Err(TokenError::Unavailable) => tokio::task::yield_now().await,
            other => return other,
        }
    }
}

/// A token that names a key which nobody has.
fn made_up(number: usize) -> String {
    let header = json!({"alg": "ES256", "kid": format!("made up {number}")}).to_string();
    let header = URL_SAFE_NO_PAD.encode(header);
    let (_, token) = case("ES256");
    let (_, rest) = token.split_once('.').expect("three parts");
    format!("{header}.{rest}")
}

#[tokio::test]
async fn keys_are_fetched_kept_changed_and_outlive_their_provider() {
    let authority = Authority::new("ours");
    let (first, of_first) = case("ES256");
    let (second, of_second) = case("EdDSA");
    let tls = authority.server("localhost", |_| ());
    let (provider, port) = Provider::start(&ok(&first), tls).await;
    let url = format!("https://localhost:{port}/keys");
    // No pause: what is asked for is fetched, whenever that is.
    let source = KeySource::with(&url, Duration::ZERO, Some(authority.client)).expect("a URL");
    let verifier = verifier(&source);
    let story = async {
        judged(&verifier, &of_first).await.expect("a good token");
        for _ in 0..20 {
            assert!(verifier.verify_connect(&of_first, now()).is_ok());
        }
        assert_eq!(provider.asked(), 1, "a key that is known is not asked for");

        provider.answers(&ok(&second));
        judged(&verifier, &of_second).await.expect("a new key");
        assert_eq!(provider.asked(), 2);
        let of_old = verifier.verify_connect(&of_first, now());
        assert_eq!(of_old, Err(TokenError::Unavailable), "it may come back");

        // Each fetch after this one fails, and each shows that the one before it is over.
        provider.is_down.store(true, Ordering::SeqCst);
        let from = provider.asked();
        while provider.asked() < from + 3 {
            assert!(verifier.verify_connect(&made_up(0), now()).is_err());
            tokio::task::yield_now().await;
        }
        assert!(verifier.verify_connect(&of_second, now()).is_ok());

        provider.answers(&ok(&first));
        provider.is_down.store(false, Ordering::SeqCst);
        judged(&verifier, &of_first).await.expect("the first key");
    };
    tokio::select! {
        () = story => {}
        () = source.run() => unreachable!("it never ends"),
    }
}

#[tokio::test]
async fn made_up_names_of_keys_cost_no_fetch_each() {
    let authority = Authority::new("ours");
    let (set, token) = case("ES256");
    let tls = authority.server("localhost", |_| ());
    let (provider, port) = Provider::start(&ok(&set), tls).await;
    let url = format!("https://localhost:{port}/keys");
    // An hour, so that a machine that stands still for a while changes nothing.
    let pause = Duration::from_secs(60 * 60);
    let source = KeySource::with(&url, pause, Some(authority.client)).expect("a URL");
    let verifier = verifier(&source);
    let story = async {
        judged(&verifier, &token).await.expect("a good token");
        for number in 0..50 {
            let judged = verifier.verify_connect(&made_up(number), now());
            assert_eq!(judged, Err(InvalidToken::UnknownKey.into()));
            tokio::task::yield_now().await;
        }
        assert!(verifier.verify_connect(&token, now()).is_ok());
        assert_eq!(provider.asked(), 1);
    };
    tokio::select! {
        () = story => {}
        () = source.run() => unreachable!("it never ends"),
    }
}

#[tokio::test]
async fn who_cannot_be_trusted_gives_no_keys() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (set, _) = case("ES256");
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    for (host, tls, expected) in [
        (
            "localhost",
            theirs.server("localhost", |_| ()),
            "UnknownIssuer",
        ),
        (
            "localhost",
            ours.server("id.example.com", |_| ()),
            "not valid for name",
        ),
        (
            "127.0.0.1",
            ours.server("localhost", |_| ()),
            "not valid for name",
        ),
        ("localhost", ours.server("localhost", expired), "expired"),
    ] {
        let (_, port) = Provider::start(&ok(&set), tls).await;
        let url = format!("https://{host}:{port}/");
        let source = KeySource::with(&url, PAUSE, Some(Arc::clone(&ours.client))).expect("a URL");
        let error = source
            .fetch()
            .await
            .expect_err("nobody to trust")
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(&format!("no TLS with {host}")), "{error}");
        assert!(error.contains("SSL_CERT_FILE"), "{error}");
    }
    // Who is trusted, though.
    let (_, port) = Provider::start(&ok(&set), ours.server("127.0.0.1", |_| ())).await;
    let url = format!("https://127.0.0.1:{port}/");
    let source = KeySource::with(&url, PAUSE, Some(Arc::clone(&ours.client))).expect("a URL");
    assert_eq!(source.fetch().await.expect("a set").len(), 1);
    // The roots of the system know nothing of either.
    let source = KeySource::new(&url).expect("a URL");
    assert!(source.fetch().await.is_err());
}

#[tokio::test]
async fn an_answer_over_tls_is_as_bounded_as_any() {
    let authority = Authority::new("ours");
    let (set, _) = case("ES256");
    let long = " ".repeat(MAX_JWK_SET_LEN) + &set;
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n";
    for (answer, expected) in [
        (ok(&long), "longer than"),
        (format!("HTTP/1.1 200 OK\r\n\r\n{long}"), "longer than"),
        (redirect.to_owned(), "redirections are not followed"),
        (ok("{}"), "not a JWK Set"),
    ] {
        let tls = authority.server("localhost", |_| ());
        let (provider, port) = Provider::start(&answer, tls).await;
        let url = format!("https://localhost:{port}/");
        let tls = Arc::clone(&authority.client);
        let source = KeySource::with(&url, PAUSE, Some(tls)).expect("a URL");
        let error = source.fetch().await.expect_err("no set").to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(provider.asked(), 1);
    }
}
