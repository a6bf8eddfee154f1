//! `tautline doctor`: what on this machine, in a configuration, or on the way from outside keeps a server from doing
//! its work, and which line to change.

mod certificate;
mod config;
mod files;
mod finding;
mod machine;
mod path;
mod tls;
mod way;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use self::finding::{Finding, Grade, show};
use super::args::SetArgs;
use super::error::CliError;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Look at this configuration, too, and at the certificates that it names
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Look at the way to a server from here, as a client sees it
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// With --url: a token of a user, where clients without one aren't let in
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TAUTLINE_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// With --url: for how many seconds to see whether a line on which nobody speaks is cut
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=600))]
    idle: u64,
    /// Print JSON, a line a finding
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SetArgs,
}

/// Looks at everything, and fails if anything keeps a server from its work.
pub(super) fn run(args: &DoctorArgs) -> Result<(), CliError> {
    let mut findings = Vec::new();
    if args.url.is_none() || args.config.is_some() {
        findings.extend(machine::look(Path::new("/")));
    }
    if let Some(file) = &args.config {
        findings.extend(config::look(file, &args.settings));
    }
    if let Some(url) = &args.url {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let visit = way::Visit {
            token: args.token.as_deref(),
            idle: Duration::from_secs(args.idle),
        };
        findings.extend(runtime.block_on(path::look(url, &visit))?);
    }
    let count = |grade: Grade| findings.iter().filter(|one| one.grade == grade).count();
    let (bad, doubtful) = (count(Grade::Bad), count(Grade::Doubtful));
    for finding in &findings {
        show(finding, args.json)?;
    }
    if bad > 0 {
        return Err(CliError::Failure(format!(
            "{bad} of these have to be mended, and {doubtful} may need a look"
        )));
    }
    Ok(())
}

/// Something that can't be found out is no finding.
fn push(findings: &mut Vec<Finding>, finding: impl Into<Option<Finding>>) {
    findings.extend(finding.into());
}
