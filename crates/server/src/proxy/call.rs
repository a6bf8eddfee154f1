//! Calls of one endpoint: how many, for how long, whether once more, and what is told of them.

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use tautline_hub::application::Refusal;
use tokio::time::Instant;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::breaker::{Breaker, Pass};
use super::endpoint::Endpoint;
use super::settings::Kind;
use super::sign;
use super::wire::{self, Verdict};
use crate::http::metrics::{Histogram, ProxyNumbers};
use crate::telemetry::{Attribute, Cause, Telemetry};

/// An endpoint of the backend, and the connections to it.
pub(super) struct Proxy {
    pub(super) endpoint: Endpoint,
    client: HttpClient,
    breaker: Mutex<Breaker>,
    in_flight: AtomicUsize,
    /// Shared with those that had its place before.
    counts: Arc<[Mutex<Counts>; Kind::ALL.len()]>,
    /// When a failure was last told, and how many were not told since.
    told: Mutex<(Option<Instant>, u64)>,
    /// Where traces go; a reload has them go elsewhere.
    telemetry: Mutex<Option<Arc<Telemetry>>>,
}

/// What is counted of one kind of question.
#[derive(Clone, Debug, Default)]
struct Counts {
    durations: Histogram,
    errors: u64,
    retries: u64,
    in_flight: u64,
    /// Not asked because there were as many as may be, and because the backend was left alone.
    busy: u64,
    left_alone: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum CallError {
    #[error("it did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("{}", causes(.0))]
    Http(#[source] legacy::Error),
    #[error("its answer broke off: {0}")]
    BrokenOff(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("its answer is longer than {0} bytes (max_response_size)")]
    TooLong(usize),
    #[error("it answered with the status {0}, expected 200, or one of status_to_code_transforms")]
    Status(StatusCode),
    #[error("its answer can't be used: {0}")]
    Unusable(String),
    #[error("it has failed again and again, and is left alone for a while (breaker_pause)")]
    LeftAlone,
    #[error("{0} questions are under way, which is all that there may be (max_in_flight)")]
    Busy(usize),
}

impl CallError {
    /// Whether another attempt may do better.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Http(_) | Self::BrokenOff(_))
    }

    /// Whether the backend can't have seen anything of the question, or says that it has not looked at it.
    fn is_unseen(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_connect() || is_unprocessed(error))
    }

    /// Whether it tells that the backend is in trouble, and not just mistaken about this one.
    fn is_trouble(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::Http(_) | Self::BrokenOff(_) => true,
            Self::Status(status) => status.is_server_error(),
            _ => false,
        }
    }
}

/// Whether a backend that speaks HTTP/2 says that it has not looked at a question (RFC 9113, section 8.7), as one that is on
/// its way out does.
fn is_unprocessed(error: &legacy::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            // It is what streams behind the last that a GOAWAY names end with; those before that end by themselves, or
            // with the connection.
            let is_behind_the_last = error.is_go_away();
            let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (is_behind_the_last || is_refused);
        }
        cause = error.source();
    }
    false
}

