//! A worker: one thread that owns a hub and the connections which it accepted.
//!
//! All that happens on a worker happens in *turns*. A turn lets the hub work on something (bytes from
//! a connection, a request of the HTTP API, a deadline), then delivers what this and other workers
//! put into the mailbox, and writes to each connection that something was queued for, once. So what
//! one readable event causes leaves in one write a connection, and nobody is woken in between.

pub(crate) mod answers;
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
use self::mailbox::{Batch, WorkerMailbox};
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
    /// When the first of those came that is timed and not written yet, if one is.
    timed: Option<Instant>,
    /// Where it is entered who comes and goes, if the application's backend is told.
    pub(crate) tap: Option<Tap>,
    /// Those who follow somebody, by the trace's number on the node.
    pub(crate) traces: HashMap<u64, TraceId>,
    /// What everything goes by, the hub too.
    pub(crate) live: Arc<Live>,
    /// Kept for its capacity.
    batch: Batch,
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
        log.borrow_mut().begin(id, transport, address);
        id
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
            tap: None,
            traces: HashMap::new(),
            live,
            batch: Batch::default(),
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
        })
    }

    /// One turn, with `work` as what it is about. `work` must not come back here.
    pub(crate) fn turn<T>(&self, work: impl FnOnce(Now, &mut State) -> T) -> T {
        self.mailbox.attend();
        let now = self.clock.now();
        let state = &mut *self.state.borrow_mut();
        let wakes = Wakes::later();
        let result = work(now, state);
        drop(wakes);
        self.settle(now, state);
        let deadlines = [state.hub.next_deadline(), self.flush_at.get()];
        let deadline = deadlines.into_iter().flatten().min();
        if self.deadline.replace(deadline) != deadline {
            self.rearm.notify_one();
        }
        result
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

    /// Writes what is queued, or has it wait for more.
    fn flush(&self, now: Now, state: &mut State) {
        let delay = state.live.config.write_delay;
        let connections = &mut state.connections;
        connections.set_delays(!delay.is_zero());
        let due = self.flush_at.get();
        if delay.is_zero() || due.is_some_and(|due| now.monotonic >= due) {
            connections.flush();
            return self.flush_at.set(None);
        }
        connections.flush_urgent();
        if due.is_none() && connections.is_dirty() {
            self.flush_at.set(Some(now.monotonic + delay));
        }
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

    /// Takes what is in the mailbox, and writes what came of that and of the work before it.
    fn settle(&self, now: Now, state: &mut State) {
        // What was left is for the turns in between: many connections that are read one after the other would
        // have as many turns' worth of it before anybody else has his.
        let goes_on = self.goes_on.take() || state.drained.is_empty();
        let mut budget = if goes_on { LOOKED_THROUGH_PER_TURN } else { 0 };
        for _ in 0..BATCHES_PER_TURN {
            let mut batch = std::mem::take(&mut state.batch);
            let any = self.mailbox.drain(&mut batch);
            if any {
                let _wakes = Wakes::later();
                let began = batch.timed.map(|_| Instant::now());
                state
                    .hub
                    .deliver(now, &mut batch.deliveries, &mut state.connections);
                if let Some(began) = began {
                    state.broadcasts.add(began.elapsed());
                }
                for call in batch.calls.drain(..) {
                    call(now, state);
                }
                batch.deliveries.clear();
            }
            let timed = batch.timed.take();
            state.batch = batch;
            Self::end_over(now, state);
            self.flush(now, state);
            if state.note_queues(now) {
                self.flush(now, state);
            }
            state.timed = state.timed.or(timed);
            if self.flush_at.get().is_none()
                && let Some(since) = state.timed.take()
            {
                state.deliveries.add(since.elapsed());
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
