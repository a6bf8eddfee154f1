//! Frames to commands to replies, strictly one after the other.
//!
//! A command that has to wait for the engine, or for the application, stops its session: the rest of the frame, and frames
//! that come in meanwhile, wait in a bounded backlog, and are executed when the outcome is there. So does a client that
//! doesn't take the answers to its commands: those behind them wait until it has taken them all. And so does one whose
//! publications others can't take as fast.

use std::time::Duration;

use tautline_protocol::message::Error;
use tautline_protocol::{Command, Disconnect, ErrorCode, Reply, Request, Response};

use super::channel_name::{ChannelName, explained};
use super::channels::FeedState;
use super::cursor::park_mark;
use super::frame::{Commands, Frame};
use super::frame_type::FrameType;
use super::observe::channel_of;
use super::operation::Operation;
use super::sessions::State;
use super::waiting::{Pending, Waiting};
use super::{Hub, SessionId};
use crate::Now;
pub(super) use crate::application::Refusal;
use crate::engine::{EngineError, Outcome, Ticket};
use crate::outbox::Outbox;
use crate::trace::Step;

/// How a command went so far.
pub(super) enum Progress {
    /// The result is to be sent.
    Answer(Response),
    /// The result was sent already, or none is due.
    Done,
    /// The engine answers later.
    Wait,
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Self::Error(engine_failed(error))
    }
}

/// What a client is told of an engine's trouble: that it may try again, and which limit it is.
pub(super) fn engine_failed(error: EngineError) -> Error {
    // Strangers can cause this at will: not a matter for the operator's usual log.
    tracing::debug!(%error, "the engine refused an operation");
    match error {
        EngineError::Unavailable => ErrorCode::Internal.into(),
        EngineError::Full { .. } | EngineError::OutOfMemory { .. } => {
            let why = format_args!("{error}; try again later, or have that limit raised");
            explained(ErrorCode::Internal, why)
        }
    }
}

/// Whether a token comes with a command.
fn has_token(request: &Request<'_>) -> bool {
    let token = match request {
        Request::Connect(request) => &request.token,
        Request::Refresh(request) => &request.token,
        Request::Subscribe(request) => &request.token,
        Request::SubRefresh(request) => &request.token,
        _ => return false,
    };
    !token.is_empty()
}

/// Whether a session goes on with its next command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Stop,
    Wait,
}