/// What requests are made with.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The connections to an endpoint, of which there are none yet. Takes what its TLS goes by.
pub(crate) fn client(endpoint: &mut Endpoint) -> HttpClient {
    let tls = endpoint.tls.take().unwrap_or_else(|| {
        // Of plain HTTP alone: nothing is ever verified by it.
        ClientConfig::builder_with_provider(Arc::new(
            tokio_rustls::rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .expect("the provider has the versions of TLS that it comes with")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
    });
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(http);
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(endpoint.max_in_flight)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_adaptive_window(true)
        .build(connector)
}

impl Proxy {
    /// Goes on with the numbers of the one before.
    pub(super) fn new(
        mut endpoint: Endpoint,
        before: Option<&Self>,
        telemetry: Option<Arc<Telemetry>>,
    ) -> Self {
        let client = client(&mut endpoint);
        let breaker = Breaker::new(endpoint.breaker_failures, endpoint.breaker_pause);
        Self {
            endpoint,
            client,
            breaker: Mutex::new(breaker),
            in_flight: AtomicUsize::new(0),
            counts: before.map_or_else(Arc::default, |before| Arc::clone(&before.counts)),
            told: Mutex::default(),
            telemetry: Mutex::new(telemetry),
        }
    }

    /// Has traces go there from now on.
    pub(super) fn follow(&self, telemetry: Option<Arc<Telemetry>>) {
        *self
            .telemetry
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = telemetry;
    }

    /// Asks, and waits for the verdict.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the call; the backend may have seen it.
    pub(super) async fn ask<R: DeserializeOwned>(
        &self,
        kind: Kind,
        cause: Cause,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Verdict<R>, CallError> {
        let telemetry = self.telemetry.lock();
        let telemetry = telemetry.unwrap_or_else(PoisonError::into_inner).clone();
        let mut span = telemetry
            .as_deref()
            .map(|telemetry| telemetry.client(cause, || format!("ask {}", kind.name())));
        if let Some(span) = &mut span {
            span.pass_on(&mut headers);
            span.say(|| {
                [
                    Attribute("http.request.method", "POST".to_owned()),
                    Attribute("url.full", self.endpoint.place.clone()),
                    Attribute("tautline.proxy.name", self.endpoint.name.clone()),
                    Attribute("tautline.proxy.kind", kind.name().to_owned()),
                ]
            });
        }
        let result = self.ask_within_limits(kind, headers, body).await;
        if let Err(error) = &result {
            if let Some(span) = &mut span {
                span.fail(|| error.to_string());
            }
            let mut counts = self.counts(kind);
            counts.errors += 1;
            match error {
                CallError::Busy(_) => counts.busy += 1,
                CallError::LeftAlone => counts.left_alone += 1,
                _ => {}
            }
            drop(counts);
            self.tell(kind, error);
        }
        result
    }

    async fn ask_within_limits<R: DeserializeOwned>(
        &self,
        kind: Kind,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Verdict<R>, CallError> {
        let _seat = self.seat(kind)?;
        let pass = lock(&self.breaker).admit(Instant::now());
        let mut leave = Leave {
            proxy: self,
            pass: Some(pass.ok_or(CallError::LeftAlone)?),
        };
        let (timeout, begun) = (self.endpoint.timeout, Instant::now());
        let exchange = tokio::time::timeout(timeout, self.exchange(kind, headers, body));
        let result = exchange
            .await
            .unwrap_or(Err(CallError::TimedOut(timeout)))
            .and_then(|(status, body)| self.verdict(status, &body));
        self.counts(kind).durations.add(begun.elapsed());
        leave.settle(result.as_ref().err());
        result
    }

    /// Asks once, and once more where that does no harm.
    async fn exchange(
        &self,
        kind: Kind,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let headers = self.complete(kind, headers, &body);
        let first = self.exchange_once(headers.clone(), body.clone()).await;
        match first {
            Err(error) if error.may_pass() && (kind.may_repeat() || error.is_unseen()) => {
                tracing::debug!(
                    proxy = self.endpoint.name, kind = kind.name(), %error,
                    "the backend is asked once more"
                );
                self.counts(kind).retries += 1;
                self.exchange_once(headers, body).await
            }
            other => other,
        }
    }

    async fn exchange_once(
        &self,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.url.clone();
        *request.headers_mut() = headers;
        let response = self.client.request(request).await;
        let response = response.map_err(CallError::Http)?;
        let (parts, body) = response.into_parts();
        let most = self.endpoint.max_response_size;
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                CallError::TooLong(most)
            } else {
                CallError::BrokenOff(error)
            }
        })?;
        Ok((parts.status, body.to_bytes()))
    }

    fn verdict<R: DeserializeOwned>(
        &self,
        status: StatusCode,
        body: &[u8],
    ) -> Result<Verdict<R>, CallError> {
        match self.endpoint.transforms.get(&status) {
            Some(Refusal::Error(error)) => Ok(Verdict::Error(error.clone())),
            Some(Refusal::Disconnect(disconnect)) => Ok(Verdict::Disconnect(disconnect.clone())),
            None if status == StatusCode::OK => wire::read(body).map_err(CallError::Unusable),
            None => Err(CallError::Status(status)),
        }
    }

    /// The fields of a question: those which were passed on, and the server's own.
    fn complete(&self, kind: Kind, mut headers: HeaderMap, body: &[u8]) -> HeaderMap {
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json.clone());
        headers.entry(header::ACCEPT).or_insert(json);
        let agent = HeaderValue::from_static(concat!("tautline/", env!("CARGO_PKG_VERSION")));
        headers.entry(header::USER_AGENT).or_insert(agent);
        let name = HeaderName::from_static(sign::EVENT);
        headers.insert(name, HeaderValue::from_static(kind.name()));
        if !self.endpoint.keys.is_empty() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.unwrap_or_default().as_secs();
            let signature = sign::sign(&self.endpoint.keys, now, kind.name(), body);
            if let Ok(value) = HeaderValue::from_str(&signature) {
                headers.insert(HeaderName::from_static(sign::SIGNATURE), value);
            }
        }
        headers
    }

    /// What was counted so far, of the kinds of questions that there were.
    pub(super) fn numbers(&self, all: &mut Vec<ProxyNumbers>) {
        let breaker = lock(&self.breaker).position().number();
        for kind in Kind::ALL {
            let Counts {
                durations,
                errors,
                retries,
                in_flight,
                busy,
                left_alone,
            } = self.counts(kind).clone();
            if durations.is_empty() && errors == 0 && in_flight == 0 {
                continue;
            }
            all.push(ProxyNumbers {
                name: self.endpoint.name.clone(),
                kind: kind.name(),
                durations,
                errors,
                retries,
                in_flight,
                refused: [("max_in_flight", busy), ("breaker", left_alone)],
                breaker,
            });
        }
    }

    fn counts(&self, kind: Kind) -> MutexGuard<'_, Counts> {
        lock(&self.counts[kind as usize])
    }

    fn seat(&self, kind: Kind) -> Result<Seat<'_>, CallError> {
        let most = self.endpoint.max_in_flight;
        let taken = self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.counts(kind).in_flight += 1;
        let seat = Seat { proxy: self, kind };
        if taken >= most {
            return Err(CallError::Busy(most));
        }
        Ok(seat)
    }

    /// Tells the operator of a failure, once a second at the most.
    fn tell(&self, kind: Kind, error: &CallError) {
        let now = Instant::now();
        let mut told = lock(&self.told);
        let (last, silent) = &mut *told;
        if last.is_some_and(|last| now.duration_since(last) < TELL_EVERY) {
            *silent += 1;
            return;
        }
        let untold = std::mem::take(silent);
        *last = Some(now);
        drop(told);
        tracing::warn!(
            proxy = self.endpoint.name, kind = kind.name(), url = self.endpoint.place, %error, untold,
            "the application's backend gave no answer"
        );
    }
}

