//! The unmodified SDKs of other people, in JavaScript, Python, Go and Java, against servers as `tautline dev` has
//! it, configured for what they have to prove, with handlers in code, and with a backend over HTTP.

use std::process::Command;
use std::time::Duration;

use super::add;
use crate::context::Context;
use crate::error::Error;
use crate::java;
use crate::python;
use crate::server::{Server, free_address};
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

    let go = tools.go()?;
    let dev = Server::start(context, "sdk-dev")?;
    let configured = Server::configured(context, "sdk", "tests/sdk/server.toml")?;
    let handlers = Server::example(context, "sdk_handlers")?;
    // The tests themselves are this one's backend.
    let backend = free_address()?;
    let file = "tests/sdk/proxy.toml";
    let proxied = Server::configured_with(context, "sdk-proxy", file, Some(backend))?;
    let tell = |command: &mut Command| {
        dev.tell(command);
        command.env("TAUTLINE_HANDLERS_URL", handlers.url());
        command.env("TAUTLINE_CONFIGURED_URL", configured.url());
        command.env("TAUTLINE_PROXIED_URL", proxied.url());
        command.env("TAUTLINE_BACKEND_URL", format!("http://{backend}"));
    };

    let mut command = node.command("npm", &javascript);
    command.arg("test");
    tell(&mut command);
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
        .args(["-B", "-W", "ignore::ResourceWarning", "side_by_side.py"]);
    tell(&mut command);
    add(
        context,
        report,
        "Python SDK",
        Runner::Unittest,
        &mut command,
        LIMIT,
    )?;

    let mut command = context.command(go, "tests/sdk/go");
    // Most of them wait for time to pass: more at a time than there are cores.
    command.args(["test", "-v", "-count=1", "-parallel=16", "./..."]);
    if !context.install {
        command.env("GOPROXY", "off");
    }
    tell(&mut command);
    add(context, report, "Go SDK", Runner::Go, &mut command, LIMIT)?;

    let mut command = java::maven(context, tools.maven()?, "tests/sdk/java")?;
    // These two goals, and none of the life cycle that fetches a plugin for each of its phases.
    command.args(["compiler:testCompile", "surefire:test"]);
    tell(&mut command);
    add(
        context,
        report,
        "Java SDK",
        Runner::Surefire,
        &mut command,
        LIMIT,
    )?;

    report.check("SIGTERM ends the server", dev.stop());
    report.check("SIGTERM ends the configured server", configured.stop());
    report.check("SIGTERM ends the server with handlers", handlers.stop());
    report.check("SIGTERM ends the server with a backend", proxied.stop());
    Ok(())
}
