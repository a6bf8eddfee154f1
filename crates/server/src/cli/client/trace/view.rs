//! Events of a trace as a person reads them: a line each, in columns.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::cli::client::paint::{BAD, DIM, GOOD, Paint, WARNING, colour_of};
use crate::cli::client::show::{clean, named};

/// What was shown so far, as far as it says how to go on.
pub(super) struct View {
    paint: Paint,
    marks: Marks,
    /// So wide are the columns.
    who: usize,
    what: usize,
    channel: usize,
}

/// How it is shown what kind of event it is.
struct Marks {
    command: char,
    reply: char,
    refused: char,
    other: char,
}

impl View {
    pub(super) fn new() -> Self {
        // POSIX, "Environment Variables": the first of these that is set and not empty counts.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter();
        let locale = locale.filter_map(|name| std::env::var(name).ok());
        let locale = locale.map(|locale| locale.to_ascii_lowercase());
        let locale = locale.into_iter().find(|locale| !locale.is_empty());
        let is_unicode =
            locale.is_some_and(|locale| locale.contains("utf-8") || locale.contains("utf8"));
        Self::with(Paint::of_output(), is_unicode)
    }

    fn with(paint: Paint, is_unicode: bool) -> Self {
        let [command, reply, refused, other] = if is_unicode {
            ['→', '←', '✕', '·']
        } else {
            ['>', '<', '!', '-']
        };
        Self {
            paint,
            marks: Marks {
                command,
                reply,
                refused,
                other,
            },
            who: 0,
            what: NARROWEST,
            channel: 0,
        }
    }

    /// What the marks mean.
    pub(super) fn legend(&self) -> String {
        let Marks {
            command,
            reply,
            refused,
            other,
        } = self.marks;
        format!(
            "{command} from the client, {reply} to it, {refused} refused, {other} what happens to it; times are UTC"
        )
    }

    /// `12:01:02.123  ann 8a3f0c1d  → subscribe #2  chat:1  from #14`, with a line's end.
    pub(super) fn line(&mut self, event: Map<String, Value>) -> String {
        let mut event = Event(event);
        let mut line = String::new();
        if let Some(count @ 1..) = event.number("left_out") {
            let text =
                format!("({count} events are left out here: they came faster than they are read)");
            let _ = writeln!(line, "{}", self.paint.with(&text, Some(WARNING)));
        }
        let time = clock(event.number("time").unwrap_or(0));
        let _ = write!(line, "{}", self.paint.with(&time, Some(DIM)));
        let (who, whose) = event.who();
        let colour = (!whose.is_empty()).then(|| colour_of(&whose));
        self.column(&mut line, &who, colour, |view| &mut view.who);
        let step = event.step();
        let (mark, tone) = match step.mark {
            Mark::Command => (self.marks.command, None),
            Mark::Reply => (self.marks.reply, None),
            Mark::Refused => (self.marks.refused, Some(BAD)),
            Mark::Other => (self.marks.other, Some(DIM)),
        };
        let tone = step.tone.or(tone);
        let _ = write!(line, "  {}", self.paint.with(&mark.to_string(), tone));
        let mut what = step.what;
        if let Some(id @ 1..) = event.number("id") {
            let _ = write!(what, " #{id}");
        }
        // A space after the mark, two before each column.
        line.push(' ');
        self.word(&mut line, &what, tone, |view| &mut view.what);
        let channel = event.text("channel");
        let colour = (!channel.is_empty()).then(|| colour_of(&channel));
        self.column(&mut line, &channel, colour, |view| &mut view.channel);
        let mut details = step.details;
        details.extend(event.rest());
        let details = details.join("  ");
        if !details.is_empty() {
            let _ = write!(line, "  {}", self.paint.with(&details, step.tone));
        }
        // What is empty at the end of a line only makes it longer.
        let length = line.trim_end_matches(' ').len();
        line.truncate(length);
        line.push('\n');
        line
    }

