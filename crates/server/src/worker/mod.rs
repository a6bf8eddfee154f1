//! A worker: one thread that owns a hub and the connections which it accepted.
//!
//! All that happens on a worker happens in *turns*. A turn lets the hub work on something (bytes from
//! a connection, a request of the HTTP API, a deadline), then delivers what this and other workers
//! put into the mailbox, and writes to each connection that something was queued for, once. So what
//! one readable event causes leaves in one write a connection, and nobody is woken in between.
//!
//! Where that is more than a turn is for, the worker goes on with it in turns of its own, between which others have theirs;
//! until it is done, what comes waits in the mailbox, and is delivered all at once.

#[cfg(test)]
mod ahead;
pub(crate) mod answers;
#[cfg(test)]
mod behind;
pub(crate) mod clock;
pub(crate) mod connection_log;
pub(crate) mod connections;
pub(crate) mod guests;
pub(crate) mod link;
pub(crate) mod listener;
pub(crate) mod live;
pub(crate) mod mailbox;
pub(crate) mod queues;
pub(crate) mod relays;
pub(crate) mod room;
mod rounds;
pub(crate) mod spoken;
pub(crate) mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod thread;
#[cfg(test)]
mod unread;
pub(crate) mod voice;
mod waiters;
mod wakes;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tautline_hub::engine::Delivery;
use tautline_hub::trace::TraceId;
use tautline_hub::{Hub, Now, SessionId, Transport};
use tautline_protocol::Disconnect;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::answers::Answers;
use self::clock::Clock;
use self::connection_log::{Failed, Witnesses};
use self::connections::Connections;
use self::live::Live;
use self::mailbox::{Batch, Call, WorkerMailbox};
use self::queues::QueueShare;
use self::relays::{Relayed, Relays};
use self::wakes::Wakes;
use crate::door::poll::keeper::Pads;
use crate::embed::Request;
use crate::embed::desk::Files;
use crate::events::Tap;
use crate::http::counters::HttpCounters;
use crate::http::line::HttpLine;
use crate::http::metrics::{CallCounters, FineHistogram, Http2Counters};

/// How often a worker that ends looks whether its handlers are done.
const GLANCE: Duration = Duration::from_millis(20);

/// How many batches of the mailbox a turn takes before others have theirs.
const BATCHES_PER_TURN: usize = 16;

/// How many publications a turn looks through for sessions that are behind, or ask for what a filter keeps
/// from them, before others have theirs: some milliseconds.
const LOOKED_THROUGH_PER_TURN: usize = 10_000;

/// To how many connections a turn writes before others have theirs: a fraction of a millisecond.
const WRITES_PER_TURN: usize = 32;

/// What a write takes at the least.
const A_WRITE: Duration = Duration::from_micros(4);

/// How many bytes of publications are queued before they are written.
const BYTES_AT_ONCE: usize = 64 * 1024;

/// How many bytes of publications may wait for a round to end before who publishes on this worker waits for it, too.
const MAX_GATHERED: usize = 256 * 1024;

/// What it costs at the least to go on with one of them.
const EACH: usize = 20;

/// What lives on one worker thread, shared by the tasks of that thread.
pub(crate) struct Worker {
    state: RefCell<State>,
    answers: Rc<Answers>,
    relays: Rc<Relays>,
    mailbox: Arc<WorkerMailbox>,
    clock: Clock,
    /// The deadline that the timer should be armed for, and word that it has changed.
    deadline: Cell<Option<Duration>>,
    rearm: Notify,
    /// The last turn ended although there was more.
    is_cut: Cell<bool>,
    /// The next turn goes on with what others have left.
    goes_on: Cell<bool>,
    /// When what is queued is written, where it waits.
    flush_at: Cell<Option<Duration>>,
    /// When the last turn ended that has left something to be written.
    wrote_at: Cell<Duration>,
}

