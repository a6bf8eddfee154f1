//! Questions to the application, from asking to the end of patience. What the answers come to is in
//! `answered`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;
use tautline_protocol::filter::RawFilter;
use tautline_protocol::message::{
    ClientInfo, ConnectRequest, Payload, RpcRequest, SendRequest, SubscribeRequest,
};
use tautline_protocol::{Disconnect, Encoding, ErrorCode, Push, Reply, json};

use super::channels::ChannelKey;
use super::connect::Identity;
use super::dispatch::{Progress, Refusal};
use super::subscribe::Grant;
use super::waiting::Waiting;
use super::{Hub, SessionId, Timer};
use crate::Now;
use crate::application::{
    Answer, Application, ApplicationOptions, Client, ConnectEvent, DisconnectEvent, Interests,
    MessageEvent, PublishEvent, Question, RpcEvent, SubscribeEvent, UnsubscribeEvent,
};
use crate::engine::{Publish, Started, Ticket};
use crate::entropy;
use crate::outbox::Outbox;

/// The application, and what it has been asked.
pub(crate) struct Asking {
    application: Box<dyn Application>,
    interests: Interests,
    options: ApplicationOptions,
    /// Whom the answers are for, by the serial of the ticket.
    asked: HashMap<u64, Subject, foldhash::fast::RandomState>,
    /// What is asked about each session, if anything is.
    by_session: HashMap<SessionId, UnderWay, foldhash::fast::RandomState>,
    /// Questions and when patience ends, in the order in which they were asked. Some are answered.
    due: VecDeque<(Duration, u64)>,
    is_armed: bool,
    /// What is kept of those who have come in.
    guests: HashMap<SessionId, Guest, foldhash::fast::RandomState>,
}

#[derive(Default)]
struct UnderWay {
    serials: Vec<u64>,
    /// How many of them are calls that the session doesn't wait for.
    calls: usize,
}

/// What is kept of a client for the application.
#[derive(Clone, Default)]
pub(crate) struct Guest {
    pub(crate) meta: Option<Payload>,
    /// The application is asked when the connection expires.
    pub(crate) refresh_by_server: bool,
}

/// Whom an answer is for.
#[derive(Clone, Copy)]
pub(super) enum Subject {
    /// The command for which a session waits.
    Command(SessionId),
    /// A call that a session doesn't wait for, and the command's id.
    Call(SessionId, u32),
    /// A connection that has expired.
    Refresh(SessionId),
    /// A subscription that has expired.
    SubRefresh(SessionId, ChannelKey),
    Nobody,
}

impl Subject {
    fn session(self) -> Option<SessionId> {
        match self {
            Self::Command(id) | Self::Call(id, _) | Self::Refresh(id) | Self::SubRefresh(id, _) => {
                Some(id)
            }
            Self::Nobody => None,
        }
    }
}

/// A command that waits for the application.
pub(crate) enum AskedCommand {
    Connect {
        command: u32,
        /// As far as it is still of interest.
        request: ConnectRequest<'static>,
        identity: Option<Identity>,
        client: Arc<str>,
    },
    /// None: the client has come in, and the application is still with it.
    Greeting,
    Subscribe {
        command: u32,
        request: SubscribeRequest<'static>,
        filter: Option<KeptFilter>,
        /// What the token says.
        grant: Option<Grant>,
    },
    Publish {
        command: u32,
        publish: Publish,
    },
    Rpc {
        command: u32,
    },
    Message,
    Refresh {
        command: u32,
    },
    SubRefresh {
        command: u32,
        channel: ChannelKey,
    },
}

impl AskedCommand {
    /// The id of the command; 0 where there is none.
    pub(crate) fn command(&self) -> u32 {
        match self {
            Self::Connect { command, .. }
            | Self::Subscribe { command, .. }
            | Self::Publish { command, .. }
            | Self::Rpc { command }
            | Self::Refresh { command }
            | Self::SubRefresh { command, .. } => *command,
            Self::Greeting | Self::Message => 0,
        }
    }
}

/// A tags filter as it came.
pub(crate) enum KeptFilter {
    Json(Box<str>),
    Protobuf(Box<[u8]>),
}

impl KeptFilter {
    fn new(filter: &RawFilter<'_>) -> Option<Self> {
        match filter {
            RawFilter::Json(text) => Some(Self::Json((*text).into())),
            RawFilter::Protobuf(bytes) => Some(Self::Protobuf((&**bytes).into())),
            _ => None,
        }
    }

