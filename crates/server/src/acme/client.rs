//! HTTP to the authority, within limits.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio_rustls::rustls::ClientConfig;

/// A client of the authority's.
#[derive(Clone)]
pub(super) struct HttpsClient(Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

impl HttpsClient {
    pub(super) fn new(tls: &Arc<ClientConfig>) -> Self {
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
        Self(client)
    }
}

impl HttpClient for HttpsClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let url = request.uri().clone();
        let response = self.0.request(request);
        let exchange = async move {
            let response = response
                .await
                .map_err(|error| crate::proxy::causes(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MOST_OF_ANSWER).collect().await;
            let body = body.map_err(|error| format!("its answer can't be read: {error}"))?;
            let body = Box::new(body.to_bytes());
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

/// Connections are for one order.
const IDLE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// No answer of an authority is longer: chains of certificates are some KiB.
const MOST_OF_ANSWER: usize = 256 * 1024;