/// The hub, and the connections that it writes to.
pub(crate) struct State {
    pub(crate) hub: Hub,
    pub(crate) connections: Connections,
    /// What clients of plain HTTP have yet to take beside that.
    answers: Rc<Answers>,
    /// And what tunnels hold.
    relays: Rc<Relays>,
    /// What they hold, for the node.
    queues: QueueShare,
    /// What sessions have between their polls.
    pub(crate) pads: Pads,
    /// The same of tunnels.
    pub(crate) tunnels: Pads,
    /// Where there are handlers: what is kept for them.
    pub(crate) files: Option<Rc<RefCell<Files>>>,
    /// What was counted of calls of the HTTP API.
    pub(crate) calls: CallCounters,
    /// Of requests and connections that came to nothing.
    pub(crate) http: HttpCounters,
    /// And of connections in HTTP/2.
    pub(crate) http2: Http2Counters,
    /// How long publications took from the mailbox to their subscribers' sockets.
    pub(crate) deliveries: FineHistogram,
    /// How long it took to hand what came with some of them to all subscribers.
    pub(crate) broadcasts: FineHistogram,
    /// When the first of those came that is timed and not written yet, if one is, and what it was queued behind.
    timed: Option<(Instant, u64)>,
    /// What is to be done when all is written that was queued before.
    after_writing: VecDeque<(u64, Call)>,
    /// Where it is entered who comes and goes, if the application's backend is told.
    pub(crate) tap: Option<Tap>,
    /// Those who follow somebody, by the trace's number on the node.
    pub(crate) traces: HashMap<u64, TraceId>,
    /// What everything goes by, the hub too.
    pub(crate) live: Arc<Live>,
    /// What was taken out of the mailbox and isn't delivered yet.
    batch: Batch,
    /// Kept for its capacity: the part of it that is delivered at once.
    part: Vec<Delivery>,
    /// Sessions that go on now, as their connections took all there was.
    drained: VecDeque<SessionId>,
}

impl State {
    /// Has the witnesses of the hub be those of now: the log, and whoever is told of events, of whom there may have been
    /// another before, or none.
    pub(crate) fn set_witnesses(&mut self, now: Now, tap: Option<Tap>) {
        if let Some(tap) = &tap {
            tap.take_over(now, self.tap.as_ref(), &self.hub);
        }
        let log = Rc::clone(self.connections.log());
        let other = tap.clone();
        self.hub.set_witness(Box::new(Witnesses { log, other }));
        self.tap = tap;
    }

    /// Makes a session for a connection that is open now. `request` is what brought it here, where
    /// handlers want to know, and `address` whom it is from, where that is known.
    pub(crate) fn open(
        &mut self,
        now: Now,
        transport: Transport,
        request: Option<Arc<Request>>,
        user: Option<Arc<str>>,
        address: Option<IpAddr>,
    ) -> SessionId {
        let id = match user {
            Some(user) => self.hub.open_as(now, transport, user),
            None => self.hub.open(now, transport),
        };
        if let (Some(files), Some(request)) = (&self.files, request) {
            files.borrow_mut().keep(id, request);
        }
        let log = self.connections.log();
        let session = self.hub.name_of(id);
        log.borrow_mut().begin(session, transport, address);
        id
    }

    /// Has `call` run when all is written that is queued by now, as far as there is room for it.
    pub(crate) fn when_written(&mut self, call: Call) {
        let place = self.connections.place();
        self.after_writing.push_back((place, call));
    }

    /// Does what was to be done when something is written that is written now.
    fn note_written(&mut self, now: Now) {
        let connections = &self.connections;
        if let Some((since, _)) = self
            .timed
            .take_if(|(_, place)| connections.is_written_to(*place))
        {
            self.deliveries.add(since.elapsed());
        }
        while let Some((place, _)) = self.after_writing.front()
            && self.connections.is_written_to(*place)
            && let Some((_, call)) = self.after_writing.pop_front()
        {
            call(now, self);
        }
    }

