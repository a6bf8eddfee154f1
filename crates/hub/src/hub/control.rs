//! What an operator's backend does to connections: ends them, subscribes and unsubscribes them,
//! prolongs them.
//!
//! A call is about the connections of one hub; whoever runs several hubs asks each of them. That
//! nobody was found is no error: a user who isn't here may be elsewhere, or come later.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tautline_auth::{Overrides, SubscriptionOptions};
use tautline_protocol::message::{
    ClientInfo, Error, Payload, RefreshResult, StreamPosition, Subscribe, SubscribeRequest,
    Unsubscribe,
};
use tautline_protocol::{Disconnect, ErrorCode, Push, Reply, json};

use super::api::MAX_PENDING_API;
use super::channel_name::{ChannelName, explained};
use super::connect::{deadline, time_to_live};
use super::dispatch::Refusal;
use super::subscribe::Grant;
use super::waiting::{Done, Subscribing, Waiting};
use super::wheel::Deadline;
use super::{Hub, SessionId};
use crate::Now;
use crate::engine::Outcome;
use crate::outbox::Outbox;

/// Which connections a call is about: those that are all of what is set. With nothing set, none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// User id; empty for anonymous connections. `None` for any user, where `client` is set.
    pub user: Option<String>,
    /// Id of the connection.
    pub client: Option<String>,
    /// What the client of the connection was told when it connected
    /// ([`SessionAddress`](crate::SessionAddress)); those which carry messages both ways have none.
    pub session: Option<String>,
}

/// A subscription that the operator makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiSubscribe {
    /// The channel.
    pub channel: String,
    /// What others in the channel are shown about the subscriber: one JSON value.
    pub info: Option<Payload>,
    /// For the client, which gets it with the news: one JSON value.
    pub data: Option<Payload>,
    /// Position from which on the client gets what it has missed.
    pub recover_since: Option<StreamPosition>,
    /// When the subscription ends, in Unix seconds; `None` for never. Its connection then ends too,
    /// with 3006: the client can't subscribe again by itself.
    pub expire_at: Option<u64>,
    /// Options of the namespace that are different for this subscription.
    pub overrides: Overrides,
}

/// How long a connection lives on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiRefresh {
    /// Not at all: it is closed with 3005.
    pub expired: bool,
    /// Until then, in Unix seconds; `None` for ever. A time that is over is like `expired`.
    pub expire_at: Option<u64>,
    /// What others are shown about the connection from now on: one JSON value. `None` leaves it.
    pub info: Option<Payload>,
}

/// A subscription of an operator's that waits for the engine.
pub(super) struct Pushed {
    subscribing: Subscribing,
    call: Rc<Call>,
}

/// Answers a call once all that was begun for it has ended: when the last of those who hold it lets
/// go.
struct Call {
    failure: RefCell<Option<Error>>,
    done: RefCell<Option<Done<()>>>,
}

