//! How much memory the process has, and whether that is too much for anybody new.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What was seen last.
#[derive(Debug, Default)]
pub(crate) struct MemoryGauge {
    ceiling: AtomicU64,
    is_over: AtomicBool,
    /// The most that was seen since the ceiling was reached.
    peak: Mutex<Option<Load>>,
}

/// Memory, in bytes, and those who are there: connections and sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) used: u64,
    pub(crate) present: usize,
}

impl MemoryGauge {
    /// Takes a measurement. Whoever is above the ceiling stays there until a twentieth of it is free
    /// again, so that the door doesn't open and shut with each connection.
    ///
    /// What is freed isn't always given back to the system, and would keep the door shut for ever. So it opens as well when only
    /// half of those are there whose memory that was, and stays open until nearly as many have come again, or memory
    /// grows. It never does so far above the ceiling.
    ///
    /// Returns whether the door has opened or shut.
    pub(crate) fn observe(&self, load: Load, ceiling: u64) -> bool {
        self.ceiling.store(ceiling, Ordering::Relaxed);
        let was_over = self.is_over();
        let mut peak = self.peak.lock().unwrap_or_else(PoisonError::into_inner);
        let is_high = load.used
            > if peak.is_some() {
                ceiling - ceiling / 20
            } else {
                ceiling
            };
        let is_over = match &mut *peak {
            _ if !is_high => {
                *peak = None;
                false
            }
            Some(peak) => {
                let share = if was_over { 50 } else { 90 };
                let are_few =
                    load.present < peak.present / 100 * share + peak.present % 100 * share / 100;
                let is_known = load.used <= peak.used + if was_over { 0 } else { peak.used / 50 };
                let most = (ceiling / 5 * 6).max(ceiling + AT_ONCE);
                let is_over = !(are_few && is_known && load.used <= most);
                if is_over {
                    peak.used = peak.used.max(load.used);
                    peak.present = peak.present.max(load.present);
                }
                is_over
            }
            none => {
                *none = Some(load);
                true
            }
        };
        self.is_over.store(is_over, Ordering::Relaxed);
        was_over != is_over
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// In bytes; 0 where there is none.
    pub(crate) fn ceiling(&self) -> u64 {
        self.ceiling.load(Ordering::Relaxed)
    }
}

/// Somewhat more than what comes between two measurements, as fast as one address may: so far above its ceiling a small
/// server gets by itself.
const AT_ONCE: u64 = 48 * 1024 * 1024;

/// How much of the machine's memory the process has, in bytes (`VmRSS`), where the system tells.
pub(crate) fn resident() -> Option<u64> {
    kib(
        &std::fs::read_to_string("/proc/self/status").ok()?,
        "VmRSS:",
    )
}

/// How much it may have, in bytes: what its control group has, or the machine if that is less.
pub(crate) fn available() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| kib(&text, "MemTotal:"));
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = limit_files(&own).into_iter().filter_map(|path| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    });
    group.chain(machine).min()
}

