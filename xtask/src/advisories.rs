//! What is known against the crates that we take, from the advisory database of the Rust project (RustSec): cloned anew or
//! brought up to date for each run, or a copy of it that `ADVISORY_DB` names.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::context::Context;
use crate::error::Error;
use crate::process;

/// Advisories that don't concern us, each with the reason.
const ACCEPTED: &[(&str, &str)] = &[];

const DATABASE: &str = "https://github.com/RustSec/advisory-db.git";
const LIMIT: Duration = Duration::from_secs(2 * 60);

/// Where the database is, or why it can't be had.
///
/// # Errors
///
/// When Git can't be run at all.
pub(crate) fn database(context: &Context) -> Result<Result<PathBuf, String>, Error> {
    if let Some(copy) = env::var_os("ADVISORY_DB") {
        return Ok(Ok(copy.into()));
    }
    let folder = context.scratch("advisories")?.join("db");
    let mut git = Command::new("git");
    if folder.join(".git").exists() {
        git.arg("-C").arg(&folder).args(["pull", "--ff-only"]);
    } else {
        git.args(["clone", "--depth=1", DATABASE]).arg(&folder);
    }
    // Nobody is there to type a password.
    git.env("GIT_TERMINAL_PROMPT", "0");
    let finished = process::run_quietly(&context.children, &mut git, LIMIT)?;
    if finished.success {
        return Ok(Ok(folder));
    }
    let said = finished.output.trim().lines().last().unwrap_or_default();
    Ok(Err(format!("{DATABASE} can't be fetched: {said}")))
}

/// Fails on packages of a lock file against which something is known.
pub(crate) fn check(lock: &str, database: &Path) -> Result<(), String> {
    let crates = database.join("crates");
    if !crates.join("tokio").is_dir() {
        return Err(format!("{} has no advisories", database.display()));
    }
    let lock: Lock = toml::from_str(lock).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    // Our own have no source.
    for package in lock.package.iter().filter(|one| one.source.is_some()) {
        let Ok(files) = fs::read_dir(crates.join(&package.name)) else {
            continue;
        };
        for file in files.flatten() {
            let text = fs::read_to_string(file.path()).map_err(|error| error.to_string())?;
            let place = file.path().display().to_string();
            let advisory = read(&text).map_err(|error| format!("{place}: {error}"))?;
            if advisory.concerns(&package.version) && !is_accepted(&advisory.advisory.id) {
                let Package { name, version, .. } = package;
                found.push(format!("{name} {version}: {}", advisory.advisory.id));
            }
        }
    }
    if found.is_empty() {
        Ok(())
    } else {
        Err(found.join("; "))
    }
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: Version,
    source: Option<String>,
}

/// One of the database's files.
#[derive(Deserialize)]
struct Advisory {
    advisory: Head,
    #[serde(default)]
    versions: Versions,
}

#[derive(Deserialize)]
struct Head {
    id: String,
    withdrawn: Option<String>,
    /// `unmaintained`, `unsound` or `notice`, where it is no vulnerability.
    informational: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Versions {
    patched: Vec<VersionReq>,
    unaffected: Vec<VersionReq>,
}

impl Advisory {
    /// Whether a version is one that it warns of. That nobody looks after a crate is worth a thought, and no failure.
    fn concerns(&self, version: &Version) -> bool {
        let kind = self.advisory.informational.as_deref();
        let is_a_danger = matches!(kind, None | Some("unsound"));
        let Versions {
            patched,
            unaffected,
        } = &self.versions;
        let is_safe = patched
            .iter()
            .chain(unaffected)
            .any(|one| one.matches(version));
        is_a_danger && self.advisory.withdrawn.is_none() && !is_safe
    }
}

/// The table that stands before an advisory's text.
fn read(text: &str) -> Result<Advisory, String> {
    let table = text
        .strip_prefix("```toml\n")
        .and_then(|rest| rest.split_once("\n```"))
        .map(|(table, _)| table);
    let table = table.ok_or("it doesn't begin with a table in TOML")?;
    toml::from_str(table).map_err(|error| error.to_string())
}

fn is_accepted(id: &str) -> bool {
    ACCEPTED.iter().any(|(accepted, _)| *accepted == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\
        [[package]]\nname = \"tokio\"\nversion = \"1.2.3\"\n\
        source = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
        [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n";

    fn advisory(more: &str, versions: &str) -> String {
        format!(
            "```toml\n[advisory]\nid = \"RUSTSEC-2026-0001\"\npackage = \"tokio\"\ndate = \"2026-01-01\"\n{more}\n\
             [versions]\n{versions}\n```\n\n# It fails\n\nWith ```toml``` in its text.\n"
        )
    }

    /// What is said of the lock file with one advisory against each of its packages.
    fn said(text: &str) -> Result<(), String> {
        let folder = env::temp_dir().join(format!("xtask-advisories-{}", std::process::id()));
        for name in ["tokio", "ours"] {
            let folder = folder.join("crates").join(name);
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join("RUSTSEC-2026-0001.md"), text).expect("a file");
        }
        let said = check(LOCK, &folder);
        fs::remove_dir_all(folder).expect("it is ours");
        said
    }

    // In one test, as they share a folder.
    #[test]
    fn versions_that_are_warned_of_are_told() {
        let told = Err("tokio 1.2.3: RUSTSEC-2026-0001".to_owned());
        for versions in [
            "patched = [\">= 1.2.4\"]",
            "patched = [\"^1.1.9, < 1.2\", \">= 1.3\"]\nunaffected = [\"< 1.2.3\"]",
            "patched = []",
            "",
        ] {
            assert_eq!(said(&advisory("", versions)), told, "{versions}");
        }
        for versions in [
            "patched = [\">= 1.2.3\"]",
            "patched = [\"^1.2.3\"]",
            "patched = [\">= 2\"]\nunaffected = [\"< 1.3\"]",
        ] {
            assert_eq!(said(&advisory("", versions)), Ok(()), "{versions}");
        }
        let of_kind = |kind: &str| said(&advisory(&format!("informational = \"{kind}\""), ""));
        assert_eq!(of_kind("unsound"), told);
        assert_eq!(of_kind("unmaintained"), Ok(()));
        let withdrawn = advisory("withdrawn = \"2026-02-01\"", "");
        assert_eq!(said(&withdrawn), Ok(()));
        // What can't be read is not taken for harmless.
        for bad in [
            "# It fails",
            "```toml\n[advisory]\n```\n",
            "```toml\nid = \n```",
        ] {
            assert!(said(bad).is_err_and(|error| error.contains("RUSTSEC-2026-0001.md")));
        }
    }

    #[test]
    fn a_folder_without_advisories_is_no_database() {
        assert!(check(LOCK, &env::temp_dir().join("nowhere")).is_err());
    }
}
