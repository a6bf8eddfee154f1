//! The CPU time that a process has used, user and system, to the nanosecond.
//!
//! Two sources are read and must agree: the process's CPU-time clock, which counts threads that have ended too and is
//! exact while a thread runs, and the scheduler's account of each thread in `/proc`. A third, the resource usage that
//! the kernel reports when the child is reaped, is compared once at the end of each server's life.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// A server that still works after the last reply (a flush, a collector) gets this long to come to rest.
const SETTLE_STEPS: u32 = 50;
const SETTLE_STEP: Duration = Duration::from_millis(2);
/// How far the sources may lie apart before the driver says so: the larger of the two.
const TOLERANCE: Duration = Duration::from_millis(2);
const TOLERANCE_PART: u32 = 100;

/// Reads the CPU time of one process.
#[derive(Debug)]
pub(crate) struct CpuClock {
    pid: Pid,
    clock: ClockId,
}

impl CpuClock {
    /// The clock of a running process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(pid)?);
        let clock = ClockId::pid_cpu_clock_id(pid).context("the server has no CPU clock")?;
        Ok(Self { pid, clock })
    }

    /// CPU time used so far.
    pub(crate) fn now(&self) -> Result<Duration> {
        let time = clock_gettime(self.clock).context("the server's CPU clock cannot be read")?;
        Ok(time.into())
    }

    /// CPU time used so far, read once the process rests: two readings in a row are the same. A process that never
    /// rests is read after 100 ms.
    pub(crate) fn at_rest(&self) -> Result<Duration> {
        let mut before = self.now()?;
        for _ in 0..SETTLE_STEPS {
            thread::sleep(SETTLE_STEP);
            let now = self.now()?;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(before)
    }

    /// The sum of the scheduler's accounts of all threads that live.
    #[cfg(test)]
    pub(crate) fn scheduled(&self) -> Result<Duration> {
        Ok(self.threads()?.values().sum())
    }

    /// The scheduler's account of each thread that lives, by its id.
    pub(crate) fn threads(&self) -> Result<HashMap<OsString, Duration>> {
        let mut threads = HashMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let task = task?;
            let account = match fs::read_to_string(task.path().join("schedstat")) {
                Ok(account) => account,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            let on_cpu = account.split(' ').next().unwrap_or_default();
            let nanoseconds = on_cpu.parse().context("schedstat has an unknown form")?;
            threads.insert(task.file_name(), Duration::from_nanos(nanoseconds));
        }
        Ok(threads)
    }
}

/// `None` if `a` and `b` are the same time but for noise, otherwise a sentence about it.
pub(crate) fn disagreement(what: &str, a: Duration, b: Duration) -> Option<String> {
    let allowed = TOLERANCE.max(a.max(b) / TOLERANCE_PART);
    (a.abs_diff(b) > allowed)
        .then(|| format!("{what} disagree about the server's CPU time: {a:?} and {b:?}"))
}

/// Lets the calling thread, and the children that it starts from now on, run on one core only.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores
        .set(core)
        .with_context(|| format!("there is no core {core}"))?;
    sched_setaffinity(Pid::from_raw(0), &cores)
        .with_context(|| format!("cannot move to core {core}; are there that many?"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use nix::sys::resource::{UsageWho, getrusage};

    use super::*;

    #[test]
    fn the_three_sources_agree_about_a_busy_child() {
        // It burns CPU, says so by closing its output, and then waits for its input to end.
        let work = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; exec >&-; read -r end";
        let mut command = Command::new("sh");
        command
            .args(["-c", work])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        io::copy(child.stdout.as_mut().unwrap(), &mut io::sink()).unwrap();
        let clock = CpuClock::of(child.id()).unwrap();
        let used = clock.at_rest().unwrap();
        let scheduled = clock.scheduled().unwrap();
        assert!(
            used > Duration::from_millis(20),
            "the child did no work: {used:?}"
        );
        assert_eq!(disagreement("clock and scheduler", used, scheduled), None);
        drop(child.stdin.take());
        child.wait().unwrap();
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        let reaped = micros(usage.user_time()) + micros(usage.system_time());
        assert!(reaped >= used, "{reaped:?} < {used:?}");
    }

    #[test]
    fn small_differences_are_noise_and_large_ones_are_not() {
        let (a, b) = (Duration::from_millis(1000), Duration::from_millis(1009));
        assert_eq!(disagreement("x", a, b), None);
        assert!(disagreement("x", a, Duration::from_millis(1020)).is_some());
        assert!(disagreement("x", Duration::ZERO, Duration::from_millis(3)).is_some());
    }

    fn micros(time: nix::sys::time::TimeVal) -> Duration {
        Duration::new(
            time.tv_sec().try_into().unwrap(),
            1000 * u32::try_from(time.tv_usec()).unwrap(),
        )
    }
}
