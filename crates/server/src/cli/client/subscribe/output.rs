//! Showing events: to a person as text, with colours at a terminal; to a program as JSON, a line each; or
//! of messages the data alone.

use std::io::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use super::event::{Event, Source, Tone};
use crate::cli::client::args::SubscribeArgs;
use crate::cli::client::paint::{DIM, GOOD, Paint, WARNING, colour_of};
use crate::cli::client::show::{self, Reader, clean};
use crate::cli::error::CliError;

pub(super) struct Output {
    form: Form,
    paint: Paint,
    /// So wide is the longest name of a channel.
    width: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    /// Of what isn't a message, warnings alone are told, and those on standard error.
    Data,
}

impl Output {
    pub(super) fn new(args: &SubscribeArgs) -> Self {
        let form = match Reader::of(&args.api.server) {
            _ if args.data => Form::Data,
            Reader::Person => Form::Text,
            Reader::Program => Form::Json,
        };
        let names = args.channels.iter().map(|name| name.chars().count());
        Self {
            form,
            paint: Paint::of_output(),
            width: names.max().unwrap_or_default().min(WIDEST),
        }
    }

    /// Whether anybody wants to know who is there.
    pub(super) fn shows_presence(&self) -> bool {
        self.form != Form::Data
    }

    /// # Errors
    ///
    /// When nobody reads any more.
    pub(super) fn tell(&self, event: &Event<'_>) -> Result<(), CliError> {
        match self.form {
            Form::Text => {
                let text = self.line(event, SystemTime::now());
                show::print(&text)
            }
            Form::Json => {
                let json = serde_json::to_string(event);
                let json = json.map_err(|error| CliError::Failure(error.to_string()))?;
                show::print(&format!("{json}\n"))
            }
            Form::Data => match event {
                Event::Publication { publication, .. } => {
                    show::print(&format!("{}\n", publication.data()))
                }
                other => {
                    if other.tone() == Tone::Warning {
                        let channel = other.channel().map(|name| format!("{}: ", clean(name)));
                        let channel = channel.unwrap_or_default();
                        // With standard error gone there is nobody left to tell.
                        let _ = writeln!(io::stderr(), "{channel}{}", other.text());
                    }
                    Ok(())
                }
            },
        }
    }

    /// `12:01:02  chat:1  #14 ann: {"text":"hi"}`, with a line's end. Times are UTC.
    fn line(&self, event: &Event<'_>, now: SystemTime) -> String {
        let time = match event {
            Event::Publication {
                source: Some(Source::History | Source::Recovery),
                publication,
            } => publication.time().map(|millis| clock(millis / 1000)),
            _ => {
                let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
                Some(clock(since.as_secs()))
            }
        };
        // Nobody tells when that was.
        let time = time.unwrap_or_else(|| " ".repeat(8));
        let text = event.text();
        let Some(channel) = event.channel() else {
            let text = self.paint.with(&text, tone_code(event.tone()));
            return format!("{}  {text}\n", self.paint.with(&time, Some(DIM)));
        };
        let name = clean(channel);
        let width = self.width;
        let name = self
            .paint
            .with(&format!("{name:<width$}"), Some(colour_of(channel)));
        let text = self.paint.with(&text, tone_code(event.tone()));
        format!("{}  {name}  {text}\n", self.paint.with(&time, Some(DIM)))
    }
}

/// `12:01:02`, of Unix seconds.
fn clock(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}", seconds % 60)
}

fn tone_code(tone: Tone) -> Option<u8> {
    match tone {
        Tone::Plain => None,
        Tone::Good => Some(GOOD),
        Tone::Dim => Some(DIM),
        Tone::Warning => Some(WARNING),
    }
}

/// Names are lined up to this width, in characters.
const WIDEST: usize = 32;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::client::show::Publication;

    #[test]
    fn a_person_sees_columns_and_colours() {
        let plain = Output {
            form: Form::Text,
            paint: Paint { is_coloured: false },
            width: 6,
        };
        let now = UNIX_EPOCH + Duration::from_secs(86_400 + 12 * 3600 + 61);
        let mut publication: Publication =
            serde_json::from_str(r#"{"data":1,"offset":2}"#).unwrap();
        publication.channel = "chat".to_owned();
        let live = Event::Publication {
            source: None,
            publication: &publication,
        };
        assert_eq!(plain.line(&live, now), "12:01:01  chat    #2 1\n");
        let old = Event::Publication {
            source: Some(Source::History),
            publication: &publication,
        };
        assert_eq!(plain.line(&old, now), "          chat    #2 1\n");
        let gone = Event::Disconnected {
            code: None,
            reason: "no sign of life",
            retry_ms: 400,
        };
        let text = "12:01:01  the connection is gone: no sign of life; trying again in 0.4 s\n";
        assert_eq!(plain.line(&gone, now), text);
        let coloured = Output {
            paint: Paint { is_coloured: true },
            ..plain
        };
        let line = coloured.line(&gone, now);
        assert!(line.starts_with("\u{1b}[2m12:01:01\u{1b}[0m  \u{1b}[33mthe"));
        let line = coloured.line(&live, now);
        assert!(line.ends_with("chat  \u{1b}[0m  #2 1\n"), "{line:?}");
    }
}
