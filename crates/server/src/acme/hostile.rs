//! What becomes of an order where the authority is out of its mind: over HTTPS, with one that answers what it was told to.

#[path = "../../tests/support/authority.rs"]
#[allow(dead_code, reason = "each user has another part of it")]
mod authority;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, KeyUsagePurpose};
use tokio::net::TcpListener;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::challenge::Challenges;
use super::order::{Authority as _, Failure, OrderError, Remote, Terms};
use super::store::Store;
use super::trusting;

/// An answer: status, fields and body.
type Answer = (u16, Vec<(&'static str, String)>, String);

/// An authority of a test's own, and the directory for what is kept of it.
struct Liar {
    terms: Terms,
    store: Store,
    cache: PathBuf,
    challenges: Challenges,
    /// Methods and paths, in the order in which they came.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Liar {
    /// One that does all as it should, but for what `says` has an answer to; its second argument is where it is.
    async fn new(
        name: &str,
        says: impl Fn(&str, &str) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let cache = std::env::temp_dir();
        let cache = cache.join(format!("tautline-acme-liar-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&cache);
        let authority = authority::Authority::new();
        let acceptor = authority.acceptor(None);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it listens").port();
        let here = format!("https://localhost:{port}");
        let terms = Terms {
            directory_url: format!("{here}/directory"),
            tls: Some(trusting(&authority.pem()).expect("an authority")),
            ..Terms::default()
        };
        let store = Store::new(&cache, "localhost", &terms.directory_url);
        drop(store.lock().expect("a lock"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heard, says) = (Arc::clone(&asked), Arc::new(says));
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                let (acceptor, heard) = (acceptor.clone(), Arc::clone(&heard));
                let (says, here) = (Arc::clone(&says), here.clone());
                tokio::spawn(async move {
                    let Ok(io) = acceptor.accept(io).await else {
                        return;
                    };
                    let service = service_fn(|request: Request<Incoming>| {
                        let what = format!("{} {}", request.method(), request.uri().path());
                        let answer = says(&what, &here).unwrap_or_else(|| usual(&what, &here));
                        heard.lock().expect("nobody panics").push(what);
                        async move { Ok::<_, std::convert::Infallible>(response(answer)) }
                    });
                    let serving = hyper::server::conn::http1::Builder::new();
                    let _ = serving.serve_connection(TokioIo::new(io), service).await;
                });
            }
        });
        Self {
            terms,
            store,
            cache,
            challenges: Challenges::default(),
            asked,
        }
    }

    async fn order(&self, replaced: Option<&CertificateDer<'_>>) -> Failure {
        let ordered = self.remote().order("a.example", replaced).await;
        ordered.expect_err("nothing that could be a certificate")
    }

    fn remote(&self) -> Remote<'_> {
        Remote {
            terms: &self.terms,
            store: &self.store,
            challenges: &self.challenges,
        }
    }

    fn times(&self, what: &str) -> usize {
        let asked = self.asked.lock().expect("nobody panics");
        asked.iter().filter(|one| *one == what).count()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.cache);
    }
}

/// What one that is in order says to the first requests of an order.
fn usual(what: &str, here: &str) -> Answer {
    let nonce = ("replay-nonce", "bm9uY2U".to_owned());
    match what {
        "GET /directory" => (200, vec![], directory(here, &format!("{here}/nonce"))),
        "HEAD /nonce" => (200, vec![nonce], String::new()),
        "POST /account" => {
            let location = ("location", format!("{here}/account/1"));
            (201, vec![nonce, location], "{}".to_owned())
        }
        _ => (500, vec![nonce], "{}".to_owned()),
    }
}

fn directory(here: &str, nonce: &str) -> String {
    serde_json::json!({
        "newNonce": nonce,
        "newAccount": format!("{here}/account"),
        "newOrder": format!("{here}/order"),
        "renewalInfo": format!("{here}/renewal"),
    })
    .to_string()
}

fn response((status, fields, body): Answer) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(name, value);
    }
    response
        .body(Full::new(Bytes::from(body)))
        .expect("an answer")
}

/// A certificate that an authority can be told of (RFC 9773, section 4.1).
fn leaf() -> CertificateDer<'static> {
    let issuer = {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        rcgen::CertifiedIssuer::self_signed(params, key).expect("a certificate")
    };
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["a.example".to_owned()]).expect("a name");
    params.use_authority_key_identifier_extension = true;
    let leaf = params.signed_by(&key, &issuer).expect("a certificate");
    leaf.der().clone()
}

