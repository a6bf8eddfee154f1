//! The chat page: its own checks, and whether the committed build is what its sources give.

use std::time::Duration;

use crate::context::Context;
use crate::error::Error;
use crate::process;
use crate::summary::{Report, Runner};
use crate::tools::{Need, Tools};

const FOLDER: &str = "packages/chat";
const LIMIT: Duration = Duration::from_secs(10 * 60);

pub(crate) fn run(context: &Context, tools: &Tools, report: &mut Report) -> Result<(), Error> {
    let node = tools.node()?;
    let folder = node.install_packages(context, FOLDER)?;
    let mut check = node.command("npm", &folder);
    check.args(["run", "check"]);
    let finished = process::run(&context.children, &mut check, LIMIT)?;
    report.add(
        "unit tests of the page",
        Runner::Node,
        &finished.output,
        // What else the check does counts below.
        true,
        &finished.ending,
    );
    report.add(
        "types and drift (npm run check in packages/chat)",
        Runner::Check,
        &finished.output,
        finished.success,
        &finished.ending,
    );
    Ok(())
}

/// Builds the page into the server's assets.
///
/// # Errors
///
/// When Node.js is missing, or the build fails.
pub(crate) fn rebuild(context: &Context) -> Result<(), Error> {
    let tools = Tools::prepare(context, &[Need::Node])?;
    let node = tools.node()?;
    let folder = node.install_packages(context, FOLDER)?;
    let mut build = node.command("npm", &folder);
    build.args(["run", "build"]);
    let finished = process::run(&context.children, &mut build, LIMIT)?;
    if finished.success {
        Ok(())
    } else {
        Err(Error::new(format!("the page's build {}", finished.ending)))
    }
}
