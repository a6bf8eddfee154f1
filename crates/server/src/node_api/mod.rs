//! The HTTP side's view of the node: its operations, run by the worker that got the request.
//!
//! What is asked of the hubs is here; [`numbers`] has what is counted and told of all workers, [`ways_in`] how a request
//! becomes a client, [`publishing`] how a publication is followed, [`recent`] what was counted lately, [`identity`] who
//! the node is.

mod identity;
mod numbers;
pub(crate) mod publishing;
mod recent;
mod ways_in;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Body as _;
use tautline_hub::{
    ApiHistory, ApiPresence, ApiPublish, ApiRefresh, ApiSubscribe, Now, PresenceList,
    PublishOutcome, Target,
};
use tautline_protocol::ErrorCode;
use tautline_protocol::message::{
    Disconnect, Error, HistoryResult, Payload, PresenceStatsResult, StreamPosition, Unsubscribe,
};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::identity::NodeIdentity;
pub(crate) use self::numbers::{gather, info};
use self::publishing::probe;
pub(crate) use self::recent::Recent;
use crate::client_address::Seen;
use crate::door::admission::OverLimit;
use crate::drain::Stage;
use crate::embed::NodeHandle;
use crate::events::{DeadEvents, DeadPage};
use crate::glob::Glob;
use crate::http::admin::{Report, Sessions};
use crate::http::api::dead;
use crate::http::counters::HttpCounters;
use crate::http::fields::fields;
use crate::http::line::HttpLine;
use crate::http::metrics::{CallCounters, Snapshot};
use crate::http::node::{History, Node, NodeInfo, Presence};
use crate::http::respond::{self, Reply, ReplyBody};
use crate::http::{RequestBody, Settings};
use crate::reload::{self, ReloadError, Reloaded};
use crate::revocations::{self, Revoke, Revoked};
use crate::telemetry::Delivery;
use crate::trace::{TraceBody, TraceRequest};
use crate::worker::answers::WORTH_IT;
use crate::worker::guests::Guests;
use crate::worker::room;
use crate::worker::thread::Shared;
use crate::worker::{State, Worker};

/// The node, seen from one of its workers.
pub(crate) struct WorkerNode {
    index: u16,
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    guests: Rc<Guests>,
}

impl WorkerNode {
    /// The node as the worker of that index sees it.
    pub(crate) fn new(
        index: u16,
        worker: Rc<Worker>,
        shared: Arc<Shared>,
        guests: Rc<Guests>,
    ) -> Self {
        Self {
            index,
            worker,
            shared,
            guests,
        }
    }

    /// Starts something in the hub, and waits for its callback.
    async fn ask<T: Send + 'static>(
        &self,
        start: impl FnOnce(Now, &mut State, Box<dyn FnOnce(Result<T, Error>) + Send>),
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.worker.turn(|now, state| {
            // Nobody to tell any more is nothing to tell.
            start(now, state, Box::new(|result| drop(answer.send(result))));
        });
        answered
            .await
            .unwrap_or_else(|_| Err(ErrorCode::Internal.into()))
    }

    /// Waits while a worker has far more before it than it has room for, which is so where callers give up before they are
    /// answered, and come again.
    async fn not_overrun(&self) {
        let mut mailboxes = self.shared.mailboxes.iter();
        while let Some(mailbox) = mailboxes.find(|mailbox| mailbox.room().is_overrun()) {
            mailbox.room().freed().await;
        }
    }

    /// Looks at something on every worker.
    async fn gather<T: Send + 'static>(
        &self,
        look: impl Fn(&State) -> T + Send + Sync + 'static,
    ) -> Vec<T> {
        gather(&self.shared, look).await
    }

    /// Starts something in the hub of every worker, and waits for all of their callbacks. The
    /// first failure is the whole call's.
    async fn ask_all(
        &self,
        start: impl Fn(Now, &mut State, Box<dyn FnOnce(Result<(), Error>)>) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let start = Arc::new(start);
        let (answer, mut answers) = mpsc::unbounded_channel();
        for mailbox in &self.shared.mailboxes {
            let (answer, start) = (answer.clone(), Arc::clone(&start));
            mailbox.call(Box::new(move |now, state| {
                start(
                    now,
                    state,
                    Box::new(move |result| drop(answer.send(result))),
                );
            }));
        }
        drop(answer);
        let mut outcome = Ok(());
        while let Some(result) = answers.recv().await {
            outcome = outcome.and(result);
        }
        outcome
    }
}