impl Drop for Call {
    fn drop(&mut self) {
        let result = self.failure.take().map_or(Ok(()), Err);
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

impl Hub {
    /// Ends connections, and tells the clients why. Those in `spared`, which has ids of connections,
    /// stay.
    pub fn api_disconnect<O: Outbox>(
        &mut self,
        now: Now,
        target: &Target,
        spared: &[String],
        disconnect: &Disconnect,
        out: &mut O,
    ) {
        for id in self.targets(target, out) {
            let connected = self.sessions.connected(id);
            let client = connected.map(|connected| &*connected.info.client);
            if client.is_some_and(|client| !spared.iter().any(|spared| spared == client)) {
                self.end(now, id, disconnect, out);
            }
        }
        self.settle(now, out);
    }

    /// Ends the subscriptions to a channel, whoever made them, and tells the clients. A subscription
    /// that is about to begin is ended once it has.
    ///
    /// # Errors
    ///
    /// 102 for an unknown namespace, 107 for a bad channel name.
    pub fn api_unsubscribe<O: Outbox>(
        &mut self,
        now: Now,
        target: &Target,
        channel: &str,
        unsubscribe: &Unsubscribe,
        out: &mut O,
    ) -> Result<(), Error> {
        ChannelName::parse(&self.config, channel)?;
        for id in self.targets(target, out) {
            // Looked up each time: with its last subscriber a channel is gone.
            let Some(index) = self.channels.find(channel) else {
                break;
            };
            self.end_for_operator(now, id, index, unsubscribe, out);
        }
        self.settle(now, out);
        Ok(())
    }

    /// Ends a session's subscription, if there is one, or has it end as soon as it has begun.
    pub(super) fn end_for_operator<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        index: u32,
        unsubscribe: &Unsubscribe,
        out: &mut O,
    ) {
        let connected = self.sessions.connected(id);
        if connected.is_none_or(|connected| connected.subscription(index).is_none()) {
            return;
        }
        match self.beginning(id, index) {
            Some(subscribing) => subscribing.ended = Some(unsubscribe.clone()),
            None => self.push_unsubscribe(now, id, index, unsubscribe.clone(), out),
        }
    }

    /// Gives connections another end, or none, and tells the clients.
    ///
    /// # Errors
    ///
    /// 107 for an `info` that isn't JSON.
    pub fn api_refresh<O: Outbox>(
        &mut self,
        now: Now,
        target: &Target,
        request: &ApiRefresh,
        out: &mut O,
    ) -> Result<(), Error> {
        check_json("info", request.info.as_ref())?;
        let ttl = time_to_live(now, request.expire_at)
            .ok()
            .filter(|_| !request.expired);
        let grace = self.config.client.expired_close_delay;
        for id in self.targets(target, out) {
            let Some(ttl) = ttl else {
                self.end(now, id, &Disconnect::EXPIRED, out);
                continue;
            };
            if let Some(info) = &request.info {
                self.change_info(now, id, info);
            }
            if let Some(connected) = self.sessions.connected_mut(id) {
                connected.expires_at = ttl.map(|ttl| Deadline::at(deadline(now, ttl, grace)));
            }
            let session = self.sessions.get_mut(id);
            match session.and_then(|session| session.waiting.as_deref_mut()) {
                // The client has no connection yet that could be refreshed: it begins with this end.
                Some(Waiting::Connect(connecting)) => connecting.result.ttl = ttl,
                _ => self.send(id, &Reply::Push(Push::Refresh(RefreshResult { ttl })), out),
            }
            self.arm(id);
        }
        self.settle(now, out);
        Ok(())
    }

    /// Subscribes connections to a channel, and tells the clients. Those which are subscribed already
    /// stay as they are; those with as many channels as they may have are closed with 3505.
    ///
    /// # Errors
    ///
    /// To `done`, once all subscriptions have begun: 102 for an unknown namespace; 107 for a bad channel
    /// name, or for `info` or `data` that aren't JSON; 110 for an end in the past; 100 for an engine in
    /// trouble, 111 if too many requests wait for one.
    pub fn api_subscribe<O: Outbox>(
        &mut self,
        now: Now,
        target: &Target,
        request: ApiSubscribe,
        done: impl FnOnce(Result<(), Error>) + 'static,
        out: &mut O,
    ) {
        // Held until the end of this method, whoever else holds it.
        let call = Rc::new(Call {
            failure: RefCell::default(),
            done: RefCell::new(Some(Box::new(done))),
        });
        if let Err(error) = self.subscribe_targets(now, target, request, &call, out) {
            call.failure.replace(Some(error));
        }
        self.settle(now, out);
    }

    fn subscribe_targets<O: Outbox>(
        &mut self,
        now: Now,
        target: &Target,
        request: ApiSubscribe,
        call: &Rc<Call>,
        out: &mut O,
    ) -> Result<(), Error> {
        let config = Arc::clone(&self.config);
        let name = ChannelName::parse(&config, &request.channel)?;
        check_json("info", request.info.as_ref())?;
        check_json("data", request.data.as_ref())?;
        let ttl = time_to_live(now, request.expire_at)?;
        let options = SubscriptionOptions {
            info: request.info.map(Into::into),
            data: request.data.map(Into::into),
            overrides: request.overrides,
            ..SubscriptionOptions::default()
        };
        let since = request.recover_since.as_ref();
        let command = SubscribeRequest {
            channel: Cow::Borrowed(name.full),
            recover: since.is_some(),
            recoverable: since.is_some(),
            epoch: since.map_or(Cow::Borrowed(""), |since| Cow::Borrowed(&*since.epoch)),
            offset: since.map_or(0, |since| since.offset),
            ..SubscribeRequest::default()
        };
        for id in self.targets(target, out) {
            let session = self.sessions.get(id);
            let waiting = session.and_then(|session| session.waiting.as_deref());
            if let Some(Waiting::Connect(_)) = waiting {
                // Its client knows of no connection yet: it counts as coming after this call.
                continue;
            }
            let Some(connected) = self.sessions.connected(id) else {
                continue;
            };
            let known = self.channels.find(name.full);
            if known.is_some_and(|index| connected.subscription(index).is_some()) {
                continue;
            }
            if !self.allows_channels(connected.subscriptions.len() + 1) {
                self.end(now, id, &Disconnect::CHANNEL_LIMIT, out);
                continue;
            }
            if self.pushed.len() >= MAX_PENDING_API {
                return Err(self.too_many_calls());
            }
            let info = connected.info.clone();
            let capabilities = connected.capabilities().cloned();
            let grant = Grant {
                ttl,
                options: options.clone(),
                ..Grant::default()
            };
            let capabilities = capabilities.as_deref();
            let plan = match self.plan(&command, &name, &info, capabilities, grant, true) {
                Ok(plan) => plan,
                Err(Refusal::Error(error)) => {
                    call.failure.replace(Some(error));
                    continue;
                }
                Err(Refusal::Disconnect(_)) => continue,
            };
            let subscribing = self.begin_plan(now, id, 0, &command, &info, plan);
            if subscribing.outstanding == 0 {
                self.finish_pushed(now, id, subscribing, call, out);
            } else {
                let pushed = Pushed {
                    call: Rc::clone(call),
                    subscribing,
                };
                self.pushed.insert((id, pushed.subscribing.channel), pushed);
            }
        }
        Ok(())
    }

    /// One of the operations has ended that a subscription of an operator's waits for.
    pub(super) fn on_pushed_outcome<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        channel: u32,
        outcome: Outcome,
        out: &mut O,
    ) {
        let Some(pushed) = self.pushed.get_mut(&(id, channel)) else {
            return;
        };
        pushed.subscribing.note(outcome);
        if pushed.subscribing.outstanding > 0 {
            return;
        }
        if let Some(Pushed { subscribing, call }) = self.pushed.remove(&(id, channel)) {
            self.finish_pushed(now, id, subscribing, &call, out);
        }
    }

