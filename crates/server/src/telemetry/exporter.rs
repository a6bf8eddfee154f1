//! The thread that posts spans to a collector.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::sleep_until;

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
    hurry: Hurry,
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
        hurry: Hurry,
    ) -> Self {
        Self {
            settings,
            queue,
            orders,
            hurry,
        }
    }

    /// `heir` is whoever takes what can't be sent once there is one, and `alive` is dropped when the thread ends.
    pub(super) fn start(
        self,
        node: &str,
        counts: Arc<Counts>,
        heir: Arc<Heir>,
        alive: watch::Sender<()>,
    ) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let resource = Resource {
            service: self.settings.service.clone(),
            node: node.to_owned(),
        };
        let run = async move {
            let _alive = alive;
            let rest = Rest {
                counts: &counts,
                heir: &heir,
            };
            self.run(&resource, &rest).await;
        };
        thread::Builder::new()
            .name("telemetry".into())
            .spawn(move || runtime.block_on(run))?;
        Ok(())
    }

    /// Ends when nobody can send any more, or when it is told to, and what is there was sent.
    async fn run(mut self, resource: &Resource, rest: &Rest<'_>) {
        let client = client(&mut self.settings.endpoint);
        let mut told = None;
        let mut batch = Vec::new();
        let last = loop {
            let Self {
                settings,
                queue,
                orders,
                hurry,
            } = &mut self;
            let mut wanted = tokio::select! {
                biased;
                wanted = next_wanted(orders, hurry) => Some(wanted),
                _ = queue.recv_many(&mut batch, MOST) => None,
            };
            if wanted.is_none() {
                // Others come along; an order to be quick is not kept waiting.
                let more = async {
                    let mut room = MOST.saturating_sub(batch.len());
                    while room > 0 {
                        match queue.recv_many(&mut batch, room).await {
                            0 => return,
                            count => room -= count,
                        }
                    }
                };
                wanted = tokio::select! {
                    _ = tokio::time::timeout(GATHER, more) => None,
                    wanted = next_wanted(orders, hurry) => Some(wanted),
                };
            }
            if wanted.is_none() {
                let now = Notify::new();
                let mut sending =
                    pin!(settings.send(&client, resource, &mut batch, rest, &mut told, &now));
                wanted = tokio::select! {
                    () = &mut sending => None,
                    wanted = next_wanted(orders, hurry) => Some(wanted),
                };
                if let Some(wanted) = &wanted {
                    // What is on its way may have been taken: it isn't sent once more before that is known.
                    now.notify_one();
                    let until = wanted.until(hurry.clone());
                    tokio::select! {
                        () = sending => {}
                        () = until => {}
                    }
                }
            }
            match wanted {
                None => {}
                Some(Wanted::Flush(Order { deadline, done })) => {
                    let until = sleep_until(deadline.into());
                    self.flush(&client, resource, rest, &mut batch, &mut told, until)
                        .await;
                    let _ = done.send(());
                }
                Some(Wanted::End(last)) => break last,
            }
        };
        // Traces go elsewhere from now on, or nowhere; these still go where they were to.
        let until = Wanted::End(last).until(self.hurry.clone());
        self.flush(&client, resource, rest, &mut batch, &mut told, until)
            .await;
    }

    /// Sends this and all that waits, until then.
    async fn flush(
        &mut self,
        client: &HttpClient,
        resource: &Resource,
        rest: &Rest<'_>,
        batch: &mut Vec<Finished>,
        told: &mut Option<Instant>,
        until: impl Future<Output = ()>,
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
                    .send(client, resource, batch, rest, told, &Notify::new())
                    .await;
            }
        };
        tokio::select! {
            () = all => {}
            () = until => {
                rest.take(batch);
                while let Ok(span) = self.queue.try_recv() {
                    batch.push(span);
                }
                rest.take(batch);
            }
        }
    }
}

/// What others want of an exporter.
enum Wanted {
    Flush(Order),
    /// To send what there is, until then, and end.
    End(Instant),
}

impl Wanted {
    /// When there is no more time for it: what is to end may be told to be quicker.
    fn until(&self, mut hurry: Hurry) -> impl Future<Output = ()> + use<> {
        let (deadline, ends) = match self {
            Self::Flush(order) => (order.deadline, false),
            Self::End(last) => (*last, true),
        };
        async move {
            tokio::select! {
                () = sleep_until(deadline.into()) => {}
                sooner = told_to_end(&mut hurry), if ends => sleep_until(sooner.into()).await,
            }
        }
    }
}

async fn next_wanted(orders: &mut mpsc::UnboundedReceiver<Order>, hurry: &mut Hurry) -> Wanted {
    tokio::select! {
        biased;
        last = told_to_end(hurry) => Wanted::End(last),
        order = orders.recv() => match order {
            Some(order) => Wanted::Flush(order),
            None => Wanted::End(Instant::now() + LAST),
        },
    }
}

/// Resolves when somebody has said until when it may take.
async fn told_to_end(hurry: &mut Hurry) -> Instant {
    let until = hurry.wait_for(Option::is_some).await;
    let until = until.ok().and_then(|until| *until);
    match until {
        Some(until) => until,
        // There is nobody who could.
        None => std::future::pending().await,
    }
}

/// Until when an exporter may send what it has, once that is known.
pub(super) type Hurry = watch::Receiver<Option<Instant>>;

/// Whoever comes after an exporter, if it is known.
pub(super) type Heir = OnceLock<mpsc::Sender<Finished>>;

/// What becomes of spans beside being sent.
struct Rest<'a> {
    counts: &'a Counts,
    heir: &'a Heir,
}

impl Rest<'_> {
    /// Takes spans that can't be sent: they go where spans go now, if that is elsewhere.
    fn take(&self, batch: &mut Vec<Finished>) {
        for span in batch.drain(..) {
            let Some(heir) = self.heir.get() else {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if heir.try_send(span).is_err() {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Settings {
    /// Posts a batch, again where that may help, and tells of failures once in a while. The batch is empty afterwards.
    /// Between two attempts it waits for some time, or until it is to be done `now`.
    async fn send(
        &self,
        client: &HttpClient,
        resource: &Resource,
        batch: &mut Vec<Finished>,
        rest: &Rest<'_>,
        told: &mut Option<Instant>,
        now: &Notify,
    ) {
        let body = Bytes::from(otlp::request(resource, batch));
        let mut pause = FIRST_PAUSE;
        // Where spans go elsewhere by now, they are better off there.
        let is_last = |pause| pause > LAST_PAUSE || rest.heir.get().is_some();
        let problem = loop {
            let posted = post(client, &self.endpoint, body.clone());
            let answer = tokio::time::timeout(self.endpoint.timeout, posted).await;
            match answer {
                Ok(Ok(())) => {
                    rest.counts
                        .exported
                        .fetch_add(batch.len() as u64, Ordering::Relaxed);
                    batch.clear();
                    return;
                }
                Ok(Err(Refusal::ForGood(problem))) => break problem,
                Ok(Err(Refusal::ForNow(problem))) if is_last(pause) => break problem,
                Err(_) if is_last(pause) => {
                    break format!("it did not answer within {:?}", self.endpoint.timeout);
                }
                _ => {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = now.notified() => {}
                    }
                    pause *= 2;
                }
            }
        };
        let count = batch.len();
        rest.take(batch);
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(
                endpoint = self.endpoint.place,
                spans = count,
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
