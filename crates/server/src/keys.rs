//! Key sets of identity providers: fetched over HTTP when a token needs them, and now and then.
//!
//! When a fetch is due is [`RemoteKeys`]' part. Here it is seen to, on one of the workers' runtimes, and no
//! token waits for it: one fetch at a time for a set that is always the same, some for those of a family.

mod fetch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Uri;
use tautline_auth::{
    JwkSet, Pattern, RemoteKeyFamily, RemoteKeys, UrlTemplate, UrlTemplateError, Verifier,
};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_rustls::rustls::ClientConfig;

use self::fetch::{FetchError, fetch};

/// Where key sets are, and what is known of them.
#[derive(Debug)]
pub struct KeySource {
    sets: Sets,
    /// Whom to trust; `None` for the certificate roots of the system.
    tls: Option<Arc<ClientConfig>>,
    fetches: Fetches,
}

/// What came of fetches so far.
#[derive(Debug, Default)]
struct Fetches {
    fetched: AtomicU64,
    failed: AtomicU64,
}

/// What there is of key sets, and what was counted of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyNumbers {
    /// Sets that are known, or waited for.
    pub(crate) sets: u64,
    pub(crate) fetched: u64,
    pub(crate) failed: u64,
    /// Sets that had to go for others.
    pub(crate) pushed_out: u64,
    /// Tokens for whose set there was no room.
    pub(crate) refused: u64,
}

impl KeyNumbers {
    pub(crate) fn add(&mut self, other: Self) {
        self.sets += other.sets;
        self.fetched += other.fetched;
        self.failed += other.failed;
        self.pushed_out += other.pushed_out;
        self.refused += other.refused;
    }
}

#[derive(Debug)]
enum Sets {
    One {
        url: Uri,
        keys: Arc<RemoteKeys>,
        asked: Arc<Notify>,
    },
    Many {
        family: Arc<RemoteKeyFamily>,
        /// URLs of sets that are to be fetched: each at most once, so no more than there are sets.
        asked: Mutex<mpsc::UnboundedReceiver<String>>,
        open_to_forgery: bool,
    },
}

impl KeySource {
    /// A key set at a URL, or one for each of what the expressions find in tokens, if the URL has something
    /// to fill in. Nothing is fetched yet.
    pub(crate) fn new(
        url: &str,
        issuer: Option<&Pattern>,
        audience: Option<&Pattern>,
    ) -> Result<Self, UrlError> {
        if UrlTemplate::is_template(url) {
            Self::family(url, issuer, audience, FAMILY_PAUSE, None)
        } else {
            Self::one(url, PAUSE, None)
        }
    }

    fn one(url: &str, pause: Duration, tls: Option<Arc<ClientConfig>>) -> Result<Self, UrlError> {
        let url = parse(url)?;
        let asked = Arc::new(Notify::new());
        let ask = Arc::clone(&asked);
        let keys = RemoteKeys::new(pause, MAX_AGE, Box::new(move || ask.notify_one()));
        let keys = Arc::new(keys);
        let sets = Sets::One { url, keys, asked };
        let fetches = Fetches::default();
        Ok(Self { sets, tls, fetches })
    }

