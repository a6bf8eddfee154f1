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
    Some(descriptors_of(getrlimit(Resource::Nofile).maximum))
}

#[cfg(not(unix))]
fn descriptors() -> Option<Finding> {
    None
}

/// `None` for as many as there are.
#[cfg(unix)]
fn descriptors_of(most: Option<u64>) -> Finding {
    let Some(most) = most else {
        return Finding::good(DESCRIPTORS, "any number can be open");
    };
    if most >= MANY {
        return Finding::good(DESCRIPTORS, format!("{most} can be open"));
    }
    let text = format!("only {most} can be open, and each client is one");
    Finding::doubtful(DESCRIPTORS, text).remedy(
        "systemd: LimitNOFILE=1048576; docker: --ulimit nofile=1048576; a shell: ulimit -Hn, or /etc/security/limits.conf",
    )
}

/// A table of the firewall's, with an entry a connection. When it is full, new connections are dropped
/// without a word.
fn connection_tracking(root: &Path) -> Option<Finding> {
    let folder = root.join("proc/sys/net/netfilter");
    let most: u64 = number(&folder.join("nf_conntrack_max"))?;
    let count: u64 = number(&folder.join("nf_conntrack_count"))?;
    let name = "connection tracking";
    if most == 0 {
        return Some(Finding::good(
            name,
            format!("{count} connections, and no limit"),
        ));
    }
    let text = format!("{count} connections of at most {most}");
    if count >= most / 10 * 9 {
        let text = format!("{text}: new ones are dropped without a word when it is full");
        let remedy = format!(
            "sysctl --write net.netfilter.nf_conntrack_max={}",
            most.saturating_mul(4)
        );
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
    let total = total.saturating_mul(1024).min(limit.unwrap_or(u64::MAX));
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
    fn each_setting_is_looked_at_where_it_is() {
        for (name, file, least, _) in SETTINGS {
            let dotted = file.trim_start_matches("proc/sys/").replace('/', ".");
            assert_eq!(dotted, *name);
            for (value, grade) in [
                (least - 1, Grade::Doubtful),
                (*least, Grade::Good),
                (least + 1, Grade::Good),
            ] {
                let root = Root::new(name, &[(file, &format!("{value}\n"))]);
                let (found, remedy) = found(&root, name).expect("it is looked at");
                assert_eq!(found, grade, "{name} = {value}");
                let line = format!("sysctl --write {name}={least} ");
                assert!(remedy.is_none_or(|remedy| remedy.starts_with(&line)));
            }
        }
    }

    #[test]
    fn a_table_of_connections_is_judged_by_its_size_and_by_what_is_in_it() {
        for (most, count, grade, to) in [
            ("262144", "235926", Grade::Bad, Some("1048576")),
            ("262144", "200000", Grade::Good, None),
            ("65535", "3", Grade::Doubtful, Some("1048576")),
            ("65536", "3", Grade::Good, None),
            // As many as there is memory for.
            ("0", "3", Grade::Good, None),
        ] {
            let root = Root::new(
                "tracking",
                &[
                    ("proc/sys/net/netfilter/nf_conntrack_max", most),
                    ("proc/sys/net/netfilter/nf_conntrack_count", count),
                ],
            );
            let (found, remedy) = found(&root, "connection tracking").expect("it is looked at");
            assert_eq!(found, grade, "{count} of {most}");
            let line = to.map(|to| format!("sysctl --write net.netfilter.nf_conntrack_max={to}"));
            assert_eq!(remedy, line);
        }
    }

    #[test]
    fn who_keeps_the_clock_right_may_be_any_of_several() {
        for (mark, grade) in [
            ("run/systemd/timesync/synchronized", Grade::Good),
            ("run/chrony/chronyd.pid", Grade::Good),
            ("run/ntpd.pid", Grade::Good),
            ("run/other.pid", Grade::Doubtful),
        ] {
            let root = Root::new("clock", &[("run/systemd/system/x", ""), (mark, "1")]);
            let (found, remedy) = found(&root, "clock").expect("it is looked at");
            assert_eq!(found, grade, "{mark}");
            let is_told = remedy.as_deref() == Some("timedatectl set-ntp true");
            assert_eq!(is_told, grade != Grade::Good);
        }
    }

    #[test]
    fn the_least_of_the_machines_memory_and_the_groups_counts() {
        for (total, limit, grade) in [
            ("131072", "max", Grade::Good),
            ("131071", "max", Grade::Doubtful),
            ("16000000", "134217728", Grade::Good),
            ("16000000", "134217727", Grade::Doubtful),
            ("1000", "134217728", Grade::Doubtful),
            ("18446744073709551615", "134217728", Grade::Good),
        ] {
            let root = Root::new(
                "memory",
                &[
                    ("proc/meminfo", &format!("MemTotal: {total} kB\n")),
                    ("sys/fs/cgroup/memory.max", limit),
                ],
            );
            assert_eq!(
                found(&root, "memory").map(|it| it.0),
                Some(grade),
                "{total} {limit}"
            );
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_descriptor_a_client_has_to_be_there() {
        for (most, grade) in [
            (None, Grade::Good),
            (Some(MANY), Grade::Good),
            (Some(MANY - 1), Grade::Doubtful),
        ] {
            let finding = descriptors_of(most);
            assert_eq!(finding.grade, grade, "{most:?}");
            let is_told = finding
                .remedy
                .is_some_and(|line| line.contains("LimitNOFILE=1048576"));
            assert_eq!(is_told, grade != Grade::Good);
        }
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
