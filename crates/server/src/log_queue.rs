//! Log lines on their way to standard error.
//!
//! Whoever logs puts a line here and goes on, and a thread writes: a pipe that nobody reads, or a disk that has stopped,
//! must not stop the workers. What has no room is dropped, counted, and told of as soon as something can be written again.
//! The last part of the room is the audit log's alone.

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait, and the thread that writes them. Copies are the same queue.
#[derive(Clone, Default)]
pub(crate) struct LogQueue(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// There is something to do for the thread.
    wanted: Condvar,
    /// The thread has done all there was.
    written: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// How many lines those are.
    lines: LogLines,
    /// What was lost and not told of yet.
    gap: LogLines,
    /// What was lost since the start.
    lost: LogLines,
    /// The thread waits for something to do.
    is_idle: bool,
}

/// Numbers of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogLines {
    /// Of the audit log.
    pub(crate) audit: u64,
    /// Of all else.
    pub(crate) other: u64,
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Who has called the server API, and who was refused.
    Audit,
    /// Lines that were dropped, or a panic: once in a while, and never dropped itself.
    Grave,
    Other,
}

impl LogQueue {
    /// Starts the thread, which writes to `out` until the process ends.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub(crate) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start_telling(out, |_, gap| {
            let LogLines { audit, other } = gap;
            // An error, so that it is there wherever any line is.
            tracing::error!(
                target: GAP_TARGET,
                audit, other,
                "{} log lines were dropped here: standard error took nothing for too long", audit + other
            );
        })
    }

    /// The same, where something else tells of gaps.
    fn start_telling(
        out: impl Write + Send + 'static,
        tell: impl Fn(&Self, LogLines) + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Self::default();
        let writer = queue.clone();
        thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(out, tell))?;
        Ok(queue)
    }

    /// What was lost so far.
    pub(crate) fn lost(&self) -> LogLines {
        self.lock().lost
    }

    /// Waits until all is written, for so long at the most. Whether it is.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        let state = self.lock();
        let waited = self
            .0
            .written
            .wait_timeout_while(state, limit, |state| !state.is_done());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_done()
    }

    /// Has a panic in the log, in place of what the standard library writes by itself and waits for, and waits for a moment
    /// until it is written: the process may be about to end.
    pub(crate) fn tell_panic(&self, panic: &PanicHookInfo<'_>) {
        if tracing::enabled!(target: PANIC_TARGET, Level::ERROR) {
            let thread = thread::current();
            let location = panic.location().map(tracing::field::display);
            let backtrace = std::backtrace::Backtrace::capture();
            let backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured)
                .then(|| tracing::field::display(backtrace));
            let message = panic.payload_as_str().unwrap_or("no message");
            tracing::error!(
                target: PANIC_TARGET,
                thread = thread.name(), location, backtrace, "panicked: {message}"
            );
        } else {
            // Whatever is not to be logged, this is.
            self.put(Kind::Grave, format!("{panic}\n").as_bytes());
        }
        self.flush(LAST_MOMENT);
    }

    /// Takes a line, or drops it.
    fn put(&self, kind: Kind, line: &[u8]) {
        let mut state = self.lock();
        let room = match kind {
            // Behind a gap nothing comes before it is told of.
            Kind::Other if state.gap.other > 0 => 0,
            Kind::Other => ROOM - AUDIT_ROOM,
            Kind::Audit => ROOM,
            Kind::Grave => usize::MAX,
        };
        let is_alone = state.waiting.is_empty() && room > 0;
        if !is_alone && state.waiting.len().saturating_add(line.len()) > room {
            state.gap.add(kind, 1);
            state.lost.add(kind, 1);
            return;
        }
        state.waiting.extend_from_slice(line);
        state.lines.add(kind, 1);
        if state.is_idle {
            state.is_idle = false;
            self.0.wanted.notify_one();
        }
    }

    fn run(self, mut out: impl Write, tell: impl Fn(&Self, LogLines)) {
        let mut batch = Vec::new();
        loop {
            let (lines, gap) = self.take(&mut batch);
            if gap != LogLines::default() {
                // First of what waits now, so behind all that came before the gap.
                tell(&self, gap);
            }
            if write_all(&mut out, &batch).is_err() {
                // There is nowhere to tell it; who reads metrics sees it.
                let mut state = self.lock();
                state.lost.audit += lines.audit;
                state.lost.other += lines.other;
            }
        }
    }

    /// Waits for lines, and gives them in `batch`, with what was dropped behind them.
    fn take(&self, batch: &mut Vec<u8>) -> (LogLines, LogLines) {
        batch.clear();
        // What a flood has needed isn't kept.
        batch.shrink_to(KEPT_CAPACITY);
        let mut state = self.lock();
        while !state.has_work() {
            state.is_idle = true;
            self.0.written.notify_all();
            state = (self.0.wanted.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_idle = false;
        std::mem::swap(batch, &mut state.waiting);
        (
            std::mem::take(&mut state.lines),
            std::mem::take(&mut state.gap),
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of it is whole.
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.gap != LogLines::default()
    }

    fn is_done(&self) -> bool {
        self.is_idle && !self.has_work()
    }
}

impl LogLines {
    fn add(&mut self, kind: Kind, count: u64) {
        match kind {
            Kind::Audit => self.audit += count,
            Kind::Other | Kind::Grave => self.other += count,
        }
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self, Kind::Other)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        let kind = match metadata.target() {
            AUDIT_TARGET => Kind::Audit,
            GAP_TARGET | PANIC_TARGET => Kind::Grave,
            _ => Kind::Other,
        };
        Line(self, kind)
    }
}

/// Where one line is put, whole.
pub(crate) struct Line<'a>(&'a LogQueue, Kind);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(self.1, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all of it, also where standard error is one of those that don't wait, as some programs leave it.
fn write_all(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(AGAIN),
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

/// The target of the audit log's lines.
pub(crate) const AUDIT_TARGET: &str = "tautline::audit";
const GAP_TARGET: &str = "tautline::log";
const PANIC_TARGET: &str = "tautline::panic";

/// How long the end of the process waits for what is still to be written.
pub(crate) const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Bytes that may wait, beside as many that are being written. A line that is alone always may.
const ROOM: usize = 512 * 1024;
/// What of that is for the audit log alone.
const AUDIT_ROOM: usize = 128 * 1024;
/// What a buffer keeps of its size.
const KEPT_CAPACITY: usize = 16 * 1024;
const AGAIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::panic;
    use std::sync::mpsc;

    use super::*;

    /// Takes what is written when it is told to: each write waits for its turn, for which there is none any more when
    /// nobody gives turns.
    struct Stuck {
        turns: mpsc::Receiver<io::Result<()>>,
        began: mpsc::Sender<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.began.send(());
            self.turns.recv().unwrap_or(Ok(()))?;
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A queue whose thread waits in a write, and the other end of that.
    struct Full {
        queue: LogQueue,
        turns: mpsc::Sender<io::Result<()>>,
        began: mpsc::Receiver<()>,
        written: mpsc::Receiver<Vec<u8>>,
    }

    impl Full {
        fn new() -> Self {
            let ((turns, its_turns), (its_began, began), (its_written, written)) =
                (mpsc::channel(), mpsc::channel(), mpsc::channel());
            let out = Stuck {
                turns: its_turns,
                began: its_began,
                written: its_written,
            };
            let tell = |queue: &LogQueue, gap: LogLines| {
                let text = format!("gap {} {}\n", gap.audit, gap.other);
                queue.put(Kind::Grave, text.as_bytes());
            };
            let queue = LogQueue::start_telling(out, tell).expect("a thread");
            queue.put(Kind::Other, b"first\n");
            began.recv().expect("it writes");
            Self {
                queue,
                turns,
                began,
                written,
            }
        }

        /// From now on all is taken at once. What was taken by the time that all is.
        fn take_all(self) -> String {
            drop(self.turns);
            assert!(self.queue.flush(LONG));
            let all: Vec<Vec<u8>> = self.written.try_iter().collect();
            String::from_utf8(all.concat()).expect("text")
        }
    }

    /// Longer than anything here takes on the slowest of machines.
    const LONG: Duration = Duration::from_secs(60);

    fn kib(text: &str) -> Vec<u8> {
        let mut line = text.repeat(1023 / text.len());
        line.push('\n');
        line.into_bytes()
    }

    #[test]
    fn nobody_waits_and_what_waits_is_bounded() {
        let full = Full::new();
        for _ in 0..2000 {
            full.queue.put(Kind::Other, &kib("x"));
        }
        let fits = (ROOM - AUDIT_ROOM) / 1024;
        assert_eq!(full.queue.lost().other, 2000 - fits as u64);
        assert!(full.queue.lock().waiting.len() <= ROOM);
        assert!(!full.queue.flush(Duration::ZERO));
        let all = full.take_all();
        assert_eq!(all.lines().count(), 1 + fits + 1);
    }

    #[test]
    fn the_audit_log_has_room_of_its_own() {
        let full = Full::new();
        for _ in 0..1000 {
            full.queue.put(Kind::Other, &kib("x"));
        }
        let kept = AUDIT_ROOM / 1024;
        for _ in 0..kept {
            full.queue.put(Kind::Audit, &kib("who"));
        }
        assert_eq!(full.queue.lost().audit, 0);
        full.queue.put(Kind::Audit, &kib("who"));
        full.queue.put(Kind::Audit, &kib("who"));
        assert_eq!(full.queue.lost().audit, 2);
        let lost = full.queue.lost().other;
        let all = full.take_all();
        assert_eq!(all.matches("whowho\n").count(), kept);
        assert!(all.ends_with(&format!("who\ngap 2 {lost}\n")), "{lost}");
    }

    #[test]
    fn a_gap_is_told_of_in_its_place() {
        let full = Full::new();
        full.queue.put(Kind::Other, b"before\n");
        full.queue.put(Kind::Other, "y".repeat(ROOM).as_bytes());
        // It would fit, and would hide where the gap is.
        full.queue.put(Kind::Other, b"within\n");
        let queue = full.queue.clone();
        assert_eq!(full.take_all(), "first\nbefore\ngap 0 2\n");
        queue.put(Kind::Other, b"behind\n");
        assert!(queue.flush(LONG));
        assert_eq!(queue.lost(), LogLines { audit: 0, other: 2 });
    }

    #[test]
    fn a_line_alone_has_room_however_long_it_is() {
        let full = Full::new();
        full.queue.put(Kind::Other, "z".repeat(2 * ROOM).as_bytes());
        full.queue.put(Kind::Other, b"\n");
        let all = full.take_all();
        assert!(all.ends_with("zgap 0 1\n"));
    }

    #[test]
    fn what_nobody_takes_any_more_is_lost_and_counted() {
        let full = Full::new();
        full.queue.put(Kind::Audit, b"second\n");
        let again = |kind: io::ErrorKind| full.turns.send(Err(kind.into())).expect("it listens");
        // The first is tried again, and again, until it is known that there is nobody.
        again(io::ErrorKind::WouldBlock);
        again(io::ErrorKind::Interrupted);
        again(io::ErrorKind::BrokenPipe);
        for _ in 0..3 {
            full.began.recv().expect("it writes");
        }
        let queue = full.queue.clone();
        assert_eq!(full.take_all(), "second\n");
        assert_eq!(queue.lost(), LogLines { audit: 0, other: 1 });
    }

    #[test]
    fn a_panic_is_told_and_waited_for_whatever_the_level() {
        let full = Full::new();
        drop(full.turns);
        let queue = full.queue.clone();
        let (me, others) = (thread::current().id(), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            if thread::current().id() == me {
                queue.tell_panic(panic);
            } else {
                others(panic);
            }
        }));
        let silent = panic::catch_unwind(|| panic!("nothing is logged"));
        let subscriber = tracing_subscriber::fmt()
            .with_writer(full.queue.clone())
            .with_ansi(false)
            .finish();
        let logged = tracing::subscriber::with_default(subscriber, || {
            panic::catch_unwind(|| panic!("it is {}", "logged"))
        });
        // That of the standard library again.
        drop(panic::take_hook());
        assert!(silent.is_err() && logged.is_err());
        let all: Vec<Vec<u8>> = full.written.try_iter().collect();
        let all = String::from_utf8(all.concat()).expect("text");
        assert!(all.contains("nothing is logged"), "{all}");
        // Lines may follow, where the environment asks for the way to a panic.
        let line = all.lines().find(|line| line.contains("it is logged"));
        let line = line.expect("a line");
        assert!(
            line.contains("ERROR tautline::panic: panicked: it is logged"),
            "{line}"
        );
        assert!(line.contains("log_queue.rs:"), "{line}");
    }
}