    /// Everything is answered: the subscription begins, or comes to nothing.
    fn finish_pushed<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        mut subscribing: Subscribing,
        call: &Call,
        out: &mut O,
    ) {
        let index = subscribing.channel;
        let ended = subscribing.ended.take();
        let name = self.channels.get(index).map(|channel| channel.name.clone());
        let begun = self.begin_subscription(now, id, subscribing, out);
        let (name, wants, result) = match (name, begun) {
            (Some(name), Ok((_, wants, result))) => (name, wants, result),
            (_, begun) => {
                self.drop_subscription(now, id, index);
                let error = match begun {
                    Err(Refusal::Error(error)) => error,
                    _ => ErrorCode::Internal.into(),
                };
                call.failure.replace(Some(error));
                return;
            }
        };
        let subscribe = Subscribe {
            recoverable: result.recoverable,
            positioned: result.positioned,
            position: StreamPosition {
                offset: result.offset,
                epoch: result.epoch,
            },
            data: result.data,
        };
        let push = Push::Subscribe(name.clone(), subscribe);
        self.send(id, &Reply::Push(push), out);
        for publication in result.publications {
            let push = Push::Publication(name.clone(), publication);
            self.send(id, &Reply::Push(push), out);
        }
        self.announce(now, id, index, wants);
        if let Some(ended) = ended {
            self.push_unsubscribe(now, id, index, ended, out);
        }
        self.arm(id);
    }

    /// The connected sessions that are meant.
    fn targets<O: Outbox>(&self, target: &Target, out: &O) -> Vec<SessionId> {
        let Target {
            user,
            client,
            session,
        } = target;
        let mut found = match (client, user) {
            (Some(client), user) => {
                let id = self.clients.get(&**client).copied();
                let id = id.filter(|id| {
                    let connected = self.sessions.connected(*id);
                    let is_theirs = |user: &String| {
                        connected.is_some_and(|connected| **user == *connected.info.user)
                    };
                    user.as_ref().is_none_or(is_theirs)
                });
                id.into_iter().collect()
            }
            (None, Some(user)) => self.users.sessions_of(user, &self.sessions),
            (None, None) => Vec::new(),
        };
        if let Some(session) = session {
            found.retain(|id| {
                let address = out.address(*id);
                address.is_some_and(|address| *address.session == **session)
            });
        }
        found
    }

    /// The subscription of a session to a channel, if it is about to begin.
    pub(super) fn beginning(&mut self, id: SessionId, channel: u32) -> Option<&mut Subscribing> {
        if let Some(pushed) = self.pushed.get_mut(&(id, channel)) {
            return Some(&mut pushed.subscribing);
        }
        let session = self.sessions.get_mut(id)?;
        session.waiting.as_deref_mut()?.subscribing(channel)
    }

    /// Shows a connection differently from now on, in the presence of its channels too.
    pub(super) fn change_info(&mut self, now: Now, id: SessionId, conn_info: &Payload) {
        let Some(connected) = self.sessions.connected_mut(id) else {
            return;
        };
        let change = |info: &mut Arc<ClientInfo>| {
            *info = Arc::new(ClientInfo {
                conn_info: Some(conn_info.clone()),
                ..(**info).clone()
            });
        };
        change(&mut connected.info);
        for subscription in &mut connected.subscriptions {
            let extra = subscription.extra.as_deref_mut();
            if let Some(info) = extra.and_then(|extra| extra.info.as_mut()) {
                change(info);
            }
        }
        let listed = connected.subscriptions.iter();
        let listed = listed.filter(|subscription| subscription.in_presence);
        let listed: Vec<_> = listed
            .map(|subscription| {
                let channel = subscription.channel;
                (channel, connected.info_in(Some(channel)).clone())
            })
            .collect();
        for (channel, info) in listed {
            let name = self.channels.get(channel).map(|entry| entry.name.clone());
            if let Some(name) = name {
                // Nobody waits for the outcome; what failed is put right when the client comes back.
                let ticket = self.ticket();
                let _ = self.engine.presence_add(now, ticket, &name, &info);
            }
        }
    }
}

fn check_json(name: &str, value: Option<&Payload>) -> Result<(), Error> {
    let checked = value.map_or(Ok(()), |value| json::check_payload(value));
    checked.map_err(|_| explained(ErrorCode::BadRequest, format_args!("`{name}` is no JSON")))
}
