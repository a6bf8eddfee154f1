//! What was counted in the last whole minute, and what the process uses: what `info` tells beside the load.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::WorkerNode;
use crate::http::metrics::{Snapshot, totals};
use crate::http::node::{ProcessLoad, RecentNumbers};
use crate::http::process::ProcessNumbers;

/// Of the last whole minute; nothing before there was one.
#[derive(Default)]
pub(crate) struct Recent {
    minute: Mutex<Option<Arc<Minute>>>,
}

struct Minute {
    numbers: RecentNumbers,
    /// In percent of one processor, where the system tells.
    cpu: Option<f64>,
}

/// How far all had been counted at a time.
struct Mark {
    at: Instant,
    totals: BTreeMap<String, u64>,
    cpu_seconds: Option<f64>,
}

impl Recent {
    /// Counts a minute after the other. Never ends.
    pub(crate) async fn watch(&self, node: &WorkerNode) {
        let mut before = Mark::of(Instant::now(), &node.count().await);
        loop {
            tokio::time::sleep(MINUTE).await;
            let now = Mark::of(Instant::now(), &node.count().await);
            *self.minute.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Arc::new(Minute::between(&before, &now)));
            before = now;
        }
    }

    /// What was counted, and what the process uses after running for so long.
    pub(super) fn tell(&self, uptime: Duration) -> (Option<RecentNumbers>, Option<ProcessLoad>) {
        let minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = minute.clone();
        let process = ProcessNumbers::read().map(|process| ProcessLoad {
            cpu: match minute.as_ref().and_then(|minute| minute.cpu) {
                Some(cpu) => cpu,
                None => percent(process.cpu_seconds, uptime),
            },
            rss: process.resident_bytes,
        });
        (minute.map(|minute| minute.numbers.clone()), process)
    }
}

impl Mark {
    fn of(at: Instant, snapshot: &Snapshot) -> Self {
        Self {
            at,
            totals: totals(snapshot),
            cpu_seconds: snapshot.process.as_ref().map(|all| all.cpu_seconds),
        }
    }
}

impl Minute {
    fn between(before: &Mark, now: &Mark) -> Self {
        let took = now.at.duration_since(before.at);
        let items = now.totals.iter().map(|(name, total)| {
            let before = before.totals.get(name).copied().unwrap_or_default();
            (name.clone(), total.saturating_sub(before))
        });
        let cpu = before.cpu_seconds.zip(now.cpu_seconds);
        Self {
            numbers: RecentNumbers {
                interval: took.as_secs(),
                items: items.collect(),
            },
            cpu: cpu.map(|(before, now)| percent(now - before, took)),
        }
    }
}

/// So many seconds of processors in so long, in percent of one, to a tenth.
fn percent(cpu_seconds: f64, took: Duration) -> f64 {
    let took = took.as_secs_f64().max(0.001);
    (cpu_seconds / took * 1000.0).round() / 10.0
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_what_came_between() {
        let start = Instant::now();
        let mark = |seconds, cpu_seconds, calls: u64| {
            let mut snapshot = Snapshot::default();
            for _ in 0..calls {
                snapshot.calls.executed("publish", 107, Duration::ZERO);
            }
            Mark {
                cpu_seconds,
                ..Mark::of(start + Duration::from_secs(seconds), &snapshot)
            }
        };
        let minute = Minute::between(&mark(10, Some(1.0), 3), &mark(70, Some(7.0), 8));
        assert_eq!(minute.numbers.interval, 60);
        assert_eq!(minute.cpu, Some(10.0));
        let mut items = minute.numbers.items;
        items.retain(|_, number| *number > 0);
        let expected = [
            "api_command_duration_seconds_histogram_count",
            "api_command_errors_total",
        ];
        assert!(items.keys().eq(expected), "{items:?}");
        assert!(items.values().all(|number| *number == 5), "{items:?}");
        let unknown = Minute::between(&mark(0, None, 0), &mark(60, Some(1.0), 0));
        assert_eq!(unknown.cpu, None);
    }

    #[test]
    fn before_the_first_minute_the_process_alone_is_told() {
        let recent = Recent::default();
        let (numbers, process) = recent.tell(Duration::from_secs(1));
        assert_eq!(numbers, None);
        assert_eq!(process.is_some(), cfg!(target_os = "linux"));
        if let Some(process) = process {
            assert!(process.rss > 0 && process.cpu >= 0.0);
        }
    }
}