    fn column(
        &mut self,
        line: &mut String,
        text: &str,
        colour: Option<u8>,
        width: impl Fn(&mut Self) -> &mut usize,
    ) {
        // Nothing has been in this column so far.
        if text.is_empty() && *width(self) == 0 {
            return;
        }
        line.push_str("  ");
        self.word(line, text, colour, width);
    }

    /// A text, and the space that it takes to line up what follows.
    fn word(
        &mut self,
        line: &mut String,
        text: &str,
        colour: Option<u8>,
        width: impl Fn(&mut Self) -> &mut usize,
    ) {
        let length = text.chars().count();
        let width = width(self);
        *width = length.min(WIDEST).max(*width);
        let room = width.saturating_sub(length);
        let _ = write!(line, "{}{:room$}", self.paint.with(text, colour), "");
    }
}

/// Which side it comes from.
enum Mark {
    Command,
    Reply,
    Refused,
    Other,
}

/// What happened, in words.
struct Step {
    mark: Mark,
    what: String,
    /// Its own colour.
    tone: Option<u8>,
    details: Vec<String>,
}

/// An event, out of which is taken what is shown.
struct Event(Map<String, Value>);

impl Event {
    fn text(&mut self, name: &str) -> String {
        match self.0.remove(name) {
            Some(Value::String(text)) => clean(&text),
            Some(other) => clean(&other.to_string()),
            None => String::new(),
        }
    }

    fn number(&mut self, name: &str) -> Option<u64> {
        self.0.remove(name).and_then(|value| value.as_u64())
    }

    fn is(&mut self, name: &str) -> bool {
        self.0.remove(name) == Some(Value::Bool(true))
    }

    /// Who it is, and whose colour that has. What concerns a channel as a whole is nobody's.
    fn who(&mut self) -> (String, String) {
        let (user, client) = (self.text("user"), self.text("client"));
        if client.is_empty() {
            // Whom nobody knows yet is known by an address at the most.
            let whom = if user.is_empty() {
                self.text("address")
            } else {
                user
            };
            return (whom.clone(), whom);
        }
        let id: String = client.chars().take(SHORT_ID).collect();
        (format!("{} {id}", named(&user)), client)
    }

    fn step(&mut self) -> Step {
        let kind = self.text("event");
        let mut step = Step {
            mark: Mark::Other,
            what: kind.replace('_', " "),
            tone: None,
            details: Vec::new(),
        };
        match &*kind {
            "command" => {
                step.mark = Mark::Command;
                step.what = self.text("method");
                if step.what == "pong" {
                    step.tone = Some(DIM);
                } else if self.0.get("transport").is_some() && step.what == "connect" {
                    step.details.push(format!("by {}", self.text("transport")));
                }
                let call = self.text("call");
                if !call.is_empty() {
                    step.details.push(call);
                }
                if self.is("recover") {
                    let offset = self.number("offset").unwrap_or(0);
                    step.details.push(format!("go on behind #{offset}"));
                }
            }
            "reply" => {
                step.mark = Mark::Reply;
                step.what = self.text("method");
                if let Some(Value::Object(error)) = self.0.remove("error") {
                    let mut error = Self(error);
                    let code = error.number("code").unwrap_or(0);
                    step.what = "error".to_owned();
                    step.tone = Some(BAD);
                    let message = error.text("message");
                    step.details.push(format!("{code} {message}"));
                    if error.is("temporary") {
                        step.details.push("temporary".to_owned());
                    }
                }
                self.recovery(&mut step);
            }
            "push" => {
                step.mark = Mark::Reply;
                step.what = self.text("push");
                self.end(&mut step);
            }
            "ping" => {
                step.mark = Mark::Reply;
                step.tone = Some(DIM);
            }
            "publications" => step.mark = Mark::Reply,
            "refused" => {
                step.mark = Mark::Refused;
                let told = self.text("told");
                let why = self.text("why");
                step.tone = Some(BAD);
                step.details.push(told);
                if !why.is_empty() {
                    step.details.push(format!("because {why}"));
                }
            }
            "unreadable" | "turned_away" => {
                step.mark = Mark::Refused;
                step.tone = Some(BAD);
                step.details.push(format!("because {}", self.text("why")));
            }
            "over_limit" => {
                step.tone = Some(WARNING);
                step.details.push(format!("{} (dry run)", self.text("why")));
            }
            "parked" => {
                step.tone = Some(WARNING);
                let offset = self.number("offset").unwrap_or(0);
                step.details
                    .push(format!("behind #{offset}: the connection has no room"));
            }
            "caught_up" => step.tone = Some(GOOD),
            "ended" => {
                step.tone = Some(WARNING);
                self.end(&mut step);
            }
            _ => {}
        }
        if let Some(Value::Array(all)) = self.0.remove("publications") {
            step.details.extend(publications(&all));
        }
        if let Some(receivers) = self.number("receivers")
            && receivers != 1
        {
            step.details.push(format!("to {receivers} subscribers"));
        }
        if let Some(queued @ 1..) = self.number("queued") {
            step.details
                .push(format!("behind {} in its queue", size(queued)));
        }
        step
    }

