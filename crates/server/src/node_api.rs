//! The HTTP side's view of the node: its operations, run by the worker that got the request.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use tautline_hub::{ApiHistory, ApiPublish, Entropy, Hub, Now};
use tautline_protocol::message::{
    Error, HistoryResult, PresenceResult, PresenceStatsResult, StreamPosition,
};
use tokio::sync::{mpsc, oneshot};

use crate::http::node::{History, Node, NodeInfo, Publish};
use crate::worker::thread::Shared;
use crate::worker::{State, Worker};

/// Who this node is.
#[derive(Debug)]
pub(crate) struct NodeIdentity {
    /// Unique among all that were ever started.
    uid: String,
    /// For people.
    name: String,
}

impl NodeIdentity {
    pub(crate) fn new(name: String, entropy: &mut dyn Entropy) -> Self {
        let mut uid = [0; 16];
        entropy.fill(&mut uid);
        Self { uid: format!("{:032x}", u128::from_be_bytes(uid)), name }
    }
}

/// The node, seen from one of its workers.
pub(crate) struct WorkerNode {
    worker: Rc<Worker>,
    shared: Arc<Shared>,
}

impl WorkerNode {
    pub(crate) fn new(worker: Rc<Worker>, shared: Arc<Shared>) -> Self {
        Self { worker, shared }
    }

    /// Starts something in the hub, and waits for its callback.
    async fn ask<T: 'static>(
        &self,
        start: impl FnOnce(Now, &mut State, Box<dyn FnOnce(Result<T, Error>)>),
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.worker.turn(|now, state| {
            // Nobody to tell any more is nothing to tell.
            start(now, state, Box::new(|result| drop(answer.send(result))));
        });
        answered.await.unwrap_or_else(|_| Err(tautline_protocol::ErrorCode::Internal.into()))
    }
}

impl Node for WorkerNode {
    async fn publish(&self, request: Publish) -> Result<Option<StreamPosition>, Error> {
        let Publish { channel, data, tags, idempotency_key, skip_history } = request;
        let idempotency_key = Some(idempotency_key).filter(|key| !key.is_empty());
        let request = ApiPublish { channel, data, tags, idempotency_key, skip_history };
        let outcome = self.ask(|now, state, done| state.hub.api_publish(now, request, done)).await?;
        Ok(outcome.position)
    }

    async fn presence(&self, channel: String) -> Result<PresenceResult, Error> {
        self.ask(|now, state, done| state.hub.api_presence(now, &channel, done)).await
    }

    async fn presence_stats(&self, channel: String) -> Result<PresenceStatsResult, Error> {
        self.ask(|now, state, done| state.hub.api_presence_stats(now, &channel, done)).await
    }

    async fn history(&self, request: History) -> Result<HistoryResult, Error> {
        let History { channel, limit, since, reverse } = request;
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let request = ApiHistory { channel, limit, since, reverse };
        self.ask(|now, state, done| state.hub.api_history(now, request, done)).await
    }

    async fn info(&self) -> Result<Vec<NodeInfo>, Error> {
        let (answer, mut answers) = mpsc::unbounded_channel();
        for mailbox in &self.shared.mailboxes {
            let answer = answer.clone();
            mailbox.call(Box::new(move |_, state| drop(answer.send(Load::of(&state.hub)))));
        }
        drop(answer);
        let mut load = Load::default();
        while let Some(part) = answers.recv().await {
            load.add(part);
        }
        let NodeIdentity { uid, name } = &self.shared.identity;
        Ok(vec![NodeInfo {
            uid: uid.clone(),
            name: name.clone(),
            version: crate::VERSION.to_owned(),
            num_clients: load.clients,
            num_users: load.users.len() as u64,
            num_channels: load.channels.len() as u64,
            num_subs: load.subscriptions,
            uptime: self.shared.start.elapsed().as_secs(),
        }])
    }
}

/// What a worker carries, or several together: users and channels may be on more than one.
#[derive(Default)]
struct Load {
    clients: u64,
    subscriptions: u64,
    users: HashSet<Arc<str>>,
    channels: HashSet<Arc<str>>,
}

impl Load {
    fn of(hub: &Hub) -> Self {
        let stats = hub.stats();
        Self {
            clients: stats.clients as u64,
            subscriptions: stats.subscriptions as u64,
            users: hub.users().cloned().collect(),
            channels: hub.channels().cloned().collect(),
        }
    }

    fn add(&mut self, other: Self) {
        self.clients += other.clients;
        self.subscriptions += other.subscriptions;
        self.users.extend(other.users);
        self.channels.extend(other.channels);
    }
}
