//! The HTTP API, fuzzed from its own description by schemathesis (from PyPI): single calls, and chains
//! of calls that make something of each other's results. Nothing that is sent may end in a 5xx, and
//! what comes back has to be what the description says.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
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

    for round in rounds() {
        let mut command = Command::new(programs.join("schemathesis"));
        command
            // Where it leaves what it has found, to be repeated.
            .current_dir(context.scratch("schemathesis")?)
            .arg("--config-file")
            .arg(folder.join("schemathesis.toml"))
            .arg("run")
            .arg(format!("{}/api/openapi.json", server.url()))
            .args(["--header", "X-API-Key: dev", "--no-color"])
            .args(["--checks", round.checks])
            .args(["--max-examples", round.examples])
            .args(["--seed", &round.seed.to_string()])
            // Whatever proxy the environment names is not meant for loopback.
            .env("NO_PROXY", "127.0.0.1");
        if round.has_statuses {
            command.args(["--header", "X-Centrifugo-Error-Mode: transport"]);
        }
        add(
            context,
            report,
            &round.what,
            Runner::Check,
            &mut command,
            LIMIT,
        )?;
    }

    report.check("SIGTERM ends the server", server.stop());
    Ok(())
}

/// One time that all of it is called.
struct Round {
    what: String,
    seed: u32,
    checks: &'static str,
    examples: &'static str,
    /// Whether errors come as statuses, by which a refusal is seen to be one.
    has_statuses: bool,
}

/// The same calls each time; others each time, which `SCHEMATHESIS_SEED` repeats; and both ways in which errors are told.
fn rounds() -> [Round; 3] {
    let told = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = told.unwrap_or_else(|| {
        // Seeded by the system, each time anew.
        let random = RandomState::new().build_hasher().finish();
        (random >> 33) as u32
    });
    let other = |what: &str, has_statuses| Round {
        what: format!("{what} ({SEED}={seed} for the same again)"),
        seed,
        checks: WHATEVER_IS_SENT,
        examples: "25",
        has_statuses,
    };
    [
        Round {
            what: "the API is what its description says".to_owned(),
            seed: 1,
            checks: "all",
            examples: "50",
            has_statuses: true,
        },
        other("so it is with other calls", true),
        other("and with errors in the body", false),
    ]
}

const SEED: &str = "SCHEMATHESIS_SEED";

/// What has to hold for every call; whether one should have been refused is a matter of opinion in some cases, and
/// of statuses.
const WHATEVER_IS_SENT: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                                response_headers_conformance,response_schema_conformance";
