//! What an application does with a running node.

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tautline_hub::{
    ApiHistory, ApiPresence, ApiPublish, ApiRefresh, ApiSubscribe, Now, PresenceList,
    PublishOutcome, Target,
};
use tautline_protocol::message::{Error, HistoryResult, PresenceStatsResult, Unsubscribe};
use tautline_protocol::{Disconnect, ErrorCode};
use tokio::sync::{oneshot, watch};

use super::mount::WebSocketService;
use crate::config::Config;
use crate::drain::Stage;
use crate::events::{DeadEvent, DeadEvents};
use crate::http::node::NodeInfo;
use crate::node_api;
use crate::reload::{self, ReloadError, Reloaded};
use crate::revocations::{self, Revoke, Revoked};
use crate::worker::State;
use crate::worker::room;
use crate::worker::thread::Shared;

/// A running node, from anywhere in the process: cheap to clone, for any thread and any runtime.
///
/// What is asked for has begun when a method returns, and happens whether or not the future is awaited to
/// its end. Errors are the protocol's. These may come of each method, besides what it says itself: 102 for a
/// namespace that isn't configured, 107 for a name that can't be a channel's, 100 (temporary) for an
/// engine in trouble and for a node that has ended, 111 (temporary) for too many requests at a time.
///
/// Publications of one thread into one channel keep their order.
#[derive(Clone)]
pub struct NodeHandle {
    pub(super) shared: Arc<Shared>,
}