    pub(super) fn as_raw(&self) -> RawFilter<'_> {
        match self {
            Self::Json(text) => RawFilter::Json(text),
            Self::Protobuf(bytes) => RawFilter::Protobuf((&**bytes).into()),
        }
    }
}

impl Asking {
    fn new(application: Box<dyn Application>, options: ApplicationOptions) -> Self {
        Self {
            interests: application.interests(),
            application,
            options,
            asked: HashMap::default(),
            by_session: HashMap::default(),
            due: VecDeque::new(),
            is_armed: false,
            guests: HashMap::default(),
        }
    }

    fn is_full(&self) -> bool {
        self.asked.len() >= self.options.max_in_flight
    }

    fn note(&mut self, serial: u64, subject: Subject, due: Duration) {
        self.asked.insert(serial, subject);
        if let Some(id) = subject.session() {
            let under_way = self.by_session.entry(id).or_default();
            under_way.serials.push(serial);
            under_way.calls += usize::from(matches!(subject, Subject::Call(..)));
        }
        // Answered questions stay in this list until their time has come. Not too many of them.
        if self.due.len() > 2 * self.asked.len() + SPARE {
            let asked = &self.asked;
            self.due.retain(|(_, serial)| asked.contains_key(serial));
        }
        self.due.push_back((due, serial));
    }

    /// Whom the answer is for, if anybody waits for it.
    fn take(&mut self, serial: u64) -> Option<Subject> {
        let subject = self.asked.remove(&serial)?;
        if let Some(id) = subject.session()
            && let Some(under_way) = self.by_session.get_mut(&id)
        {
            under_way.serials.retain(|other| *other != serial);
            under_way.calls -= usize::from(matches!(subject, Subject::Call(..)));
            if under_way.serials.is_empty() {
                self.by_session.remove(&id);
            }
        }
        Some(subject)
    }
}

impl Hub {
    /// Has an application decide what the options leave open. To be called before there are sessions.
    pub fn set_application(
        &mut self,
        application: Box<dyn Application>,
        options: ApplicationOptions,
    ) {
        self.asking = Some(Box::new(Asking::new(application, options)));
    }

    /// How many questions to the application are under way.
    pub fn questions(&self) -> usize {
        self.asking.as_ref().map_or(0, |asking| asking.asked.len())
    }

    /// Takes the application's answer to a question that was left open. One to a question that was
    /// answered before, or withdrawn, is ignored.
    pub fn answer<O: Outbox>(&mut self, now: Now, ticket: Ticket, answer: Answer, out: &mut O) {
        let Some(asking) = self
            .asking
            .as_mut()
            .filter(|_| ticket.worker == self.worker)
        else {
            return;
        };
        if let Some(subject) = asking.take(ticket.serial) {
            self.on_answer(now, subject, answer, out);
            self.settle(now, out);
        }
    }

    /// Sends a message to one connected session, about no channel. An unknown id is ignored, as is one that is
    /// not connected yet, and a payload that isn't JSON for a session that reads JSON.
    pub fn send_message<O: Outbox>(&mut self, now: Now, id: SessionId, data: Payload, out: &mut O) {
        let session = self.sessions.get(id);
        let Some(session) = session.filter(|session| session.connected().is_some()) else {
            return;
        };
        let is_json = session.transport.encoding == Encoding::Json;
        if is_json && json::check_payload(&data).is_err() {
            tracing::error!("a message for a client is not JSON");
            return;
        }
        self.send(id, &Reply::Push(Push::Message(data)), out);
        self.settle(now, out);
    }

    /// Whether the application wants to be asked.
    pub(super) fn asks(&self, interest: Interests) -> bool {
        self.asking
            .as_ref()
            .is_some_and(|asking| asking.interests.contains(interest))
    }

    /// What is kept of a client for the application.
    pub(super) fn guest(&mut self, id: SessionId) -> Option<&mut Guest> {
        self.asking.as_mut()?.guests.get_mut(&id)
    }

    /// # Errors
    ///
    /// Error 111 if the application has as many questions as it may; never for those that nobody waits for.
    pub(super) fn ask(
        &mut self,
        now: Now,
        client: Client,
        question: Question,
        subject: Subject,
    ) -> Result<Started<Answer>, Refusal> {
        let ticket = self.ticket();
        let Some(asking) = &mut self.asking else {
            return Ok(Started::Done(Answer::Failed));
        };
        let is_told = matches!(
            question,
            Question::Connected | Question::Unsubscribed(_) | Question::Disconnected(_)
        );
        if asking.is_full() && !is_told {
            return Err(ErrorCode::TooManyRequests.into());
        }
        let started = asking.application.ask(ticket, client, question);
        if let Started::Later = started {
            let due = now.monotonic + asking.options.timeout;
            asking.note(ticket.serial, subject, due);
            if !std::mem::replace(&mut asking.is_armed, true) {
                self.set_timer(due, Timer::Questions);
            }
        }
        Ok(started)
    }

