//! An engine that answers later, in an order of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tautline_protocol::message::{ClientInfo, PresenceStatsResult};

use super::Seeded;
use crate::Now;
use crate::engine::{
    Channel, Delivery, Engine, EngineError, HistoryPage, HistoryRead, JoinLevel, Mailbox, Outcome,
    PresencePage, PresenceRead, Publish, Published, Started, Ticket, WorkerId,
};

/// How a [`DelayedEngine`] behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct DelayOptions {
    /// In how many of a hundred cases an operation is done at once, where the contract allows it.
    pub at_once: usize,
    /// In how many of a hundred cases an operation fails; half of those take effect all the same.
    pub failures: usize,
}

/// Wraps an engine so that operations take effect later, and are answered later still: effects in
/// the order in which a worker started them for a channel and in any order otherwise, outcomes in
/// any order at all. What happens follows from the seed.
///
/// Nothing happens by itself: [`step`](Self::step) makes the next thing happen.
pub struct DelayedEngine {
    inner: Arc<dyn Engine>,
    options: DelayOptions,
    state: Mutex<State>,
}

struct State {
    random: Seeded,
    mailboxes: BTreeMap<WorkerId, Arc<dyn Mailbox>>,
    /// Started, without an effect yet.
    started: BTreeMap<(WorkerId, Channel), VecDeque<Operation>>,
    /// Took effect, but nobody was told yet.
    unanswered: Vec<(Ticket, Outcome)>,
}

struct Operation {
    ticket: Option<Ticket>,
    effect: Effect,
    failure: Option<Failure>,
}

type Effect = Box<dyn FnOnce(&dyn Engine, Now) -> Outcome + Send>;

struct Failure {
    takes_effect: bool,
    outcome: Outcome,
}

/// Whether an operation must take effect even where it is said to have failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owed {
    Yes,
    No,
}

impl DelayedEngine {
    /// Wraps `inner`, which must do everything at once.
    pub fn new(inner: Arc<dyn Engine>, options: DelayOptions, seed: u64) -> Self {
        let state = State {
            random: Seeded::new(seed),
            mailboxes: BTreeMap::new(),
            started: BTreeMap::new(),
            unanswered: Vec::new(),
        };
        Self {
            inner,
            options,
            state: Mutex::new(state),
        }
    }

    /// Makes one operation take effect, or one outcome known. Returns whether there was anything.
    pub fn step(&self, now: Now) -> bool {
        let mut state = self.lock();
        let (queues, answers) = (state.started.len(), state.unanswered.len());
        if queues + answers == 0 {
            return false;
        }
        let choice = state.random.below(queues + answers);
        if let Some(answer) = choice.checked_sub(queues) {
            let (ticket, outcome) = state.unanswered.swap_remove(answer);
            if let Some(mailbox) = state.mailboxes.get(&ticket.worker) {
                mailbox.push(Delivery::Outcome { ticket, outcome });
            }
            return true;
        }
        let Some(key) = state.started.keys().nth(choice).cloned() else {
            return false;
        };
        let operation = state.started.get_mut(&key).and_then(VecDeque::pop_front);
        if state.started.get(&key).is_some_and(VecDeque::is_empty) {
            state.started.remove(&key);
        }
        let Some(Operation {
            ticket,
            effect,
            failure,
        }) = operation
        else {
            return true;
        };
        let outcome = match failure {
            None => effect(&*self.inner, now),
            Some(Failure {
                takes_effect,
                outcome,
            }) => {
                if takes_effect {
                    effect(&*self.inner, now);
                }
                outcome
            }
        };
        if let Some(ticket) = ticket {
            state.unanswered.push((ticket, outcome));
        }
        true
    }

