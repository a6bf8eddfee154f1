//! Showing results: to a person as text, to a program as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::args::ServerArgs;
use crate::cli::error::CliError;

/// Who reads the output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Person,
    Program,
}

impl Reader {
    pub(super) fn of(args: &ServerArgs) -> Self {
        if args.json || !io::stdout().is_terminal() {
            Self::Program
        } else {
            Self::Person
        }
    }
}

/// A publication, as far as it is shown.
#[derive(Deserialize, Serialize)]
pub(super) struct Publication {
    // The protocol tells it beside.
    #[serde(default, skip_deserializing, skip_serializing_if = "String::is_empty")]
    pub(super) channel: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) offset: u64,
    data: Option<Box<RawValue>>,
    /// What is no JSON, as the server API tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    info: Option<Who>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    /// When it was published, in milliseconds of Unix time, where that is told.
    #[serde(default, skip_serializing_if = "is_zero")]
    time: u64,
}

/// Who published, or is in a channel.
#[derive(Deserialize, Serialize)]
pub(super) struct Who {
    #[serde(default)]
    pub(super) user: String,
    #[serde(default)]
    pub(super) client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
pub(super) struct History {
    publications: Vec<Publication>,
    epoch: String,
    offset: u64,
}

#[derive(Deserialize)]
pub(super) struct Presence {
    presence: BTreeMap<String, Who>,
}

#[derive(Deserialize)]
pub(super) struct Stats {
    #[serde(default)]
    pub(super) num_clients: u64,
    #[serde(default)]
    pub(super) num_users: u64,
}

#[derive(Deserialize)]
pub(super) struct Channels {
    channels: BTreeMap<String, Count>,
}

#[derive(Deserialize)]
struct Count {
    num_clients: u64,
}

#[derive(Deserialize)]
pub(super) struct Info {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    version: String,
    num_clients: u64,
    num_users: u64,
    num_channels: u64,
    num_subs: u64,
    #[serde(default)]
    uptime: u64,
    metrics: Option<Metrics>,
    process: Option<Process>,
}

#[derive(Deserialize)]
struct Metrics {
    interval: u64,
    items: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Process {
    cpu: f64,
    rss: u64,
}

/// What a node tells of itself.
#[derive(Deserialize)]
pub(super) struct Report {
    name: String,
    draining: bool,
    workers: Vec<Worker>,
    memory: Memory,
}

#[derive(Deserialize)]
struct Worker {
    name: String,
    tasks: u64,
    sessions: BTreeMap<String, Sessions>,
    channels: u64,
    subscriptions: u64,
    queues: Queues,
}

#[derive(Deserialize)]
struct Sessions {
    coming: u64,
    connected: u64,
}

#[derive(Deserialize)]
struct Queues {
    waiting: u64,
    bytes: u64,
    longest: u64,
}

#[derive(Deserialize)]
struct Memory {
    resident: Option<u64>,
    ceiling: u64,
    histories: u64,
    kept_channels: u64,
    queues: u64,
    addresses: u64,
}

#[derive(Deserialize)]
pub(super) struct Reloaded {
    changes: Vec<Change>,
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Change {
    option: String,
    from: String,
    to: String,
    needs_restart: bool,
}

#[derive(Deserialize)]
pub(super) struct Revoked {
    connections: u64,
    subscriptions: u64,
    persisted: bool,
}

#[derive(Deserialize)]
pub(super) struct Position {
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    epoch: String,
}

/// Something that can be shown to a person.
pub(super) trait Show: for<'de> Deserialize<'de> {
    fn show(&self) -> String;
}

impl Show for Position {
    fn show(&self) -> String {
        match self.offset {
            0 => "published; the channel doesn't keep it\n".to_owned(),
            offset => format!("published as {offset}:{}\n", clean(&self.epoch)),
        }
    }
}

impl Show for History {
    fn show(&self) -> String {
        let mut text = String::new();
        for publication in &self.publications {
            let _ = writeln!(text, "{}", publication.text());
        }
        let position = format!("{}:{}", self.offset, clean(&self.epoch));
        let _ = writeln!(text, "The channel stands at {position}.");
        text
    }
}

impl Show for Presence {
    fn show(&self) -> String {
        if self.presence.is_empty() {
            return "Nobody is there.\n".to_owned();
        }
        let mut text = String::new();
        for who in self.presence.values() {
            let _ = write!(text, "{:<24} {}", named(&who.user), clean(&who.client));
            for info in [&who.conn_info, &who.chan_info].into_iter().flatten() {
                let _ = write!(text, "  {}", clean(info.get()));
            }
            text.push('\n');
        }
        text
    }
}

impl Show for Stats {
    fn show(&self) -> String {
        format!(
            "{} of {}\n",
            counted(self.num_clients, "connection", "connections"),
            counted(self.num_users, "user", "users")
        )
    }
}

impl Show for Channels {
    fn show(&self) -> String {
        if self.channels.is_empty() {
            return "No channel has subscribers.\n".to_owned();
        }
        let lines = self.channels.iter();
        lines
            .map(|(channel, count)| format!("{:>8}  {}\n", count.num_clients, clean(channel)))
            .collect()
    }
}

impl Show for Reloaded {
    fn show(&self) -> String {
        let mut text = String::new();
        for change in &self.changes {
            let restart = if change.needs_restart {
                " (needs a restart)"
            } else {
                ""
            };
            let Change {
                option, from, to, ..
            } = change;
            let line = format!("{option}: {from} -> {to}");
            let _ = writeln!(text, "{}{restart}", clean(&line));
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {}", clean(warning));
        }
        if self.changes.is_empty() {
            text.push_str("nothing has changed\n");
        }
        text
    }
}

impl Show for Revoked {
    fn show(&self) -> String {
        let Self {
            connections,
            subscriptions,
            persisted,
        } = self;
        let kept = match persisted {
            true => "",
            false => {
                "until the server ends only: it has no directory to keep it in (revocation.directory)\n"
            }
        };
        let connections = counted(*connections, "connection", "connections");
        let subscriptions = counted(*subscriptions, "subscription", "subscriptions");
        format!("done: {connections} and {subscriptions} ended\n{kept}")
    }
}

impl Show for Info {
    fn show(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let Node {
                num_clients: clients,
                num_users: users,
                num_channels: channels,
                num_subs: subs,
                uptime,
                ..
            } = node;
            let (name, version) = (clean(&node.name), clean(&node.version));
            let _ = writeln!(
                text,
                "{name}, version {version}, up for {uptime} s: {} of {}, {} to {}",
                counted(*clients, "connection", "connections"),
                counted(*users, "user", "users"),
                counted(*subs, "subscription", "subscriptions"),
                counted(*channels, "channel", "channels"),
            );
            if let Some(Process { cpu, rss }) = &node.process {
                let rss = mebibytes(*rss);
                let _ = writeln!(text, "  {cpu} % of a processor, {rss} of memory");
            }
            if let Some(Metrics { interval, items }) = &node.metrics {
                let _ = writeln!(text, "  in the last {interval} s:");
                for (name, number) in items.iter().filter(|(_, number)| **number > 0) {
                    let _ = writeln!(text, "  {number:>10}  {}", clean(name));
                }
            }
        }
        text
    }
}

impl Show for Report {
    fn show(&self) -> String {
        let ending = if self.draining {
            ", on its way out"
        } else {
            ""
        };
        let mut text = format!("{}{ending}\n", clean(&self.name));
        for worker in &self.workers {
            let Worker {
                name,
                tasks,
                channels,
                subscriptions,
                queues,
                ..
            } = worker;
            let _ = write!(
                text,
                "{}: {tasks} tasks, {subscriptions} subscriptions to {channels} channels",
                clean(name)
            );
            for (transport, Sessions { coming, connected }) in &worker.sessions {
                let _ = write!(text, ", {connected} by {}", clean(transport));
                if *coming > 0 {
                    let _ = write!(text, " (and {coming} coming)");
                }
            }
            if queues.waiting > 0 {
                let (bytes, longest) = (mebibytes(queues.bytes), mebibytes(queues.longest));
                let waiting = queues.waiting;
                let _ = write!(
                    text,
                    "; {bytes} wait for {waiting} connections, {longest} for one"
                );
            }
            text.push('\n');
        }
        let memory = &self.memory;
        let resident = memory.resident.map_or("unknown".into(), mebibytes);
        let ceiling = match memory.ceiling {
            0 => "no ceiling".to_owned(),
            ceiling => format!("ceiling {}", mebibytes(ceiling)),
        };
        let (histories, queues) = (mebibytes(memory.histories), mebibytes(memory.queues));
        let (kept, addresses) = (memory.kept_channels, memory.addresses);
        let _ = writeln!(
            text,
            "memory: {resident} ({ceiling}); {histories} in the histories of {kept} channels, {queues} to \
             be written; {addresses} addresses remembered"
        );
        text
    }
}

impl Publication {
    /// `#14 ann: {"text":"hi"}  lang=en`, without a line's end.
    pub(super) fn text(&self) -> String {
        let mut line = String::new();
        if self.offset > 0 {
            let _ = write!(line, "#{} ", self.offset);
        }
        if let Some(who) = &self.info {
            let _ = write!(line, "{}: ", named(&who.user));
        }
        line.push_str(&clean(self.data()));
        for (key, value) in &self.tags {
            let _ = write!(line, "  {}={}", clean(key), clean(value));
        }
        line
    }

