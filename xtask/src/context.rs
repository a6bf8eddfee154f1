//! What every task needs to know: where things are, what is allowed, which processes run.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::process::Children;

/// The workspace's folder.
///
/// # Errors
///
/// When it isn't where it was when xtask was built.
pub(crate) fn root() -> Result<PathBuf, Error> {
    // Set at compile time to xtask's own folder, which is one level down.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .filter(|root| root.join("Cargo.toml").is_file())
        .map(Path::to_path_buf)
        .ok_or_else(|| Error::new("the workspace has moved since xtask was built: build it again"))
}

pub(crate) struct Context {
    /// The workspace's folder.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
    /// May missing tools and packages be installed?
    pub(crate) install: bool,
    /// All that runs for us, so that none outlives us.
    pub(crate) children: Children,
}

impl Context {
    /// # Errors
    ///
    /// When Cargo does not tell where the workspace is, or signals can't be handled.
    pub(crate) fn new(install: bool) -> Result<Self, Error> {
        let root = root()?;
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |folder| root.join(folder));
        Ok(Self {
            children: Children::watch_signals()?,
            root,
            target,
            install,
        })
    }

    /// A folder of our own below the target folder, made if need be.
    ///
    /// # Errors
    ///
    /// When it can't be made.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf, Error> {
        let folder = self.target.join("xtask").join(name);
        std::fs::create_dir_all(&folder)
            .map_err(Error::context(format!("can't make {}", folder.display())))?;
        Ok(folder)
    }

    /// A command that runs in the workspace's folder, or in `folder` below it.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>, folder: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.root.join(folder));
        command
    }

    /// The Cargo which started us, or the one on `PATH`.
    pub(crate) fn cargo<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = self.command(cargo, "");
        command.args(arguments);
        command
    }
}