    /// What a client that comes back is told.
    fn recovery(&mut self, step: &mut Step) {
        let (was_recovering, recovered) = (self.is("was_recovering"), self.is("recovered"));
        let count = match self.0.get("publications").map(Value::as_u64) {
            Some(Some(count)) => {
                self.0.remove("publications");
                count
            }
            _ => 0,
        };
        let has_position = self.is("recoverable") | self.is("positioned");
        if has_position && let Some(offset) = self.number("offset") {
            step.details.push(format!("at #{offset}"));
        }
        match (was_recovering, recovered) {
            (true, true) => {
                step.tone = Some(GOOD);
                step.details.push(format!("recovered: {count} missed"));
            }
            (true, false) => {
                step.tone = Some(WARNING);
                step.details.push("not recovered".to_owned());
            }
            _ if count > 0 => step.details.push(format!("{count} publications")),
            _ => {}
        }
    }

    fn end(&mut self, step: &mut Step) {
        if let Some(code) = self.number("code") {
            let reason = self.text("reason");
            step.details.push(format!("{code} {reason}"));
        }
    }

    /// What else there is and says something, by its name.
    fn rest(self) -> Vec<String> {
        let fields = self.0.into_iter();
        let fields = fields.filter(|(name, value)| {
            let is_nothing = match value {
                Value::Bool(is_set) => !is_set,
                Value::Number(number) => number.as_u64() == Some(0),
                Value::String(text) => text.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                Value::Array(all) => all.is_empty(),
                Value::Null => true,
            };
            !is_nothing && !matches!(&**name, "worker" | "transport")
        });
        let fields = fields.map(|(name, value)| (clean(&name), value));
        let fields = fields.map(|(name, value)| match value {
            Value::String(text) => format!("{name}={}", clean(&text)),
            Value::Bool(true) => name.replace('_', " "),
            value => match bytes(&value) {
                Some(bytes) => format!("{name}={}", size(bytes)),
                None => format!("{name}={}", clean(&value.to_string())),
            },
        });
        fields.collect()
    }
}

