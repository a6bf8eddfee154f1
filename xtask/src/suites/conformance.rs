//! Autobahn against the WebSocket engine, as an echo server and as an echo client, strict.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::add_finished;
use crate::context::Context;
use crate::error::Error;
use crate::process::{self, Finished, Running};
use crate::server::free_address;
use crate::summary::{Report, Runner};
use crate::tools::Tools;

const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Of one role. `all` takes some 15 minutes with both roles on two idle cores, and this on a machine with
/// other things to do.
const LIMIT: Duration = Duration::from_secs(90 * 60);

pub(crate) fn run(
    context: &Context,
    tools: &Tools,
    cases: &str,
    report: &mut Report,
) -> Result<(), Error> {
    let python = tools.python()?;
    let tool = context.root.join("conformance/autobahn");
    if !context.install {
        let mut probe = Command::new(tool.join("setup"));
        probe.arg("--check").env("PYTHON3", python);
        let ready = process::run_quietly(&context.children, &mut probe, LIMIT)?;
        if !ready.success {
            return Err(Error::new(
                "Autobahn is not installed, and --no-install forbids it: run conformance/autobahn/setup",
            ));
        }
    }
    let mut build = context.cargo([
        "build",
        "--release",
        "--package=tautline-websocket",
        "--example=echo_server",
        "--example=autobahn_client",
    ]);
    let built = process::run(&context.children, &mut build, BUILD_LIMIT)?;
    if !built.success {
        return Err(Error::new(format!(
            "the build of the echo server and the client {}",
            built.ending
        )));
    }

    // Each takes a core, most of it in the suite's own Python, and neither knows of the other.
    let (server, client) = thread::scope(|scope| {
        let server = scope.spawn(|| test_server(context, python, &tool, cases));
        let client = test_client(context, python, &tool, cases);
        (server.join(), client)
    });
    let (server, trouble) = server.map_err(|_| Error::new("the server's tests panicked"))??;
    add_finished(report, "Autobahn, as a server", Runner::Autobahn, &server);
    if let Some(trouble) = trouble {
        report.fail(trouble);
    }
    add_finished(report, "Autobahn, as a client", Runner::Autobahn, &client?);
    Ok(())
}

/// How the tests ended, and what became of the server if that is another trouble.
fn test_server(
    context: &Context,
    python: &Path,
    tool: &Path,
    cases: &str,
) -> Result<(Finished, Option<String>), Error> {
    let address = free_address()?;
    let mut echo = Command::new(context.target.join("release/examples/echo_server"));
    // Which changes nothing for the cases that don't offer it.
    echo.args(["--listen", &address.to_string(), "--deflate"])
        .stdout(Stdio::null());
    let mut server = Running::start(&context.children, &mut echo)?;
    // It waits for the server to listen by itself.
    let mut autobahn = Command::new(python);
    autobahn
        .env("PYTHON3", python)
        .arg(tool.join("run-server-tests"))
        .arg(format!("ws://{address}"))
        .arg(context.scratch("autobahn-server")?)
        .args([cases, "--strict", "--agent=tautline"])
        .arg(suite_limit());
    let finished = process::run_beside(&context.children, &mut autobahn, LIMIT, "server")?;
    let trouble = server
        .ended()?
        .map(|status| format!("the echo server ended during the tests, with {status}"));
    Ok((finished, trouble))
}

fn test_client(
    context: &Context,
    python: &Path,
    tool: &Path,
    cases: &str,
) -> Result<Finished, Error> {
    // It starts the fuzzing server, and the client with the address.
    let mut autobahn = Command::new(python);
    autobahn
        .env("PYTHON3", python)
        .arg(tool.join("run-client-tests"))
        .arg(context.scratch("autobahn-client")?)
        .args(["--cases", cases, "--strict"])
        .arg(suite_limit())
        .arg("--")
        .arg(context.target.join("release/examples/autobahn_client"));
    process::run_beside(&context.children, &mut autobahn, LIMIT, "client")
}

/// A little less than our own limit: then the suite still says how far it came.
fn suite_limit() -> String {
    format!("--timeout={}", LIMIT.as_secs() - 60)
}
