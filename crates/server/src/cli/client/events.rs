//! `tautline events`: what the application's backend would not have, and what is to become of it.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::args::{EventsCommand, SettleArgs};
use super::call::call;
use super::show::{self, Reader, Show, clean};
use crate::cli::error::CliError;

pub(super) async fn run(command: &EventsCommand) -> Result<(), CliError> {
    match command {
        EventsCommand::List { limit, cursor, api } => {
            let parameters = json!({"limit": limit, "cursor": cursor});
            let result = call(api, "dead_events", &parameters).await?;
            show::result::<Page>(Reader::of(&api.server), &result)
        }
        EventsCommand::Show { ids, api } => {
            let parameters = json!({"ids": ids, "limit": MOST_SHOWN});
            let result = call(api, "dead_events", &parameters).await?;
            let page: Whole = serde_json::from_str(result.get()).map_err(|error| {
                CliError::Failure(format!(
                    "the answer is not one of a Tautline server: {error}"
                ))
            })?;
            if page.events.is_empty() {
                let text =
                    "there is no such dead letter; `tautline events list` says which there are";
                return Err(CliError::Failure(text.into()));
            }
            show::result::<Whole>(Reader::of(&api.server), &result)
        }
        EventsCommand::Retry(args) => settle(args, "dead_events_retry", "queued again").await,
        EventsCommand::Drop(args) => settle(args, "dead_events_drop", "dropped").await,
    }
}

async fn settle(args: &SettleArgs, method: &str, done: &str) -> Result<(), CliError> {
    let parameters = if args.all {
        json!({"all": true})
    } else {
        json!({"ids": args.ids})
    };
    let result = call(&args.api, method, &parameters).await?;
    if Reader::of(&args.api.server) == Reader::Program {
        return show::print(&format!("{}\n", result.get()));
    }
    let count = serde_json::from_str::<Value>(result.get()).unwrap_or_default();
    let count = count["count"].as_u64().unwrap_or_default();
    show::print(&match count {
        1 => format!("1 event is {done}\n"),
        count => format!("{count} events are {done}\n"),
    })
}

/// A line each.
#[derive(Deserialize)]
struct Page {
    events: Vec<Letter>,
    total: u64,
    next: Option<String>,
}

/// All there is of each.
#[derive(Deserialize)]
struct Whole {
    events: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Letter {
    error: String,
    event: Event,
}

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    key: String,
}

impl Show for Page {
    fn show(&self) -> String {
        if self.total == 0 {
            return "There are none: the application's backend has taken all events, or still has time to.\n".to_owned();
        }
        let mut text = String::new();
        for Letter { error, event } in &self.events {
            let Event { id, kind, key } = event;
            let (id, kind, key, error) = (clean(id), clean(kind), clean(key), clean(error));
            let _ = writeln!(text, "{id:<24} {kind:<16} {key:<24} {error}");
        }
        if let Some(next) = &self.next {
            let next = clean(next);
            let _ = writeln!(
                text,
                "There are more, {} in all: --cursor {next}",
                self.total
            );
        }
        text
    }
}

impl Show for Whole {
    fn show(&self) -> String {
        let events = self.events.iter();
        let events = events.map(|event| match serde_json::from_str::<Value>(event.get()) {
            Ok(event) => {
                let text = format!("{event:#}");
                text.lines().map(|line| clean(line) + "\n").collect()
            }
            Err(_) => clean(event.get()),
        });
        events.collect()
    }
}

/// As many as the API tells in one answer.
const MOST_SHOWN: u32 = 1000;
