//! From the hub's questions to calls of the backend, and from what it says to answers.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use tautline_hub::application::{
    ConnectEvent, ConnectReply, Interests, PublishEvent, PublishReply, RefreshBy, RefreshEvent,
    RefreshReply, Refusal, RpcEvent, RpcReply, SubRefreshEvent, SubscribeEvent, SubscribeReply,
};
use tautline_hub::config::HubConfig;
use tautline_protocol::{Disconnect, Encoding, ErrorCode};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::call::{CallError, Proxy};
use super::settings::{Kind, Settings};
use super::wire::{
    ConnectResult, PublishResult, Question, RefreshResult, RpcResult, SubscribeResult, Verdict,
};
use crate::embed::desk::Emulated;
use crate::embed::{Client, Handler, Request};
use crate::http::api::explained;
use crate::http::metrics::ProxyNumbers;
use crate::telemetry::Cause;

/// A handler that asks the application's backend.
pub(crate) struct Proxies {
    all: Vec<Arc<Proxy>>,
    connect: Option<Arc<Proxy>>,
    refresh: Option<Arc<Proxy>>,
    subscribe: HashMap<String, Arc<Proxy>>,
    publish: HashMap<String, Arc<Proxy>>,
    sub_refresh: HashMap<String, Arc<Proxy>>,
    rpc: HashMap<String, Option<Arc<Proxy>>>,
    rpc_boundary: String,
    patience: Duration,
    hub: Arc<HubConfig>,
    calls: Arc<Calls>,
}

impl Proxies {
    /// Starts the thread that makes the calls. It ends when this is dropped.
    ///
    /// # Errors
    ///
    /// When the system gives no thread or no event loop.
    pub(crate) fn start(settings: Settings, hub: Arc<HubConfig>) -> io::Result<Self> {
        Ok(Self::new(settings, hub, &[], Arc::new(Calls::start()?)))
    }

    /// Asks by other settings. Calls under way end by those from before; endpoints that are the same keep
    /// their connections.
    pub(crate) fn succeed(&self, settings: Settings, hub: Arc<HubConfig>) -> Self {
        Self::new(settings, hub, &self.all, Arc::clone(&self.calls))
    }

    fn new(
        settings: Settings,
        hub: Arc<HubConfig>,
        before: &[Arc<Proxy>],
        calls: Arc<Calls>,
    ) -> Self {
        let patience = settings.patience();
        let Settings {
            endpoints,
            connect,
            refresh,
            subscribe,
            publish,
            sub_refresh,
            rpc,
            rpc_boundary,
            telemetry,
        } = settings;
        let mut before: Vec<_> = before.iter().collect();
        let all: Vec<_> = endpoints
            .into_iter()
            .map(|endpoint| {
                // Each goes on in one of those with its name, so that nothing is counted twice.
                let place = before
                    .iter()
                    .position(|other| other.endpoint.is_like(&endpoint))
                    .or_else(|| {
                        let mut others = before.iter();
                        others.position(|other| other.endpoint.name == endpoint.name)
                    });
                match place.map(|place| before.remove(place)) {
                    Some(same) if same.endpoint.is_like(&endpoint) => {
                        same.follow(telemetry.clone());
                        Arc::clone(same)
                    }
                    other => Arc::new(Proxy::new(
                        endpoint,
                        other.map(Arc::as_ref),
                        telemetry.clone(),
                    )),
                }
            })
            .collect();
        let at = |index: usize| Arc::clone(&all[index]);
        let by_name = |map: HashMap<String, usize>| {
            let map = map.into_iter();
            map.map(|(name, index)| (name, at(index))).collect()
        };
        Self {
            connect: connect.map(at),
            refresh: refresh.map(at),
            subscribe: by_name(subscribe),
            publish: by_name(publish),
            sub_refresh: by_name(sub_refresh),
            rpc: rpc
                .into_iter()
                .map(|(name, index)| (name, index.map(at)))
                .collect(),
            rpc_boundary,
            patience,
            hub,
            calls,
            all,
        }
    }