/// One of the questions that may be under way.
struct Seat<'a> {
    proxy: &'a Proxy,
    kind: Kind,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.proxy.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.proxy.counts(self.kind).in_flight -= 1;
    }
}

/// The breaker's leave to call; given back where nobody waits for the answer any more, too.
struct Leave<'a> {
    proxy: &'a Proxy,
    pass: Option<Pass>,
}

impl Leave<'_> {
    fn settle(&mut self, error: Option<&CallError>) {
        let Some(pass) = self.pass.take() else {
            return;
        };
        let (name, url) = (&self.proxy.endpoint.name, &self.proxy.endpoint.place);
        let mut breaker = lock(&self.proxy.breaker);
        match error.filter(|error| error.is_trouble()) {
            None if breaker.succeeded(pass) => {
                tracing::info!(proxy = name, url, "the application's backend is back");
            }
            None => {}
            Some(error) if breaker.failed(pass, Instant::now()) => {
                tracing::error!(
                    proxy = name, url, %error, pause = ?self.proxy.endpoint.breaker_pause,
                    "the application's backend is left alone for a while"
                );
            }
            Some(_) => {}
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            lock(&self.proxy.breaker).abandoned(pass, Instant::now());
        }
    }
}

/// Nothing is left half done where a lock is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error of the HTTP library with all that lies behind it: its own text says the least.
pub(crate) fn causes(error: &legacy::Error) -> String {
    let mut text = if error.is_connect() {
        "it can't be reached".to_owned()
    } else {
        "it can't be asked".to_owned()
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// How long connections that nobody uses are kept. Servers close theirs after a minute or more.
const IDLE: Duration = Duration::from_secs(30);
/// Between two pings of HTTP/2, which notice a backend that went without a word.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const TELL_EVERY: Duration = Duration::from_secs(1);
