//! What the application's answers come to.

use std::sync::Arc;
use std::time::Duration;

use tautline_auth::{Overrides, SubscriptionOptions};
use tautline_protocol::message::{Payload, RefreshResult, RpcResult, SubscribeRequest};
use tautline_protocol::{Disconnect, Encoding, ErrorCode, Response, UnsubscribeCode, json};

use super::ask::{AskedCommand, KeptFilter, Subject};
use super::channel_name::ChannelName;
use super::channels::ChannelKey;
use super::connect::{Identity, deadline, time_to_live};
use super::dispatch::{Flow, Progress, Refusal};
use super::publish::check_data;
use super::subscribe::Grant;
use super::waiting::Waiting;
use super::wheel::Deadline;
use super::{Hub, SessionId};
use crate::Now;
use crate::application::{
    Answer, ConnectReply, Interests, PublishReply, Question, RefreshBy, RefreshEvent, RefreshReply,
    SubRefreshEvent, SubscribeReply,
};
use crate::engine::{Publish, Started, Version};
use crate::outbox::Outbox;

/// How long a connection or subscription lives on when the application can't say whether it may.
const RETRY: Duration = Duration::from_secs(60);

impl Hub {
    pub(super) fn on_answer<O: Outbox>(
        &mut self,
        now: Now,
        subject: Subject,
        answer: Answer,
        out: &mut O,
    ) {
        match subject {
            Subject::Command(id) => {
                let session = self.sessions.get_mut(id);
                let waiting = session.and_then(|session| session.waiting.take());
                let Some(Waiting::Application(command)) = waiting.map(|waiting| *waiting) else {
                    return;
                };
                let number = command.command();
                let result = self.finish_asked(now, id, command, answer, out);
                if self.finish(now, id, number, result, out) != Flow::Wait {
                    self.run_backlog(now, id, out);
                }
            }
            Subject::Call(id, number) => {
                let result = self.finish_call(id, answer);
                self.finish(now, id, number, result, out);
            }
            Subject::Refresh(id) => self.finish_expiry(now, id, answer, out),
            Subject::SubRefresh(id, key) => self.finish_sub_expiry(now, id, key, answer, out),
            Subject::Nobody => {}
        }
    }

