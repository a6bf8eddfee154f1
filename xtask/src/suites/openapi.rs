//! The HTTP API, fuzzed from its own description by schemathesis (from PyPI): single calls, and chains
//! of calls that make something of each other's results. Nothing that is sent may end in a 5xx, and
//! what comes back has to be what the description says.

use std::process::Command;
use std::time::Duration;

use super::add;
use crate::context::Context;
use crate::error::Error;
use crate::python;
use crate::server::Server;
use crate::summary::{Report, Runner};
use crate::tools::Tools;

const LIMIT: Duration = Duration::from_secs(5 * 60);

pub(crate) fn run(context: &Context, tools: &Tools, report: &mut Report) -> Result<(), Error> {
    let folder = context.root.join("tests/openapi");
    let list = folder.join("requirements.txt");
    let requirements = std::fs::read_to_string(&list)
        .map_err(Error::context(format!("can't read {}", list.display())))?;
    let programs = python::environment(context, tools.python()?, "python-openapi", &requirements)?;
    let server = Server::start(context, "openapi")?;

    let mut command = Command::new(programs.join("schemathesis"));
    command
        // Where it leaves what it has found, to be repeated.
        .current_dir(context.scratch("schemathesis")?)
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("{}/api/openapi.json", server.url()))
        .args(["--header", "X-API-Key: dev"])
        // With errors as statuses, a refusal is seen to be one.
        .args(["--header", "X-Centrifugo-Error-Mode: transport"])
        .args(["--checks", "all", "--max-examples", "50"])
        // The same calls each time.
        .args(["--seed", "1", "--no-color"])
        // Whatever proxy the environment names is not meant for loopback.
        .env("NO_PROXY", "127.0.0.1");
    add(
        context,
        report,
        "the API is what its description says",
        Runner::Check,
        &mut command,
        LIMIT,
    )?;

    report.check("SIGTERM ends the server", server.stop());
    Ok(())
}