    fn family(
        url: &str,
        issuer: Option<&Pattern>,
        audience: Option<&Pattern>,
        pause: Duration,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, UrlError> {
        let template = UrlTemplate::parse(url)?;
        // As it may come to be.
        let example = parse(&url.replace("{{", "").replace("}}", "").replace('_', "-"))?;
        let (ask, asked) = mpsc::unbounded_channel();
        let ask = move |url: &str| {
            let _ = ask.send(url.to_owned());
        };
        let (issuer, audience) = (issuer.cloned(), audience.cloned());
        let family =
            RemoteKeyFamily::new(template, issuer, audience, pause, MAX_AGE, Arc::new(ask))?;
        let sets = Sets::Many {
            family: Arc::new(family),
            asked: Mutex::new(asked),
            open_to_forgery: is_open_to_forgery(&example),
        };
        let fetches = Fetches::default();
        Ok(Self { sets, tls, fetches })
    }

    /// Has a verifier believe the keys.
    pub(crate) fn give_to(&self, verifier: Verifier) -> Verifier {
        match &self.sets {
            Sets::One { keys, .. } => verifier.with_remote_keys(Arc::clone(keys)),
            Sets::Many { family, .. } => verifier.with_remote_key_family(Arc::clone(family)),
        }
    }

    /// Goes on with the keys that another source has fetched, as far as they are of the same sets.
    pub(crate) fn inherit(&self, before: &Self) {
        match (&self.sets, &before.sets) {
            (
                Sets::One { url, keys, .. },
                Sets::One {
                    url: other,
                    keys: known,
                    ..
                },
            ) if url == other => {
                keys.inherit(known);
            }
            (Sets::Many { family, .. }, Sets::Many { family: known, .. })
                if family.template() == known.template() =>
            {
                family.inherit(known);
            }
            _ => return,
        }
        let (own, known) = (&self.fetches, &before.fetches);
        for (own, known) in [(&own.fetched, &known.fetched), (&own.failed, &known.failed)] {
            own.store(known.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// What there is, and what was counted.
    pub(crate) fn numbers(&self) -> KeyNumbers {
        let (sets, pushed_out, refused) = match &self.sets {
            Sets::One { .. } => (1, 0, 0),
            Sets::Many { family, .. } => {
                (family.len() as u64, family.pushed_out(), family.refused())
            }
        };
        KeyNumbers {
            sets,
            fetched: self.fetches.fetched.load(Ordering::Relaxed),
            failed: self.fetches.failed.load(Ordering::Relaxed),
            pushed_out,
            refused,
        }
    }

    /// Whether anybody on the way could put keys of his own in the place of the set's.
    pub(crate) fn is_open_to_forgery(&self) -> bool {
        match &self.sets {
            Sets::One { url, .. } => is_open_to_forgery(url),
            Sets::Many {
                open_to_forgery, ..
            } => *open_to_forgery,
        }
    }

    /// Fetches whenever it is asked for. Never ends; dropping it loses the fetches under way.
    pub(crate) async fn run(&self) {
        match &self.sets {
            Sets::One { url, keys, asked } => loop {
                keys.refresh(now());
                if timeout(LOOK, asked.notified()).await.is_err() {
                    continue;
                }
                let fetched = fetch_in_time(url, self.tls.clone()).await;
                if let Err(error) = self.take_over(keys, url, fetched) {
                    tracing::warn!(%url, %error, "the key set can't be fetched");
                }
            },
            Sets::Many { family, asked, .. } => {
                self.run_family(family, &mut *asked.lock().await).await;
            }
        }
    }

    /// Some at a time, and so many a second at the most: strangers choose which.
    async fn run_family(
        &self,
        family: &RemoteKeyFamily,
        asked: &mut mpsc::UnboundedReceiver<String>,
    ) {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complaints = Complaints::default();
        let mut fetches = JoinSet::new();
        loop {
            // What is given up here is a tick at the most.
            let next = async {
                pace.tick().await;
                asked.recv().await
            };
            tokio::select! {
                Some(Ok((keys, url, fetched))) = fetches.join_next(), if !fetches.is_empty() => {
                    let keys: Arc<RemoteKeys> = keys;
                    if let Err(error) = self.take_over(&keys, &url, fetched) {
                        complaints.about(&url, &error);
                    }
                }
                Some(url) = next, if fetches.len() < MAX_FETCHES => {
                    let Some(keys) = family.set(&url) else {
                        continue;
                    };
                    let Ok(url) = parse(&url) else {
                        keys.failed(now());
                        self.fetches.failed.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    let tls = self.tls.clone();
                    fetches.spawn(async move {
                        let fetched = fetch_in_time(&url, tls).await;
                        (keys, url, fetched)
                    });
                }
            }
        }
    }

    fn take_over(
        &self,
        keys: &RemoteKeys,
        url: &Uri,
        fetched: Result<JwkSet, FetchError>,
    ) -> Result<(), FetchError> {
        match fetched {
            Ok(set) => {
                tracing::info!(
                    %url, keys = set.len(), skipped = set.skipped(), "fetched the key set"
                );
                keys.replace(set, now());
                self.fetches.fetched.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                keys.failed(now());
                self.fetches.failed.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }
}

async fn fetch_in_time(url: &Uri, tls: Option<Arc<ClientConfig>>) -> Result<JwkSet, FetchError> {
    let fetched = timeout(TIMEOUT, fetch(url, tls)).await;
    fetched.unwrap_or(Err(FetchError::TimedOut(TIMEOUT)))
}

/// What is told of sets that can't be fetched: not all, as strangers make up which are looked for.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    untold: u64,
}

impl Complaints {
    fn about(&mut self, url: &Uri, error: &FetchError) {
        if self
            .last
            .is_some_and(|last| last.elapsed() < COMPLAINT_PAUSE)
        {
            self.untold += 1;
            return;
        }
        let untold = std::mem::take(&mut self.untold);
        self.last = Some(Instant::now());
        tracing::warn!(%url, %error, untold, "the key set of a token can't be fetched");
    }
}

fn parse(url: &str) -> Result<Uri, UrlError> {
    let url: Uri = url.parse().map_err(|_| UrlError::NoUrl)?;
    let is_known = matches!(url.scheme_str(), Some("http" | "https"));
    if !is_known || url.host().is_none_or(str::is_empty) {
        return Err(UrlError::NoUrl);
    }
    Ok(url)
}

fn is_open_to_forgery(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let is_loopback =
        host == "localhost" || host.starts_with("127.") || matches!(host, "[::1]" | "::1");
    url.scheme_str() == Some("http") && !is_loopback
}

/// What can't be a key set's address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("is not a URL of a key set, such as https://id.example.com/.well-known/jwks.json")]
    NoUrl,
    #[error(transparent)]
    Template(#[from] UrlTemplateError),
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The least time between two fetches.
const PAUSE: Duration = Duration::from_secs(10);

/// The same for each set of a family, of which there may be many that don't exist.
const FAMILY_PAUSE: Duration = Duration::from_secs(60);

/// The least time between the beginnings of two fetches of a family's sets.
const PACE: Duration = Duration::from_millis(50);

/// How many sets of a family are fetched at a time.
const MAX_FETCHES: usize = 4;

/// The least time between two complaints about a family's sets.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

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
    use std::sync::atomic::AtomicUsize;

    use serde_json::{Value, json};
    use tautline_auth::{MAX_JWK_SET_LEN, TokenError, VerifierConfig};
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
        ] {
            assert!(KeySource::new(url, None, None).is_err(), "{url}");
        }
        for (url, open) in [
            ("https://id.example.com/keys", false),
            ("http://id.example.com/keys", true),
            ("http://localhost:8080/keys", false),
            ("http://127.0.0.1/keys", false),
            ("http://[::1]:1/keys", false),
        ] {
            let source = KeySource::new(url, None, None).expect(url);
            assert_eq!(source.is_open_to_forgery(), open, "{url}");
        }
    }

    #[tokio::test]
    async fn keys_are_there_when_a_token_needs_them() {
        let (set, token) = case("ES256");
        let (url, asked) = provider(vec![ok(&set)]).await;
        let source = KeySource::one(&url, PAUSE, None).expect("a URL");
        let verifier = Verifier::new(VerifierConfig::default()).expect("no key is wrong");
        let verifier = source.give_to(verifier);
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
        let expected = KeyNumbers {
            sets: 1,
            fetched: 1,
            ..KeyNumbers::default()
        };
        assert_eq!(source.numbers(), expected);
        // Whoever goes on with the keys goes on counting.
        let next = KeySource::one(&url, PAUSE, None).expect("a URL");
        next.inherit(&source);
        assert_eq!(next.numbers(), expected);
    }

    #[tokio::test]
    async fn fetches_that_come_to_nothing_are_counted() {
        let (url, _) = provider(vec![ok("no key set")]).await;
        let source = KeySource::one(&url, PAUSE, None).expect("a URL");
        let failed = async {
            while source.numbers().failed == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = failed => {}
            () = source.run() => unreachable!("it never ends"),
        }
        assert_eq!(source.numbers().fetched, 0);
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
            let error = fetch(&parse(&url).expect("a URL"), None)
                .await
                .expect_err("no set");
            assert!(error.to_string().contains(expected), "{error}");
        }
        let (url, _) = provider(vec![ok(&set)]).await;
        let set = fetch(&parse(&url).expect("a URL"), None)
            .await
            .expect("a set");
        assert_eq!(set.len(), 1);
        // Nobody is there.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        drop(listener);
        assert!(fetch(&parse(&url).expect("a URL"), None).await.is_err());
    }
}
