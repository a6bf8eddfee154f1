//! What we take from others: licences that suit ours, nothing that is known to be dangerous, from the public registries
//! alone, and lock files that name no machine's address.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::advisories;
use crate::context::Context;
use crate::error::Error;
use crate::process;
use crate::summary::Report;

const LIMIT: Duration = Duration::from_secs(10 * 60);

/// Licences which ask for no more than to be named.
const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub(crate) fn run(context: &Context, report: &mut Report) -> Result<(), Error> {
    // Locked: the lock file has to fit the manifests as they are.
    let mut tree = context.cargo([
        "tree",
        "--workspace",
        "--locked",
        "--edges=normal,build",
        "--prefix=none",
        "--format={p}|{l}",
    ]);
    let finished = process::run_quietly(&context.children, &mut tree, LIMIT)?;
    let tree = if finished.success {
        Ok(finished.output)
    } else {
        Err(format!(
            "cargo tree {}:\n{}",
            finished.ending, finished.output
        ))
    };
    match tree {
        Ok(tree) => report.check("licences", refused(&tree)),
        Err(problem) => report.fail(problem),
    }
    let locks = ["Cargo.lock", "fuzz/Cargo.lock"];
    let locks = locks.map(|name| Ok((name, read(&context.root.join(name))?)));
    let locks = locks.into_iter().collect::<Result<Vec<_>, Error>>()?;
    for (name, lock) in &locks {
        report.check(name, cargo_sources(lock));
    }
    match advisories::database(context)? {
        Ok(database) => {
            for (name, lock) in &locks {
                report.check(
                    &format!("advisories against {name}"),
                    advisories::check(lock, &database),
                );
            }
        }
        // Neither a failure of what is here nor a pass.
        Err(problem) => report.skip(format!(
            "advisories were not looked at: {problem} (ADVISORY_DB names a copy)"
        )),
    }
    for folder in ["packages", "tests"] {
        for lock in npm_locks(&context.root.join(folder), 3) {
            let name = lock.strip_prefix(&context.root).unwrap_or(&lock);
            report.check(&name.display().to_string(), npm_addresses(&read(&lock)?));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::context(format!("can't read {}", path.display())))
}

/// Fails on packages with a licence that is not acceptable. Lines are `PACKAGE|LICENCE`.
fn refused(tree: &str) -> Result<(), String> {
    let refused: BTreeSet<_> = tree
        .lines()
        // What was shown before is marked so.
        .map(|line| line.trim_end_matches(" (*)"))
        .filter_map(|line| line.split_once('|'))
        .filter(|(_, licence)| !accepts(licence))
        .map(|(package, licence)| format!("{package}: {licence:?} is not accepted"))
        .collect();
    if refused.is_empty() {
        Ok(())
    } else {
        Err(refused.into_iter().collect::<Vec<_>>().join("; "))
    }
}

/// Whether an SPDX expression can be satisfied with accepted licences alone.
fn accepts(expression: &str) -> bool {
    // An older way of writing OR.
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    any(&mut words) && words.next().is_none()
}

type Words<'a, I> = std::iter::Peekable<I>;

fn any<'a, I: Iterator<Item = &'a str>>(words: &mut Words<'a, I>) -> bool {
    let mut accepted = all(words);
    while words.next_if_eq(&"OR").is_some() {
        // Not short-circuited: the words have to be taken.
        accepted |= all(words);
    }
    accepted
}

fn all<'a, I: Iterator<Item = &'a str>>(words: &mut Words<'a, I>) -> bool {
    let mut accepted = one(words);
    while words.next_if_eq(&"AND").is_some() {
        accepted &= one(words);
    }
    accepted
}

fn one<'a, I: Iterator<Item = &'a str>>(words: &mut Words<'a, I>) -> bool {
    let Some(word) = words.next() else {
        return false;
    };
    if word == "(" {
        let accepted = any(words);
        return words.next_if_eq(&")").is_some() && accepted;
    }
    if words.next_if_eq(&"WITH").is_some() {
        let exception = words.next().unwrap_or_default();
        return ACCEPTED.contains(&format!("{word} WITH {exception}").as_str());
    }
    ACCEPTED.contains(&word)
}

/// Fails on packages from elsewhere than crates.io.
fn cargo_sources(lock: &str) -> Result<(), String> {
    let ours = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    match lock
        .lines()
        .find(|line| line.starts_with("source = ") && *line != ours)
    {
        None => Ok(()),
        Some(line) => Err(format!("a package is not from crates.io: {line}")),
    }
}

/// Fails on download addresses: whoever installs uses the registry which is set there.
fn npm_addresses(lock: &str) -> Result<(), String> {
    if !lock.contains("\"lockfileVersion\"") {
        return Err("not a lock file".to_owned());
    }
    match lock.lines().find(|line| line.contains("\"resolved\":")) {
        None => Ok(()),
        Some(line) => Err(format!(
            "it names an address ({}): run npm install with omit-lockfile-registry-resolved=true in .npmrc",
            line.trim()
        )),
    }
}

/// The lock files below `folder`, `depth` levels down, installed packages left out.
fn npm_locks(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut locks = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default();
        if name == "package-lock.json" {
            locks.push(path);
        } else if depth > 0 && name != "node_modules" && path.is_dir() {
            locks.append(&mut npm_locks(&path, depth - 1));
        }
    }
    locks.sort();
    locks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_acceptable_choice_is_enough() {
        for licence in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/GPL-3.0",
            "GPL-2.0 OR BSD-3-Clause",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR MIT",
            "ISC AND (Apache-2.0 OR ISC) AND Apache-2.0 AND MIT AND (Apache-2.0 OR ISC OR MIT-0)",
        ] {
            assert!(accepts(licence), "{licence}");
        }
    }

    #[test]
    fn a_condition_too_many_is_refused() {
        for licence in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "MIT AND (GPL-3.0 OR MPL-2.0)",
            "GPL-2.0 WITH LLVM-exception",
            "MIT Apache-2.0",
            "(MIT",
            "MIT)",
            "OR",
        ] {
            assert!(!accepts(licence), "{licence}");
        }
    }

    #[test]
    fn the_package_is_named() {
        assert_eq!(refused("a v1.0.0|MIT\nb v1.0.0|MIT (*)\n"), Ok(()));
        let refusal = refused("a v1.0.0|MIT\nb v2.0.0|GPL-3.0 (*)\n");
        assert!(refusal.is_err_and(|text| text.contains("b v2.0.0") && !text.contains("a v1")));
    }

    #[test]
    fn lock_files_name_no_other_place() {
        let crates_io = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        assert_eq!(cargo_sources(crates_io), Ok(()));
        assert!(cargo_sources("source = \"git+https://example.org/x\"\n").is_err());
        assert!(cargo_sources("source = \"registry+https://example.org/index\"\n").is_err());
        assert_eq!(npm_addresses("{\n\"lockfileVersion\": 3\n}"), Ok(()));
        assert!(npm_addresses("{\"lockfileVersion\": 3,\n \"resolved\": \"https://x\"}").is_err());
        assert!(npm_addresses("{}").is_err());
    }
}