    /// Ends a session whose connection is over, as far as worker and hub are concerned.
    pub(crate) fn leave(&mut self, now: Now, id: SessionId) {
        self.connections.remove(id);
        self.hub.transport_closed(now, id, &mut self.connections);
        let log = self.connections.log();
        log.borrow_mut().end(id, &Disconnect::CONNECTION_CLOSED);
    }
}

impl Worker {
    pub(crate) fn new(
        hub: Hub,
        mailbox: Arc<WorkerMailbox>,
        clock: Clock,
        files: Option<Rc<RefCell<Files>>>,
        live: Arc<Live>,
        queues: QueueShare,
    ) -> Rc<Self> {
        let answers = Rc::<Answers>::default();
        let relays = Rc::<Relays>::default();
        let state = State {
            hub,
            connections: Connections::default(),
            answers: Rc::clone(&answers),
            relays: Rc::clone(&relays),
            queues,
            pads: Pads::default(),
            tunnels: Pads::default(),
            files,
            calls: CallCounters::default(),
            http: HttpCounters::default(),
            http2: Http2Counters::default(),
            deliveries: FineHistogram::default(),
            broadcasts: FineHistogram::default(),
            timed: None,
            after_writing: VecDeque::new(),
            tap: None,
            traces: HashMap::new(),
            live,
            batch: Batch::default(),
            part: Vec::new(),
            drained: VecDeque::new(),
        };
        Rc::new(Self {
            state: RefCell::new(state),
            answers,
            relays,
            mailbox,
            clock,
            deadline: Cell::new(None),
            rearm: Notify::new(),
            is_cut: Cell::new(false),
            goes_on: Cell::new(false),
            flush_at: Cell::default(),
            wrote_at: Cell::default(),
        })
    }

    /// One turn, with `work` as what it is about. `work` must not come back here.
    pub(crate) fn turn<T>(&self, work: impl FnOnce(Now, &mut State) -> T) -> T {
        self.mailbox.attend();
        let now = self.clock.now();
        let state = &mut *self.state.borrow_mut();
        let wakes = Wakes::later();
        // What somebody did before is no matter of those who do something now.
        room::take();
        let result = work(now, state);
        drop(wakes);
        self.settle(now, state);
        self.hold_up(state);
        // While a round goes on, the next isn't due.
        let flush_at = self.flush_at.get();
        let flush_at = flush_at.filter(|_| !state.connections.is_writing());
        let deadlines = [state.hub.next_deadline(), flush_at];
        let deadline = deadlines.into_iter().flatten().min();
        if self.deadline.replace(deadline) != deadline {
            self.rearm.notify_one();
        }
        result
    }

    /// Has those go on who published more than others had room for, once they have.
    fn hold_up(&self, state: &mut State) {
        while let Some((id, room)) = state.connections.take_held_up() {
            let own = Arc::clone(&self.mailbox);
            room.when_free(Box::new(move || {
                own.call(Box::new(move |now, state| {
                    let State {
                        hub, connections, ..
                    } = state;
                    hub.go_on(now, id, connections);
                }));
            }));
        }
    }

    /// Counts something about a call of the HTTP API. Not from within a turn.
    pub(crate) fn count_call(&self, count: impl FnOnce(&mut CallCounters)) {
        count(&mut self.state.borrow_mut().calls);
    }

    /// Counts something about a request or a connection that came to nothing. Not from within a turn.
    pub(crate) fn count_http(&self, count: impl FnOnce(&mut HttpCounters)) {
        count(&mut self.state.borrow_mut().http);
    }

    /// Logs that somebody came to nothing before there was a session, if he is one of those who are logged. Not from within a
    /// turn.
    pub(crate) fn log_failed(&self, address: IpAddr, failed: Failed<'_>) {
        let state = self.state.borrow();
        state
            .connections
            .log()
            .borrow_mut()
            .strange(address, failed);
    }

    /// Counts something about a connection in HTTP/2. Not from within a turn.
    pub(crate) fn count_http2(&self, count: impl FnOnce(&mut Http2Counters)) {
        count(&mut self.state.borrow_mut().http2);
    }

