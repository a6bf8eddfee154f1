//! Python: finding one that will do, and virtual environments below the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::context::Context;
use crate::error::Error;
use crate::process;
use crate::tools::answers;

const INSTALL_LIMIT: Duration = Duration::from_secs(10 * 60);

/// A Python 3.10 or newer which can make virtual environments: `PYTHON3`, or one on `PATH`.
pub(crate) fn find() -> Option<PathBuf> {
    let named = std::env::var_os("PYTHON3").map(PathBuf::from);
    let names = [
        "python3",
        "python3.13",
        "python3.12",
        "python3.11",
        "python3.10",
    ];
    named
        .into_iter()
        .chain(names.map(PathBuf::from))
        .find(|python| {
            let mut command = Command::new(python);
            command.args([
                "-c",
                "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))",
            ]);
            answers(command)
        })
}

/// A virtual environment below the target folder with exactly the packages that `requirements`
/// pins, by name; returns its folder of programs. Made anew when the pins have changed.
///
/// # Errors
///
/// When it is not there and may not be, or can't be, made.
pub(crate) fn environment(
    context: &Context,
    python: &Path,
    name: &str,
    requirements: &str,
) -> Result<PathBuf, Error> {
    let folder = context.scratch(name)?;
    let programs = folder.join("bin");
    let stamp = folder.join("installed.txt");
    let mut probe = Command::new(programs.join("python"));
    probe.args(["-c", "pass"]);
    // The interpreter may have gone since.
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == requirements) && answers(probe) {
        return Ok(programs);
    }
    if !context.install {
        return Err(Error::new(format!(
            "the Python packages of {name} are not installed, and --no-install forbids to install \
             them:\n{requirements}"
        )));
    }
    let list = folder.join("requirements.txt");
    let mut create = Command::new(python);
    create.args(["-m", "venv", "--clear"]).arg(&folder);
    succeed(context, &mut create)?;
    std::fs::write(&list, requirements)
        .map_err(Error::context(format!("can't write {}", list.display())))?;
    let mut install = Command::new(programs.join("python"));
    install
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(["--no-deps", "-r"])
        .arg(&list);
    succeed(context, &mut install)?;
    std::fs::write(&stamp, requirements)
        .map_err(Error::context(format!("can't write {}", stamp.display())))?;
    Ok(programs)
}

fn succeed(context: &Context, command: &mut Command) -> Result<(), Error> {
    let finished = process::run(&context.children, command, INSTALL_LIMIT)?;
    if finished.success {
        return Ok(());
    }
    Err(Error::new(format!(
        "{} {}",
        process::describe(command),
        finished.ending
    )))
}
