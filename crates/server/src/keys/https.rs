//! Key sets over TLS: a provider with a certificate of an authority that is made up for the test.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::json;
use tautline_auth::{ConnectClaims, InvalidToken, MAX_JWK_SET_LEN, TokenError, VerifierConfig};
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
    source.give_to(verifier)
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
    let source = KeySource::one(&url, Duration::ZERO, Some(authority.client)).expect("a URL");
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
    let source = KeySource::one(&url, pause, Some(authority.client)).expect("a URL");
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
        let tls = Some(Arc::clone(&ours.client));
        let error = fetch(&parse(&url).expect("a URL"), tls)
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
    let url = parse(&url).expect("a URL");
    let tls = Some(Arc::clone(&ours.client));
    assert_eq!(fetch(&url, tls).await.expect("a set").len(), 1);
    // The roots of the system know nothing of either.
    assert!(fetch(&url, None).await.is_err());
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
        let url = parse(&url).expect("a URL");
        let error = fetch(&url, Some(tls))
            .await
            .expect_err("no set")
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(provider.asked(), 1);
    }
}

/// A tenant who signs with a key of his own: its set, and a token.
fn tenant(name: &str) -> (String, String) {
    let key = Ed25519KeyPair::generate().expect("a key");
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let x = encode(key.public_key().as_ref());
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]});
    let header = json!({"alg": "EdDSA", "kid": "k"}).to_string();
    let claims = json!({"sub": name, "iss": format!("https://id.example.com/{name}")}).to_string();
    let message = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(claims.as_bytes())
    );
    let signature = encode(key.sign(message.as_bytes()).as_ref());
    (set.to_string(), format!("{message}.{signature}"))
}

/// What was asked for, by line of request.
type Asked = Arc<Mutex<Vec<String>>>;

/// A provider of many tenants: who is none of them has no set. Where it is, and what it was asked for.
async fn tenants(tls: TlsAcceptor, sets: Vec<(&'static str, String)>) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let asked = Asked::default();
    let lines = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = tls.accept(stream).await else {
                continue;
            };
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let line = request.lines().next().unwrap_or_default().to_owned();
            let is_of = |name: &str| line == format!("GET /realms/{name}/keys HTTP/1.1");
            let set = sets.iter().find(|(name, _)| is_of(name));
            let answer = match set {
                Some((_, set)) => ok(set),
                None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            lines.lock().expect("nobody panics").push(line);
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, asked)
}

#[tokio::test]
async fn each_tenant_of_a_provider_has_a_set_of_its_own() {
    let authority = Authority::new("ours");
    let ((one, of_one), (other, of_other)) = (tenant("one"), tenant("other"));
    // Signed with a key of another tenant.
    let (_, of_stranger) = tenant("one");
    let tls = authority.server("localhost", |_| ());
    let (port, asked) = tenants(tls, vec![("one", one), ("other", other)]).await;
    let url = format!("https://localhost:{port}/realms/{{{{tenant}}}}/keys");
    let issuer = Pattern::new(r"^https://id\.example\.com/(?<tenant>[^/]+)$").expect("a regex");
    let pause = Duration::from_secs(60 * 60);
    let client = Some(authority.client);
    let source = KeySource::family(&url, Some(&issuer), None, pause, client).expect("a template");
    assert!(!source.is_open_to_forgery());
    let verifier = Verifier::new(VerifierConfig {
        issuer_regex: Some(issuer),
        ..VerifierConfig::default()
    });
    let verifier = source.give_to(verifier.expect("no key is wrong"));
    let story = async {
        assert_eq!(
            judged(&verifier, &of_one).await.expect("a good token").user,
            "one"
        );
        assert_eq!(
            judged(&verifier, &of_other)
                .await
                .expect("a good token")
                .user,
            "other"
        );
        assert!(verifier.verify_connect(&of_one, now()).is_ok());
        let forged = judged(&verifier, &of_stranger).await;
        assert_eq!(forged, Err(InvalidToken::Signature.into()));
        // Tenants that are not there are looked for once, and what is no tenant isn't.
        let (_, of_nobody) = tenant("nobody");
        let (_, climbing) = tenant("..");
        while asked.lock().expect("nobody panics").len() < 3 {
            let judged = verifier.verify_connect(&of_nobody, now());
            assert_eq!(judged, Err(TokenError::Unavailable));
            let judged = verifier.verify_connect(&climbing, now());
            assert_eq!(judged, Err(InvalidToken::KeySet.into()));
            tokio::task::yield_now().await;
        }
        let lines = asked.lock().expect("nobody panics").join(",");
        let line = |name: &str| format!("GET /realms/{name}/keys HTTP/1.1");
        assert_eq!(
            lines,
            [line("one"), line("other"), line("nobody")].join(",")
        );
    };
    tokio::select! {
        () = story => {}
        () = source.run() => unreachable!("it never ends"),
    }
}
