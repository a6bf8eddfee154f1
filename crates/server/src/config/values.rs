//! What each option is set to, to be compared with what it was, and shown.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tautline_auth::KeyDigest;
use tautline_hub::config::duration;
use toml::de::{DeTable, DeValue};

use super::options::{OptionEntry, Reference};

/// What each option is set to that is set, by its path. Secrets are known by their digest only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<String, Value>);

#[derive(Clone, PartialEq, Eq)]
struct Value {
    /// The option, whatever element of a list it is in; that list itself for an element.
    option: String,
    /// As people see it.
    shown: String,
    /// The same for all that mean the same.
    meaning: String,
}

/// An option that differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// Its path, such as `client.ping_interval` or ``channel.namespaces (`chat`).presence``.
    pub option: String,
    /// What it was, as TOML has it; `none` for nothing, `(secret)` for what isn't shown.
    pub from: String,
    /// What it is.
    pub to: String,
    /// A reload doesn't apply it: it is still what it was.
    pub needs_restart: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.option, self.from, self.to)?;
        if self.needs_restart {
            f.write_str(" (needs a restart)")?;
        }
        Ok(())
    }
}

impl Values {
    /// What a file says, with all that is said over it.
    pub(super) fn of(root: &DeTable<'_>) -> Self {
        let mut values = Self::default();
        values.add_table("", "", root);
        values
    }

    /// What is shown of each option that is set, by its path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.0.iter();
        all.map(|(path, value)| (path.as_str(), value.shown.as_str()))
    }

    /// What differs in another configuration.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let free = self.free(new);
        let mut paths: Vec<_> = self.0.keys().chain(new.0.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            let (from, to) = (self.0.get(path), new.0.get(path));
            let Some(known) = from.or(to) else { continue };
            let default = Value::default_of(&known.option);
            let (from, to) = (from.unwrap_or(&default), to.unwrap_or(&default));
            if from.meaning != to.meaning {
                changes.push(Change {
                    option: path.clone(),
                    from: from.shown.clone(),
                    to: to.shown.clone(),
                    needs_restart: needs_restart(&known.option) && free != known.option,
                });
            }
        }
        changes
    }

    /// These, but for options that need a restart: those are as they were.
    pub(crate) fn holding(&self, running: &Self) -> Self {
        let unheld = running.free(self);
        let is_held =
            |(_, value): &(&String, &Value)| needs_restart(&value.option) && unheld != value.option;
        let free = self.0.iter().filter(|entry| !is_held(entry));
        let held = running.0.iter().filter(is_held);
        let all = free.chain(held);
        Self(
            all.map(|(path, value)| (path.clone(), value.clone()))
                .collect(),
        )
    }

    /// The option that needs a restart only because of what runs, if nothing does: the directory of events that aren't told,
    /// or won't be.
    fn free(&self, new: &Self) -> &'static str {
        let is_on = |values: &Self| {
            let enabled = values.0.get("events.enabled");
            enabled.is_some_and(|value| value.meaning == "true")
        };
        if is_on(self) && is_on(new) {
            ""
        } else {
            "events.directory"
        }
    }

    fn add_table(&mut self, path: &str, option: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let below = |name: &str| match name {
                "" => key.get_ref().to_string(),
                name => format!("{name}.{}", key.get_ref()),
            };
            let (path, option) = (below(path), below(option));
            let value = value.get_ref();
            match (Reference::built_in().find(&option), value) {
                (Some(entry), value) => {
                    let value = Value::of(entry, &option, value);
                    self.add(path, option, value);
                }
                (None, DeValue::Table(table)) => self.add_table(&path, &option, table),
                (None, DeValue::Array(list)) => {
                    for (index, element) in list.iter().enumerate() {
                        if let DeValue::Table(table) = element.get_ref() {
                            self.add_element(&path, &option, index, table);
                        }
                    }
                }
                // No option: whoever reads the file says so.
                (None, _) => {}
            }
        }
    }

    /// Elements with a name are known by it, wherever they stand.
    fn add_element(&mut self, path: &str, option: &str, index: usize, table: &DeTable<'_>) {
        let name = table.get("name").and_then(|name| name.get_ref().as_str());
        let path = match name.filter(|name| !name.is_empty()) {
            Some(name) => format!("{path} (`{name}`)"),
            None => format!("{path}[{index}]"),
        };
        let there = Value {
            option: option.to_owned(),
            shown: "there".to_owned(),
            meaning: "there".to_owned(),
        };
        self.add(path.clone(), option.to_owned(), there);
        self.add_table(&path, option, table);
    }

    fn add(&mut self, path: String, option: String, value: Value) {
        self.0.insert(path, Value { option, ..value });
    }
}

impl Value {
    fn of(entry: &OptionEntry, option: &str, value: &DeValue<'_>) -> Self {
        let text = match value {
            // The same, however it is written.
            DeValue::Boolean(false) if matches!(&*entry.kind, "rate" | "share") => {
                "\"off\"".to_owned()
            }
            value => print(value),
        };
        let meaning = match value.as_str() {
            Some(text) if entry.kind == "duration" => {
                duration::parse(text).map_or_else(|_| text.to_owned(), |time| format!("{time:?}"))
            }
            _ => text.clone(),
        };
        let is_secret = entry.kind.starts_with("secret") || entry.kind == "table of texts";
        if is_secret {
            return Self {
                option: option.to_owned(),
                shown: "(secret)".to_owned(),
                meaning: KeyDigest::of(meaning.as_bytes()).to_hex(),
            };
        }
        Self {
            option: option.to_owned(),
            shown: shortened(&text),
            meaning,
        }
    }

