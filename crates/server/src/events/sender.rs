//! One attempt to deliver a batch.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};

use super::delivery::Outcome;
use crate::proxy::endpoint::Endpoint;
use crate::proxy::{HttpClient, sign};
use crate::telemetry::{Attribute, Cause, Telemetry};

/// Posts a batch of so many events. Each attempt is in a trace of its own, which the backend is told.
///
/// # Cancel safety
///
/// Dropping the future ends the attempt; the backend may have seen it.
pub(super) async fn post(
    client: &HttpClient,
    endpoint: &Endpoint,
    telemetry: Option<&Telemetry>,
    count: usize,
    body: Bytes,
) -> Outcome {
    let mut headers = endpoint.static_headers.clone();
    let mut span =
        telemetry.map(|telemetry| telemetry.client(Cause::Itself, || "tell events".to_owned()));
    if let Some(span) = &mut span {
        span.pass_on(&mut headers);
        span.say(|| {
            [
                Attribute("http.request.method", "POST".to_owned()),
                Attribute("url.full", endpoint.place.clone()),
            ]
        });
        span.count("tautline.events", count as u64);
    }
    let exchange = exchange(client, endpoint, headers, body);
    let outcome = match tokio::time::timeout(endpoint.timeout, exchange).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failed(format!("it did not answer within {:?}", endpoint.timeout)),
    };
    if let (Some(span), Outcome::Failed(error) | Outcome::Refused(error)) = (&mut span, &outcome) {
        span.fail(|| error.clone());
    }
    outcome
}

async fn exchange(
    client: &HttpClient,
    endpoint: &Endpoint,
    headers: HeaderMap,
    body: Bytes,
) -> Outcome {
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.url.clone();
    *request.headers_mut() = headers;
    let headers = request.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    let agent = HeaderValue::from_static(concat!("tautline/", env!("CARGO_PKG_VERSION")));
    headers.entry(header::USER_AGENT).or_insert(agent);
    let name = HeaderName::from_static(sign::EVENT);
    headers.insert(name, HeaderValue::from_static(NAME));
    if !endpoint.keys.is_empty() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        let signature = sign::sign(&endpoint.keys, now, NAME, &body);
        if let Ok(value) = HeaderValue::from_str(&signature) {
            headers.insert(HeaderName::from_static(sign::SIGNATURE), value);
        }
    }
    let response = match client.request(request).await {
        Ok(response) => response,
        Err(error) => return Outcome::Failed(crate::proxy::causes(&error)),
    };
    let status = response.status();
    // Read to its end, so that the connection can be used again; what it says is of no interest.
    let rest = Limited::new(response.into_body(), MOST_OF_ANSWER).collect();
    match status {
        status if status.is_success() => {
            let _ = rest.await;
            Outcome::Delivered
        }
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => {
            let _ = rest.await;
            Outcome::Refused(format!("it answered with the status {status}"))
        }
        status => Outcome::Failed(format!(
            "it answered with the status {status}, expected one from 200 to 299"
        )),
    }
}

/// What the batches are called where questions have their kinds.
const NAME: &str = "events";
/// A longer answer costs the connection.
const MOST_OF_ANSWER: usize = 64 * 1024;