    /// A command has its answer.
    pub(super) fn finish_asked<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        command: AskedCommand,
        answer: Answer,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        match (command, answer) {
            (
                AskedCommand::Connect {
                    command,
                    request,
                    identity,
                    client,
                },
                Answer::Connect(reply),
            ) => {
                if reply.as_ref().is_err_and(Refusal::is_of_identity) {
                    out.note_failed_authentication(id, None);
                }
                let identity = self.identify(now, id, identity, reply?)?;
                self.admit(now, id, command, &request, identity, client, out)
            }
            (AskedCommand::Greeting, _) => Ok(Progress::Done),
            (
                AskedCommand::Subscribe {
                    command,
                    request,
                    filter,
                    grant,
                },
                Answer::Subscribe(reply),
            ) => {
                let is_json = self.is_json(id);
                let grant = reply?.into_grant(now, grant.unwrap_or_default(), is_json)?;
                let request = SubscribeRequest {
                    tags_filter: filter.as_ref().map(KeptFilter::as_raw),
                    ..request
                };
                self.subscribe_granted(now, id, command, &request, Some(grant), out)
            }
            (
                AskedCommand::Publish {
                    command,
                    publish,
                    mut watched,
                },
                Answer::Publish(reply),
            ) => {
                let publish = reply.and_then(|reply| match reply {
                    PublishReply::AsSent => Ok(Some(publish)),
                    PublishReply::Instead(instead) => Ok(Some(self.change(publish, instead)?)),
                    PublishReply::Done => Ok(None),
                });
                if let (Err(refusal), Some(watched)) = (&publish, &mut watched) {
                    watched.refused(refusal.code());
                }
                match publish? {
                    Some(publish) => self.start_publish(now, id, command, publish, watched),
                    None => Ok(Progress::Answer(Response::Publish)),
                }
            }
            (AskedCommand::Rpc { .. }, answer) => self.finish_call(id, answer),
            (AskedCommand::Message, Answer::Message(result)) => {
                result?;
                Ok(Progress::Done)
            }
            // There is no reply to tell of it, and the next message may fare better.
            (AskedCommand::Message, _) => Ok(Progress::Done),
            (AskedCommand::Refresh { .. }, Answer::Refresh(reply)) => {
                let reply = reply?;
                let ttl = time_to_live(now, reply.expire_at)?;
                let grace = self.config.client.expired_close_delay;
                self.prolong(now, id, reply, grace)?;
                self.arm(id);
                Ok(Progress::Answer(Response::Refresh(RefreshResult { ttl })))
            }
            (AskedCommand::SubRefresh { channel, .. }, Answer::SubRefresh(reply)) => {
                let reply = reply?;
                let ttl = time_to_live(now, reply.expire_at)?;
                let grace = self.config.client.expired_sub_close_delay;
                self.prolong_subscription(now, id, channel, &reply, grace)?;
                self.arm(id);
                let result = RefreshResult { ttl };
                Ok(Progress::Answer(Response::SubRefresh(result)))
            }
            (_, Answer::Failed) => Err(ErrorCode::Internal.into()),
            (_, _) => Err(mistaken("an answer of another kind than the question")),
        }
    }

    /// A call has its answer.
    pub(super) fn finish_call(&self, id: SessionId, answer: Answer) -> Result<Progress, Refusal> {
        let data = match answer {
            Answer::Rpc(reply) => reply?.data,
            Answer::Failed => return Err(ErrorCode::Internal.into()),
            _ => return Err(mistaken("an answer of another kind than the question")),
        };
        check_json(data.as_ref(), self.is_json(id), "result of a call")?;
        let response = Response::Rpc(RpcResult { data });
        Ok(Progress::Answer(response))
    }

    /// Who comes in, by token, options and application.
    fn identify(
        &self,
        now: Now,
        id: SessionId,
        identity: Option<Identity>,
        reply: ConnectReply,
    ) -> Result<Identity, Refusal> {
        let ConnectReply {
            user,
            info,
            meta,
            data,
            expire_at,
            refresh,
            capabilities,
            subs,
        } = reply;
        check_json(info.as_ref(), true, "info of a connection")?;
        let is_json = self.is_json(id);
        check_json(data.as_ref(), is_json, "data for a connection")?;
        let mut identity = match (identity, user) {
            (Some(identity), None) => identity,
            (identity, Some(user)) => Identity {
                user,
                ..identity.unwrap_or_default()
            },
            (None, None) => return Err(Disconnect::BAD_REQUEST.into()),
        };
        identity.info = info.or(identity.info);
        identity.meta = meta.or(identity.meta);
        identity.data = data;
        identity.capabilities = capabilities.map(Arc::new).or(identity.capabilities);
        identity.refresh_by_server = refresh == RefreshBy::Server;
        identity.expire_at = expire_at.or(identity.expire_at);
        for (channel, reply) in subs {
            let known = identity.subs.remove(&channel).unwrap_or_default();
            let grant = reply.into_grant(now, known, is_json)?;
            identity.subs.insert(channel, grant);
        }
        Ok(identity)
    }

    /// What is published instead of what a client sent.
    fn change(
        &self,
        publish: Publish,
        instead: crate::application::PublishInstead,
    ) -> Result<Publish, Refusal> {
        let name = ChannelName::parse(&self.config, &publish.channel)?;
        let data = match instead.data {
            None => publish.data,
            Some(data) => {
                check_data(name.options.publication_data_format, &data)
                    .map_err(|_| mistaken("a payload that the namespace doesn't take"))?;
                data
            }
        };
        let idempotency = super::api::idempotency(instead.idempotency_key)
            .map_err(|_| mistaken("an idempotency key of more than 255 bytes"))?;
        let history = publish.history.filter(|_| !instead.skip_history);
        Ok(Publish {
            data,
            tags: instead.tags,
            patch: (publish.patch || instead.delta) && history.is_some(),
            history,
            version: (instead.version > 0).then(|| Version {
                number: instead.version,
                epoch: instead.version_epoch.into(),
            }),
            idempotency,
            ..publish
        })
    }

    /// A connection has expired: whether that is the application's to decide. If so it is asked.
    pub(super) fn ask_expired<O: Outbox>(&mut self, now: Now, id: SessionId, out: &mut O) -> bool {
        let is_asked = self.guest(id).is_some_and(|guest| guest.refresh_by_server);
        if !is_asked || !self.asks(Interests::REFRESH) {
            return false;
        }
        let Some(client) = self.client(id) else {
            return false;
        };
        self.set_expiry(id, None);
        let question = Question::Refresh(RefreshEvent::default());
        match self.ask(now, client, question, Subject::Refresh(id)) {
            Ok(Started::Done(answer)) => self.finish_expiry(now, id, answer, out),
            Ok(Started::Later) => {}
            Err(_) => self.finish_expiry(now, id, Answer::Failed, out),
        }
        true
    }

    fn finish_expiry<O: Outbox>(&mut self, now: Now, id: SessionId, answer: Answer, out: &mut O) {
        let result = match answer {
            Answer::Refresh(Ok(reply)) => self.prolong(now, id, reply, Duration::ZERO),
            Answer::Refresh(Err(refusal)) => Err(refusal),
            _ => Err(ErrorCode::Internal.into()),
        };
        match result {
            Ok(()) => {}
            Err(Refusal::Error(error)) if error.temporary => {
                self.set_expiry(id, Some(now.monotonic + RETRY));
            }
            Err(Refusal::Error(_)) => return self.end(now, id, &Disconnect::EXPIRED, out),
            Err(Refusal::Disconnect(disconnect)) => return self.end(now, id, &disconnect, out),
        }
        self.arm(id);
    }

    /// The same for a subscription.
    pub(super) fn ask_sub_expired<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        channel: u32,
        out: &mut O,
    ) -> bool {
        if !self.asks(Interests::SUB_REFRESH) {
            return false;
        }
        let connected = self.sessions.connected_mut(id);
        let subscription = connected.and_then(|connected| connected.subscription_mut(channel));
        let extra = subscription.and_then(|subscription| subscription.extra.as_mut());
        let Some(extra) = extra.filter(|extra| extra.refresh_by_server) else {
            return false;
        };
        extra.expires_at = None;
        let key = self.channels.key(channel);
        let name = self
            .channels
            .get(channel)
            .map(|channel| channel.name.clone());
        let (Some(client), Some(channel)) = (self.client(id), name) else {
            return false;
        };
        let question = Question::SubRefresh(SubRefreshEvent {
            channel,
            ..SubRefreshEvent::default()
        });
        match self.ask(now, client, question, Subject::SubRefresh(id, key)) {
            Ok(Started::Done(answer)) => self.finish_sub_expiry(now, id, key, answer, out),
            Ok(Started::Later) => {}
            Err(_) => self.finish_sub_expiry(now, id, key, Answer::Failed, out),
        }
        true
    }

    fn finish_sub_expiry<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        key: ChannelKey,
        answer: Answer,
        out: &mut O,
    ) {
        let result = match answer {
            Answer::SubRefresh(Ok(reply)) => {
                self.prolong_subscription(now, id, key, &reply, Duration::ZERO)
            }
            Answer::SubRefresh(Err(refusal)) => Err(refusal),
            _ => Err(ErrorCode::Internal.into()),
        };
        match result {
            Ok(()) => {}
            Err(Refusal::Error(error)) if error.temporary => {
                self.set_sub_expiry(id, key, Some(now.monotonic + RETRY));
            }
            Err(Refusal::Error(_)) => {
                if self.channels.by_key(key).is_some() {
                    self.unsubscribe_with(now, id, key.index, UnsubscribeCode::Expired, out);
                }
                return;
            }
            Err(Refusal::Disconnect(disconnect)) => return self.end(now, id, &disconnect, out),
        }
        self.arm(id);
    }

    /// # Errors
    ///
    /// Error 110 if the new end is in the past, 100 for an info that isn't JSON.
    fn prolong(
        &mut self,
        now: Now,
        id: SessionId,
        reply: RefreshReply,
        grace: Duration,
    ) -> Result<(), Refusal> {
        let ttl = time_to_live(now, reply.expire_at)?;
        check_json(reply.info.as_ref(), true, "info of a connection")?;
        self.set_expiry(id, ttl.map(|ttl| deadline(now, ttl, grace)));
        if let Some(info) = &reply.info {
            self.change_info(now, id, info);
        }
        if let (Some(meta), Some(guest)) = (reply.meta, self.guest(id)) {
            guest.meta = Some(meta);
        }
        Ok(())
    }

    fn prolong_subscription(
        &mut self,
        now: Now,
        id: SessionId,
        key: ChannelKey,
        reply: &RefreshReply,
        grace: Duration,
    ) -> Result<(), Refusal> {
        let ttl = time_to_live(now, reply.expire_at)?;
        self.set_sub_expiry(id, key, ttl.map(|ttl| deadline(now, ttl, grace)));
        Ok(())
    }

    fn set_expiry(&mut self, id: SessionId, expires_at: Option<Duration>) {
        if let Some(connected) = self.sessions.connected_mut(id) {
            connected.expires_at = expires_at.map(Deadline::at);
        }
    }

    pub(super) fn set_sub_expiry(
        &mut self,
        id: SessionId,
        key: ChannelKey,
        expires_at: Option<Duration>,
    ) {
        if self.channels.by_key(key).is_none() {
            return;
        }
        let connected = self.sessions.connected_mut(id);
        let subscription = connected.and_then(|connected| connected.subscription_mut(key.index));
        if let Some(subscription) = subscription
            && (subscription.extra.is_some() || expires_at.is_some())
        {
            subscription.extra.get_or_insert_default().expires_at = expires_at;
        }
    }

    /// Whether what the session is sent has to be JSON.
    fn is_json(&self, id: SessionId) -> bool {
        let session = self.sessions.get(id);
        session.is_none_or(|session| session.transport.encoding == Encoding::Json)
    }
}