    fn default_of(option: &str) -> Self {
        let entry = Reference::built_in().find(option);
        let default = entry.map_or(&serde_json::Value::Null, |entry| &entry.default);
        let text = match default {
            serde_json::Value::Null => "none".to_owned(),
            default => default.to_string(),
        };
        let meaning = match default.as_str() {
            Some(text) if entry.is_some_and(|entry| entry.kind == "duration") => {
                duration::parse(text).map_or_else(|_| text.to_owned(), |time| format!("{time:?}"))
            }
            _ => text.clone(),
        };
        Self {
            option: option.to_owned(),
            shown: text,
            meaning,
        }
    }
}

/// Of no secret, nor much.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

fn needs_restart(option: &str) -> bool {
    Reference::built_in().needs_restart(option)
}

/// A value on one line, as TOML and JSON have it.
fn print(value: &DeValue<'_>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(is) => is.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(list) => {
            let list: Vec<_> = list.iter().map(|one| print(one.get_ref())).collect();
            format!("[{}]", list.join(","))
        }
        DeValue::Table(table) => {
            let mut list: Vec<_> = table
                .iter()
                .map(|(key, value)| format!("{}:{}", quoted(key.get_ref()), print(value.get_ref())))
                .collect();
            list.sort_unstable();
            format!("{{{}}}", list.join(","))
        }
    }
}

/// What a line has room for, without what may be secret in an address: what stands before an `@`, and
/// behind a `?`.
fn shortened(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(start) = text.find("://").map(|at| at + 3)
        && ["http", "ws"]
            .iter()
            .any(|scheme| text.trim_start_matches('"').starts_with(scheme))
    {
        let end = text[start..].find('/').map_or(text.len(), |at| start + at);
        if let Some(at) = text[start..end].rfind('@') {
            text.replace_range(start..start + at, "...");
        }
        if let Some(at) = text.find('?') {
            text.replace_range(at + 1.., "...\"");
        }
    }
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Most characters of a value that are shown.
const MAX_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(old: &str, new: &str) -> Vec<String> {
        let values = |text| Values::of(DeTable::parse(text).expect("TOML").get_ref());
        let changes = values(old).changes(&values(new));
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_means_the_same_is_no_change() {
        for (old, new) in [
            ("", "client.ping_interval = \"25s\""),
            (
                "client.ping_interval = \"1m\"",
                "client.ping_interval = \"60s\"",
            ),
            ("doors.sse = true", "[doors]\nplain = true"),
            ("client.allowed_origins = []", ""),
            // They are known by their names, and not by their places.
            (
                "[[channel.namespaces]]\nname = \"aa\"\n[[channel.namespaces]]\nname = \"bb\"",
                "[[channel.namespaces]]\nname = \"bb\"\n[[channel.namespaces]]\nname = \"aa\"",
            ),
        ] {
            assert_eq!(changes(old, new), [] as [&str; 0], "{old} and {new}");
        }
    }

    #[test]
    fn what_differs_is_told_with_the_defaults_that_it_had() {
        let told = changes(
            "client.ping_interval = \"20s\"\n[[channel.namespaces]]\nname = \"chat\"\npresence = true",
            "node.workers = 2\n[[channel.namespaces]]\nname = \"news\"",
        );
        assert_eq!(
            told,
            [
                "channel.namespaces (`chat`): there -> none",
                "channel.namespaces (`chat`).name: \"chat\" -> \"\"",
                "channel.namespaces (`chat`).presence: true -> false",
                "channel.namespaces (`news`): none -> there",
                "channel.namespaces (`news`).name: \"\" -> \"news\"",
                "client.ping_interval: \"20s\" -> \"25s\"",
                "node.workers: 0 -> 2 (needs a restart)",
            ]
        );
    }

    #[test]
    fn what_may_be_secret_is_compared_and_not_shown() {
        for (old, new) in [
            ("http_api.key = \"hidden1\"", "http_api.key = \"hidden2\""),
            (
                "rpc.proxy.endpoint = \"https://a.test/b?key=hidden1\"",
                "rpc.proxy.endpoint = \"https://a.test/b?key=hidden2\"",
            ),
            (
                "[[tunnels]]\nupstream = \"ws://a.test/b?key=hidden1\"",
                "[[tunnels]]\nupstream = \"ws://a.test/b?key=hidden2\"",
            ),
            (
                "client.token.jwks_public_endpoint = \"https://hidden1:x@a.test/k\"",
                "client.token.jwks_public_endpoint = \"https://hidden2:x@a.test/k\"",
            ),
            (
                "rpc.proxy.http.static_headers = {x = \"hidden1\"}",
                "rpc.proxy.http.static_headers = {x = \"hidden2\"}",
            ),
        ] {
            let told = changes(old, new);
            assert_eq!(told.len(), 1, "{old}");
            assert!(!told[0].contains("hidden"), "{told:?}");
        }
        let long = format!("node.name = {:?}", "x".repeat(1000));
        assert!(changes("", &long)[0].len() < 300);
    }
}
