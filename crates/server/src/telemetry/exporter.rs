//! The thread that posts spans to a collector.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use super::otlp::{self, Resource};
use super::{Counts, Finished, Settings};
use crate::proxy::endpoint::Endpoint;
use crate::proxy::{HttpClient, causes, client};

/// To send all there is, until then.
pub(super) struct Order {
    pub(super) deadline: Instant,
    pub(super) done: oneshot::Sender<()>,
}

/// What the thread has.
pub(super) struct Exporter {
    settings: Settings,
    queue: mpsc::Receiver<Finished>,
    orders: mpsc::UnboundedReceiver<Order>,
}

/// Why spans were not taken.
enum Refusal {
    /// They may be another time.
    ForNow(String),
    /// They never will be.
    ForGood(String),
}

impl Exporter {
    pub(super) fn new(
        settings: Settings,
        queue: mpsc::Receiver<Finished>,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        Self {
            settings,
            queue,
            orders,
        }
    }

    pub(super) fn start(self, node: &str, counts: Arc<Counts>) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let resource = Resource {
            service: self.settings.service.clone(),
            node: node.to_owned(),
        };
        thread::Builder::new()
            .name("telemetry".into())
            .spawn(move || runtime.block_on(self.run(&resource, &counts)))?;
        Ok(())
    }

    /// Ends when nobody can send any more, and what is there was sent.
    async fn run(mut self, resource: &Resource, counts: &Counts) {
        let client = client(&mut self.settings.endpoint);
        let mut told = None;
        let mut batch = Vec::new();
        loop {
            let order = tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => Some(order),
                    None => break,
                },
                count = self.queue.recv_many(&mut batch, MOST) => {
                    if count == 0 {
                        return;
                    }
                    None
                }
            };
            let Some(order) = order else {
                // Others come along; an order to be quick is not kept waiting.
                let more = async {
                    let mut room = MOST.saturating_sub(batch.len());
                    while room > 0 {
                        match self.queue.recv_many(&mut batch, room).await {
                            0 => return,
                            count => room -= count,
                        }
                    }
                };
                tokio::select! {
                    _ = tokio::time::timeout(GATHER, more) => {}
                    Some(order) = self.orders.recv() => {
                        self.flush(&client, resource, counts, &mut batch, order, &mut told).await;
                        continue;
                    }
                }
                let sending = self
                    .settings
                    .send(&client, resource, &batch, counts, &mut told);
                tokio::select! {
                    () = sending => batch.clear(),
                    Some(order) = self.orders.recv() => {
                        self.flush(&client, resource, counts, &mut batch, order, &mut told).await;
                    }
                }
                continue;
            };
            self.flush(&client, resource, counts, &mut batch, order, &mut told)
                .await;
        }
        // Traces go elsewhere from now on, or nowhere; these still go where they were to.
        let (done, _) = oneshot::channel();
        let last = Order {
            deadline: Instant::now() + LAST,
            done,
        };
        self.flush(&client, resource, counts, &mut batch, last, &mut told)
            .await;
    }

    /// Sends this and all that waits.
    async fn flush(
        &mut self,
        client: &HttpClient,
        resource: &Resource,
        counts: &Counts,
        batch: &mut Vec<Finished>,
        order: Order,
        told: &mut Option<Instant>,
    ) {
        let all = async {
            loop {
                while batch.len() < MOST
                    && let Ok(span) = self.queue.try_recv()
                {
                    batch.push(span);
                }
                if batch.is_empty() {
                    return;
                }
                self.settings
                    .send(client, resource, batch, counts, told)
                    .await;
                batch.clear();
            }
        };
        if tokio::time::timeout_at(order.deadline.into(), all)
            .await
            .is_err()
        {
            let left = batch.len() + self.queue.len();
            counts.failed.fetch_add(left as u64, Ordering::Relaxed);
            batch.clear();
        }
        let _ = order.done.send(());
    }
}

impl Settings {
    /// Posts a batch, again where that may help, and tells of failures once in a while.
    async fn send(
        &self,
        client: &HttpClient,
        resource: &Resource,
        batch: &[Finished],
        counts: &Counts,
        told: &mut Option<Instant>,
    ) {
        let body = Bytes::from(otlp::request(resource, batch));
        let mut pause = FIRST_PAUSE;
        let problem = loop {
            let posted = post(client, &self.endpoint, body.clone());
            let answer = tokio::time::timeout(self.endpoint.timeout, posted).await;
            match answer {
                Ok(Ok(())) => {
                    counts
                        .exported
                        .fetch_add(batch.len() as u64, Ordering::Relaxed);
                    return;
                }
                Ok(Err(Refusal::ForGood(problem))) => break problem,
                Ok(Err(Refusal::ForNow(problem))) if pause > LAST_PAUSE => break problem,
                Err(_) if pause > LAST_PAUSE => {
                    break format!("it did not answer within {:?}", self.endpoint.timeout);
                }
                _ => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        };
        counts
            .failed
            .fetch_add(batch.len() as u64, Ordering::Relaxed);
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(
                endpoint = self.endpoint.place,
                spans = batch.len(),
                problem,
                "the collector has not taken spans"
            );
        }
    }
}

async fn post(client: &HttpClient, endpoint: &Endpoint, body: Bytes) -> Result<(), Refusal> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.url.clone();
    let headers = request.headers_mut();
    headers.clone_from(&endpoint.static_headers);
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    let agent = HeaderValue::from_static(concat!("tautline/", env!("CARGO_PKG_VERSION")));
    headers.entry(header::USER_AGENT).or_insert(agent);
    let response = client.request(request).await;
    let response = response.map_err(|error| Refusal::ForNow(causes(&error)))?;
    let status = response.status();
    // Read to its end, so that the connection can be used again.
    let _ = Limited::new(response.into_body(), MOST_OF_ANSWER)
        .collect()
        .await;
    let problem = || format!("it answered with the status {status}");
    match status {
        status if status.is_success() => Ok(()),
        // OTLP, section "Failures" of its HTTP part.
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(Refusal::ForNow(problem())),
        _ => Err(Refusal::ForGood(problem())),
    }
}

/// Spans in a request.
const MOST: usize = 512;
/// How long the first of a request waits for others.
const GATHER: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// After this one, a batch is given up, so that newer spans have their turn.
const LAST_PAUSE: Duration = Duration::from_secs(2);
const TELL_EVERY: Duration = Duration::from_secs(60);
/// How long what is left may take when nobody can send any more.
const LAST: Duration = Duration::from_secs(10);
const MOST_OF_ANSWER: usize = 64 * 1024;
