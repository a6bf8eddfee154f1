//! HTTP to the authority, within limits.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use serde_json::Value;
use tokio_rustls::rustls::ClientConfig;

/// A client of the authority's.
#[derive(Clone)]
pub(super) struct HttpsClient {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    directory: Uri,
    asked_for: Patience,
}

/// For how long the authority wants to be left alone, of all that it was asked: what it said last with a refusal.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<Mutex<Option<Duration>>>);

impl Patience {
    /// What there is, which is forgotten with that.
    pub(super) fn take(&self) -> Option<Duration> {
        self.lock().take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpsClient {
    /// Of the authority whose directory is there.
    pub(super) fn new(tls: &Arc<ClientConfig>, directory_url: &str, asked_for: Patience) -> Self {
        let mut tls = ClientConfig::clone(tls);
        // The connector says itself which versions of HTTP it speaks.
        tls.alpn_protocols.clear();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_all_versions()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Self {
            client,
            directory: directory_url.parse().unwrap_or_default(),
            asked_for,
        }
    }
}

impl HttpClient for HttpsClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let url = request.uri().clone();
        let is_directory = request.method() == Method::GET && url == self.directory;
        let asked_for = self.asked_for.clone();
        let response = self.client.request(request);
        let exchange = async move {
            let response = response
                .await
                .map_err(|error| crate::proxy::causes(&error))?;
            let (mut parts, body) = response.into_parts();
            let pause = bound_pause(&mut parts, SystemTime::now());
            if wants_to_be_left_alone(parts.status) {
                *asked_for.lock() = pause;
            }
            let body = Limited::new(body, MOST_OF_ANSWER).collect().await;
            let body = body.map_err(|error| format!("its answer can't be read: {error}"))?;
            let body = body.to_bytes();
            if is_directory {
                // Whose status the library doesn't look at.
                check_directory(parts.status, &body)?;
            }
            let body = Box::new(body);
            Ok(BytesResponse { parts, body })
        };
        Box::pin(async move {
            let answer = tokio::time::timeout(PATIENCE, exchange).await;
            let answer = answer.unwrap_or_else(|_| {
                Err(format!("it did not answer within {} s", PATIENCE.as_secs()))
            });
            answer.map_err(|problem: String| {
                let problem: Box<dyn StdError + Send + Sync> = format!("{url}: {problem}").into();
                Error::Other(problem)
            })
        })
    }
}

/// Rewrites how long an answer asks to wait, which may be anything, to what the library can work with: it adds a number of
/// seconds to the time of day, of which there may be too many, and asks again at once where it is none.
fn bound_pause(parts: &mut Parts, now: SystemTime) -> Option<Duration> {
    let value = parts.headers.remove(header::RETRY_AFTER)?;
    let value = value.to_str().ok()?.trim();
    // RFC 9110, section 10.2.3: seconds, or a date.
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let pause = if is_number {
        value.parse().map_or(Duration::MAX, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    let pause = pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    let seconds = HeaderValue::from(pause.as_secs());
    parts.headers.insert(header::RETRY_AFTER, seconds);
    Some(pause)
}

fn wants_to_be_left_alone(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Whether what a directory names can be asked: the library takes it for granted.
fn check_directory(status: StatusCode, body: &[u8]) -> Result<(), String> {
    if status != StatusCode::OK {
        return Err(format!("it answers with the status {status}"));
    }
    let directory: Value = serde_json::from_slice(body)
        .map_err(|_| "what is there is no directory of an ACME authority".to_owned())?;
    for name in RESOURCES {
        let url = directory[name].as_str().and_then(|url| url.parse().ok());
        let is_good = |url: &Uri| {
            url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty())
        };
        if !url.as_ref().is_some_and(is_good) {
            return Err(format!(
                "the directory has no URL with https for {name}, which an ACME authority's has"
            ));
        }
    }
    Ok(())
}

/// What no order can do without (RFC 8555, section 7.1.1).
const RESOURCES: [&str; 3] = ["newNonce", "newAccount", "newOrder"];
/// The least that is waited before an authority is asked again, whatever it says.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// The most. Those who count by weeks say so in days, and to ask once in a day is no burden.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// Connections are for one order.
const IDLE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// No answer of an authority is longer: chains of certificates are some KiB.
const MOST_OF_ANSWER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of a field, and what is left of it.
    fn bounded(value: &str) -> (Option<u64>, Option<String>) {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        let value = HeaderValue::from_str(value).expect("a header's value");
        parts.headers.insert(header::RETRY_AFTER, value);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_000);
        let pause = bound_pause(&mut parts, now).map(|pause| pause.as_secs());
        let left = parts.headers.get(header::RETRY_AFTER);
        let left = left.map(|left| left.to_str().expect("a text").to_owned());
        (pause, left)
    }

    #[test]
    fn a_pause_is_neither_none_nor_for_ever() {
        let day = 24 * 60 * 60;
        for (value, expected) in [
            ("7", Some(7)),
            (" 3600 ", Some(3600)),
            // The library asks again at once, and as often as the network lets it.
            ("0", Some(1)),
            // With these it would end in a panic.
            ("18446744073709551615", Some(day)),
            ("99999999999999999999999999", Some(day)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(777)),
            ("Fri, 06 Nov 1970 08:49:37 GMT", Some(1)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(day)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            let (pause, left) = bounded(value);
            assert_eq!(pause, expected, "{value}");
            assert_eq!(left, expected.map(|pause| pause.to_string()), "{value}");
        }
    }

    #[test]
    fn a_directory_has_urls_that_can_be_asked() {
        let with = |nonce: &str| {
            format!(
                r#"{{"newNonce":{nonce},"newAccount":"https://a/account","newOrder":"https://a/order"}}"#
            )
        };
        assert_eq!(
            check_directory(StatusCode::OK, with("\"https://a/nonce\"").as_bytes()),
            Ok(())
        );
        for nonce in [
            "\"\"",
            "\"nonce\"",
            "\"http://a/nonce\"",
            "\"https://\"",
            "\"https://[\"",
            "\"https://a b\"",
            "7",
            "null",
        ] {
            let told = check_directory(StatusCode::OK, with(nonce).as_bytes()).expect_err(nonce);
            assert!(told.contains("newNonce"), "{told}");
        }
        for text in ["", "[]", "7", "<html>"] {
            check_directory(StatusCode::OK, text.as_bytes()).expect_err(text);
        }
    }
}