    /// The payload: JSON, or base64.
    pub(super) fn data(&self) -> &str {
        match (&self.data, &self.b64data) {
            (Some(json), _) => json.get(),
            (None, base64) => base64.as_deref().unwrap_or_default(),
        }
    }

    /// When it was published, in milliseconds of Unix time, where that is told.
    pub(super) fn time(&self) -> Option<u64> {
        (self.time > 0).then_some(self.time)
    }
}

/// Shows a result to whoever reads.
pub(super) fn result<T: Show>(reader: Reader, json: &RawValue) -> Result<(), CliError> {
    let text = match reader {
        Reader::Program => format!("{}\n", json.get()),
        Reader::Person => {
            let read: T = serde_json::from_str(json.get()).map_err(|error| {
                CliError::Failure(format!("the result is not what it should be: {error}"))
            })?;
            read.show()
        }
    };
    print(&text)
}

/// Writes to standard output. That nobody reads on is no failure: `| head` does that.
pub(in crate::cli) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CliError::NobodyReads),
        written => Ok(written?),
    }
}

/// What came from elsewhere must not move the terminal's cursor, nor turn round what stands behind it.
pub(in crate::cli) fn clean(text: &str) -> String {
    let cleaned = text.chars().map(|char| {
        // Embeddings, overrides and isolates of bidirectional text go on until they are ended.
        let turns = matches!(char, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        if !char.is_control() && !turns {
            char
        } else {
            char::REPLACEMENT_CHARACTER
        }
    });
    cleaned.collect()
}

/// Cleans a text that may have several lines, and is too long for nobody.
pub(in crate::cli) fn clean_lines(text: &str) -> String {
    let (text, rest) = match text.char_indices().nth(MOST_TOLD) {
        None => (text, ""),
        Some((end, _)) => (&text[..end], "…"),
    };
    let lines: Vec<_> = text.split('\n').map(clean).collect();
    lines.join("\n") + rest
}

/// The beginning of what a server has answered, in one line.
pub(super) fn beginning(body: &[u8]) -> String {
    // Of UTF-8, a character has four bytes at the most.
    let body = body.get(..4 * MOST_SHOWN).unwrap_or(body);
    let text = String::from_utf8_lossy(body);
    clean(text.trim()).chars().take(MOST_SHOWN).collect()
}

/// A number of things, by the right word for it.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

pub(super) fn named(user: &str) -> String {
    if user.is_empty() {
        "(anonymous)".to_owned()
    } else {
        clean(user)
    }
}

/// `1.5 MiB`.
fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1024 * 1024);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// As many characters of an answer say what it is about.
const MOST_SHOWN: usize = 500;
/// No error has more characters; that of a configuration has many lines.
const MOST_TOLD: usize = 100_000;

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands it over like that"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<T: Show>(json: &str) -> String {
        serde_json::from_str::<T>(json).expect(json).show()
    }

    #[test]
    fn errors_have_lines_and_an_end() {
        let text = "a\u{1b}[2J\nb\rc\n";
        assert_eq!(clean_lines(text), "a\u{fffd}[2J\nb\u{fffd}c\n");
        let long = "\u{e4}".repeat(2 * MOST_TOLD);
        assert_eq!(clean_lines(&long).chars().count(), MOST_TOLD + 1);
        assert!(clean_lines(&long).ends_with("\u{e4}…"));
        assert_eq!(
            beginning(b" <html>\n\x1b[2J\xff "),
            "<html>\u{fffd}\u{fffd}[2J\u{fffd}"
        );
        assert_eq!(beginning(long.as_bytes()).chars().count(), MOST_SHOWN);
    }

    #[test]
    fn results_are_readable() {
        let history = r#"{"publications":[{"data":{"a": 1},"offset":3,"tags":{"k":"v"},
            "info":{"user":"ann","client":"c"}},{"data":"x"}],"epoch":"e","offset":3}"#;
        let expected = "#3 ann: {\"a\": 1}  k=v\n\"x\"\nThe channel stands at 3:e.\n";
        assert_eq!(shown::<History>(history), expected);
        let presence = r#"{"presence":{"c":{"user":"","client":"c","conn_info":{"n":1}}}}"#;
        let expected = "(anonymous)              c  {\"n\":1}\n";
        assert_eq!(shown::<Presence>(presence), expected);
        assert_eq!(
            shown::<Presence>(r#"{"presence":{}}"#),
            "Nobody is there.\n"
        );
        let channels = r#"{"channels":{"a\u001b[2J":{"num_clients":2}}}"#;
        assert_eq!(shown::<Channels>(channels), "       2  a\u{fffd}[2J\n");
        assert_eq!(
            clean("a\u{9b}\u{202e}b\u{2066}c\u{fffd}\u{e4}\u{5d0}"),
            "a\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}\u{e4}\u{5d0}",
            "letters of any script stay"
        );
        assert_eq!(
            shown::<Position>(r#"{"offset":3,"epoch":"e"}"#),
            "published as 3:e\n"
        );
        assert!(shown::<Position>("{}").contains("doesn't keep"));
        let info = r#"{"nodes":[{"uid":"u","name":"n","version":"1","num_clients":2,"num_users":1,
            "num_channels":3,"num_subs":4,"uptime":5}]}"#;
        let expected =
            "n, version 1, up for 5 s: 2 connections of 1 user, 4 subscriptions to 3 channels\n";
        assert_eq!(shown::<Info>(info), expected);
        let recent = r#""uptime":5,"process":{"cpu":2.5,"rss":3145728},
            "metrics":{"interval":60,"items":{"published_total":7,"quiet_total":0}}}]}"#;
        let info = info.replace(r#""uptime":5}]}"#, recent);
        let expected = format!(
            "{expected}  2.5 % of a processor, 3.0 MiB of memory\n  in the last 60 s:\n           7  published_total\n"
        );
        assert_eq!(shown::<Info>(&info), expected);
        let report = r#"{"name":"n","draining":true,"workers":[{"name":"w0","tasks":3,"channels":1,
            "sessions":{"websocket":{"coming":1,"connected":2}},"subscriptions":2,
            "queues":{"waiting":1,"bytes":1048576,"longest":524288}}],
            "memory":{"resident":2097152,"ceiling":0,"histories":0,"kept_channels":1,"queues":0,"addresses":2}}"#;
        let expected = "n, on its way out\n\
            w0: 3 tasks, 2 subscriptions to 1 channels, 2 by websocket (and 1 coming); \
            1.0 MiB wait for 1 connections, 0.5 MiB for one\n\
            memory: 2.0 MiB (no ceiling); 0.0 MiB in the histories of 1 channels, 0.0 MiB to be written; \
            2 addresses remembered\n";
        assert_eq!(shown::<Report>(report), expected);
    }
}