#[tokio::test]
async fn who_is_asked_too_often_is_left_alone_as_long_as_it_says() {
    let liar = Liar::new("limit", |what, _| {
        let text =
            r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many","status":429}"#;
        let fields = vec![("retry-after", "7200".to_owned())];
        (what == "POST /order").then(|| (429, fields, text.to_owned()))
    })
    .await;
    // Also where it replaces another: there is no second attempt without that at once.
    let failure = liar.order(Some(&leaf())).await;
    assert_eq!(failure.again, Some(Duration::from_secs(7200)));
    assert_eq!(failure.error.to_string(), "too many (rateLimited)");
    assert_eq!(liar.times("POST /order"), 1);
}

#[tokio::test]
async fn a_directory_that_is_closed_for_a_while_is_left_alone_too() {
    let liar = Liar::new("closed", |what, _| {
        let fields = vec![("retry-after", "600".to_owned())];
        (what == "GET /directory").then(|| (503, fields, "later".to_owned()))
    })
    .await;
    let failure = liar.order(None).await;
    assert_eq!(failure.again, Some(Duration::from_secs(600)));
    let told = failure.error.to_string();
    assert!(told.contains("it answers with the status 503"), "{told}");
}

#[tokio::test]
async fn what_it_replaces_can_be_left_out_where_that_is_refused() {
    let liar = Liar::new("replaced", |what, _| {
        let text = r#"{"type":"urn:ietf:params:acme:error:alreadyReplaced","status":409}"#;
        (what == "POST /order").then(|| (409, vec![], text.to_owned()))
    })
    .await;
    let failure = liar.order(Some(&leaf())).await;
    assert_eq!(failure.again, None);
    assert_eq!(liar.times("POST /order"), 2);
}

#[tokio::test]
async fn no_pause_is_too_long_to_count() {
    let liar = Liar::new("pause", |what, _| {
        let text =
            r#"{"suggestedWindow":{"start":"2026-01-02T00:00:00Z","end":"2026-01-03T00:00:00Z"}}"#;
        let fields = vec![("retry-after", u64::MAX.to_string())];
        what.starts_with("GET /renewal/")
            .then(|| (200, fields, text.to_owned()))
    })
    .await;
    let advice = liar.remote().advice(&leaf()).await;
    let advice = advice.expect("an answer").expect("one of use");
    assert!(advice.again <= Duration::from_secs(24 * 3600), "{advice:?}");
    assert!(advice.again > Duration::from_secs(23 * 3600), "{advice:?}");
}

#[tokio::test]
async fn a_directory_that_names_nothing_that_can_be_asked_is_an_error() {
    for (status, nonce, expected) in [
        (200, "", "newNonce"),
        (200, "https://[", "newNonce"),
        (200, "no URL", "newNonce"),
        (200, "http://localhost/nonce", "newNonce"),
        // The library takes what there is for a directory, whatever the status.
        (500, "no URL", "it answers with the status 500"),
        (302, "no URL", "it answers with the status 302"),
    ] {
        let liar = Liar::new("directory", move |what, here| {
            (what == "GET /directory").then(|| (status, vec![], directory(here, nonce)))
        })
        .await;
        let failure = liar.order(None).await;
        let told = failure.error.to_string();
        assert!(told.contains(expected), "{nonce}: {told}");
    }
}

#[tokio::test]
async fn what_it_says_is_neither_long_nor_moves_a_cursor() {
    let liar = Liar::new("words", |what, here| {
        let status = format!("\u{1b}[2J{}", "x".repeat(200_000));
        let fields = vec![("location", format!("{here}/order/1"))];
        let text = serde_json::json!({
            "status": status, "authorizations": [], "finalize": format!("{here}/finalize"),
        });
        (what == "POST /order").then(|| (201, fields, text.to_string()))
    })
    .await;
    let told = liar.order(None).await.error.to_string();
    assert!(told.len() < 2000, "{} bytes", told.len());
    assert!(!told.contains(char::is_control), "{told:?}");
}

#[tokio::test]
async fn an_account_that_cannot_be_kept_is_not_made() {
    let liar = Liar::new("room", |_, _| None).await;
    // A directory is where the file would have to go.
    let in_the_way = liar.store.directory().join("account.json.new");
    fs::create_dir_all(in_the_way.join("full")).expect("room");
    for _ in 0..3 {
        let failure = liar.order(None).await;
        let is_told = matches!(failure.error, OrderError::Store { .. });
        assert!(is_told, "{:?}", failure.error);
    }
    assert_eq!(liar.times("POST /account"), 0);
    fs::remove_dir_all(&in_the_way).expect("it is ours");
    for _ in 0..3 {
        liar.order(None).await;
    }
    assert_eq!(liar.times("POST /account"), 1);
    assert_eq!(liar.times("POST /order"), 3);
}
