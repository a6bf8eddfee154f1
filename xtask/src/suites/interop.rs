//! The WebSocket library with other implementations, as their server and as their client.

use std::process::Command;
use std::time::Duration;

use super::add;
use crate::context::Context;
use crate::error::Error;
use crate::process;
use crate::python;
use crate::summary::{Report, Runner};
use crate::tools::Tools;

const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
const LIMIT: Duration = Duration::from_secs(5 * 60);

pub(crate) fn run(context: &Context, tools: &Tools, report: &mut Report) -> Result<(), Error> {
    let node = tools.node()?;
    let javascript = node.install_packages(context, "tests/interop/js")?;
    let folder = context.root.join("tests/interop/python");
    let list = folder.join("requirements.txt");
    let requirements = std::fs::read_to_string(&list)
        .map_err(Error::context(format!("can't read {}", list.display())))?;
    let programs = python::environment(context, tools.python()?, "python-interop", &requirements)?;
    let mut build = context.cargo(["build", "--package", "interop-peer"]);
    let built = process::run(&context.children, &mut build, BUILD_LIMIT)?;
    if !built.success {
        return Err(Error::new(format!("the build of our end {}", built.ending)));
    }
    let peer = context.target.join("debug/interop-peer");

    let mut command = node.command("npm", &javascript);
    command
        .arg("test")
        .env("INTEROP_PEER", &peer)
        .env("CHROMIUM", tools.chromium()?)
        .env("NGINX", tools.nginx()?)
        .env("HAPROXY", tools.haproxy()?);
    add(
        context,
        report,
        "Node's ws, Chromium, nginx and HAProxy",
        Runner::Node,
        &mut command,
        LIMIT,
    )?;

    let mut command = Command::new(programs.join("python"));
    command
        .current_dir(&folder)
        .args(["-B", "-m", "unittest", "-v"])
        .env("INTEROP_PEER", &peer);
    add(
        context,
        report,
        "Python's websockets",
        Runner::Unittest,
        &mut command,
        LIMIT,
    )
}