/// `#18  128 B`, and `#18 to #21  4 publications  512 B`; with payloads that are shown, each of them.
fn publications(all: &[Value]) -> Vec<String> {
    let offsets: Vec<_> = all
        .iter()
        .filter_map(|one| one["offset"].as_u64().filter(|offset| *offset > 0))
        .collect();
    let mut details = Vec::new();
    match (offsets.first(), offsets.last()) {
        (Some(first), Some(last)) if first != last => details.push(format!("#{first} to #{last}")),
        (Some(first), _) => details.push(format!("#{first}")),
        _ => {}
    }
    if all.len() > 1 {
        details.push(format!("{} publications", all.len()));
    }
    let sizes: Option<Vec<_>> = all.iter().map(|one| bytes(&one["data"])).collect();
    match sizes {
        // No more than there can be, whatever is told of each.
        Some(sizes) => {
            let sum = sizes.into_iter().fold(0, u64::saturating_add);
            details.push(size(sum));
        }
        None => details.extend(all.iter().map(|one| clean(&one["data"].to_string()))),
    }
    if let [one] = all {
        for name in ["user", "tags"] {
            match &one[name] {
                Value::Null => {}
                Value::String(user) if user.is_empty() => {}
                Value::String(user) => details.push(format!("of {}", clean(user))),
                tags => details.push(format!("{name}={}", clean(&tags.to_string()))),
            }
        }
    }
    details
}

/// The size of a payload that isn't shown.
fn bytes(data: &Value) -> Option<u64> {
    let fields = data.as_object()?;
    let bytes = fields.get("bytes").filter(|_| fields.len() == 1);
    bytes.and_then(Value::as_u64)
}

/// `128 B`, `1.5 KiB`, `2.0 MiB`.
fn size(bytes: u64) -> String {
    let tenths = |unit: u64| {
        let tenths = bytes.saturating_mul(10) / unit;
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", tenths(1024)),
        _ => format!("{} MiB", tenths(1024 * 1024)),
    }
}

/// `12:01:02.123`, of Unix milliseconds.
fn clock(time: u64) -> String {
    let (seconds, rest) = (time / 1000, time % 1000);
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{rest:03}", seconds % 60)
}

