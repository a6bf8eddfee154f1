//! Java: a JDK and Maven, the system's. There is no other way to them than its packages.

use std::path::PathBuf;
use std::process::Command;

use crate::context::Context;
use crate::error::Error;
use crate::tools::answers;

/// The `mvn` command, if there is one with a Java compiler behind it that is new enough.
pub(crate) fn find() -> Option<PathBuf> {
    let maven = std::env::var_os("MAVEN").map_or_else(|| PathBuf::from("mvn"), PathBuf::from);
    // A runtime without a compiler is not enough; and the option is that of the tests' `pom.xml`.
    let mut compiler = Command::new("javac");
    compiler.args(["--release", OLDEST, "--version"]);
    let mut version = Command::new(&maven);
    version.arg("--version");
    (answers(compiler) && answers(version)).then_some(maven)
}

/// Maven in `folder` of the workspace, with all that it fetches and builds below the target folder.
///
/// # Errors
///
/// When that folder can't be made.
pub(crate) fn maven(context: &Context, maven: &PathBuf, folder: &str) -> Result<Command, Error> {
    let ours = context.scratch("java")?;
    let mut command = context.command(maven, folder);
    command
        .args(["--batch-mode", "--no-transfer-progress"])
        .arg(format!(
            "-Dmaven.repo.local={}",
            ours.join("repository").display()
        ))
        .arg(format!("-Dtarget={}", ours.join("target").display()));
    if !context.install {
        command.arg("--offline");
    }
    Ok(command)
}

/// What the tests' `pom.xml` says.
const OLDEST: &str = "17";
