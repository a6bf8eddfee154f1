//! How much memory the process has, and whether that is too much for anybody new.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What was seen last.
#[derive(Debug, Default)]
pub(crate) struct MemoryGauge {
    ceiling: AtomicU64,
    is_over: AtomicBool,
}

impl MemoryGauge {
    /// Takes a measurement, in bytes. Whoever is above the ceiling stays there until a twentieth of it is free
    /// again, so that the door doesn't open and shut with each connection. Returns whether that has changed.
    pub(crate) fn observe(&self, used: u64, ceiling: u64) -> bool {
        self.ceiling.store(ceiling, Ordering::Relaxed);
        let was_over = self.is_over();
        let is_over = used
            > if was_over {
                ceiling - ceiling / 20
            } else {
                ceiling
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
/// groups that its own is in count too.
fn limit_files(own: &str) -> Vec<PathBuf> {
    let mut files = vec!["/sys/fs/cgroup/memory/memory.limit_in_bytes".into()];
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
    for group in Path::new(path.unwrap_or_default()).ancestors() {
        files.push(Path::new("/sys/fs/cgroup").join(group).join("memory.max"));
    }
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
            assert_eq!(gauge.observe(used, 1000), changes, "{used}");
            assert_eq!(gauge.is_over(), is_over, "{used}");
        }
    }

    #[test]
    fn what_the_system_tells_is_read() {
        let text = "Name:\tx\nVmRSS:\t   12345 kB\nThreads:\t1\n";
        assert_eq!(kib(text, "VmRSS:"), Some(12345 * 1024));
        assert_eq!(kib(text, "Name:"), None);
        let files = limit_files("1:name=x:/y\n0::/system.slice/tautline.service\n");
        let v2 = ["system.slice/tautline.service/", "system.slice/", ""];
        for (file, group) in files[1..].iter().zip(v2) {
            assert_eq!(
                *file,
                PathBuf::from(format!("/sys/fs/cgroup/{group}memory.max"))
            );
        }
        assert_eq!(files.len(), 4);
        assert_eq!(kib("VmRSS: 99999999999999999999 kB", "VmRSS:"), None);
        #[cfg(target_os = "linux")]
        assert!(resident().unwrap() > 100_000 && available().unwrap() > resident().unwrap());
    }
}