/// So much of a connection's id tells it from the user's others.
const SHORT_ID: usize = 8;
/// Columns are lined up to this width, in characters; what is wider moves the rest of its line.
const WIDEST: usize = 32;
/// What most events are called has room in this.
const NARROWEST: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> View {
        View::with(Paint { is_coloured: false }, true)
    }

    fn line(view: &mut View, event: &str) -> String {
        view.line(serde_json::from_str(event).expect(event))
    }

    #[test]
    fn events_are_lines_in_columns() {
        let mut view = plain();
        let told = [
            r#"{"time":43262103,"user":"ann","client":"8a3f0c1d-77","queued":0,"worker":0,"id":1,
                "transport":"websocket","event":"command","method":"connect","has_token":true,"name":"js"}"#,
            r#"{"time":43262105,"user":"ann","client":"8a3f0c1d-77","channel":"chat:1","event":"command",
                "method":"subscribe","id":2,"recover":true,"offset":14,"epoch":"e","queued":0,"worker":0}"#,
            r#"{"time":43262105,"user":"ann","client":"8a3f0c1d-77","channel":"chat:1","event":"reply",
                "method":"subscribe","id":2,"recovered":true,"was_recovering":true,"recoverable":true,
                "positioned":true,"offset":17,"epoch":"e","publications":3,"queued":2048,"worker":0}"#,
            r#"{"time":43262106,"user":"ann","client":"8a3f0c1d-77","channel":"news","event":"refused","id":3,
                "told":"error 103: permission denied","why":"it is off"}"#,
            r#"{"time":43262106,"user":"ann","client":"8a3f0c1d-77","channel":"news","event":"reply","id":3,
                "error":{"code":103,"message":"permission denied","temporary":false}}"#,
            r#"{"time":43262107,"user":"ann","client":"8a3f0c1d-77","channel":"chat:1","event":"publications",
                "receivers":1,"publications":[{"offset":18,"data":{"bytes":128}}],"queued":0}"#,
            r#"{"time":43262108,"channel":"chat:1","event":"publications","receivers":9,"left_out":7,
                "publications":[{"offset":19,"data":{"bytes":3}},{"offset":20,"data":{"bytes":3}}]}"#,
            r#"{"time":43262109,"user":"ann","client":"8a3f0c1d-77","channel":"chat:1","event":"parked","offset":2210}"#,
            r#"{"time":43262110,"user":"ann","client":"8a3f0c1d-77","channel":"chat:1","event":"caught_up"}"#,
            r#"{"time":43262111,"user":"ann","client":"8a3f0c1d-77","event":"ended","code":3000,"reason":"connection closed"}"#,
        ];
        let told: String = told.iter().map(|event| line(&mut view, event)).collect();
        let expected = "\
12:01:02.103  ann 8a3f0c1d  → connect #1      by websocket  has token  name=js
12:01:02.105  ann 8a3f0c1d  → subscribe #2    chat:1  go on behind #14  epoch=e
12:01:02.105  ann 8a3f0c1d  ← subscribe #2    chat:1  at #17  recovered: 3 missed  behind 2.0 KiB in its queue  epoch=e
12:01:02.106  ann 8a3f0c1d  ✕ refused #3      news    error 103: permission denied  because it is off
12:01:02.106  ann 8a3f0c1d  ← error #3        news    103 permission denied
12:01:02.107  ann 8a3f0c1d  ← publications    chat:1  #18  128 B
(7 events are left out here: they came faster than they are read)
12:01:02.108                ← publications    chat:1  #19 to #20  2 publications  6 B  to 9 subscribers
12:01:02.109  ann 8a3f0c1d  · parked          chat:1  behind #2210: the connection has no room
12:01:02.110  ann 8a3f0c1d  · caught up       chat:1
12:01:02.111  ann 8a3f0c1d  · ended                   3000 connection closed
";
        assert_eq!(told, expected);
    }

    #[test]
    fn what_clients_say_of_themselves_does_not_move_the_cursor() {
        let event = r#"{"time":1,"user":"\u001b[2J","client":"\u001b[0m45678","event":"command","method":"rpc",
            "call":"a\nb","id":1,"data":{"\u001b[1m":"\u0007"},"x\u001b":"y"}"#;
        let told = line(&mut plain(), event);
        assert!(told.ends_with('\n'));
        assert!(
            !told.trim_end_matches('\n').contains(char::is_control),
            "{told:?}"
        );
    }

    #[test]
    fn numbers_may_be_as_large_as_they_like() {
        let event = format!(
            r#"{{"time":{0},"client":"c","event":"publications","receivers":{0},"queued":{0},"left_out":{0},"id":{0},
            "publications":[{{"offset":{0},"data":{{"bytes":{0}}}}},{{"offset":1,"data":{{"bytes":{0}}}}}]}}"#,
            u64::MAX
        );
        let told = line(&mut plain(), &event);
        assert!(
            told.contains("2 publications  1759218604441.5 MiB"),
            "{told}"
        );
    }

    #[test]
    fn payloads_that_are_shown_are_shown() {
        let event = r#"{"time":0,"client":"c","channel":"a","event":"publications","receivers":1,
            "publications":[{"offset":1,"data":{"bytes":1,"n":2},"user":"bob"}]}"#;
        assert_eq!(
            line(&mut plain(), event),
            "00:00:00.000  (anonymous) c  ← publications    a  #1  {\"bytes\":1,\"n\":2}  of bob\n"
        );
    }

    #[test]
    fn colours_are_for_terminals_and_arrows_for_those_that_have_them() {
        let event = r#"{"time":0,"event":"refused","told":"error 100","client":"c","id":2}"#;
        let coloured = line(&mut View::with(Paint { is_coloured: true }, true), event);
        assert!(coloured.contains("\u{1b}[31m✕\u{1b}[0m"), "{coloured:?}");
        assert!(
            coloured.contains("\u{1b}[31merror 100\u{1b}[0m"),
            "{coloured:?}"
        );
        let bare = line(&mut View::with(Paint { is_coloured: false }, false), event);
        assert_eq!(
            bare,
            "00:00:00.000  (anonymous) c  ! refused #2      error 100\n"
        );
        assert!(bare.is_ascii());
    }
}
