//! The thread that writes events down and delivers them.

use std::collections::HashSet;
use std::fs::File;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tautline_hub::Entropy;
use tokio::sync::{mpsc, oneshot};

use super::books::Books;
use super::dead::{Dead, DeadEvent, DeadEvents, DeadPage};
use super::delivery::{Decision, Delivery, Outcome};
use super::event::{Event, Kind};
use super::ledger::Ledger;
use super::queue::Queue;
use super::sender;
use super::settings::Settings;
use super::{EventNumbers, EventsError, Shared, lock};
use crate::kept;
use crate::proxy::HttpClient;

/// What others want of the thread.
pub(super) enum Command {
    Flush {
        deadline: Instant,
        done: oneshot::Sender<bool>,
    },
    Dead {
        which: DeadEvents,
        from: u64,
        most: usize,
        done: oneshot::Sender<DeadPage>,
    },
    Settle {
        which: DeadEvents,
        again: bool,
        done: oneshot::Sender<io::Result<usize>>,
    },
    /// To go by other options, as a node of that name.
    Reconfigure(Box<Settings>, String),
    /// To end: what is left is for the next one that has the directory.
    Close(oneshot::Sender<()>),
}

/// What the thread has.
pub(super) struct Writer {
    settings: Arc<Settings>,
    /// `None` where code takes the events.
    client: Option<HttpClient>,
    node: String,
    /// Grows when it is somebody else who is told. An attempt that was for the one before says nothing of this one, but
    /// that it was successful.
    aim: u64,
    /// What the ids of this process's events begin with.
    uid: String,
    entropy: Box<dyn Entropy + Send>,
    queue: Queue,
    books: Books,
    dead: Dead,
    delivery: Delivery,
    /// What of that is told.
    kinds: Arc<HashSet<Kind>>,
    /// Taken out of the ledger, and not written yet because the disk would not have it.
    unwritten: Vec<Event>,
    /// In the queue, and not yet in the books.
    unbooked: Vec<(u64, Vec<u8>)>,
    retry_write: Duration,
    /// When what is in the queue has waited long enough for more.
    ripe: Option<Duration>,
    /// When what was written is to be synced, if it isn't.
    sync_at: Option<Duration>,
    flush: Option<(Duration, oneshot::Sender<bool>)>,
    numbers: EventNumbers,
    told: Option<Duration>,
    /// When it was last told that nothing can be written; `None` if it can.
    blocked: Option<Duration>,
    is_full: bool,
    /// When that was last told: it is told beside other problems, as it comes with one.
    told_full: Option<Duration>,
    /// Held for as long as the directory is in use.
    _lock: File,
}

/// An attempt that is under way.
type Sending = Pin<Box<dyn Future<Output = Sent> + Send>>;

/// One that is over.
struct Sent {
    aim: u64,
    /// The last position in it, and how many events.
    last: u64,
    count: usize,
    outcome: Outcome,
}

impl Writer {
    /// Reads the directory, and enters in `ledger` what it says.
    pub(super) fn open(
        settings: Settings,
        node: String,
        mut entropy: Box<dyn Entropy + Send>,
        ledger: &mut Ledger,
    ) -> Result<Self, EventsError> {
        let directory = settings.directory.clone();
        let failed = |source| EventsError::Directory {
            path: directory.clone(),
            source,
        };
        kept::directory(&directory).map_err(failed)?;
        let file = File::create(directory.join("lock")).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(EventsError::InUse(directory)),
            Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        let reason = if is_clean(&directory).map_err(failed)? {
            "node restarted"
        } else {
            "node crashed"
        };
        let books = Books::open(&directory, ledger).map_err(failed)?;
        let mut unbooked = Vec::new();
        let (mut queue, lost) = Queue::open(&directory, settings.max_bytes, |json| {
            if let Ok(event) = serde_json::from_slice::<Event>(json)
                && event.seq > books.last()
            {
                ledger.restore(&event);
                unbooked.push((event.seq, json.to_vec()));
            }
        })
        .map_err(failed)?;
        queue.skip_to(books.last() + 1);
        if lost > 0 {
            tracing::warn!(
                bytes = lost,
                "the end of a file of events was not whole and is gone, as after a loss of power"
            );
        }
        let dead = Dead::open(&directory, settings.dead_most).map_err(failed)?;
        ledger.restored(Duration::ZERO, unix_millis(), reason);
        let mut uid = [0; 8];
        entropy.fill(&mut uid);
        let mut settings = settings;
        Ok(Self {
            client: settings.endpoint.as_mut().map(crate::proxy::client),
            delivery: Delivery::new(settings.patience),
            settings: Arc::new(settings),
            node,
            aim: 0,
            uid: format!("{:016x}", u64::from_be_bytes(uid)),
            entropy,
            ripe: (queue.len() > 0).then_some(Duration::ZERO),
            queue,
            books,
            dead,
            kinds: Arc::default(),
            unwritten: Vec::new(),
            unbooked,
            retry_write: Duration::ZERO,
            sync_at: None,
            flush: None,
            numbers: EventNumbers::default(),
            told: None,
            blocked: None,
            is_full: false,
            told_full: None,
            _lock: file,
        })
    }