impl Hub {
    /// Executes the commands of one frame.
    ///
    /// While a command waits for the engine, for its client to take answers that come to a quarter of
    /// [`queue_max_size`](crate::config::ClientOptions::queue_max_size), or for [others](Outbox::holds_up), what comes behind it is
    /// kept, up to
    /// [`command_queue_max_size`](crate::config::ClientOptions::command_queue_max_size) bytes, for which each frame counts 64
    /// more than it has; beyond, the session is closed. A caller that heeds [`wants_input`](Self::wants_input) gets there by
    /// nothing but what it had read already. Frames for unknown sessions are ignored.
    pub fn receive<O: Outbox>(&mut self, now: Now, id: SessionId, frame: Frame<'_>, out: &mut O) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        if session.waiting.is_some() {
            let limit = self.config.client.command_queue_max_size;
            let backlog = session.backlog.get_or_insert_default();
            if !backlog.push(frame, limit) {
                self.end(now, id, &Disconnect::SLOW, out);
            }
            return;
        }
        self.run(now, id, frame, out);
        self.settle(now, out);
    }

    /// Whether the session takes frames. `false` while a command waits for the engine, or for its client to take what
    /// came of those before it, or for others to: the transport should stop reading until [`Outbox::resume`].
    pub fn wants_input(&self, id: SessionId) -> bool {
        self.sessions
            .get(id)
            .is_none_or(|session| session.waiting.is_none())
    }

    /// Bytes of commands that wait in a session.
    pub fn kept_input(&self, id: SessionId) -> usize {
        let backlog = self
            .sessions
            .get(id)
            .and_then(|session| session.backlog.as_ref());
        backlog.map_or(0, |backlog| backlog.bytes())
    }

    /// Executes commands until one has to wait. What is left then goes to the front of the backlog.
    fn run<O: Outbox>(&mut self, now: Now, id: SessionId, frame: Frame<'_>, out: &mut O) {
        let mut commands = Commands::new(frame);
        let mut left = frame.bytes().len();
        loop {
            let Some(session) = self.sessions.get_mut(id) else {
                return;
            };
            if session.is_slow || matches!(session.state, State::Refused { .. }) {
                return;
            }
            if session.answers as usize >= park_mark(&self.config)
                && let Some(rest) = commands.rest()
            {
                // What of it is still there, at the most.
                let waiting = out.queued(id).try_into().unwrap_or(u32::MAX);
                session.answers = session.answers.min(waiting);
                if session.answers as usize >= park_mark(&self.config) {
                    // Who doesn't take the answers there are gets no more of them, and isn't listened to.
                    session.backlog.get_or_insert_default().put_back(rest);
                    session.waiting = Some(Box::new(Waiting::Room));
                    self.counters.input_paused += 1;
                    out.when_drained(id);
                    return;
                }
            }
            let counted = session.counted;
            let command = commands.next();
            let rest = commands.rest().map_or(0, |rest| rest.bytes().len());
            let bytes = std::mem::replace(&mut left, rest).saturating_sub(rest);
            let command = match command {
                None => return,
                Some(Ok(command)) => command,
                Some(Err(error)) => {
                    self.tally.received(counted, FrameType::Other, bytes);
                    tracing::debug!(session = %self.name_of(id), %error, "a command can't be read");
                    if self.is_traced() {
                        let told = error.to_string();
                        self.observe(id, Some(out.queued(id)), None, Step::Unreadable(&told));
                    }
                    self.end(now, id, &Disconnect::BAD_REQUEST, out);
                    return;
                }
            };
            let what = FrameType::of_command(command.request.as_ref());
            self.tally.received(counted, what, bytes);
            match self.execute(now, id, command, out) {
                Flow::Stop => return,
                Flow::Next if !self.is_held_up(id, out) => {}
                Flow::Next | Flow::Wait => {
                    if let (Some(rest), Some(session)) =
                        (commands.rest(), self.sessions.get_mut(id))
                    {
                        session.backlog.get_or_insert_default().put_back(rest);
                    }
                    return;
                }
            }
        }
    }

    fn execute<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        command: Command<'_>,
        out: &mut O,
    ) -> Flow {
        self.counters.commands += 1;
        let Command {
            id: number,
            request,
        } = command;
        if self.is_traced() {
            self.observe_command(id, number, request.as_ref(), out);
        }
        let is_connected = self.sessions.connected(id).is_some();
        let channel = request.as_ref().and_then(channel_of);
        if let Some(channel) = channel
            && channel.len() > self.config.channel.max_length
        {
            let is_tried = ChannelName::check_length(&self.config, channel).is_ok();
            self.counters.over_limit.channel_names[usize::from(is_tried)] += 1;
            if is_tried {
                let most = self.config.channel.max_length;
                let why = format_args!(
                    "the channel's name is longer than channel.max_length allows ({most})"
                );
                self.observe_over_limit(id, None, &why);
            }
        }
        let operation = request.as_ref().and_then(Operation::of);
        let what = match &request {
            Some(Request::Connect(request)) => {
                if !is_connected && let Some(session) = self.sessions.get_mut(id) {
                    session.counted.name(&request.name);
                }
                Some(Operation::Connect)
            }
            _ => operation,
        };
        if let Some(operation) = operation.filter(|_| is_connected)
            && let Err(refusal) = self.charge(now, id, operation)
        {
            return self.finish_at_once(now, id, (number, what), Err(refusal), out);
        }
        // Whether somebody is let in is decided by what a token says, or by what the application does.
        let attempt = request.as_ref().filter(|request| {
            has_token(request) || (!is_connected && self.asks_who_it_is(request))
        });
        if let Some(request) = attempt
            && !out.may_authenticate(id, self.user_of(id), &|| {
                self.is_token_good(now, id, request)
            })
        {
            let why = "too many attempts from there let nobody in (limits.address.failed_authentications), and this one \
                       isn't known to be good";
            let refusal = self.because(why, ErrorCode::TooManyRequests.into());
            return self.finish_at_once(now, id, (number, what), Err(refusal), out);
        }
        let failures = self.refused_tokens.failures();
        let result = match request {
            Some(Request::Connect(request)) if number != 0 && !is_connected => {
                self.connect(now, id, number, &request, out)
            }
            // Nothing else goes before a successful connect, and no second one after it.
            _ if !is_connected => {
                let why = "the first command has to be connect, with an id";
                Err(self.because(why, Disconnect::BAD_REQUEST.into()))
            }
            Some(Request::Send(request)) => self.message(now, id, &request, out),
            _ if number == 0 => self.pong(now, id, out),
            Some(Request::Subscribe(request)) => self.subscribe(now, id, number, &request, out),
            Some(Request::Unsubscribe(request)) => self.unsubscribe(now, id, number, &request),
            Some(Request::Publish(request)) => self.publish(now, id, number, &request, out),
            Some(Request::Presence(request)) => self.presence(now, id, number, &request),
            Some(Request::PresenceStats(request)) => self.presence_stats(now, id, number, &request),
            Some(Request::History(request)) => self.history(now, id, number, request, out),
            Some(Request::Rpc(request)) => self.rpc(now, id, number, &request, out),
            Some(Request::Refresh(request)) => self.refresh(now, id, number, &request, out),
            Some(Request::SubRefresh(request)) => self.sub_refresh(now, id, number, &request, out),
            Some(Request::Connect(_)) => {
                let why = "it is connected already";
                Err(self.because(why, Disconnect::BAD_REQUEST.into()))
            }
            _ => Err(Disconnect::BAD_REQUEST.into()),
        };
        if self.refused_tokens.failures() != failures {
            out.note_failed_authentication(id, self.user_of(id));
        }
        self.finish_at_once(now, id, (number, what), result, out)
    }

    /// A command was executed: it is answered, or will be.
    fn finish_at_once<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        (number, what): (u32, Option<Operation>),
        result: Result<Progress, Refusal>,
        out: &mut O,
    ) -> Flow {
        if let Some(what) = what {
            let waits = match &result {
                Ok(Progress::Wait) => true,
                // A call for which its session doesn't wait.
                Ok(Progress::Done) => what == Operation::Rpc,
                _ => false,
            };
            if !waits {
                self.tally.finished(what, Duration::ZERO);
                self.count_error(what, &result);
            } else if self.sessions.get(id).is_some() {
                self.tally.wait(id, number, what, now.monotonic);
            }
        }
        self.conclude(now, id, number, result, out)
    }

    fn count_error(&mut self, what: Operation, result: &Result<Progress, Refusal>) {
        if let Err(Refusal::Error(error)) = result {
            self.tally.failed(what, error);
        }
    }

    /// Who a session is, if that is known.
    pub(super) fn user_of(&self, id: SessionId) -> Option<&str> {
        let connected = self.sessions.connected(id)?;
        Some(&*connected.info.user).filter(|user| !user.is_empty())
    }

    /// Goes on with a command that has waited.
    pub(super) fn finish<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        result: Result<Progress, Refusal>,
        out: &mut O,
    ) -> Flow {
        if !matches!(result, Ok(Progress::Wait))
            && let Some(what) = self.tally.finish_waiting(id, number, now.monotonic)
        {
            self.count_error(what, &result);
        }
        self.conclude(now, id, number, result, out)
    }

    /// Answers a command, if it is to be answered now.
    fn conclude<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        result: Result<Progress, Refusal>,
        out: &mut O,
    ) -> Flow {
        if self.is_traced()
            && let Err(refusal) = &result
        {
            self.observe_refusal(id, number, refusal, out);
        }
        match result {
            Ok(Progress::Answer(response)) => {
                self.send(id, &Reply::Answer(number, Ok(response)), out);
                Flow::Next
            }
            Ok(Progress::Done) => Flow::Next,
            Ok(Progress::Wait) => Flow::Wait,
            Err(Refusal::Error(error)) => {
                let is_own_fault = error.code != ErrorCode::Internal.number();
                self.send(id, &Reply::Answer(number, Err(error)), out);
                if let Some(session) = self.sessions.get_mut(id)
                    && let State::Opened { stale_at, .. } = session.state
                {
                    // Only a connect command gets this far before the session is connected.
                    session.state = State::Refused { stale_at };
                    return Flow::Stop;
                }
                if is_own_fault && !self.may_err(now.monotonic, id) {
                    self.end(now, id, &Disconnect::TOO_MANY_ERRORS, out);
                    return Flow::Stop;
                }
                Flow::Next
            }
            Err(Refusal::Disconnect(disconnect)) => {
                self.end(now, id, &disconnect, out);
                Flow::Stop
            }
        }
    }

    /// Hands an outcome to who waits for it. One that nobody waits for (any more) is dropped.
    pub(super) fn on_outcome<O: Outbox>(
        &mut self,
        now: Now,
        ticket: Ticket,
        outcome: Outcome,
        out: &mut O,
    ) {
        match (self.pending.remove(&ticket.serial), outcome) {
            (Some(Pending::Session(id)), outcome) => self.on_session_outcome(now, id, outcome, out),
            (Some(Pending::Subscription(id, channel)), outcome) => {
                self.on_subscription_outcome(now, id, channel, outcome, out);
            }
            (Some(Pending::Attach(key)), Outcome::Changed(result)) => {
                let Some(channel) = self.channels.by_key(key) else {
                    return;
                };
                // After a failure the feed is asked for again by whoever subscribes next.
                let state = match result {
                    Ok(()) => FeedState::On,
                    Err(_) => FeedState::Off,
                };
                let FeedState::Beginning(waiting) = std::mem::replace(&mut channel.state, state)
                else {
                    return;
                };
                for id in waiting {
                    self.on_subscription_outcome(now, id, key.index, Outcome::Changed(result), out);
                }
            }
            (
                Some(Pending::Page {
                    channel,
                    since,
                    waiters,
                }),
                outcome,
            ) => {
                let result = match outcome {
                    Outcome::History(result) => result,
                    // An engine that answers another question than it was asked is broken.
                    _ => Err(EngineError::Unavailable),
                };
                self.on_pages(now, channel, since, waiters, &result, out);
            }
            (Some(Pending::Position(key)), Outcome::History(result)) => {
                self.on_position(now, key, result, out);
            }
            (Some(pending), outcome) => self.on_api_outcome(pending, outcome),
            (None, _) => {}
        }
    }

    fn on_session_outcome<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        outcome: Outcome,
        out: &mut O,
    ) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let Some(waiting) = session.waiting.take() else {
            return;
        };
        let (number, result) = match (*waiting, outcome) {
            (Waiting::Unsubscribe { command }, Outcome::Changed(_)) => {
                (command, Ok(Progress::Answer(Response::Unsubscribe)))
            }
            (Waiting::Publish { command, watched }, Outcome::Published(result)) => {
                (command, self.finish_publish(result, watched))
            }
            (Waiting::Presence { command }, Outcome::Presence(result)) => {
                (command, self.finish_presence(result))
            }
            (Waiting::PresenceStats { command }, Outcome::PresenceStats(result)) => {
                (command, Self::finish_presence_stats(result))
            }
            (Waiting::FilteredHistory { command, read }, Outcome::History(result)) => {
                let result = self.on_filtered(now, id, command, read, result, out);
                (command, result)
            }
            (Waiting::History { command, expected }, Outcome::History(result)) => {
                (command, self.finish_history(&expected, result))
            }
            // An engine that answers another question than it was asked is broken.
            (waiting, _) => (waiting.command(), Err(EngineError::Unavailable.into())),
        };
        if self.finish(now, id, number, result, out) != Flow::Wait {
            self.run_backlog(now, id, out);
        }
    }

    /// One of the operations has ended that a subscription waits for. When it was the last, the
    /// command is answered.
    fn on_subscription_outcome<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        channel: u32,
        outcome: Outcome,
        out: &mut O,
    ) {
        if self.pushed.contains_key(&(id, channel)) {
            return self.on_pushed_outcome(now, id, channel, outcome, out);
        }
        let session = self.sessions.get_mut(id);
        let Some(waiting) = session.and_then(|session| session.waiting.as_deref_mut()) else {
            return;
        };
        let Some(subscribing) = waiting.subscribing(channel) else {
            return;
        };
        subscribing.note(outcome);
        if waiting.is_outstanding() {
            return;
        }
        let waiting = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.waiting.take());
        let (number, result) = match waiting.map(|waiting| *waiting) {
            Some(Waiting::Subscribe(subscribing)) => (
                subscribing.command,
                self.finish_subscribe(now, id, subscribing, out),
            ),
            Some(Waiting::Connect(connecting)) => (
                connecting.command,
                self.finish_connect(now, id, connecting, out),
            ),
            _ => return,
        };
        if self.finish(now, id, number, result, out) != Flow::Wait {
            self.run_backlog(now, id, out);
        }
    }

    /// Executes what waited behind a command that is finished now, and has the session's transport read on. That is for
    /// those who were not let in, too: what they say counts no more, but that they go has to be noticed.
    pub(super) fn run_backlog<O: Outbox>(&mut self, now: Now, id: SessionId, out: &mut O) {
        if !self.is_held_up(id, out) {
            self.go_through_backlog(now, id, out);
        }
    }

    fn go_through_backlog<O: Outbox>(&mut self, now: Now, id: SessionId, out: &mut O) {
        loop {
            let Some(session) = self.sessions.get_mut(id) else {
                return;
            };
            if session.waiting.is_some() {
                return;
            }
            let Some(backlog) = &mut session.backlog else {
                break;
            };
            let Some(frame) = backlog.pop() else {
                session.backlog = None;
                break;
            };
            self.run(now, id, frame.as_frame(), out);
        }
        out.resume(id);
    }

    /// Whether a session has to wait, from now on, as others can't take what the command came to that was executed last.
    fn is_held_up<O: Outbox>(&mut self, id: SessionId, out: &mut O) -> bool {
        if !out.holds_up(id) {
            return false;
        }
        if let Some(session) = self.sessions.get_mut(id) {
            session.waiting = Some(Box::new(Waiting::Others));
            self.counters.held_up += 1;
        }
        true
    }

    /// Goes on with a session that was [held up](Outbox::holds_up). Any other is ignored.
    pub fn go_on<O: Outbox>(&mut self, now: Now, id: SessionId, out: &mut O) {
        let waited = self.sessions.get_mut(id).and_then(|session| {
            let waiting = &mut session.waiting;
            waiting.take_if(|waiting| matches!(**waiting, Waiting::Others))
        });
        if waited.is_some() {
            self.go_through_backlog(now, id, out);
            self.settle(now, out);
        }
    }

    /// Goes on with commands that waited for room, if any do.
    pub(super) fn resume_input<O: Outbox>(&mut self, now: Now, id: SessionId, out: &mut O) {
        let waited = self.sessions.get_mut(id).and_then(|session| {
            let waiting = &mut session.waiting;
            waiting.take_if(|waiting| matches!(**waiting, Waiting::Room))
        });
        if waited.is_some() {
            self.go_through_backlog(now, id, out);
        }
    }
}
