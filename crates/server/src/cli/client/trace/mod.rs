//! `tautline trace`: what happens to somebody, as it happens.

mod view;

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use self::view::View;
use super::args::TraceArgs;
use super::call::follow;
use super::show::{self, Reader, clean};
use crate::cli::error::CliError;

pub(super) async fn run(args: &TraceArgs) -> Result<(), CliError> {
    let mut parameters = json!({"payloads": args.payloads, "seconds": args.seconds});
    for (name, value) in [
        ("user", &args.user),
        ("client", &args.client),
        ("channel", &args.channel),
    ] {
        if let Some(value) = value {
            parameters[name] = json!(value);
        }
    }
    if args.refusals {
        parameters["refusals"] = json!(true);
    }
    let time = Duration::from_secs(args.seconds);
    let reader = Reader::of(&args.api.server);
    if reader == Reader::Program {
        return follow(&args.api, "trace", &parameters, time, |line| {
            show::print(&format!("{line}\n"))
        })
        .await;
    }
    let mut view = View::new();
    remark(&format!(
        "Following {}: {}. Ctrl-C ends it.",
        subject(args),
        view.legend()
    ));
    let told = follow(
        &args.api,
        "trace",
        &parameters,
        time,
        |line| match serde_json::from_str(line) {
            Ok(event) => show::print(&view.line(event)),
            Err(_) => show::print(&format!("{}\n", clean(line))),
        },
    );
    told.await?;
    remark("The server has ended it: the time is over (--seconds), or the server stops.");
    Ok(())
}

/// Says something beside the events. With standard error gone there is nobody to tell.
fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn subject(args: &TraceArgs) -> String {
    let named = |what: &str, name: &Option<String>| {
        let name = name.as_deref()?;
        Some(format!("{what} {}", clean(name)))
    };
    match args.user.as_deref() {
        Some("") => "anonymous connections".to_owned(),
        _ => named("user", &args.user)
            .or_else(|| named("connection", &args.client))
            .or_else(|| named("channel", &args.channel))
            .unwrap_or_else(|| "refusals".to_owned()),
    }
}