impl SubscribeReply {
    /// What the subscription has, by token and application.
    fn into_grant(self, now: Now, known: Grant, is_json: bool) -> Result<Grant, Refusal> {
        check_json(self.info.as_ref(), true, "info of a subscription")?;
        check_json(self.data.as_ref(), is_json, "data for a subscription")?;
        let ttl = match self.expire_at {
            None => known.ttl,
            expire_at => time_to_live(now, expire_at)?,
        };
        let options = SubscriptionOptions {
            info: self.info.map(Into::into).or(known.options.info),
            data: self.data.map(Into::into).or(known.options.data),
            overrides: overlay(self.overrides, known.options.overrides),
            allow: self.allow | known.options.allow,
            tags_filter: both_filters(self.tags_filter, known.options.tags_filter),
        };
        Ok(Grant {
            options,
            ttl,
            refresh_by_server: self.refresh == RefreshBy::Server,
            ..known
        })
    }
}

/// The texts of two filters as that of one which lets through what passes both.
fn both_filters(one: Option<String>, other: Option<Box<str>>) -> Option<Box<str>> {
    match (one, other) {
        (Some(one), Some(other)) => {
            Some(format!(r#"{{"op":"and","nodes":[{one},{other}]}}"#).into())
        }
        (one, other) => one.map(Into::into).or(other),
    }
}

/// What `over` has nothing to say about is as in `under`.
fn overlay(over: Overrides, under: Overrides) -> Overrides {
    Overrides {
        presence: over.presence.or(under.presence),
        join_leave: over.join_leave.or(under.join_leave),
        force_push_join_leave: over.force_push_join_leave.or(under.force_push_join_leave),
        force_positioning: over.force_positioning.or(under.force_positioning),
        force_recovery: over.force_recovery.or(under.force_recovery),
    }
}

/// What the application says must be JSON wherever it goes to readers of JSON.
fn check_json(payload: Option<&Payload>, is_json: bool, what: &str) -> Result<(), Refusal> {
    match payload {
        Some(payload) if is_json => json::check_payload(payload).map_err(|error| {
            tracing::error!(%error, "the application's {what} is not JSON");
            ErrorCode::Internal.into()
        }),
        _ => Ok(()),
    }
}

/// The application has made a mistake, of which the client learns no more than that there was one.
fn mistaken(what: &str) -> Refusal {
    tracing::error!("the application has answered with {what}");
    ErrorCode::Internal.into()
}
