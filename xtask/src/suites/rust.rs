//! Format, lints, documentation, and all that `cargo test` runs.

use std::time::Duration;

use super::add;
use crate::context::Context;
use crate::error::Error;
use crate::requirements;
use crate::summary::{Report, Runner};

const LIMIT: Duration = Duration::from_secs(40 * 60);

/// Those of `tautline-websocket`.
const FEATURES: [&str; 6] = ["axum", "deflate", "http2", "hyper", "rustls", "tokio"];

/// The inner loop.
pub(crate) fn quick(context: &Context, report: &mut Report) -> Result<(), Error> {
    check(
        context,
        report,
        "format (cargo fmt)",
        ["fmt", "--all", "--check"],
    )?;
    check(
        context,
        report,
        "lints",
        [
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "--deny=warnings",
        ],
    )?;
    // Also the doc tests.
    let mut test = context.cargo(["test", "--workspace", "--all-features", "--no-fail-fast"]);
    add(
        context,
        report,
        "cargo test",
        Runner::Cargo,
        &mut test,
        LIMIT,
    )
}

/// A million messages over every ordered pair of transports.
pub(crate) fn ladder(context: &Context, report: &mut Report) -> Result<(), Error> {
    let mut test = context.cargo([
        "test",
        "--release",
        "--package=tautline",
        "--test=doors",
        "ladder",
        "--",
        "--nocapture",
    ]);
    test.env("LADDER_MESSAGES", "1000000");
    add(
        context,
        report,
        "the ladder, a million messages",
        Runner::Cargo,
        &mut test,
        LIMIT,
    )
}

/// Everything about our Rust.
pub(crate) fn run(context: &Context, report: &mut Report) -> Result<(), Error> {
    quick(context, report)?;
    report.check(
        "requirements of the RFCs",
        requirements::check(&context.root),
    );
    // The engine alone, as a user without Tokio takes it.
    check(
        context,
        report,
        "lints without Tokio",
        [
            "clippy",
            "--package=tautline-websocket",
            "--no-default-features",
            "--lib",
            "--",
            "--deny=warnings",
        ],
    )?;
    // And each of its features by itself.
    for feature in FEATURES {
        check(
            context,
            report,
            &format!("the feature {feature} alone"),
            [
                "check",
                "--package=tautline-websocket",
                "--no-default-features",
                "--features",
                feature,
            ],
        )?;
    }
    // The server with nothing that can be left out of it.
    check(
        context,
        report,
        "lints of the server without its features",
        [
            "clippy",
            "--package=tautline",
            "--no-default-features",
            "--",
            "--deny=warnings",
        ],
    )?;
    // What fuzzes is a workspace of its own. Only built here is what it is made of, so there need be no library to link it with.
    let mut fuzz = context.cargo([
        "check",
        "--locked",
        "--manifest-path=fuzz/Cargo.toml",
        "--target-dir",
    ]);
    fuzz.arg(context.target.join("fuzz"))
        .env("CUSTOM_LIBFUZZER_PATH", "/none/libnone.a");
    add(
        context,
        report,
        "fuzz targets",
        Runner::Check,
        &mut fuzz,
        LIMIT,
    )?;
    let mut doc = context.cargo(["doc", "--workspace", "--all-features", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "--deny=warnings");
    add(
        context,
        report,
        "documentation",
        Runner::Check,
        &mut doc,
        LIMIT,
    )
}

fn check<const N: usize>(
    context: &Context,
    report: &mut Report,
    what: &str,
    arguments: [&str; N],
) -> Result<(), Error> {
    let mut command = context.cargo(arguments);
    add(context, report, what, Runner::Check, &mut command, LIMIT)
}
