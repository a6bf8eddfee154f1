//! What the application is asked and told: of each command, and of coming and going.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tautline_protocol::message::{
    ClientInfo, ConnectRequest, RpcRequest, RpcResult, SendRequest, SubscribeRequest, Text,
};
use tautline_protocol::{Disconnect, ErrorCode, Response};

use super::ask::{AskedCommand, Guest, KeptFilter, Subject};
use super::connect::Identity;
use super::dispatch::{Progress, Refusal};
use super::publish::Watched;
use super::{Hub, SessionId};
use crate::Now;
use crate::application::{
    Client, ConnectEvent, DisconnectEvent, Interests, MessageEvent, PublishEvent, Question,
    RpcEvent, SubscribeEvent, UnsubscribeEvent,
};
use crate::engine::{Publish, Started};
use crate::entropy;
use crate::outbox::Outbox;

impl Hub {
    pub(super) fn ask_connect<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &ConnectRequest<'_>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let identity = match self.authenticate(now, id, &request.token) {
            Ok(identity) => Some(identity),
            // The application may know better.
            Err(_) if request.token.is_empty() || self.config.verifier.is_none() => None,
            Err(refusal) => return Err(refusal),
        };
        let Some(session) = self.sessions.get(id) else {
            return Ok(Progress::Done);
        };
        let transport = session.transport;
        let client = entropy::connection_id(&mut *self.entropy);
        let user = identity.as_ref().map(|identity| &*identity.user);
        let info = ClientInfo {
            user: user.unwrap_or_default().into(),
            client: client.clone(),
            ..ClientInfo::default()
        };
        let event = ConnectEvent {
            token: request.token.to_string(),
            permitted: identity.is_some(),
            identity: identity
                .as_ref()
                .filter(|_| !request.token.is_empty())
                .map(Identity::to_public),
            name: request.name.to_string(),
            version: request.version.to_string(),
            data: request.data.map(Bytes::copy_from_slice),
            headers: owned_pairs(&request.headers),
            channels: request.subs.keys().map(ToString::to_string).collect(),
        };
        let meta = identity.as_ref().and_then(|identity| identity.meta.clone());
        let client_view = Client {
            session: id,
            info: info.into(),
            meta,
            transport,
        };
        let subs = request.subs.iter();
        let subs = subs.map(|(channel, sub)| (channel.to_string().into(), keep(sub)));
        let command = AskedCommand::Connect {
            command: number,
            request: ConnectRequest {
                subs: subs.collect(),
                ..ConnectRequest::default()
            },
            identity,
            client,
        };
        self.ask_for_command(
            now,
            id,
            client_view,
            Question::Connecting(event),
            command,
            out,
        )
    }

    /// A client has come in. Its next command waits until the application has taken note.
    pub(super) fn greet<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        guest: Guest,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let Some(asking) = &mut self.asking else {
            return Ok(Progress::Done);
        };
        asking.guests.insert(id, guest);
        if self.asks(Interests::CONNECTED)
            && let Some(client) = self.client(id)
        {
            let greeting = AskedCommand::Greeting;
            return self.ask_for_command(now, id, client, Question::Connected, greeting, out);
        }
        Ok(Progress::Done)
    }

    pub(super) fn ask_subscribe<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &SubscribeRequest<'_>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let grant = match self.plan_subscription(now, id, request, None) {
            Ok(plan) => Some(plan.into_grant()),
            Err(Refusal::Error(error)) if error.code == ErrorCode::PermissionDenied.number() => {
                None
            }
            Err(refusal) => return Err(refusal),
        };
        let Some(client) = self.client(id) else {
            return Ok(Progress::Done);
        };
        let event = SubscribeEvent {
            channel: request.channel.to_string(),
            token: request.token.to_string(),
            permitted: grant.is_some(),
            data: request.data.map(Bytes::copy_from_slice),
        };
        let command = AskedCommand::Subscribe {
            command: number,
            request: keep(request),
            filter: request.tags_filter.as_ref().and_then(KeptFilter::new),
            grant,
        };
        self.ask_for_command(now, id, client, Question::Subscribe(event), command, out)
    }

    pub(super) fn ask_publish<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        (publish, permitted, subscribed): (Publish, bool, bool),
        watched: Watched,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let Some(client) = self.client(id) else {
            return Ok(Progress::Done);
        };
        let event = PublishEvent {
            channel: publish.channel.clone(),
            data: publish.data.clone(),
            permitted,
            subscribed,
            trace: watched.as_ref().and_then(|watched| watched.trace()),
        };
        let command = AskedCommand::Publish {
            command: number,
            publish,
            watched,
        };
        self.ask_for_command(now, id, client, Question::Publish(event), command, out)
    }

    /// A call: of the method that the server itself answers, or else of one that the application does. The session goes
    /// on with its next command, unless as many calls are under way as may be (`client.rpc_limit`).
    pub(super) fn rpc<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &RpcRequest<'_>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        if self.config.ping_method.as_deref() == Some(&*request.method) {
            return Ok(Progress::Answer(Response::Rpc(RpcResult::default())));
        }
        let Some(client) = self.client(id).filter(|_| self.asks(Interests::RPC)) else {
            let why = "neither a handler nor a proxy answers calls";
            // Where there is a method, there are calls: this one is merely unknown.
            let code = match self.config.ping_method {
                Some(_) => ErrorCode::MethodNotFound,
                None => ErrorCode::NotAvailable,
            };
            return Err(self.because(why, code.into()));
        };
        let event = RpcEvent {
            method: request.method.to_string(),
            data: request.data.map(Bytes::copy_from_slice),
        };
        let question = Question::Rpc(event);
        let (most, dry_run) = (self.config.client.rpc_limit, self.config.dry_run);
        let calls = self.asking.as_ref().map_or(0, |asking| asking.calls_of(id));
        let is_last = calls + 1 >= most;
        self.counters.over_limit.calls[usize::from(dry_run)] += u64::from(is_last);
        if is_last && dry_run {
            let why = format_args!(
                "{calls} calls of the connection are under way, and with client.rpc_limit ({most}) its next command would \
                 wait"
            );
            self.observe_over_limit(id, None, &why);
        } else if is_last {
            let command = AskedCommand::Rpc { command: number };
            return self.ask_for_command(now, id, client, question, command, out);
        }
        match self.ask(now, client, question, Subject::Call(id, number))? {
            Started::Done(answer) => self.finish_call(id, answer),
            Started::Later => Ok(Progress::Done),
        }
    }

    /// A message that expects no reply; the session's next command waits until it has been dealt with.
    pub(super) fn message<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        request: &SendRequest<'_>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let Some(client) = self.client(id).filter(|_| self.asks(Interests::MESSAGE)) else {
            return Err(Disconnect::NOT_AVAILABLE.into());
        };
        let event = MessageEvent {
            data: request.data.map(Bytes::copy_from_slice).unwrap_or_default(),
        };
        let command = AskedCommand::Message;
        match self.ask_for_command(now, id, client, Question::Message(event), command, out) {
            // There is no reply to put an error into. The client reads on when it is told to come back.
            Err(Refusal::Error(_)) => Err(Disconnect::TOO_MANY_REQUESTS.into()),
            result => result,
        }
    }

    /// Tells the witness that a subscription has ended; and the application, if it was told that the client has
    /// come in.
    pub(super) fn tell_unsubscribed(
        &mut self,
        now: Now,
        id: SessionId,
        channel: &Arc<str>,
        code: u32,
    ) {
        self.note_unsubscribed(now, id, channel, code);
        if !self.asks(Interests::UNSUBSCRIBED) || self.guest(id).is_none() {
            return;
        }
        if let Some(client) = self.client(id) {
            let channel = channel.clone();
            let question = Question::Unsubscribed(UnsubscribeEvent { channel, code });
            // What it says to that is nobody's business.
            let _ = self.ask(now, client, question, Subject::Nobody);
        }
    }

    /// Forgets what was kept of a client that goes, and tells the application of it.
    pub(super) fn say_goodbye(&mut self, now: Now, id: SessionId, disconnect: &Disconnect) {
        let client = self.client(id);
        let Some(asking) = &mut self.asking else {
            return;
        };
        let was_there = asking.guests.remove(&id).is_some();
        if let Some(client) = client.filter(|_| was_there && self.asks(Interests::DISCONNECTED)) {
            let question = Question::Disconnected(DisconnectEvent {
                disconnect: disconnect.clone(),
            });
            let _ = self.ask(now, client, question, Subject::Nobody);
        }
    }
}

/// What of a request is of interest once the application has seen it. The filter is kept apart.
fn keep(request: &SubscribeRequest<'_>) -> SubscribeRequest<'static> {
    SubscribeRequest {
        channel: request.channel.to_string().into(),
        token: String::new().into(),
        recover: request.recover,
        epoch: request.epoch.to_string().into(),
        offset: request.offset,
        data: None,
        positioned: request.positioned,
        recoverable: request.recoverable,
        join_leave: request.join_leave,
        delta: request.delta.to_string().into(),
        tags_filter: None,
        flag: request.flag,
        kind: request.kind,
    }
}

fn owned_pairs(pairs: &BTreeMap<Text<'_>, Text<'_>>) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}