    /// How long the hub should wait for an answer.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// The header fields that some endpoint gets as clients say them.
    pub(crate) fn emulated_headers(&self) -> Arc<[HeaderName]> {
        let names = self.all.iter();
        let mut names: Vec<_> = names
            .flat_map(|proxy| proxy.endpoint.emulated_headers.iter().cloned())
            .collect();
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        names.into()
    }

    /// What was counted so far.
    pub(crate) fn numbers(&self) -> Vec<ProxyNumbers> {
        let mut numbers = Vec::new();
        for proxy in &self.all {
            proxy.numbers(&mut numbers);
        }
        numbers
    }

    /// Asks an endpoint, on the thread for it.
    async fn ask<R>(
        &self,
        proxy: &Arc<Proxy>,
        kind: Kind,
        client: &Client,
        question: Question<'_>,
    ) -> Result<Verdict<R>, CallError>
    where
        R: DeserializeOwned + Send + 'static,
    {
        self.ask_for(Cause::Itself, proxy, kind, client, question)
            .await
    }

    /// The same for a cause that may be in a trace.
    async fn ask_for<R>(
        &self,
        cause: Cause,
        proxy: &Arc<Proxy>,
        kind: Kind,
        client: &Client,
        question: Question<'_>,
    ) -> Result<Verdict<R>, CallError>
    where
        R: DeserializeOwned + Send + 'static,
    {
        let endpoint = &proxy.endpoint;
        let meta = client
            .meta()
            .filter(|_| endpoint.has_meta && kind != Kind::Connect);
        let question = Question {
            client: client.id(),
            transport: client.transport(),
            protocol: match client.encoding() {
                Encoding::Protobuf => "protobuf",
                _ => "json",
            },
            encoding: if endpoint.is_binary { "binary" } else { "json" },
            user: (kind != Kind::Connect).then(|| client.user()),
            // It has come as JSON, from the backend or in a token.
            meta: meta.and_then(|meta| serde_json::from_slice(meta).ok()),
            ..question
        };
        let body = question.to_body();
        let headers = headers(proxy, client);
        let proxy = Arc::clone(proxy);
        let call = async move { proxy.ask(kind, cause, headers, body).await };
        self.calls.make(call).await
    }

    /// Whose duty it is to prolong connections.
    fn refresh_by(&self) -> RefreshBy {
        match &self.refresh {
            Some(_) => RefreshBy::Server,
            None => RefreshBy::Client,
        }
    }

    /// The same for subscriptions to a channel.
    fn sub_refresh_by(&self, channel: &str) -> RefreshBy {
        match self.of_channel(&self.sub_refresh, channel) {
            Some(_) => RefreshBy::Server,
            None => RefreshBy::Client,
        }
    }

    fn of_channel<'a>(
        &'a self,
        map: &'a HashMap<String, Arc<Proxy>>,
        channel: &str,
    ) -> Option<&'a Arc<Proxy>> {
        map.get(&self.hub.rules(channel)?.namespace.name)
    }
}

impl Handler for Proxies {
    fn interests(&self) -> Interests {
        let mut interests = Interests::NONE;
        for (wanted, interest) in [
            (self.connect.is_some(), Interests::CONNECTING),
            // A token's connection is asked about too: who prolongs it is said when it comes in.
            (
                self.refresh.is_some(),
                Interests::CONNECTING | Interests::REFRESH,
            ),
            (!self.subscribe.is_empty(), Interests::SUBSCRIBE),
            (
                !self.sub_refresh.is_empty(),
                Interests::SUBSCRIBE | Interests::SUB_REFRESH,
            ),
            (!self.publish.is_empty(), Interests::PUBLISH),
            (self.rpc.values().any(Option::is_some), Interests::RPC),
        ] {
            if wanted {
                interests = interests | interest;
            }
        }
        interests
    }

