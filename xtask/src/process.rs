//! Running commands: their output is shown as it comes and kept, they have a deadline, and they end
//! when we do.
//!
//! Each command leads a process group of its own, so that ending it ends all it started. The
//! terminal's Ctrl-C therefore reaches us alone, and we pass it on.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::Error;

/// How long a process may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);
/// How often a process without output is looked at.
const TICK: Duration = Duration::from_millis(50);

/// The process groups that run for us.
#[derive(Clone, Default)]
pub(crate) struct Children(Arc<Mutex<Vec<Pid>>>);

impl Children {
    /// From here on SIGINT, SIGTERM and SIGHUP end all children, then us.
    ///
    /// # Errors
    ///
    /// When the handlers can't be installed.
    pub(crate) fn watch_signals() -> Result<Self, Error> {
        let children = Self::default();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
            .map_err(Error::context("can't watch signals"))?;
        let watched = children.clone();
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                eprintln!("\ninterrupted: ending what was started");
                watched.end_all();
                std::process::exit(128 + signal);
            }
        });
        Ok(children)
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_all(&self) {
        // Kept locked: nothing is started any more.
        let groups = self.groups();
        for &group in groups.iter() {
            // Gone already is as good.
            let _ = kill_process_group(group, Signal::TERM);
        }
        let end = Instant::now() + GRACE;
        // The leaders are reaped by the threads that wait for them.
        while Instant::now() < end && groups.iter().any(|&g| exists(g)) {
            thread::sleep(TICK);
        }
        for &group in groups.iter() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn exists(group: Pid) -> bool {
    rustix::process::test_kill_process_group(group).is_ok()
}

/// A running child, ended when dropped.
pub(crate) struct Running {
    child: Child,
    group: Pid,
    children: Children,
}

impl Running {
    /// Starts `command` without standard input, in a process group of its own.
    ///
    /// # Errors
    ///
    /// When it can't be started.
    pub(crate) fn start(children: &Children, command: &mut Command) -> Result<Self, Error> {
        let name = describe(command);
        let mut groups = children.groups();
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Error::context(format!("can't start {name}")))?;
        let group = Pid::from_child(&child);
        groups.push(group);
        drop(groups);
        Ok(Self {
            child,
            group,
            children: children.clone(),
        })
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child
            .try_wait()
            .map_err(Error::context("can't wait for a process"))
    }

    /// How it ended, if it has by `deadline`.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub(crate) fn ended_by(&mut self, deadline: Instant) -> Result<Option<ExitStatus>, Error> {
        loop {
            match self.ended()? {
                None if Instant::now() < deadline => thread::sleep(TICK),
                status => return Ok(status),
            }
        }
    }

    /// Asks the process itself, not its children, to end.
    pub(crate) fn terminate(&self) {
        let _ = kill_process(self.group, Signal::TERM);
    }

    fn kill_group(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.ended(), Ok(None)) {
            self.kill_group(Signal::TERM);
            let _ = self.ended_by(Instant::now() + GRACE);
        }
        // Whatever it left behind, and itself if it would not go.
        self.kill_group(Signal::KILL);
        let _ = self.child.wait();
        self.children.groups().retain(|&group| group != self.group);
    }
}

/// What a command said and how it ended.
pub(crate) struct Finished {
    /// Standard output and standard error, as they came, without colours.
    pub(crate) output: String,
    pub(crate) success: bool,
    /// For messages: "ended with exit status: 1", "was stopped after 600 s".
    pub(crate) ending: String,
}

/// Runs `command` to its end, showing its output as it comes.
///
/// # Errors
///
/// When it can't be started; a command that fails is no error here.
pub(crate) fn run(
    children: &Children,
    command: &mut Command,
    limit: Duration,
) -> Result<Finished, Error> {
    println!("$ {}", describe(command));
    if io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    run_with(children, command, limit, |line| show(&[line]))
}

/// The same for a command that runs beside another: `name` stands before each of its lines.
///
/// # Errors
///
/// As for [`run`].
pub(crate) fn run_beside(
    children: &Children,
    command: &mut Command,
    limit: Duration,
    name: &str,
) -> Result<Finished, Error> {
    println!("$ {}", describe(command));
    run_with(children, command, limit, |line| {
        show(&[name.as_bytes(), b" | ", line]);
    })
}

/// Prints a line in its parts.
fn show(parts: &[&[u8]]) {
    let mut stdout = io::stdout().lock();
    for part in parts {
        // Nobody reads it any more: the exit status still tells.
        let _ = stdout.write_all(part);
    }
    let _ = stdout.flush();
}

