//! The suites: what each needs, and running them one after the other.

mod acme;
mod browser;
mod chart;
mod client;
mod conformance;
mod interop;
mod metrics;
mod openapi;
pub(crate) mod page;
mod proxies;
mod rust;
mod sdk;
mod supply;

use std::process::Command;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::error::Error;
use crate::process::{self, Finished};
use crate::summary::{Report, Runner};
use crate::tools::{Need, Tools};

/// A group of tests that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    Acme,
    Browser,
    Chart,
    Client,
    Conformance,
    Interop,
    /// The long run of one test of `Rust`.
    Ladder,
    Metrics,
    Openapi,
    Page,
    Proxies,
    /// Part of `Rust`: what one runs all the time.
    Quick,
    Rust,
    Sdk,
    Supply,
}

impl Suite {
    /// Everything, cheapest first.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Supply,
        Self::Rust,
        Self::Page,
        Self::Metrics,
        Self::Openapi,
        Self::Interop,
        Self::Conformance,
        Self::Acme,
        Self::Chart,
        Self::Sdk,
        Self::Client,
        Self::Proxies,
        Self::Browser,
    ];

    /// Autobahn's cases but for the large messages of 12.* and 13.*, which take most of the time of
    /// `conformance all`; and, where there is no Python 2.7, but for those at which the other of the
    /// suite's runners stumbles.
    pub(crate) const DEFAULT_CASES: &'static str = "everyday";

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Acme => "acme",
            Self::Browser => "browser",
            Self::Chart => "chart",
            Self::Client => "client",
            Self::Conformance => "conformance",
            Self::Interop => "interop",
            Self::Ladder => "ladder",
            Self::Metrics => "metrics",
            Self::Openapi => "openapi",
            Self::Page => "page",
            Self::Proxies => "proxies",
            Self::Quick => "quick",
            Self::Rust => "rust",
            Self::Sdk => "sdk",
            Self::Supply => "supply",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().chain(&[Self::Quick, Self::Ladder]);
        all.find(|suite| suite.name() == name).copied()
    }

    fn needs(self) -> &'static [Need] {
        match self {
            Self::Acme => &[Need::Go, Need::Clippy],
            Self::Browser => &[Need::Node, Need::Chromium, Need::Openssl],
            Self::Conformance | Self::Openapi => &[Need::Python],
            Self::Interop => &[
                Need::Node,
                Need::Python,
                Need::Chromium,
                Need::Nginx,
                Need::Haproxy,
            ],
            Self::Chart => &[Need::Go],
            Self::Client | Self::Page => &[Need::Node],
            Self::Metrics => &[Need::Promtool],
            Self::Proxies => &[
                Need::Node,
                Need::Nginx,
                Need::Haproxy,
                Need::Caddy,
                Need::Openssl,
            ],
            Self::Quick | Self::Rust => &[Need::Rustfmt, Need::Clippy],
            Self::Sdk => &[Need::Go, Need::Java, Need::Node, Need::Python],
            Self::Ladder | Self::Supply => &[],
        }
    }
}

/// Runs `suites`, and says what became of each. Without all that they need, none is run: a pass
/// with less would be taken for a pass.
pub(crate) fn run(context: &Context, suites: &[Suite], cases: &str) -> Vec<Report> {
    let needs: Vec<_> = suites
        .iter()
        .flat_map(|suite| suite.needs())
        .copied()
        .collect();
    let tools = match Tools::prepare(context, &needs) {
        Ok(tools) => tools,
        Err(error) => {
            let mut report = Report::new("set-up");
            report.fail(error.to_string());
            return vec![report];
        }
    };
    suites
        .iter()
        .map(|&suite| {
            println!("\n=== {} ===", suite.name());
            let start = Instant::now();
            let mut report = Report::new(suite.name());
            let outcome = match suite {
                Suite::Acme => acme::run(context, &tools, &mut report),
                Suite::Browser => browser::run(context, &tools, &mut report),
                Suite::Chart => chart::run(context, &tools, &mut report),
                Suite::Client => client::run(context, &tools, &mut report),
                Suite::Conformance => conformance::run(context, &tools, cases, &mut report),
                Suite::Interop => interop::run(context, &tools, &mut report),
                Suite::Ladder => rust::ladder(context, &mut report),
                Suite::Metrics => metrics::run(context, &tools, &mut report),
                Suite::Openapi => openapi::run(context, &tools, &mut report),
                Suite::Page => page::run(context, &tools, &mut report),
                Suite::Proxies => proxies::run(context, &tools, &mut report),
                Suite::Quick => rust::quick(context, &mut report),
                Suite::Rust => rust::run(context, &mut report),
                Suite::Sdk => sdk::run(context, &tools, &mut report),
                Suite::Supply => supply::run(context, &mut report),
            };
            if let Err(error) = outcome {
                report.fail(error.to_string());
            }
            report.duration = start.elapsed();
            report
        })
        .collect()
}

/// Runs a command and adds what it reports.
///
/// # Errors
///
/// When it can't be started; a command that fails is in the report.
fn add(
    context: &Context,
    report: &mut Report,
    what: &str,
    runner: Runner,
    command: &mut Command,
    limit: Duration,
) -> Result<(), Error> {
    let finished = process::run(&context.children, command, limit)?;
    add_finished(report, what, runner, &finished);
    Ok(())
}

/// The same for one that has run already.
fn add_finished(report: &mut Report, what: &str, runner: Runner, finished: &Finished) {
    report.add(
        what,
        runner,
        &finished.output,
        finished.success,
        &finished.ending,
    );
}