    async fn on_connecting(
        &self,
        client: &Client,
        event: ConnectEvent,
    ) -> Result<ConnectReply, Refusal> {
        let as_permitted = ConnectReply {
            refresh: self.refresh_by(),
            ..ConnectReply::default()
        };
        if !event.token.is_empty() {
            // It is a good one: others are refused without a question.
            return Ok(as_permitted);
        }
        let Some(proxy) = &self.connect else {
            return Ok(as_permitted);
        };
        let question = Question {
            name: &event.name,
            version: &event.version,
            channels: &event.channels,
            ..Question::default()
        };
        let question = question.with_data(event.data.as_ref(), proxy.endpoint.is_binary)?;
        let verdict = self.ask::<ConnectResult>(proxy, Kind::Connect, client, question);
        let Some(result) = allowed(verdict.await)? else {
            // Nobody that the backend knows; an anonymous user, where there may be any.
            return Ok(as_permitted);
        };
        let mut reply = usable(proxy, Kind::Connect, result.into_reply())?;
        reply.refresh = self.refresh_by();
        for (channel, sub) in &mut reply.subs {
            sub.refresh = self.sub_refresh_by(channel);
        }
        Ok(reply)
    }

    async fn on_subscribe(
        &self,
        client: &Client,
        event: SubscribeEvent,
    ) -> Result<SubscribeReply, Refusal> {
        let refresh = self.sub_refresh_by(&event.channel);
        let rules = self.hub.rules(&event.channel);
        let is_open = rules.is_some_and(|rules| !rules.needs_token && !rules.is_user_limited);
        let proxy = self.of_channel(&self.subscribe, &event.channel);
        let Some(proxy) = proxy.filter(|_| is_open && event.token.is_empty()) else {
            return if event.permitted {
                Ok(SubscribeReply {
                    refresh,
                    ..SubscribeReply::default()
                })
            } else {
                Err(ErrorCode::PermissionDenied.into())
            };
        };
        let question = Question {
            channel: Some(&event.channel),
            ..Question::default()
        };
        let question = question.with_data(event.data.as_ref(), proxy.endpoint.is_binary)?;
        let verdict = self.ask::<SubscribeResult>(proxy, Kind::Subscribe, client, question);
        let result = allowed(verdict.await)?.unwrap_or_default();
        let reply = usable(proxy, Kind::Subscribe, result.into_reply())?;
        Ok(SubscribeReply { refresh, ..reply })
    }

    async fn on_publish(
        &self,
        client: &Client,
        event: PublishEvent,
    ) -> Result<PublishReply, Refusal> {
        let Some(proxy) = self.of_channel(&self.publish, &event.channel) else {
            return if event.permitted {
                Ok(PublishReply::AsSent)
            } else {
                Err(ErrorCode::PermissionDenied.into())
            };
        };
        let question = Question {
            channel: Some(&event.channel),
            ..Question::default()
        };
        let question = question.with_data(Some(&event.data), proxy.endpoint.is_binary)?;
        let cause = Cause::Publication(event.trace);
        let verdict = self.ask_for::<PublishResult>(cause, proxy, Kind::Publish, client, question);
        let result = allowed(verdict.await)?.unwrap_or_default();
        usable(proxy, Kind::Publish, result.into_reply())
    }

    async fn on_rpc(&self, client: &Client, call: RpcEvent) -> Result<RpcReply, Refusal> {
        let namespace = call.method.split_once(&self.rpc_boundary);
        let namespace = namespace.map_or("", |(namespace, _)| namespace);
        let proxy = match self.rpc.get(namespace) {
            Some(Some(proxy)) => proxy,
            Some(None) => return Err(ErrorCode::NotAvailable.into()),
            None => return Err(ErrorCode::MethodNotFound.into()),
        };
        let question = Question {
            method: Some(&call.method),
            ..Question::default()
        };
        let question = question.with_data(call.data.as_ref(), proxy.endpoint.is_binary)?;
        let verdict = self.ask::<RpcResult>(proxy, Kind::Rpc, client, question);
        let result = allowed(verdict.await)?.unwrap_or_default();
        usable(proxy, Kind::Rpc, result.into_reply())
    }

