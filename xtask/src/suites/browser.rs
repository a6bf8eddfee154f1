//! The chat page, the doors and the TypeScript package in headless Chromium, against a server.

use std::time::Duration;

use super::{add, client};
use crate::context::Context;
use crate::error::Error;
use crate::server::Server;
use crate::summary::{Report, Runner};
use crate::tools::Tools;

const LIMIT: Duration = Duration::from_secs(10 * 60);

pub(crate) fn run(context: &Context, tools: &Tools, report: &mut Report) -> Result<(), Error> {
    let node = tools.node()?;
    let folder = node.install_packages(context, "tests/browser")?;
    client::build(context, tools)?;
    let server = Server::start(context, "browser")?;
    let mut command = node.command("npm", &folder);
    command
        .arg("test")
        .env("CHROMIUM", tools.chromium()?)
        .env("TAUTLINE_PROGRAM", context.target.join("release/tautline"))
        .env("SCREENSHOTS", context.scratch("screenshots")?);
    server.tell(&mut command);
    add(
        context,
        report,
        "browser",
        Runner::Node,
        &mut command,
        LIMIT,
    )?;
    report.check("SIGTERM ends the server", server.stop());
    Ok(())
}
