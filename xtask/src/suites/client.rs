//! The TypeScript package: types, build, and its unit tests against a server and a hostile proxy.

use std::time::Duration;

use super::add;
use crate::context::Context;
use crate::error::Error;
use crate::process;
use crate::server::{Server, free_address};
use crate::summary::{Report, Runner};
use crate::tools::Tools;

const FOLDER: &str = "packages/client";
const LIMIT: Duration = Duration::from_secs(10 * 60);

pub(crate) fn run(context: &Context, tools: &Tools, report: &mut Report) -> Result<(), Error> {
    let node = tools.node()?;
    let folder = node.install_packages(context, FOLDER)?;
    let mut types = node.command("npm", &folder);
    types.args(["run", "types"]);
    let what = "types (npm run types in packages/client)";
    add(context, report, what, Runner::Check, &mut types, LIMIT)?;
    build(context, tools)?;
    let server = Server::start(context, "client")?;
    // The tests themselves are what tunnels lead to.
    let upstream = free_address()?;
    let file = "packages/client/test/tunnels.toml";
    let tunnels = Server::configured_with(context, "client-tunnels", file, Some(upstream))?;
    let mut test = node.command("npm", &folder);
    test.arg("test");
    server.tell(&mut test);
    test.env("TAUTLINE_TUNNELS", tunnels.url());
    test.env("TAUTLINE_UPSTREAM", upstream.to_string());
    let what = "unit tests of the TypeScript package";
    add(context, report, what, Runner::Node, &mut test, LIMIT)?;
    report.check("SIGTERM ends the server", server.stop());
    report.check("SIGTERM ends the server with tunnels", tunnels.stop());
    Ok(())
}

/// Builds the package into its `dist/`, which isn't committed.
///
/// # Errors
///
/// When Node.js is missing, or the build fails.
pub(super) fn build(context: &Context, tools: &Tools) -> Result<(), Error> {
    let node = tools.node()?;
    let folder = node.install_packages(context, FOLDER)?;
    let mut build = node.command("npm", &folder);
    build.args(["run", "build"]);
    let finished = process::run(&context.children, &mut build, LIMIT)?;
    if finished.success {
        Ok(())
    } else {
        let problem = format!("the package's build {}", finished.ending);
        Err(Error::new(problem))
    }
}
