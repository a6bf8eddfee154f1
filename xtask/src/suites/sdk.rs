//! The unmodified SDKs of other people, on Node.js and Python, against one server.

use std::process::Command;
use std::time::Duration;

use super::add;
use crate::context::Context;
use crate::error::Error;
use crate::python;
use crate::server::Server;
use crate::summary::{Report, Runner};
use crate::tools::Tools;

const LIMIT: Duration = Duration::from_secs(10 * 60);

pub(crate) fn run(context: &Context, tools: &Tools, report: &mut Report) -> Result<(), Error> {
    let node = tools.node()?;
    let javascript = node.install_packages(context, "tests/sdk/js")?;
    let folder = context.root.join("tests/sdk/python");
    let list = folder.join("requirements.txt");
    let requirements = std::fs::read_to_string(&list)
        .map_err(Error::context(format!("can't read {}", list.display())))?;
    let programs = python::environment(context, tools.python()?, "python-sdk", &requirements)?;

    let server = Server::start(context, "sdk")?;
    let mut command = node.command("npm", &javascript);
    command.arg("test");
    server.tell(&mut command);
    add(
        context,
        report,
        "JavaScript SDK",
        Runner::Node,
        &mut command,
        LIMIT,
    )?;

    let mut command = Command::new(programs.join("python"));
    command
        .current_dir(&folder)
        // The SDK closes its sockets after it has said that it has.
        .args([
            "-B",
            "-W",
            "ignore::ResourceWarning",
            "-m",
            "unittest",
            "-v",
        ]);
    server.tell(&mut command);
    add(
        context,
        report,
        "Python SDK",
        Runner::Unittest,
        &mut command,
        LIMIT,
    )?;
    report.check("SIGTERM ends the server", server.stop());
    Ok(())
}
