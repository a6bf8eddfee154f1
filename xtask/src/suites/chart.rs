//! The chart as Helm sees it: without a complaint, and with an effect of each of its values.

use std::process::Command;
use std::time::Duration;

use super::add;
use crate::context::Context;
use crate::error::Error;
use crate::go;
use crate::summary::{Report, Runner};
use crate::tools::Tools;

const LIMIT: Duration = Duration::from_secs(20 * 60);
const PACKAGE: &str = "helm.sh/helm/v3/cmd/helm";
const VERSION: &str = "v3.21.4";

pub(crate) fn run(context: &Context, tools: &Tools, report: &mut Report) -> Result<(), Error> {
    let helm = go::program(context, tools.go()?, PACKAGE, VERSION)?;
    let mut lint = Command::new(&helm);
    lint.current_dir(&context.root)
        .args(["lint", "--strict", "deploy/helm/tautline"]);
    add(context, report, "lints", Runner::Check, &mut lint, LIMIT)?;
    let mut test = context.cargo([
        "test",
        "--package=tautline",
        "--all-features",
        "--test=manifests",
        "chart",
    ]);
    test.env("HELM", helm);
    add(
        context,
        report,
        "what Helm makes of the chart",
        Runner::Cargo,
        &mut test,
        LIMIT,
    )
}
