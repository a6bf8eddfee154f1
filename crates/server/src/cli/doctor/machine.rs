//! The machine: what the kernel allows.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use super::finding::Finding;
use super::push;

/// Looks at the machine whose file system begins at `root`.
pub(super) fn look(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    push(&mut findings, descriptors());
    for (subject, file, least, why) in SETTINGS {
        push(&mut findings, setting(root, subject, file, *least, why));
    }
    push(&mut findings, connection_tracking(root));
    push(&mut findings, memory(root));
    push(&mut findings, clock(root));
    findings
}

/// Settings that are numbers: what to call them, where they are, what they should be at least, and why.
const SETTINGS: &[(&str, &str, u64, &str)] = &[
    (
        "net.core.somaxconn",
        "proc/sys/net/core/somaxconn",
        4096,
        "when many clients connect at once, further ones wait in vain",
    ),
    (
        "net.ipv4.tcp_max_syn_backlog",
        "proc/sys/net/ipv4/tcp_max_syn_backlog",
        4096,
        "when many clients connect at once, further ones wait in vain",
    ),
    (
        "fs.file-max",
        "proc/sys/fs/file-max",
        100_000,
        "all programs together can't have more files and connections open",
    ),
    (
        "fs.nr_open",
        "proc/sys/fs/nr_open",
        100_000,
        "no program can have more files and connections open",
    ),
];

fn setting(root: &Path, name: &'static str, file: &str, least: u64, why: &str) -> Option<Finding> {
    let value: u64 = number(&root.join(file))?;
    if value >= least {
        return Some(Finding::good(name, value.to_string()));
    }
    let remedy = format!("sysctl --write {name}={least}   # and in /etc/sysctl.d/, to stay");
    Some(Finding::doubtful(name, format!("is {value}: {why}")).remedy(remedy))
}

/// What a program started here would get. The server takes what it can get by itself.
#[cfg(unix)]
fn descriptors() -> Option<Finding> {
    use rustix::process::{Resource, getrlimit};
    let Some(most) = getrlimit(Resource::Nofile).maximum else {
        return Some(Finding::good(DESCRIPTORS, "any number can be open"));
    };
    if most >= MANY {
        return Some(Finding::good(DESCRIPTORS, format!("{most} can be open")));
    }
    let text = format!("only {most} can be open, and each client is one");
    Some(Finding::doubtful(DESCRIPTORS, text).remedy(
        "systemd: LimitNOFILE=1048576; docker: --ulimit nofile=1048576; a shell: ulimit -Hn, or /etc/security/limits.conf",
    ))
}

#[cfg(not(unix))]
fn descriptors() -> Option<Finding> {
    None
}

/// A table of the firewall's, with an entry a connection. When it is full, new connections are dropped
/// without a word.
fn connection_tracking(root: &Path) -> Option<Finding> {
    let folder = root.join("proc/sys/net/netfilter");
    let most: u64 = number(&folder.join("nf_conntrack_max"))?;
    let count: u64 = number(&folder.join("nf_conntrack_count"))?;
    let text = format!("{count} connections of at most {most}");
    let name = "connection tracking";
    if count >= most / 10 * 9 {
        let text = format!("{text}: new ones are dropped without a word when it is full");
        let remedy = format!("sysctl --write net.netfilter.nf_conntrack_max={}", most * 4);
        return Some(Finding::bad(name, text).remedy(remedy));
    }
    if most < MANY {
        let text = format!("{text}, and each client is one");
        let remedy = "sysctl --write net.netfilter.nf_conntrack_max=1048576";
        return Some(Finding::doubtful(name, text).remedy(remedy));
    }
    Some(Finding::good(name, text))
}

fn memory(root: &Path) -> Option<Finding> {
    let info = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    // Version 2 of control groups, as seen from inside.
    let limit: Option<u64> = number(&root.join("sys/fs/cgroup/memory.max"));
    let total = (total * 1024).min(limit.unwrap_or(u64::MAX));
    let mib = total / (1024 * 1024);
    let text = format!("{mib} MiB");
    if mib < 128 {
        let text = format!(
            "{text}: little; a resting client takes some 4 KiB with the kernel's part, but history and bursts take more"
        );
        return Some(Finding::doubtful("memory", text));
    }
    Some(Finding::good("memory", text))
}