    /// Has an operation take effect at some time, unless it may do so at once.
    fn start<T: 'static>(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
        owed: Owed,
        run: impl FnOnce(&dyn Engine, Now) -> Started<Result<T, EngineError>> + Send + 'static,
        outcome: fn(Result<T, EngineError>) -> Outcome,
    ) -> Started<Result<T, EngineError>> {
        let mut state = self.lock();
        let key = (ticket.worker, channel.clone());
        if !state.started.contains_key(&key) && state.random.chance(self.options.at_once) {
            return run(&*self.inner, now);
        }
        let is_failure = state.random.chance(self.options.failures);
        let failure = is_failure.then(|| Failure {
            takes_effect: owed == Owed::Yes || state.random.chance(50),
            outcome: outcome(Err(EngineError::Unavailable)),
        });
        let effect: Effect = Box::new(move |engine, now| match run(engine, now) {
            Started::Done(result) => outcome(result),
            Started::Later => outcome(Err(EngineError::Unavailable)),
        });
        let operation = Operation {
            ticket: Some(ticket),
            effect,
            failure,
        };
        state.started.entry(key).or_default().push_back(operation);
        Started::Later
    }

    /// The same for an operation that nobody waits for.
    fn start_unanswered(
        &self,
        worker: WorkerId,
        channel: &Channel,
        run: impl FnOnce(&dyn Engine, Now) + Send + 'static,
    ) {
        let effect: Effect = Box::new(move |engine, now| {
            run(engine, now);
            Outcome::Changed(Ok(()))
        });
        let operation = Operation {
            ticket: None,
            effect,
            failure: None,
        };
        let key = (worker, channel.clone());
        self.lock()
            .started
            .entry(key)
            .or_default()
            .push_back(operation);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for DelayedEngine {
    fn register(&self, worker: WorkerId, mailbox: Arc<dyn Mailbox>) {
        self.lock().mailboxes.insert(worker, mailbox.clone());
        self.inner.register(worker, mailbox);
    }

    fn attach(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
    ) -> Started<Result<(), EngineError>> {
        let name = channel.clone();
        let run = move |engine: &dyn Engine, now| engine.attach(now, ticket, &name);
        self.start(now, ticket, channel, Owed::No, run, Outcome::Changed)
    }

    fn detach(&self, _: Now, worker: WorkerId, channel: &Channel) {
        let name = channel.clone();
        self.start_unanswered(worker, channel, move |engine, now| {
            engine.detach(now, worker, &name);
        });
    }

    fn publish(
        &self,
        now: Now,
        ticket: Ticket,
        request: Publish,
    ) -> Started<Result<Published, EngineError>> {
        let channel = request.channel.clone();
        let run = move |engine: &dyn Engine, now| engine.publish(now, ticket, request);
        self.start(now, ticket, &channel, Owed::No, run, Outcome::Published)
    }

    fn join(
        &self,
        _: Now,
        worker: WorkerId,
        channel: &Channel,
        info: &Arc<ClientInfo>,
        level: JoinLevel,
    ) {
        let (name, info) = (channel.clone(), info.clone());
        self.start_unanswered(worker, channel, move |engine, now| {
            engine.join(now, worker, &name, &info, level);
        });
    }

    fn leave(
        &self,
        _: Now,
        worker: WorkerId,
        channel: &Channel,
        info: &Arc<ClientInfo>,
        level: JoinLevel,
    ) {
        let (name, info) = (channel.clone(), info.clone());
        self.start_unanswered(worker, channel, move |engine, now| {
            engine.leave(now, worker, &name, &info, level);
        });
    }

    fn history(
        &self,
        now: Now,
        ticket: Ticket,
        request: HistoryRead,
    ) -> Started<Result<HistoryPage, EngineError>> {
        let channel = request.channel.clone();
        let run = move |engine: &dyn Engine, now| engine.history(now, ticket, request);
        self.start(now, ticket, &channel, Owed::No, run, Outcome::History)
    }

    fn remove_history(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
    ) -> Started<Result<(), EngineError>> {
        let name = channel.clone();
        let run = move |engine: &dyn Engine, now| engine.remove_history(now, ticket, &name);
        self.start(now, ticket, channel, Owed::No, run, Outcome::Changed)
    }

    fn presence_add(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
        info: &Arc<ClientInfo>,
    ) -> Started<Result<(), EngineError>> {
        let (name, info) = (channel.clone(), info.clone());
        let run = move |engine: &dyn Engine, now| engine.presence_add(now, ticket, &name, &info);
        self.start(now, ticket, channel, Owed::No, run, Outcome::Changed)
    }

    fn presence_remove(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
        info: &Arc<ClientInfo>,
    ) -> Started<Result<(), EngineError>> {
        let (name, info) = (channel.clone(), info.clone());
        let run = move |engine: &dyn Engine, now| engine.presence_remove(now, ticket, &name, &info);
        self.start(now, ticket, channel, Owed::Yes, run, Outcome::Changed)
    }

    fn presence(
        &self,
        now: Now,
        ticket: Ticket,
        request: PresenceRead,
    ) -> Started<Result<PresencePage, EngineError>> {
        let channel = request.channel.clone();
        let run = move |engine: &dyn Engine, now| engine.presence(now, ticket, request);
        self.start(now, ticket, &channel, Owed::No, run, Outcome::Presence)
    }

    fn presence_stats(
        &self,
        now: Now,
        ticket: Ticket,
        channel: &Channel,
    ) -> Started<Result<PresenceStatsResult, EngineError>> {
        let name = channel.clone();
        let run = move |engine: &dyn Engine, now| engine.presence_stats(now, ticket, &name);
        self.start(now, ticket, channel, Owed::No, run, Outcome::PresenceStats)
    }

    fn maintain(&self, now: Now) {
        self.inner.maintain(now);
    }
}