/// Where the limits of a process's control groups are written, by what `/proc/self/cgroup` says: those of the
/// groups that its own is in count too. In version 2 there are two of them: beyond `memory.max` a process is killed, and
/// beyond `memory.high` (systemd's `MemoryHigh`) it is slowed down until nobody gets an answer.
///
/// In a container the files of its own group are often at the top, whatever the process is told of its path.
fn limit_files(own: &str) -> Vec<PathBuf> {
    const V1: &str = "/sys/fs/cgroup/memory";
    const V2: &str = "/sys/fs/cgroup";
    let mut files = Vec::new();
    let mut add = |top: &str, path: Option<&str>, names: &[&str]| {
        let path = Path::new(path.unwrap_or_default().trim_start_matches('/'));
        for group in path.ancestors() {
            let group = Path::new(top).join(group);
            files.extend(names.iter().map(|name| group.join(name)));
        }
    };
    // A line: the number of the hierarchy, its controllers, the path.
    let mut groups = own.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    });
    let v1 = groups
        .clone()
        .find(|(controllers, _)| controllers.split(',').any(|one| one == "memory"));
    let v2 = groups.find(|(controllers, _)| controllers.is_empty());
    add(V1, v1.map(|(_, path)| path), &["memory.limit_in_bytes"]);
    add(V2, v2.map(|(_, path)| path), &["memory.max", "memory.high"]);
    files
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_opens_again_when_there_is_some_room() {
        let gauge = MemoryGauge::default();
        for (used, changes, is_over) in [
            (900, false, false),
            (1000, false, false),
            (1001, true, true),
            (960, false, true),
            (951, false, true),
            (950, true, false),
            (1000, false, false),
        ] {
            let load = Load { used, present: 100 };
            assert_eq!(gauge.observe(load, 1000), changes, "{used}");
            assert_eq!(gauge.is_over(), is_over, "{used}");
        }
    }

    #[test]
    fn memory_that_is_not_given_back_is_used_again() {
        const MIB: u64 = 1024 * 1024;
        let gauge = MemoryGauge::default();
        for (used, present, is_over) in [
            (1001, 300, true),
            (1100, 400, true),
            // Half of them, and not more memory.
            (1100, 200, true),
            (1101, 199, true),
            (1101, 199, false),
            // They come again, and find room in what there is.
            (1101, 359, false),
            (1123, 300, false),
            // Nearly as many as there were, or more memory.
            (1123, 360, true),
            (1123, 210, true),
            (1123, 100, false),
            (1150, 100, true),
            // Too far above the ceiling.
            (1201, 500, true),
            (1201, 1, true),
            (1200, 1, false),
            // Given back at last: all is as it was.
            (950, 1, false),
            (1000, 1000, false),
            (1001, 1, true),
        ] {
            let (load, ceiling) = (
                Load {
                    used: used * MIB,
                    present,
                },
                1000 * MIB,
            );
            gauge.observe(load, ceiling);
            assert_eq!(gauge.is_over(), is_over, "{used} {present}");
        }
    }

    #[test]
    fn what_the_system_tells_is_read() {
        let text = "Name:\tx\nVmRSS:\t   12345 kB\nThreads:\t1\n";
        assert_eq!(kib(text, "VmRSS:"), Some(12345 * 1024));
        assert_eq!(kib(text, "Name:"), None);
        let files = |own: &str| -> Vec<String> {
            let files = limit_files(own).into_iter();
            files.map(|file| file.display().to_string()).collect()
        };
        let v2 = ["system.slice/tautline.service/", "system.slice/", ""];
        let v2 = v2.iter().flat_map(|group| {
            ["max", "high"].map(|name| format!("/sys/fs/cgroup/{group}memory.{name}"))
        });
        let v1_top = "/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned();
        let expected: Vec<_> = std::iter::once(v1_top).chain(v2).collect();
        assert_eq!(
            files("1:name=x:/y\n0::/system.slice/tautline.service\n"),
            expected
        );
        // Version 1, as on a host; a container has them at the top.
        let v1 = files("5:cpu,cpuacct:/a\n4:hugetlb,memory:/docker/1f\n");
        let groups = ["/docker/1f", "/docker", ""];
        for (file, group) in v1.iter().zip(groups) {
            let expected = format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes");
            assert_eq!(*file, expected);
        }
        // A name that has a colon, and nothing that can be read.
        assert!(files("0::/a:b\n").contains(&"/sys/fs/cgroup/a:b/memory.max".to_owned()));
        assert_eq!(files("x\n\n:").len(), 3);
        assert_eq!(kib("VmRSS: 99999999999999999999 kB", "VmRSS:"), None);
        #[cfg(target_os = "linux")]
        assert!(resident().unwrap() > 100_000 && available().unwrap() > resident().unwrap());
    }
}