/// Whether somebody keeps the clock right. Tokens expire by it.
fn clock(root: &Path) -> Option<Finding> {
    // Only where systemd runs is it known.
    if !root.join("run/systemd/system").exists() {
        return None;
    }
    let marks = [
        "run/systemd/timesync/synchronized",
        "run/chrony/chronyd.pid",
        "run/ntpd.pid",
    ];
    if marks.iter().any(|mark| root.join(mark).exists()) {
        return Some(Finding::good("clock", "it is kept right"));
    }
    let text = "nobody seems to keep it right, and tokens expire by it";
    Some(Finding::doubtful("clock", text).remedy("timedatectl set-ntp true"))
}

fn number<T: FromStr>(file: &Path) -> Option<T> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

const DESCRIPTORS: &str = "descriptors";

/// Fewer clients than that don't need a doctor.
const MANY: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::super::finding::Grade;
    use super::*;

    /// A file system with these files.
    struct Root(std::path::PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir();
            let root = root.join(format!("tautline-doctor-{name}-{}", std::process::id()));
            for (file, text) in files {
                let file = root.join(file);
                fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
                fs::write(file, text).expect("a file");
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn found(root: &Root, subject: &str) -> Option<(Grade, Option<String>)> {
        let all = look(&root.0);
        let finding = all.into_iter().find(|finding| finding.subject == subject)?;
        Some((finding.grade, finding.remedy))
    }

    #[test]
    fn a_machine_for_few_is_told_from_one_for_many() {
        let good = Root::new(
            "good",
            &[
                ("proc/sys/net/core/somaxconn", "4096\n"),
                ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
                ("proc/sys/net/netfilter/nf_conntrack_count", "12\n"),
                (
                    "proc/meminfo",
                    "MemTotal:       16000000 kB\nMemFree: 1 kB\n",
                ),
                ("sys/fs/cgroup/memory.max", "max\n"),
                ("run/systemd/system/x", ""),
                ("run/systemd/timesync/synchronized", ""),
            ],
        );
        for subject in [
            "net.core.somaxconn",
            "connection tracking",
            "memory",
            "clock",
        ] {
            assert_eq!(
                found(&good, subject),
                Some((Grade::Good, None)),
                "{subject}"
            );
        }
        let bad = Root::new(
            "bad",
            &[
                ("proc/sys/net/core/somaxconn", "128\n"),
                ("proc/sys/net/netfilter/nf_conntrack_max", "1000\n"),
                ("proc/sys/net/netfilter/nf_conntrack_count", "950\n"),
                ("proc/meminfo", "MemTotal:       16000000 kB\n"),
                ("sys/fs/cgroup/memory.max", "67108864\n"),
                ("run/systemd/system/x", ""),
            ],
        );
        let somaxconn = found(&bad, "net.core.somaxconn").expect("it is looked at");
        assert_eq!(somaxconn.0, Grade::Doubtful);
        assert!(
            somaxconn
                .1
                .is_some_and(|remedy| remedy.contains("net.core.somaxconn=4096"))
        );
        assert_eq!(
            found(&bad, "connection tracking").map(|it| it.0),
            Some(Grade::Bad)
        );
        assert_eq!(found(&bad, "memory").map(|it| it.0), Some(Grade::Doubtful));
        assert_eq!(found(&bad, "clock").map(|it| it.0), Some(Grade::Doubtful));
    }

    #[test]
    fn what_cannot_be_found_out_is_no_finding() {
        let nothing = Root::new("nothing", &[("x", "")]);
        let subjects: Vec<_> = look(&nothing.0)
            .into_iter()
            .map(|one| one.subject)
            .collect();
        assert_eq!(subjects, [DESCRIPTORS]);
    }
}