    async fn on_refresh(
        &self,
        client: &Client,
        event: RefreshEvent,
    ) -> Result<RefreshReply, Refusal> {
        // A token that no key vouches for is nothing to ask the backend about.
        let Some(proxy) = self.refresh.as_ref().filter(|_| event.token.is_empty()) else {
            return Err(Disconnect::INVALID_TOKEN.into());
        };
        let question = Question::default();
        let verdict = self.ask::<RefreshResult>(proxy, Kind::Refresh, client, question);
        prolonged(proxy, Kind::Refresh, verdict.await)
            .and_then(|reply| reply.ok_or_else(|| Disconnect::EXPIRED.into()))
    }

    async fn on_sub_refresh(
        &self,
        client: &Client,
        event: SubRefreshEvent,
    ) -> Result<RefreshReply, Refusal> {
        let proxy = self.of_channel(&self.sub_refresh, &event.channel);
        let Some(proxy) = proxy.filter(|_| event.token.is_empty()) else {
            return Err(Disconnect::INVALID_TOKEN.into());
        };
        let question = Question {
            channel: Some(&event.channel),
            ..Question::default()
        };
        let verdict = self.ask::<RefreshResult>(proxy, Kind::SubRefresh, client, question);
        prolonged(proxy, Kind::SubRefresh, verdict.await)
            .and_then(|reply| reply.ok_or_else(|| ErrorCode::Expired.into()))
    }
}

/// The result of a question that was allowed; `None` where the backend said nothing.
fn allowed<R>(verdict: Result<Verdict<R>, CallError>) -> Result<Option<R>, Refusal> {
    match verdict {
        Ok(Verdict::Result(result)) => Ok(result),
        Ok(Verdict::Error(error)) => Err(error.into()),
        Ok(Verdict::Disconnect(disconnect)) => Err(disconnect.into()),
        Err(CallError::Busy(most)) => Err(explained(
            ErrorCode::TooManyRequests,
            format!(
                "{most} questions to the application's backend are under way, as many as its proxy's max_in_flight \
                 allows; try again later"
            ),
        )
        .into()),
        Err(_) => Err(ErrorCode::Internal.into()),
    }
}