    /// Works until nobody could tell it anything any more.
    pub(super) async fn run(
        mut self,
        shared: Arc<Shared>,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        let mut sending: Option<Sending> = None;
        loop {
            // Before looking: what is entered from here on wakes.
            shared.asleep.store(true, Ordering::SeqCst);
            let now = shared.now();
            let more = self.write(&shared, now);
            self.sync_if_due(now);
            self.dead.tidy();
            if sending.is_none() {
                sending = self.next_batch(now);
            }
            self.count(&shared);
            self.end_flush(&shared, now, sending.is_some());
            if more {
                tokio::task::yield_now().await;
                // Others have their turn, and commands theirs.
                shared.notify.notify_one();
            }
            let deadline = self.deadline(&shared, sending.is_some());
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until((shared.start + at).into()).await,
                    None => std::future::pending().await,
                }
            };
            let sent = async {
                match &mut sending {
                    Some(sending) => sending.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shared.notify.notified() => {}
                () = sleep => {}
                sent = sent => {
                    sending = None;
                    self.sent(shared.now(), sent);
                }
                command = commands.recv() => match command {
                    Some(Command::Close(done)) => return self.close(&shared, done),
                    Some(command) => self.obey(&shared, command),
                    None => break,
                },
            }
        }
        self.write(&shared, shared.now());
        self.sync();
    }

    /// Leaves all to the next one that has the directory, which is free when `done` is told.
    fn close(mut self, shared: &Shared, done: oneshot::Sender<()>) {
        while self.write(shared, shared.now()) {}
        self.sync();
        self.note_clean_end();
        tracing::info!(
            queued = self.queue.len(),
            "events are not told any more; those that wait are kept"
        );
        drop(self);
        let _ = done.send(());
    }

    /// Writes down what is new. Returns whether there is more of it.
    fn write(&mut self, shared: &Shared, now: Duration) -> bool {
        if now < self.retry_write {
            return false;
        }
        if self.unwritten.is_empty() {
            let mut ledger = lock(&shared.ledger);
            ledger.settle(now);
            self.numbers.dropped = ledger.dropped() + self.dead.dropped();
            self.is_full = !self.queue.has_room(AT_ONCE * ROOM_OF_EVENT);
            if self.is_full {
                drop(ledger);
                if is_due(&mut self.told_full, now) {
                    self.warn("the queue of events is full (events.queue_max_size): what comes and goes meanwhile \
                        is not told, what is different then is");
                }
                return false;
            }
            self.unwritten = ledger.take(AT_ONCE);
            // Behind that, so that it counts for all that a worker has entered by other options.
            self.kinds = Arc::clone(&lock(&shared.kinds));
        }
        if self.unwritten.is_empty() && self.unbooked.is_empty() {
            return false;
        }
        if let Err(error) = self.write_down() {
            self.retry_write = now + RETRY_WRITE;
            self.write_failed(now, &error);
            return false;
        }
        if self.blocked.take().is_some() {
            tracing::info!(
                queued = self.queue.len(),
                "events can be written down again; nothing of what was waiting is lost"
            );
        }
        self.ripe.get_or_insert(now + self.settings.batch_time);
        self.sync_at
            .get_or_insert(now + self.settings.sync_interval);
        lock(&shared.ledger).waiting() > 0
    }

    fn write_down(&mut self) -> io::Result<()> {
        let (mut queued, mut booked) = (Vec::new(), Vec::new());
        let mut position = self.queue.next();
        for event in &mut self.unwritten {
            let is_wanted = self.kinds.contains(&event.kind);
            // Others are only remembered.
            event.seq = if is_wanted { position } else { 0 };
            event.id = format!("{}-{}", self.uid, event.seq);
            let json = serde_json::to_vec(event)?;
            if is_wanted {
                position += 1;
                queued.push((event.time, json.clone()));
            }
            booked.push((event.seq, json));
        }
        self.queue.append(&queued)?;
        self.unwritten.clear();
        // From here on the queue has them, whatever becomes of the books.
        self.unbooked.append(&mut booked);
        self.books.append(&self.unbooked)?;
        self.unbooked.clear();
        Ok(())
    }

    /// What can't be written stays in memory, and is tried again.
    fn write_failed(&mut self, now: Duration, error: &io::Error) {
        self.numbers.write_failures += 1;
        let is_told = |told: Duration| now.saturating_sub(told) < TELL_EVERY;
        if self.blocked.is_some_and(is_told) {
            return;
        }
        self.blocked = Some(now);
        let directory = self.settings.directory.display();
        tracing::error!(
            %error, %directory, waiting = self.unwritten.len(),
            "events can't be written down: they wait in memory until they can"
        );
    }

    fn sync_if_due(&mut self, now: Duration) {
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync();
        }
    }

    fn sync(&mut self) {
        self.sync_at = None;
        match self.queue.sync().and_then(|()| self.books.sync()) {
            Ok(()) => self.numbers.syncs += 1,
            Err(error) => {
                tracing::error!(%error, "events may not survive a loss of power: they can't be synced");
            }
        }
    }

    /// The next attempt, if it is time for one.
    fn next_batch(&mut self, now: Duration) -> Option<Sending> {
        let queued = self.queue.len();
        let limit = self.delivery.limit();
        let is_ripe = self.ripe.is_some_and(|ripe| ripe <= now)
            || queued >= limit as u64
            || self.flush.is_some();
        if queued == 0 || !is_ripe || now < self.delivery.not_before() {
            return None;
        }
        let head = match self.queue.head(limit, self.settings.batch_bytes) {
            Ok(head) => head,
            Err(error) => {
                let error = format!("events can't be read from disk: {error}");
                let dice = self.dice();
                self.delivery
                    .judge(now, 0, 0, Outcome::Failed(error.clone()), dice);
                self.tell(now, &error);
                return None;
            }
        };
        let (last, count) = (head.last()?.position, head.len());
        let exchange = self.exchange(count);
        if count as u64 == queued {
            self.ripe = None;
        }
        let aim = self.aim;
        Some(Box::pin(async move {
            let outcome = exchange.await;
            Sent {
                aim,
                last,
                count,
                outcome,
            }
        }))
    }

    /// Tells the oldest events, so many of them.
    fn exchange(&mut self, count: usize) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        // They were read just now.
        let head = self.queue.head(count, usize::MAX).unwrap_or_default();
        let settings = Arc::clone(&self.settings);
        if let Some(handler) = settings.handler.clone() {
            let events = head.iter();
            let events = events.filter_map(|record| serde_json::from_slice(&record.json).ok());
            return Box::pin(handler.hand_over(events.collect(), settings.timeout));
        }
        let mut body = format!("{{\"node\":{},\"events\":[", serde_json::json!(self.node));
        for (index, record) in head.iter().enumerate() {
            if index > 0 {
                body.push(',');
            }
            body.push_str(&String::from_utf8_lossy(&record.json));
        }
        body.push_str("]}");
        let client = self.client.clone();
        Box::pin(async move {
            match (&client, &settings.endpoint) {
                (Some(client), Some(endpoint)) => {
                    let telemetry = settings.telemetry.as_deref();
                    sender::post(client, endpoint, telemetry, count, Bytes::from(body)).await
                }
                _ => Outcome::Failed("there is nobody to tell".to_owned()),
            }
        })
    }

    fn sent(&mut self, now: Duration, sent: Sent) {
        let Sent {
            aim,
            mut last,
            count,
            outcome,
        } = sent;
        let was_failing = self.delivery.is_failing();
        if let Outcome::Failed(error) | Outcome::Refused(error) = &outcome {
            self.numbers.failed += 1;
            let text = format!("the application's backend has not taken events: {error}");
            self.tell(now, &text);
            if aim != self.aim {
                self.ripe = Some(now);
                return;
            }
        }
        let dice = self.dice();
        let old = self.old(count);
        match self.delivery.judge(now, count, old, outcome, dice) {
            Decision::Again => {
                self.ripe = Some(now);
                return;
            }
            Decision::Done => {
                if was_failing {
                    tracing::info!(
                        url = self.settings.place(),
                        "the application's backend takes events again"
                    );
                }
                self.numbers.delivered += count as u64;
            }
            Decision::Bury(count, error) => match self.bury(count, &error) {
                Ok(position) => {
                    last = position;
                    self.numbers.buried += count as u64;
                }
                Err(error) => {
                    // Otherwise the backend would be asked again and again what it has answered.
                    self.delivery.postpone(now + RETRY_WRITE);
                    self.ripe = Some(now);
                    self.write_failed(now, &error);
                    return;
                }
            },
        }
        // What the books lack may not be gone from the queue.
        let keep = self.unbooked.iter().map(|(position, _)| *position);
        let keep = keep.filter(|position| *position > 0).min();
        if self.queue.would_remove(last, keep) {
            self.sync();
        }
        if let Err(error) = self.queue.deliver(last, keep) {
            self.tell(now, &format!("what is delivered can't be noted: {error}"));
        }
        if self.queue.len() > 0 {
            self.ripe.get_or_insert(now);
        }
    }

    /// How many of the oldest so many events are as old as events are tried for.
    fn old(&mut self, count: usize) -> usize {
        let patience = u64::try_from(self.settings.patience.all.as_millis()).unwrap_or(u64::MAX);
        let until = unix_millis().saturating_sub(patience);
        let head = self.queue.head(count, usize::MAX).unwrap_or_default();
        let old = head.iter().take_while(|record| record.time <= until);
        old.count()
    }

    /// Makes dead letters of the oldest so many events. Returns the position of the last of them.
    fn bury(&mut self, count: usize, error: &str) -> io::Result<u64> {
        let head = self.queue.head(count, usize::MAX)?;
        let last = head.last().map_or(0, |record| record.position);
        let events = head.iter();
        let events = events.filter_map(|record| serde_json::from_slice(&record.json).ok());
        let letters = events.map(|event| DeadEvent {
            failed: unix_millis(),
            error: error.to_owned(),
            event,
        });
        self.dead.add(letters.collect())?;
        Ok(last)
    }

    fn obey(&mut self, shared: &Shared, command: Command) {
        match command {
            Command::Flush { deadline, done } => {
                let now = shared.now();
                if !self.settings.keep_on_shutdown {
                    lock(&shared.ledger).hurry(now);
                }
                let left = deadline.saturating_duration_since(Instant::now());
                self.flush = Some((now + left, done));
            }
            Command::Dead {
                which,
                from,
                most,
                done,
            } => drop(done.send(self.dead.page(&which, from, most))),
            Command::Settle { which, again, done } => {
                drop(done.send(self.settle_dead(shared, &which, again)));
            }
            Command::Reconfigure(settings, node) => self.reconfigure(shared.now(), *settings, node),
            // It ends the loop.
            Command::Close(_) => {}
        }
    }

    /// Goes by other options. A batch that is under way ends as it began; if it comes to nothing, it is signed anew, and
    /// for whoever is told now.
    fn reconfigure(&mut self, now: Duration, mut settings: Settings, node: String) {
        let is_same = match (&self.settings.endpoint, &settings.endpoint) {
            (Some(before), Some(endpoint)) => endpoint.is_like(before),
            (before, endpoint) => before.is_none() && endpoint.is_none(),
        };
        if !is_same {
            self.client = settings.endpoint.as_mut().map(crate::proxy::client);
            self.aim += 1;
            self.delivery.begin_anew();
            if self.queue.len() > 0 {
                self.ripe = Some(now);
            }
        }
        self.delivery.set_patience(settings.patience);
        self.queue.set_limit(settings.max_bytes);
        self.dead.set_most(settings.dead_most);
        // What waits for its turn waits no longer than what comes from now on.
        self.sync_at = (self.sync_at).map(|at| at.min(now + settings.sync_interval));
        self.node = node;
        let directory = self.settings.directory.clone();
        self.settings = Arc::new(Settings {
            directory,
            ..settings
        });
    }

    fn settle_dead(
        &mut self,
        shared: &Shared,
        which: &DeadEvents,
        again: bool,
    ) -> io::Result<usize> {
        if !again {
            return self.dead.remove(which);
        }
        let mut queued = Vec::new();
        for mut event in self.dead.find(which) {
            event.redelivered = true;
            queued.push((event.time, serde_json::to_vec(&event)?));
        }
        let bytes: usize = queued.iter().map(|(_, json)| json.len() + 32).sum();
        if !self.queue.has_room(bytes) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.queue.append(&queued)?;
        self.ripe = Some(shared.now());
        // From here on the queue has them, whatever becomes of the list.
        Ok(self.dead.forget(which))
    }

    /// Answers who waits for the end, if it has come.
    fn end_flush(&mut self, shared: &Shared, now: Duration, is_sending: bool) {
        let Some((deadline, _)) = &self.flush else {
            return;
        };
        let is_written = self.unwritten.is_empty() && lock(&shared.ledger).waiting() == 0;
        let is_done = is_written && self.queue.len() == 0 && !is_sending;
        let is_stuck = self.is_full || now < self.retry_write;
        if !is_done && (now < *deadline || !is_written && !is_stuck) {
            return;
        }
        self.sync();
        self.note_clean_end();
        if !is_done {
            tracing::warn!(
                events = self.queue.len(),
                "events are left for the next start: the application's backend did not take them in time"
            );
        }
        if let Some((_, done)) = self.flush.take() {
            let _ = done.send(is_done);
        }
    }

    fn note_clean_end(&self) {
        let clean = self.settings.directory.join(CLEAN);
        if let Err(error) = std::fs::write(clean, b"") {
            tracing::debug!(%error, "that the end was a clean one can't be noted");
        }
    }

    fn deadline(&self, shared: &Shared, is_sending: bool) -> Option<Duration> {
        let of_ledger = lock(&shared.ledger).next_deadline();
        let batch = self.ripe.map(|ripe| ripe.max(self.delivery.not_before()));
        let is_blocked = !self.unwritten.is_empty() || !self.unbooked.is_empty();
        let tidy = self.dead.is_stale().then(|| shared.now() + RETRY_WRITE);
        let flush = self.flush.as_ref().map(|(deadline, _)| *deadline);
        [
            of_ledger,
            self.sync_at,
            batch.filter(|_| !is_sending && self.queue.len() > 0),
            is_blocked.then_some(self.retry_write),
            tidy,
            flush,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn count(&mut self, shared: &Shared) {
        let oldest = self.queue.head(1, 0).ok();
        let oldest = oldest.and_then(|head| head.first()).map(|head| head.time);
        let lag = oldest.map_or(0, |time| unix_millis().saturating_sub(time));
        self.numbers = EventNumbers {
            queued: self.queue.len(),
            bytes: self.queue.bytes() + self.books.bytes(),
            dead: self.dead.len() as u64,
            lag: Duration::from_millis(lag),
            blocked: self.blocked.is_some(),
            ..self.numbers
        };
        *lock(&shared.numbers) = self.numbers;
    }

    /// Tells the operator, not too often.
    fn tell(&mut self, now: Duration, problem: &str) {
        if is_due(&mut self.told, now) {
            self.warn(problem);
        }
    }

    fn warn(&self, problem: &str) {
        let url = self.settings.place();
        tracing::warn!(url, queued = self.queue.len(), "{problem}");
    }

    fn dice(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }
}

/// Whether something that was last told then is to be told now, which is noted.
fn is_due(told: &mut Option<Duration>, now: Duration) -> bool {
    let is_due = told.is_none_or(|told| now.saturating_sub(told) >= TELL_EVERY);
    if is_due {
        *told = Some(now);
    }
    is_due
}

/// Whether the last process that used the directory has ended as it should; from now on this one hasn't.
fn is_clean(directory: &Path) -> io::Result<bool> {
    match std::fs::remove_file(directory.join(CLEAN)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The file that says that the last process has ended as it should.
const CLEAN: &str = "clean";
/// How many events are written at once.
const AT_ONCE: usize = 1024;
/// What is reserved for one: three names of 255 bytes each fit, and most events need a third of it.
const ROOM_OF_EVENT: usize = 1024;
const RETRY_WRITE: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(10);