    /// What everything goes by at the moment. Not from within a turn. Whoever answers a request asks once, so
    /// that all of it goes by the same.
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.state.borrow().live)
    }

    /// The same bytes, which count among those that wait for clients. Ending `line` gives them up.
    pub(crate) fn hold_answer(&self, bytes: Bytes, line: &Rc<HttpLine>) -> Bytes {
        self.answers.hold(self.clock.now().monotonic, bytes, line)
    }

    /// A tunnel that begins, and counts among what waits for clients.
    pub(crate) fn relay(&self) -> Relayed {
        self.relays.begin()
    }

    /// Whether the hub takes input of a session now.
    pub(crate) fn wants_input(&self, id: SessionId) -> bool {
        self.state.borrow().hub.wants_input(id)
    }

    /// Whether there are handlers, who want to know by which requests clients came.
    pub(crate) fn has_handlers(&self) -> bool {
        self.state.borrow().files.is_some()
    }

    /// Forgets by which request a client came: its session is over.
    pub(crate) fn forget_request(&self, id: SessionId) {
        if let Some(files) = &self.state.borrow().files {
            files.borrow_mut().forget(id);
        }
    }

    /// Resolves when no handler is at work any more.
    pub(crate) async fn questions_answered(&self) {
        while self.state.borrow().hub.questions() > 0 {
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Tells the clients to come back elsewhere, in an even row over that time; all now where it is none.
    pub(crate) fn drain(&self, over: Duration) {
        self.turn(|now, state| {
            state.hub.drain(now, over, &mut state.connections);
            if over.is_zero() {
                // The worker may be gone before anybody is woken.
                state.pads.answer_all();
            }
        });
    }

    /// Looks after mailbox and deadlines, for as long as it is polled.
    pub(crate) async fn run(&self) -> std::convert::Infallible {
        loop {
            let deadline = async {
                match self.deadline.get() {
                    Some(at) => {
                        tokio::time::sleep_until(self.clock.instant(at)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.mailbox.pushed() => {
                    self.goes_on.set(true);
                    self.turn(|_, _| ());
                }
                () = self.rearm.notified() => {}
                () = deadline => self.turn(|now, state| {
                    state.hub.on_deadline(now, &mut state.connections);
                }),
            }
            if self.is_cut.take() {
                // What wakes this task again is there already.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Looks at what waits to be written, again and again. `over` tells how many bytes of memory the process has too
    /// much. Never ends.
    pub(crate) async fn watch_queues(&self, mut over: impl FnMut() -> usize) {
        loop {
            tokio::time::sleep(queues::LOOK).await;
            let over = over();
            self.turn(|now, state| state.look_at_queues(now, over));
        }
    }

    /// Lets the hub go on with sessions that are behind and whose connections took all there was, as far as
    /// `budget` goes. Returns whether there were any.
    fn read_on(now: Now, state: &mut State, budget: &mut usize) -> bool {
        let State {
            hub,
            connections,
            drained,
            ..
        } = state;
        connections.take_drained(drained);
        let mut any = false;
        while *budget > 0
            && let Some(id) = drained.pop_front()
        {
            let looked_through = hub.drained(now, id, connections);
            *budget = budget.saturating_sub(EACH + looked_through);
            any = true;
        }
        any
    }

    /// Writes what is queued, as far as there is `room`, or has it wait for more.
    fn flush(&self, now: Now, state: &mut State, room: &mut usize) {
        let delay = state.live.config.write_delay;
        let connections = &mut state.connections;
        connections.set_delays(!delay.is_zero());
        if delay.is_zero() {
            connections.begin_round();
            self.flush_at.set(None);
        } else {
            connections.write_urgent();
            let due = self.flush_at.get();
            if due.is_some_and(|due| now.monotonic >= due) && !connections.is_writing() {
                connections.begin_round();
                self.flush_at.set(None);
            } else if due.is_none() && connections.is_round_awaited() {
                self.flush_at.set(Some(now.monotonic + delay));
            }
        }
        connections.write(room);
    }

    /// Ends the sessions whose voices have had enough.
    fn end_over(now: Now, state: &mut State) {
        let State {
            hub, connections, ..
        } = state;
        while let Some((id, disconnect)) = connections.take_over() {
            hub.disconnect(now, id, disconnect, connections);
        }
    }

    /// Takes what is next in the mailbox and hands it on. Returns whether there was anything.
    fn deliver(&self, now: Now, state: &mut State) -> bool {
        let mut batch = std::mem::take(&mut state.batch);
        if batch.is_empty() && !self.mailbox.drain(&mut batch) {
            state.batch = batch;
            return false;
        }
        let _wakes = Wakes::later();
        let began = batch.timed.map(|_| Instant::now());
        // A client that reads must not have so much waiting at once that it seems to be one who doesn't.
        let most = BYTES_AT_ONCE.min(state.live.config.hub.queue_max_size() / 8);
        let (count, memory) = batch.first(most);
        state.part.extend(batch.deliveries.drain(..count));
        state
            .hub
            .deliver(now, &mut state.part, &mut state.connections);
        if batch.is_counted {
            self.mailbox.note_delivered(memory);
        }
        if batch.deliveries.is_empty() {
            if let Some(began) = began {
                state.broadcasts.add(began.elapsed());
            }
            if let Some(timed) = batch.timed.take() {
                let place = state.connections.place();
                state.timed.get_or_insert((timed, place));
            }
            for call in batch.calls.drain(..) {
                call(now, state);
            }
        }
        state.batch = batch;
        true
    }

    /// To how many connections this turn writes; `None` if that, and the mailbox, is left to the worker's own turns.
    fn room(&self, now: Now, state: &State, is_own: bool) -> Option<usize> {
        if !state.connections.is_writing() {
            return Some(WRITES_PER_TURN);
        }
        if is_own {
            // Half of the time is for writing, however long others take for theirs.
            let others = now.monotonic.saturating_sub(self.wrote_at.get());
            let share = others.as_nanos() / A_WRITE.as_nanos();
            let share = usize::try_from(share).unwrap_or(usize::MAX);
            return Some(share.max(WRITES_PER_TURN));
        }
        // Who publishes faster than that waits for it.
        (self.mailbox.bytes() > MAX_GATHERED).then_some(usize::MAX)
    }

    /// Takes what is in the mailbox, and writes what came of that and of the work before it.
    ///
    /// That goes in rounds: what came together is queued, and then written to one connection after the other. What comes
    /// while there are still some to write to waits in the mailbox, and leaves with all that came meanwhile: a worker that
    /// is behind writes less often, and more each time.
    fn settle(&self, now: Now, state: &mut State) {
        let is_own = self.goes_on.take();
        let Some(mut room) = self.room(now, state, is_own) else {
            return;
        };
        // What was left is for the turns in between: many connections that are read one after the other would
        // have as many turns' worth of it before anybody else has his.
        let goes_on = is_own || state.drained.is_empty();
        let mut budget = if goes_on { LOOKED_THROUGH_PER_TURN } else { 0 };
        for _ in 0..BATCHES_PER_TURN {
            let any = state.connections.is_writing() || self.deliver(now, state);
            Self::end_over(now, state);
            self.flush(now, state, &mut room);
            if state.note_queues(now) {
                self.flush(now, state, &mut room);
            }
            state.note_written(now);
            if state.connections.is_writing() {
                self.wrote_at.set(self.clock.now().monotonic);
                // Others need not wake who comes back by himself.
                self.mailbox.attend();
                break;
            }
            if !any && !Self::read_on(now, state, &mut budget) {
                if state.drained.is_empty() {
                    return;
                }
                break;
            }
        }
        self.is_cut.set(true);
        self.mailbox.resume_later();
    }
}