/// Whether something lives on. `None`: it doesn't. Of errors only temporary ones leave that open.
fn prolonged(
    proxy: &Proxy,
    kind: Kind,
    verdict: Result<Verdict<RefreshResult>, CallError>,
) -> Result<Option<RefreshReply>, Refusal> {
    match allowed(verdict) {
        Ok(None) => Ok(None),
        Ok(Some(result)) => usable(proxy, kind, result.into_reply()),
        Err(Refusal::Error(error)) if !error.temporary => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// A result that can't be used is the backend's fault, and nothing that its clients could do about.
fn usable<T>(proxy: &Proxy, kind: Kind, result: Result<T, String>) -> Result<T, Refusal> {
    result.map_err(|problem| {
        tracing::warn!(
            proxy = proxy.endpoint.name,
            kind = kind.name(),
            url = proxy.endpoint.place,
            problem,
            "the result of the application's backend can't be used"
        );
        ErrorCode::Internal.into()
    })
}

/// The fields that are passed on: the endpoint's own, then what the client says, then what its request had.
fn headers(proxy: &Proxy, client: &Client) -> HeaderMap {
    let endpoint = &proxy.endpoint;
    let request = client.request();
    let mut headers = endpoint.static_headers.clone();
    if let Some(Emulated(emulated)) = request.extensions.get::<Emulated>() {
        for name in &endpoint.emulated_headers {
            if let Some(value) = emulated.get(name) {
                headers.insert(name.clone(), value.clone());
            }
        }
    }
    for name in &endpoint.http_headers {
        if let Some(value) = addresses(name, request) {
            headers.insert(name.clone(), value);
            continue;
        }
        let mut values = request.headers.get_all(name).iter();
        if let Some(first) = values.next() {
            headers.insert(name.clone(), first.clone());
        }
        for further in values {
            headers.append(name.clone(), further.clone());
        }
    }
    headers
}

/// What a field says that is about where the client is: the server's own knowledge, and not what anybody wrote there.
fn addresses(name: &HeaderName, request: &Request) -> Option<HeaderValue> {
    match name.as_str() {
        CLIENT_IP => {
            let address = request.address.map(|address| address.to_string());
            // Where nobody knows, nobody else may say it.
            HeaderValue::from_str(&address.unwrap_or_default()).ok()
        }
        // As each proxy on the way does: what came, and whom it came from.
        "x-forwarded-for" => {
            let mut chain = Vec::new();
            for value in request.headers.get_all(name) {
                chain.extend_from_slice(value.as_bytes());
                chain.extend_from_slice(b", ");
            }
            let from = request.remote?.ip().to_canonical().to_string();
            chain.extend_from_slice(from.as_bytes());
            HeaderValue::from_bytes(&chain).ok()
        }
        _ => None,
    }
}

/// The name of the field that says where the client is, as far as the server knows.
const CLIENT_IP: &str = "tautline-client-ip";

/// The thread that makes the calls.
struct Calls {
    runtime: Handle,
    /// Its loop ends when this is dropped.
    _running: oneshot::Sender<()>,
}

impl Calls {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel::<()>();
        thread::Builder::new()
            .name("backend".into())
            .spawn(move || {
                let _ = runtime.block_on(ended);
            })?;
        Ok(Self {
            runtime: handle,
            _running: running,
        })
    }

    /// Makes a call. When the future is dropped, it ends.
    async fn make<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, CallError>> + Send + 'static,
    ) -> Result<T, CallError> {
        let task = self.runtime.spawn(call);
        let _abort = AbortOnDrop(task.abort_handle());
        let gone = |_| Err(CallError::Unusable("the call was given up".to_owned()));
        task.await.unwrap_or_else(gone)
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use tautline_protocol::message::Error;

    use super::super::endpoint::Endpoint;
    use super::*;
    use crate::config::ProxyOptions;

    #[test]
    fn what_cannot_be_said_now_is_asked_later_and_what_is_said_counts() {
        let options = ProxyOptions {
            endpoint: "http://127.0.0.1:1".into(),
            ..ProxyOptions::default()
        };
        let proxy = Proxy::new(
            Endpoint::new("default", &options).expect("it is fine"),
            None,
            None,
        );
        let prolonged = |verdict| prolonged(&proxy, Kind::Refresh, verdict);
        let error = |temporary| Error {
            code: 1000,
            message: "no".into(),
            temporary,
        };
        let left_open = |answer: Result<_, Refusal>| match answer {
            Err(Refusal::Error(error)) => error.temporary,
            _ => false,
        };
        assert!(left_open(prolonged(Err(CallError::LeftAlone))));
        assert!(left_open(prolonged(Err(CallError::Busy(1)))));
        assert!(left_open(prolonged(Ok(Verdict::Error(error(true))))));
        let lost = || Err(CallError::TimedOut(Duration::from_secs(1)));
        assert!(left_open(prolonged(lost())));
        assert_eq!(prolonged(Ok(Verdict::Error(error(false)))), Ok(None));
        assert_eq!(prolonged(Ok(Verdict::Result(None))), Ok(None));
        let kicked = prolonged(Ok(Verdict::Disconnect(Disconnect::FORCE_DISCONNECT)));
        assert_eq!(kicked, Err(Disconnect::FORCE_DISCONNECT.into()));
        let lives = prolonged(Ok(Verdict::Result(Some(RefreshResult::default()))));
        assert_eq!(lives, Ok(Some(RefreshReply::default())));
    }
}
