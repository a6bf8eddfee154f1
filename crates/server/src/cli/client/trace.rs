//! `tautline trace`: what happens to somebody, as it happens.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

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
    let reader = Reader::of(&args.api.server);
    follow(&args.api, "trace", &parameters, |line| match reader {
        Reader::Program => show::print(&format!("{line}\n")),
        Reader::Person => match serde_json::from_str(line) {
            Ok(event) => show::print(&text(event)),
            Err(_) => show::print(&format!("{}\n", clean(line))),
        },
    })
    .await
}

/// `12:01:02.123  ann  8a3f0c1d  > subscribe #2  chat:1  recover=true offset=14`, with a line's end.
fn text(mut event: Map<String, Value>) -> String {
    let time = event.remove("time").and_then(|time| time.as_u64());
    let time = time.unwrap_or(0) % DAY;
    let (seconds, rest) = (time / 1000, time % 1000);
    let mut line = format!(
        "{:02}:{:02}:{:02}.{rest:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    let mut word = |name: &str| match event.remove(name) {
        Some(Value::String(text)) => clean(&text),
        Some(other) => clean(&other.to_string()),
        None => String::new(),
    };
    if let count @ 1.. = word("left_out").parse().unwrap_or(0_u64) {
        line = format!("({count} events were left out: they came too fast)\n{line}");
    }
    // Who it is. What concerns a channel as a whole is nobody's.
    let (user, mut client) = (word("user"), word("client"));
    client.truncate(SHORT_ID);
    if !client.is_empty() {
        let user = if user.is_empty() {
            "(anonymous)"
        } else {
            &*user
        };
        let _ = write!(line, "  {user} {client}");
    }
    let (kind, id) = (word("event"), word("id"));
    let (method, push, call) = (word("method"), word("push"), word("call"));
    let (told, why) = (word("told"), word("why"));
    let what = match &*kind {
        "command" => format!("> {method} {call}"),
        "reply" => format!("< {method}"),
        "push" => format!("< {push}"),
        "ping" | "publications" => format!("< {kind}"),
        "refused" => format!("! refused: {told}"),
        "unreadable" => "! can't be read".to_owned(),
        other => format!("- {}", other.replace('_', " ")),
    };
    let _ = write!(line, "  {}", what.trim_end());
    if !id.is_empty() {
        let _ = write!(line, " #{id}");
    }
    let channel = word("channel");
    if !channel.is_empty() {
        let _ = write!(line, "  {channel}");
    }
    if !why.is_empty() {
        let _ = write!(line, "  because {why}");
    }
    for (name, value) in &event {
        let is_nothing = match value {
            Value::Bool(is_set) => !is_set,
            Value::Number(number) => number.as_u64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Array(all) => all.is_empty(),
            Value::Null => true,
        };
        if is_nothing || matches!(&**name, "worker" | "transport") {
            continue;
        }
        let value = match value {
            Value::String(text) => clean(text),
            other => clean(&other.to_string()),
        };
        let _ = write!(line, "  {name}={value}");
    }
    line.push('\n');
    line
}

/// In milliseconds.
const DAY: u64 = 24 * 3600 * 1000;

/// So much of a connection's id tells it from the user's others.
const SHORT_ID: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines_for_people() {
        for (event, expected) in [
            (
                r#"{"time":43262123,"user":"ann","client":"8a3f0c1d-77","channel":"chat:1","queued":0,"worker":0,
                "transport":"websocket","event":"command","method":"subscribe","id":2,"recover":true,"offset":14}"#,
                "12:01:02.123  ann 8a3f0c1d  > subscribe #2  chat:1  offset=14  recover=true\n",
            ),
            (
                r#"{"time":0,"client":"8a3f0c1d-77","channel":"x","event":"refused","id":3,
                "told":"error 103: permission denied","why":"it is off"}"#,
                "00:00:00.000  (anonymous) 8a3f0c1d  ! refused: error 103: permission denied #3  x  because it is off\n",
            ),
            (
                r#"{"time":1,"channel":"x","event":"publications","receivers":2,"left_out":7,
                "publications":[{"offset":1,"data":{"bytes":3}}]}"#,
                "(7 events were left out: they came too fast)\n00:00:00.001  < publications  x  \
                 publications=[{\"data\":{\"bytes\":3},\"offset\":1}]  receivers=2\n",
            ),
            (
                r#"{"time":1,"user":"\u001b[2J","client":"c","event":"caught_up"}"#,
                "00:00:00.001  \u{fffd}[2J c  - caught up\n",
            ),
        ] {
            assert_eq!(text(serde_json::from_str(event).expect(event)), expected);
        }
    }
}
