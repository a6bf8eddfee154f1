//! Certificates from a real authority: Pebble, which Let's Encrypt has for tests, looks for the proof over loopback.

use std::time::Duration;

use super::add;
use crate::context::Context;
use crate::error::Error;
use crate::go;
use crate::summary::{Report, Runner};
use crate::tools::Tools;

const LIMIT: Duration = Duration::from_secs(20 * 60);
const VERSION: &str = "v2.10.1";

pub(crate) fn run(context: &Context, tools: &Tools, report: &mut Report) -> Result<(), Error> {
    let program = |name: &str| {
        let package = format!("github.com/letsencrypt/pebble/v2/cmd/{name}");
        go::program(context, tools.go()?, &package, VERSION)
    };
    let (pebble, names) = (program("pebble")?, program("pebble-challtestsrv")?);
    // It is no part of what `--all-targets` means.
    let mut lints = context.cargo([
        "clippy",
        "--package=tautline",
        "--test=pebble",
        "--all-features",
        "--",
        "--deny=warnings",
    ]);
    add(context, report, "lints", Runner::Check, &mut lints, LIMIT)?;
    let mut test = context.cargo([
        "test",
        "--package=tautline",
        "--all-features",
        "--test=pebble",
    ]);
    test.env("PEBBLE", pebble).env("PEBBLE_CHALLTESTSRV", names);
    add(
        context,
        report,
        "certificates from Pebble",
        Runner::Cargo,
        &mut test,
        LIMIT,
    )
}