    /// The same for a command, for which the session waits.
    pub(super) fn ask_for_command<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        client: Client,
        question: Question,
        command: AskedCommand,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        match self.ask(now, client, question, Subject::Command(id))? {
            Started::Done(answer) => self.finish_asked(now, id, command, answer, out),
            Started::Later => {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.waiting = Some(Box::new(Waiting::Application(command)));
                }
                Ok(Progress::Wait)
            }
        }
    }

    /// Patience with some questions has come to an end.
    pub(super) fn on_questions_due<O: Outbox>(&mut self, now: Now, out: &mut O) {
        loop {
            let Some(asking) = &mut self.asking else {
                return;
            };
            let Some(&(due, serial)) = asking.due.front() else {
                asking.is_armed = false;
                return;
            };
            if due > now.monotonic {
                return self.set_timer(due, Timer::Questions);
            }
            asking.due.pop_front();
            if let Some(subject) = asking.take(serial) {
                tracing::warn!(
                    timeout = ?asking.options.timeout,
                    "the application did not answer in time"
                );
                let ticket = Ticket {
                    worker: self.worker,
                    serial,
                };
                asking.application.withdraw(ticket);
                self.on_answer(now, subject, Answer::Failed, out);
                self.settle(now, out);
            }
        }
    }

    /// Withdraws what is asked about a session that is going.
    pub(super) fn withdraw(&mut self, id: SessionId) {
        let worker = self.worker;
        let Some(asking) = &mut self.asking else {
            return;
        };
        let under_way = asking.by_session.remove(&id);
        for serial in under_way
            .into_iter()
            .flat_map(|under_way| under_way.serials)
        {
            asking.asked.remove(&serial);
            asking.application.withdraw(Ticket { worker, serial });
        }
    }

    /// A connected session as the application is told of it.
    pub(super) fn client(&self, id: SessionId) -> Option<Client> {
        let session = self.sessions.get(id)?;
        let guests = self.asking.as_ref().map(|asking| &asking.guests);
        let guest = guests.and_then(|guests| guests.get(&id));
        Some(Client {
            session: id,
            info: session.connected()?.info.clone(),
            meta: guest.and_then(|guest| guest.meta.clone()),
            transport: session.transport,
        })
    }

    /// Nobody comes in while the application has more to do than it may: there would be no end to
    /// what it is told.
    pub(super) fn check_capacity(&self) -> Result<(), Refusal> {
        match &self.asking {
            Some(asking) if asking.is_full() => Err(ErrorCode::TooManyRequests.into()),
            _ => Ok(()),
        }
    }

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
        };
        let command = AskedCommand::Publish {
            command: number,
            publish,
        };
        self.ask_for_command(now, id, client, Question::Publish(event), command, out)
    }

    /// A call. The session goes on with its next command, unless as many calls are under way as may be.
    pub(super) fn rpc<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &RpcRequest<'_>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let Some(client) = self.client(id).filter(|_| self.asks(Interests::RPC)) else {
            return Err(ErrorCode::NotAvailable.into());
        };
        let event = RpcEvent {
            method: request.method.to_string(),
            data: request.data.map(Bytes::copy_from_slice),
        };
        let question = Question::Rpc(event);
        let may_go_on = self.asking.as_ref().is_some_and(|asking| {
            let calls = asking.by_session.get(&id).map_or(0, |under| under.calls);
            calls + 1 < asking.options.max_concurrent_rpc
        });
        if !may_go_on {
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

    /// Tells the application that a subscription has ended, if it was told that the client has come in.
    pub(super) fn tell_unsubscribed(
        &mut self,
        now: Now,
        id: SessionId,
        channel: &Arc<str>,
        code: u32,
    ) {
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

fn owned_pairs(
    pairs: &std::collections::BTreeMap<
        tautline_protocol::message::Text<'_>,
        tautline_protocol::message::Text<'_>,
    >,
) -> std::collections::BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

/// How many answered questions may be remembered beside those under way.
const SPARE: usize = 64;