impl NodeHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Publishes into a channel. Permissions are for clients: nobody asks for them here. The future resolves once workers take
    /// what is published as fast as it comes: who awaits it doesn't get ahead of them.
    ///
    /// # Errors
    ///
    /// 107 for a payload that isn't what the namespace takes, or an idempotency key that is too long.
    pub fn publish(
        &self,
        request: ApiPublish,
    ) -> impl Future<Output = Result<PublishOutcome, Error>> + Send + use<> {
        let worker = self.worker_of(&request.channel);
        self.ask(worker, move |now, state, done| {
            let done = room::when_taken(done);
            state.hub.api_publish(now, request, done);
        })
    }

    /// Events that the application's backend would not have, or did not take in `events.retry_for`: the oldest of them,
    /// `most` at the most. None where there are no events.
    ///
    /// # Errors
    ///
    /// When the node has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn dead_events(&self, most: usize) -> io::Result<Vec<DeadEvent>> {
        match self.shared.events() {
            Some(events) => Ok(events.dead(DeadEvents::All, 0, most).await?.events),
            None => Ok(Vec::new()),
        }
    }

    /// Has dead letters sent once more. Returns how many; those which there are not are left out.
    ///
    /// # Errors
    ///
    /// When the disk or the queue has no room for them, or the node has ended.
    ///
    /// # Cancel safety
    ///
    /// It happens whether or not the future is awaited to its end.
    pub async fn redeliver_events(&self, which: DeadEvents) -> io::Result<usize> {
        match self.shared.events() {
            Some(events) => events.settle_dead(which, true).await,
            None => Ok(0),
        }
    }

    /// Throws dead letters away. Returns how many; those which there are not are left out.
    ///
    /// ```no_run
    /// # async fn run(node: tautline::NodeHandle) -> std::io::Result<()> {
    /// use tautline::DeadEvents;
    ///
    /// let dead = node.dead_events(100).await?;
    /// let unwanted = dead.iter().filter(|letter| letter.error.contains("422"));
    /// // Of which there may be none: nothing is thrown away then.
    /// node.drop_dead_events(DeadEvents::these(unwanted.map(|letter| letter.id()))).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When the list can't be written, or the node has ended.
    ///
    /// # Cancel safety
    ///
    /// It happens whether or not the future is awaited to its end.
    pub async fn drop_dead_events(&self, which: DeadEvents) -> io::Result<usize> {
        match self.shared.events() {
            Some(events) => events.settle_dead(which, false).await,
            None => Ok(0),
        }
    }

    /// Publishes the same into several channels (that of `request` counts for nothing), and tells for each how
    /// it went, in their order.
    pub fn broadcast(
        &self,
        channels: Vec<String>,
        request: &ApiPublish,
    ) -> impl Future<Output = Vec<Result<PublishOutcome, Error>>> + Send + use<> {
        let publishes: Vec<_> = channels
            .into_iter()
            .map(|channel| {
                self.publish(ApiPublish {
                    channel,
                    ..request.clone()
                })
            })
            .collect();
        async move {
            let mut outcomes = Vec::with_capacity(publishes.len());
            for publish in publishes {
                outcomes.push(publish.await);
            }
            outcomes
        }
    }

    /// Who is in a channel, or some of them.
    ///
    /// # Errors
    ///
    /// 108 where the namespace has no presence; 106 if all are wanted and there are too many; 107 for a
    /// limit of 0, and for a cursor with `sample`.
    pub fn presence(
        &self,
        request: ApiPresence,
    ) -> impl Future<Output = Result<PresenceList, Error>> + Send + use<> {
        let worker = self.worker_of(&request.channel);
        self.ask(worker, move |now, state, done| {
            state.hub.api_presence(now, request, done);
        })
    }

    /// How many are in a channel.
    ///
    /// # Errors
    ///
    /// 108 where the namespace has no presence.
    pub fn presence_stats(
        &self,
        channel: &str,
    ) -> impl Future<Output = Result<PresenceStatsResult, Error>> + Send + use<> {
        let channel = channel.to_owned();
        self.ask(self.worker_of(&channel), move |now, state, done| {
            state.hub.api_presence_stats(now, &channel, done);
        })
    }

    /// Reads a channel's history.
    ///
    /// # Errors
    ///
    /// 108 where the namespace keeps none; 112 for a position of another epoch; 107 for reading back from
    /// offset 0.
    pub fn history(
        &self,
        request: ApiHistory,
    ) -> impl Future<Output = Result<HistoryResult, Error>> + Send + use<> {
        let worker = self.worker_of(&request.channel);
        self.ask(worker, move |now, state, done| {
            state.hub.api_history(now, request, done);
        })
    }

    /// Removes what is kept of a channel's publications. Its epoch and offsets go on.
    ///
    /// # Errors
    ///
    /// 108 where the namespace keeps none.
    pub fn history_remove(
        &self,
        channel: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let channel = channel.to_owned();
        self.ask(self.worker_of(&channel), move |now, state, done| {
            state.hub.api_history_remove(now, &channel, done);
        })
    }

    /// Subscribes connections to a channel; those which are subscribed already stay as they are. That
    /// there are none is no error.
    ///
    /// # Errors
    ///
    /// 107 for `info` or `data` that aren't JSON; 110 for an end in the past.
    pub fn subscribe(
        &self,
        target: Target,
        request: ApiSubscribe,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        all(self.ask_all(move |now, state, done| {
            let (request, out) = (request.clone(), &mut state.connections);
            state.hub.api_subscribe(now, &target, request, done, out);
        }))
    }

    /// Ends the subscriptions of connections to a channel, and tells the clients why
    /// ([`UnsubscribeCode`](tautline_protocol::UnsubscribeCode)`::into`).
    ///
    /// # Errors
    ///
    /// None but those of all methods.
    pub fn unsubscribe(
        &self,
        target: Target,
        channel: &str,
        unsubscribe: Unsubscribe,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let channel = channel.to_owned();
        all(self.ask_all(move |now, state, done| {
            let (hub, out) = (&mut state.hub, &mut state.connections);
            done(hub.api_unsubscribe(now, &target, &channel, &unsubscribe, out));
        }))
    }

    /// Ends connections, but for those in `spared`, which has ids of connections.
    ///
    /// # Errors
    ///
    /// None but those of all methods.
    pub fn disconnect(
        &self,
        target: Target,
        spared: Vec<String>,
        disconnect: Disconnect,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        all(self.ask_all(move |now, state, done| {
            let (hub, out) = (&mut state.hub, &mut state.connections);
            hub.api_disconnect(now, &target, &spared, &disconnect, out);
            done(Ok(()));
        }))
    }

    /// Gives connections another end, or none.
    ///
    /// # Errors
    ///
    /// 107 for an `info` that isn't JSON.
    pub fn refresh(
        &self,
        target: Target,
        request: ApiRefresh,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        all(self.ask_all(move |now, state, done| {
            let (hub, out) = (&mut state.hub, &mut state.connections);
            done(hub.api_refresh(now, &target, &request, out));
        }))
    }

    /// Has tokens count no more, on all workers at once, and ends what is here by them: connections with 3005, subscriptions
    /// with 2501, after which clients ask the application for other tokens.
    ///
    /// It counts until `expire_at`, and outlives the process where `revocation.directory` is set.
    ///
    /// ```no_run
    /// # async fn run(node: tautline::NodeHandle) -> Result<(), Box<dyn std::error::Error>> {
    /// let revoke = tautline::Revoke::User {
    ///     user: "42".into(),
    ///     issued_before: None,
    ///     expire_at: None,
    /// };
    /// let revoked = node.revoke(revoke).await.map_err(|error| error.message)?;
    /// println!("{} connections ended", revoked.connections);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// 107 for an id, user or channel that is empty or has more than 1,024 bytes; 110 for an `expire_at` that is over; 106 if
    /// `revocation.max_entries` are known; 100 if it can't be written down: it counts until the node ends.
    ///
    /// # Cancel safety
    ///
    /// It happens whether or not the future is awaited to its end.
    pub fn revoke(
        &self,
        what: Revoke,
    ) -> impl Future<Output = Result<Revoked, Error>> + Send + use<> {
        revocations::revoke(&self.shared, what)
    }

    /// What the node carries.
    pub fn info(&self) -> impl Future<Output = NodeInfo> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move { node_api::info(&shared).await }
    }

    /// How many sessions there are, those that have yet to authenticate too.
    pub(crate) fn sessions(&self) -> impl Future<Output = usize> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            let counts = node_api::gather(&shared, |state| state.hub.session_count());
            counts.await.into_iter().sum()
        }
    }

    /// How many clients are to be told to come back elsewhere: those with a session, and those of tunnels.
    pub(crate) fn clients(&self) -> impl Future<Output = usize> + Send + use<> {
        let (sessions, config) = (self.sessions(), self.config());
        async move {
            let tunnels = config.tunnels.numbers();
            let tunnels: u64 = tunnels.iter().map(|tunnel| tunnel.open).sum();
            sessions.await + usize::try_from(tunnels).unwrap_or(usize::MAX)
        }
    }

    /// How many sessions are still to be told that they are to come back elsewhere.
    pub(crate) fn undrained(&self) -> impl Future<Output = usize> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            let counts = node_api::gather(&shared, |state| state.hub.undrained());
            counts.await.into_iter().sum()
        }
    }

    /// How far the node is on its way out.
    pub(crate) fn stage(&self) -> watch::Receiver<Stage> {
        self.shared.stage.clone()
    }

    /// Reads the configuration again from where it [came from](crate::NodeBuilder::reload_from), and goes by it. What
    /// has changed is told, and logged; options that need a restart keep their values, and are told, too.
    ///
    /// A connection that is there stays, with all it is subscribed to; the chapter about the configuration has
    /// what each kind of option does to it. No command goes by a part of the old and a part of the new.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]: there is nothing to read from, or it can't be used. Then nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// What was begun is done, whether or not anybody waits for it.
    pub fn reload(&self) -> impl Future<Output = Result<Reloaded, ReloadError>> + Send + use<> {
        reload::reload(&self.shared, None)
    }

    /// The same with a configuration that is there already.
    ///
    /// # Errors
    ///
    /// [`ReloadError`], if it can't be used here. Then nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// As of [`reload`](Self::reload).
    pub fn reconfigure(
        &self,
        config: Config,
    ) -> impl Future<Output = Result<Reloaded, ReloadError>> + Send + use<> {
        reload::reload(&self.shared, Some(config))
    }

    /// What the node goes by.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.shared.live.borrow().config)
    }

    /// The WebSocket endpoint as a service, for an HTTP server of the application's.
    pub fn websocket(&self) -> WebSocketService {
        WebSocketService::new(self.clone())
    }

    /// All that is asked of a channel is asked of one worker, so that it keeps its order.
    fn worker_of(&self, channel: &str) -> usize {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let workers = self.shared.mailboxes.len() as u64;
        (hasher.hash_one(channel) % workers) as usize
    }

    fn ask<T: Send + 'static>(
        &self,
        worker: usize,
        start: impl FnOnce(Now, &mut State, Done<T>) + Send + 'static,
    ) -> Answered<T> {
        let (answer, answered) = oneshot::channel();
        self.shared.mailboxes[worker].call(Box::new(move |now, state| {
            // Nobody to tell any more is nothing to tell.
            start(now, state, Box::new(|result| drop(answer.send(result))));
        }));
        Answered(answered)
    }

    /// Asks every worker; the first failure is that of all.
    fn ask_all(
        &self,
        start: impl Fn(Now, &mut State, Done<()>) + Clone + Send + 'static,
    ) -> Vec<Answered<()>> {
        (0..self.shared.mailboxes.len())
            .map(|worker| self.ask(worker, start.clone()))
            .collect()
    }
}

/// The result of what a worker was asked for.
struct Answered<T>(oneshot::Receiver<Result<T, Error>>);

impl<T> Future for Answered<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A worker that has ended drops what it is asked.
        let gone = |_| Err(ErrorCode::Internal.into());
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|answer| answer.unwrap_or_else(gone))
    }
}

/// The results of all; the first failure is that of all.
async fn all<T>(answered: Vec<Answered<T>>) -> Result<(), Error> {
    let mut outcome = Ok(());
    for answer in answered {
        outcome = outcome.and(answer.await.map(drop));
    }
    outcome
}

/// Takes the result of what a worker was asked for.
type Done<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle")
            .field("workers", &self.shared.mailboxes.len())
            .finish_non_exhaustive()
    }
}