impl Node for WorkerNode {
    fn hold(&self, response: &mut Response<ReplyBody>, line: &Rc<HttpLine>) {
        let is_shared = response.extensions().get::<respond::Shared>().is_some();
        let Some(body) = response.body_mut().whole_mut().filter(|_| !is_shared) else {
            return;
        };
        // There is nothing to wait for.
        let mut cx = Context::from_waker(Waker::noop());
        if body.size_hint().lower() < WORTH_IT as u64 {
            return;
        }
        if let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *body).poll_frame(&mut cx)
            && let Ok(bytes) = frame.into_data()
        {
            *body = Full::new(self.worker.hold_answer(bytes, line));
        }
    }

    async fn publish(&self, request: ApiPublish) -> Result<Option<StreamPosition>, Error> {
        self.not_overrun().await;
        let outcome = self
            .ask(|now, state, done| {
                let hub = &mut state.hub;
                hub.api_publish(now, request, room::when_taken(done));
            })
            .await?;
        Ok(outcome.position)
    }

    async fn publish_followed(
        &self,
        request: ApiPublish,
        delivery: Delivery,
    ) -> Result<Option<StreamPosition>, Error> {
        self.not_overrun().await;
        let shared = Arc::clone(&self.shared);
        let outcome = self
            .ask(|now, state, done| {
                let done = room::when_taken(done);
                let done = move |result: Result<PublishOutcome, Error>| {
                    // Before anything else of this turn: right behind the publication, in every mailbox.
                    if let Ok(outcome) = &result
                        && !outcome.duplicate
                        && !outcome.stale
                    {
                        let offset = outcome.position.as_ref().map(|position| position.offset);
                        probe(&shared, &delivery, offset);
                    }
                    done(result);
                };
                state.hub.api_publish(now, request, done);
            })
            .await?;
        Ok(outcome.position)
    }

    async fn presence(&self, request: Presence) -> Result<PresenceList, Error> {
        let Presence {
            channel,
            limit,
            cursor,
            sample,
        } = request;
        let request = ApiPresence {
            channel,
            limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            cursor,
            sample,
        };
        self.ask(|now, state, done| state.hub.api_presence(now, request, done))
            .await
    }

    async fn presence_stats(&self, channel: String) -> Result<PresenceStatsResult, Error> {
        self.ask(|now, state, done| state.hub.api_presence_stats(now, &channel, done))
            .await
    }

    async fn history(&self, request: History) -> Result<HistoryResult, Error> {
        let History {
            channel,
            limit,
            since,
            reverse,
        } = request;
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let request = ApiHistory {
            channel,
            limit,
            since,
            reverse,
        };
        self.ask(|now, state, done| state.hub.api_history(now, request, done))
            .await
    }

    async fn history_remove(&self, channel: String) -> Result<(), Error> {
        self.ask(|now, state, done| state.hub.api_history_remove(now, &channel, done))
            .await
    }

    async fn subscribe(&self, target: Target, request: ApiSubscribe) -> Result<(), Error> {
        self.ask_all(move |now, state, done| {
            let State {
                hub, connections, ..
            } = state;
            hub.api_subscribe(now, &target, request.clone(), done, connections);
        })
        .await
    }

    async fn unsubscribe(
        &self,
        target: Target,
        channel: String,
        unsubscribe: Unsubscribe,
    ) -> Result<(), Error> {
        self.ask_all(move |now, state, done| {
            let State {
                hub, connections, ..
            } = state;
            done(hub.api_unsubscribe(now, &target, &channel, &unsubscribe, connections));
        })
        .await
    }

    async fn disconnect(
        &self,
        target: Target,
        spared: Vec<String>,
        disconnect: Disconnect,
    ) -> Result<(), Error> {
        self.ask_all(move |now, state, done| {
            let State {
                hub, connections, ..
            } = state;
            hub.api_disconnect(now, &target, &spared, &disconnect, connections);
            done(Ok(()));
        })
        .await
    }

    async fn refresh(&self, target: Target, request: ApiRefresh) -> Result<(), Error> {
        self.ask_all(move |now, state, done| {
            let State {
                hub, connections, ..
            } = state;
            done(hub.api_refresh(now, &target, &request, connections));
        })
        .await
    }

    async fn revoke(&self, what: Revoke) -> Result<Revoked, Error> {
        revocations::revoke(&self.shared, what).await
    }

    async fn channels(&self, pattern: Option<Glob>) -> Result<BTreeMap<Arc<str>, u64>, Error> {
        let mut all = BTreeMap::new();
        let parts = self.gather(move |state| {
            let sizes = state.hub.channel_sizes();
            let sizes = sizes.filter(|(name, _)| {
                let pattern = pattern.as_ref();
                pattern.is_none_or(|pattern| pattern.matches(name))
            });
            sizes
                .map(|(name, size)| (name.clone(), size as u64))
                .collect::<Vec<_>>()
        });
        for (name, size) in parts.await.into_iter().flatten() {
            *all.entry(name).or_insert(0) += size;
        }
        Ok(all)
    }

    async fn rpc(&self, method: String, params: Bytes) -> Result<Option<Payload>, Error> {
        let live = self.worker.live();
        let Some(calls) = &live.api_calls else {
            return Err(ErrorCode::MethodNotFound.into());
        };
        let node = NodeHandle::new(Arc::clone(&self.shared));
        let params = Some(params).filter(|params| !params.is_empty());
        calls.answer(node, method, params).await
    }

    async fn dead_events(
        &self,
        which: DeadEvents,
        from: u64,
        most: usize,
    ) -> Result<DeadPage, Error> {
        let events = self.shared.events();
        let events = events.ok_or_else(dead::not_available)?;
        let page = events.dead(which, from, most).await;
        page.map_err(|error| dead::failed(&error))
    }

    async fn settle_dead_events(&self, which: DeadEvents, again: bool) -> Result<usize, Error> {
        let events = self.shared.events();
        let events = events.ok_or_else(dead::not_available)?;
        let count = events.settle_dead(which, again).await;
        count.map_err(|error| dead::failed(&error))
    }

    fn admin_sessions(&self) -> Option<Arc<Sessions>> {
        Some(Arc::clone(&self.shared.admins))
    }

    fn is_ready(&self) -> bool {
        *self.shared.stage.borrow() == Stage::Serving
    }

    async fn trace(&self, request: &TraceRequest) -> Option<TraceBody> {
        let shared = &self.shared;
        let stage = shared.stage.clone();
        let (mailboxes, admission) = (&shared.mailboxes, &shared.admission);
        let begun = shared.traces.begin(request, mailboxes, admission, stage);
        begun.await
    }

    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        reload::reload(&self.shared, None).await
    }

    fn settings(&self) -> Option<Arc<Settings>> {
        Some(Arc::clone(&self.worker.live().config.http))
    }

    fn address_of(&self, line: &HttpLine, headers: &HeaderMap) -> Option<IpAddr> {
        let from = line.from()?.ip();
        let admission = &self.shared.admission;
        Some(admission.client_address(from, fields(headers)))
    }

    fn seen(&self, line: &HttpLine, headers: &HeaderMap) -> Option<Seen> {
        let from = line.from()?.ip();
        Some(self.shared.admission.rules().trust.seen(from, headers))
    }

    fn refuse_key(&self, address: Option<IpAddr>) -> Option<respond::Response> {
        let attempt = self.shared.admission.key_attempt(address?);
        attempt.err().map(OverLimit::response)
    }

    fn note_key(&self, address: Option<IpAddr>, is_right: bool) {
        if let Some(address) = address {
            self.shared.admission.key_tried(address, is_right);
        }
    }

    fn count_call(&self, count: impl FnOnce(&mut CallCounters)) {
        self.worker.count_call(count);
    }

    fn count_http(&self, count: impl FnOnce(&mut HttpCounters)) {
        self.worker.count_http(count);
    }

    async fn snapshot(&self) -> Snapshot {
        self.count().await
    }

    async fn report(&self) -> Report {
        self.describe().await
    }

    async fn info(&self) -> Result<Vec<NodeInfo>, Error> {
        Ok(vec![info(&self.shared).await])
    }

    async fn enter(
        &self,
        request: Request<RequestBody>,
        line: &Rc<HttpLine>,
    ) -> Result<Reply, Request<RequestBody>> {
        self.enter_door(request, line).await
    }

    fn opens_websockets_at(&self, path: &str) -> bool {
        self.worker.live().websocket.caller(path).is_some()
    }

    fn open_websocket(
        &self,
        request: Request<RequestBody>,
        line: &Rc<HttpLine>,
    ) -> Option<Response<Full<Bytes>>> {
        self.upgrade(request, line)
    }
}