/// The same, showing nothing.
///
/// # Errors
///
/// As for [`run`].
pub(crate) fn run_quietly(
    children: &Children,
    command: &mut Command,
    limit: Duration,
) -> Result<Finished, Error> {
    run_with(children, command, limit, |_| {})
}

fn run_with(
    children: &Children,
    command: &mut Command,
    limit: Duration,
    show: impl Fn(&[u8]),
) -> Result<Finished, Error> {
    // One pipe for both, so that lines stay in the order in which they were written.
    let (reader, writer) = io::pipe().map_err(Error::context("can't make a pipe"))?;
    let copy = writer
        .try_clone()
        .map_err(Error::context("can't copy a pipe"))?;
    command.stdout(writer).stderr(copy);
    let mut running = Running::start(children, command)?;
    // Our ends have to go, or the pipe never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            if sender.send(std::mem::take(&mut line)).is_err() {
                break;
            }
        }
    });

    let deadline = Instant::now() + limit;
    let mut output = Vec::new();
    let mut last_look = None;
    let ending = loop {
        match lines.recv_timeout(TICK) {
            Ok(line) => {
                show(&line);
                output.extend_from_slice(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() > deadline {
            break Some(format!("was stopped after {} s", limit.as_secs()));
        }
        if running.ended()?.is_some() {
            // A grandchild that holds the pipe is not waited for much longer.
            let since = *last_look.get_or_insert_with(Instant::now);
            if since.elapsed() > GRACE {
                break None;
            }
        }
    };
    let status = match ending {
        None => running.ended_by(deadline)?,
        Some(_) => None,
    };
    drop(running);
    Ok(Finished {
        output: without_colours(&String::from_utf8_lossy(&output)),
        success: status.is_some_and(|status| status.success()),
        ending: ending.unwrap_or_else(|| {
            status.map_or_else(
                || "did not end".to_owned(),
                |status| format!("ended with {status}"),
            )
        }),
    })
}

/// The command as one would type it.
pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words
        .map(|word| {
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_alphanumeric() || "-_=+:,./%@".contains(c);
            if word.chars().all(plain) {
                word.into_owned()
            } else {
                format!("'{word}'")
            }
        })
        .collect();
    words.join(" ")
}

/// Takes out the escape sequences by which programs colour their output.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after
            .split_once(|c: char| c.is_ascii_alphabetic())
            .map_or("", |(_, behind)| behind);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn run_sh(script: &str, limit: Duration) -> Finished {
        run_quietly(&Children::default(), &mut sh(script), limit).expect("sh starts")
    }

    #[test]
    fn output_is_kept_in_the_order_of_writing() {
        let finished = run_sh("echo 1; echo 2 >&2; echo 3; printf 4", GRACE);
        assert_eq!(finished.output, "1\n2\n3\n4");
        assert!(finished.success);
    }

    #[test]
    fn failure_is_told_with_its_status() {
        let finished = run_sh("exit 3", GRACE);
        assert!(!finished.success);
        assert!(finished.ending.contains('3'), "{}", finished.ending);
    }

    #[test]
    fn what_hangs_is_stopped_with_all_it_started() {
        let start = Instant::now();
        let finished = run_sh("sleep 600 & echo $!; sleep 600", Duration::from_millis(300));
        assert!(!finished.success);
        assert!(start.elapsed() < Duration::from_secs(60));
        // Dead, whether or not somebody has reaped the orphan.
        let stat = format!("/proc/{}/stat", finished.output.trim());
        let alive = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        let end = Instant::now() + GRACE;
        while alive() {
            assert!(Instant::now() < end, "{stat} still shows a live process");
            thread::sleep(TICK);
        }
    }

    #[test]
    fn a_command_that_does_not_exist_is_named() {
        let error = run_quietly(
            &Children::default(),
            &mut Command::new("no-such-program"),
            GRACE,
        );
        assert!(error.is_err_and(|error| error.to_string().contains("no-such-program")));
    }

    #[test]
    fn ending_all_ends_each() {
        let children = Children::default();
        let mut running = Running::start(&children, &mut sh("sleep 600")).expect("sh starts");
        let thread = thread::spawn(move || children.end_all());
        let status = running
            .ended_by(Instant::now() + 2 * GRACE)
            .expect("it is told");
        assert!(status.is_some_and(|status| !status.success()));
        thread.join().expect("no panic");
    }

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(
            without_colours("\u{1b}[32mok\u{1b}[0m 5 \u{1b}[1;31mx"),
            "ok 5 x"
        );
        assert_eq!(without_colours("plain [1]"), "plain [1]");
    }

    #[test]
    fn commands_read_as_typed() {
        assert_eq!(describe(&sh("a b")), "sh -c 'a b'");
    }
}
