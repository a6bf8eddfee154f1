//! The pages: their own checks, and whether the committed builds are what their sources give.

use std::time::Duration;

use crate::context::Context;
use crate::error::Error;
use crate::process;
use crate::summary::{Report, Runner};
use crate::tools::{Need, Tools};

const FOLDERS: [&str; 2] = ["packages/chat", "packages/lab"];
const LIMIT: Duration = Duration::from_secs(10 * 60);

pub(crate) fn run(context: &Context, tools: &Tools, report: &mut Report) -> Result<(), Error> {
    let node = tools.node()?;
    for name in FOLDERS {
        let folder = node.install_packages(context, name)?;
        let mut check = node.command("npm", &folder);
        check.args(["run", "check"]);
        let finished = process::run(&context.children, &mut check, LIMIT)?;
        report.add(
            &format!("unit tests of {name}"),
            Runner::Node,
            &finished.output,
            // What else the check does counts below.
            true,
            &finished.ending,
        );
        report.add(
            &format!("types and drift (npm run check in {name})"),
            Runner::Check,
            &finished.output,
            finished.success,
            &finished.ending,
        );
    }
    Ok(())
}

/// Builds the pages into the server's assets.
///
/// # Errors
///
/// When Node.js is missing, or the build fails.
pub(crate) fn rebuild(context: &Context) -> Result<(), Error> {
    let tools = Tools::prepare(context, &[Need::Node])?;
    let node = tools.node()?;
    for name in FOLDERS {
        let folder = node.install_packages(context, name)?;
        let mut build = node.command("npm", &folder);
        build.args(["run", "build"]);
        let finished = process::run(&context.children, &mut build, LIMIT)?;
        if !finished.success {
            let problem = format!("the build of {name} {}", finished.ending);
            return Err(Error::new(problem));
        }
    }
    Ok(())
}
