//! Questions to the application, from asking to the end of patience. What is asked is in `questions`, what
//! the answers come to in `answered`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tautline_protocol::filter::RawFilter;
use tautline_protocol::message::{ConnectRequest, Error, Payload, SubscribeRequest};
use tautline_protocol::{Encoding, ErrorCode, Push, Reply, Request, json};

use super::channel_name::explained;
use super::channels::ChannelKey;
use super::connect::Identity;
use super::dispatch::{Progress, Refusal};
use super::operation::Bound;
use super::publish::Watched;
use super::subscribe::Grant;
use super::waiting::Waiting;
use super::{Hub, SessionId, Timer};
use crate::Now;
use crate::application::{Answer, Application, ApplicationOptions, Client, Interests, Question};
use crate::engine::{Publish, Started, Ticket};
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
    pub(super) guests: HashMap<SessionId, Guest, foldhash::fast::RandomState>,
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
        watched: Watched,
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
    pub(super) fn new(filter: &RawFilter<'_>) -> Option<Self> {
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

    /// What is told where it is.
    fn full(&self) -> Error {
        let most = self.options.max_in_flight;
        let why = format_args!(
            "{most} handlers are at work on this worker, as many as there may be (max_in_flight of the handlers' \
             options); try again later"
        );
        explained(ErrorCode::TooManyRequests, why)
    }

    /// How many calls of a session are under way.
    pub(super) fn calls_of(&self, id: SessionId) -> usize {
        self.by_session.get(&id).map_or(0, |under| under.calls)
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
    /// Has an application decide what the options leave open. It may take the place of another: answers of that
    /// one count still, and what it was asked may be withdrawn by the new one's
    /// [`withdraw`](Application::withdraw).
    pub fn set_application(
        &mut self,
        application: Box<dyn Application>,
        options: ApplicationOptions,
    ) {
        match &mut self.asking {
            Some(asking) => {
                asking.interests = application.interests();
                asking.application = application;
                asking.options = options;
            }
            None => self.asking = Some(Box::new(Asking::new(application, options))),
        }
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

    /// Whether the application is asked who somebody is who connects.
    pub(super) fn asks_who_it_is(&self, request: &Request<'_>) -> bool {
        matches!(request, Request::Connect(_)) && self.asks(Interests::CONNECTING)
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
            let full = asking.full();
            self.met(Bound::Questions);
            return Err(full.into());
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
                self.met(Bound::AnswerTime);
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
            Some(asking) if asking.is_full() => {
                self.met(Bound::Questions);
                Err(asking.full().into())
            }
            _ => Ok(()),
        }
    }
}

/// How many answered questions may be remembered beside those under way.
const SPARE: usize = 64;
