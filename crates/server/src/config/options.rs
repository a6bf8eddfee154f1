//! All options there are, with what is known of each: what the reference, the default file, the schema, the
//! environment and the command line go by.
//!
//! `options.json` is made from the structs that a file is read into (`tests/reference.rs`), which are the one
//! place where an option is defined; tests see to it that it says the same as they do.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The tables of a configuration, in the order of the book.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Reference {
    /// All of them.
    pub tables: Vec<OptionTable>,
}

/// A table, and what may stand in it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct OptionTable {
    /// Its name, with those of the tables that it is in.
    pub name: String,
    /// Whether there may be many.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    /// Which other table has the same options; it tells of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    /// What has to be said before the options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub introduction: Option<String>,
    /// Its options that are no tables; for one that is `like` another, those which that doesn't have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<OptionEntry>,
}

/// An option.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct OptionEntry {
    /// Its name in the table.
    pub name: String,
    /// What it is, in words.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it does.
    pub docs: String,
    /// What it is where nothing is said, if it is anything.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub default: Value,
    /// What a number counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The least that a number or a duration may be.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub minimum: Value,
    /// The most.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub maximum: Value,
    /// No time at all is good as well, though it is less than the least.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub or_zero: bool,
    /// Something that it could be.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub example: Value,
    /// A reload doesn't apply it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_restart: bool,
}

/// An option that can be set alone.
pub(super) struct Setting {
    pub(super) path: String,
    pub(super) kind: Kind,
}

/// How the value of an option is written as a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Switch,
    Number,
    List,
    /// As JSON.
    Structure,
    /// As it is.
    Text,
}

impl Reference {
    /// Those of this version.
    pub fn built_in() -> &'static Self {
        static BUILT_IN: OnceLock<Reference> = OnceLock::new();
        // What is built in was read by the tests.
        BUILT_IN.get_or_init(|| serde_json::from_str(OPTIONS).unwrap_or_default())
    }

    /// The chapter of the book, in Markdown.
    pub fn markdown(&self) -> String {
        let links = self.documented().map(OptionTable::link);
        let links = links.collect::<Vec<_>>().join(" · ");
        let mut text = format!("{INTRODUCTION}\nThe tables: {links}\n\n{RELOADING}");
        for table in self.documented() {
            let _ = write!(text, "\n## `{}`\n\n", table.heading());
            if let Some(introduction) = &table.introduction {
                let _ = write!(text, "{introduction}\n\n");
            }
            text.push_str("| option | type | | such as |\n|---|---|---|---|\n");
            for option in &table.options {
                let docs = option.docs.replace('|', "\\|");
                let example = match &option.example {
                    Value::Null => String::new(),
                    example => format!("`{example}`").replace('|', "\\|"),
                };
                let (name, kind) = (&option.name, option.kind_with_unit());
                let _ = writeln!(text, "| `{name}` | {kind} | {docs} | {example} |");
            }
        }
        text
    }

    /// A file in TOML which has every option, at its default and commented out.
    pub fn default_file(&self) -> String {
        let mut text = String::from(DEFAULT_INTRODUCTION);
        for table in self.documented() {
            let is_alone = table.options.iter().all(|option| option.default.is_null());
            // Where nothing has a default, naming the table could already mean something.
            let mark = if table.repeated || is_alone { "#" } else { "" };
            let _ = write!(text, "\n{mark}{}\n", table.heading());
            for option in &table.options {
                for line in wrap(&option.docs_with_example()) {
                    let _ = writeln!(text, "# {line}");
                }
                let value = match &option.default {
                    Value::Null => "...".to_owned(),
                    value => value.to_string(),
                };
                let _ = writeln!(text, "#{} = {value}", option.name);
            }
        }
        text
    }

    /// What editors know a file by: a JSON Schema (draft 2020-12).
    pub fn schema(&self) -> Value {
        let repeated: HashSet<_> = self
            .tables
            .iter()
            .filter(|table| table.repeated)
            .map(|table| table.name.as_str())
            .collect();
        let mut root = empty_object();
        for table in &self.tables {
            let mut node = &mut root;
            let ends = table.name.match_indices('.').map(|(end, _)| end);
            let mut start = 0;
            for end in ends.chain([table.name.len()]) {
                let is_list = repeated.contains(&table.name[..end]);
                node = step(node, &table.name[start..end], is_list);
                start = end + 1;
            }
            for option in self.options(table) {
                node["properties"][&option.name] = option.schema();
            }
        }
        root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
        root["title"] = json!("Configuration of Tautline");
        root
    }

    /// The options of a table, those that it shares with another among them.
    pub fn options<'a>(&'a self, table: &'a OptionTable) -> impl Iterator<Item = &'a OptionEntry> {
        let like = table.like.as_ref();
        let like = like.and_then(|like| self.tables.iter().find(|other| other.name == *like));
        let shared = like.map(|like| &*like.options).unwrap_or_default();
        table.options.iter().chain(shared)
    }

    /// The option with this path, such as `channel.namespaces.presence`.
    pub(super) fn find(&self, path: &str) -> Option<&OptionEntry> {
        let (table, name) = path.rsplit_once('.')?;
        let table = self.tables.iter().find(|known| known.name == table)?;
        self.options(table).find(|option| option.name == name)
    }

    /// Whether there is a table of this name, or one in it: `Some` of whether it is a list of them.
    pub(super) fn table(&self, name: &str) -> Option<bool> {
        let is_in = |table: &OptionTable| {
            let rest = table.name.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let exact = self.tables.iter().find(|table| table.name == name);
        match exact {
            Some(table) => Some(table.repeated),
            None => self.tables.iter().any(is_in).then_some(false),
        }
    }

    /// Whether it is an option of tables that are otherwise like this one: it is known, and has no place here.
    pub(super) fn is_of_likes(&self, table: &str, option: &str) -> bool {
        let mut likes = self.tables.iter();
        likes.any(|other| {
            other.like.as_deref() == Some(table)
                && other.options.iter().any(|known| known.name == option)
        })
    }

    /// What may stand in a table, options and tables; in the file itself for an empty name.
    pub(super) fn names_in(&self, name: &str) -> Vec<&str> {
        let mut names = Vec::new();
        for table in &self.tables {
            if table.name == name {
                names.extend(self.options(table).map(|option| option.name.as_str()));
            }
            let rest = match name {
                "" => Some(table.name.as_str()),
                name => table
                    .name
                    .strip_prefix(name)
                    .and_then(|rest| rest.strip_prefix('.')),
            };
            names.extend(rest.and_then(|rest| rest.split('.').next()));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether a reload leaves an option as it is.
    pub(super) fn needs_restart(&self, path: &str) -> bool {
        self.find(path).is_some_and(|option| option.needs_restart)
    }

    /// What can be set alone: options, and lists of tables.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        let lists: Vec<_> = self.tables.iter().filter(|table| table.repeated).collect();
        for table in &self.tables {
            let is_in = |list: &&OptionTable| {
                let rest = table.name.strip_prefix(list.name.as_str());
                rest.is_some_and(|rest| rest.starts_with('.'))
            };
            if lists.iter().any(is_in) {
                continue;
            }
            if table.repeated {
                settings.push(Setting {
                    path: table.name.clone(),
                    kind: Kind::Structure,
                });
                continue;
            }
            settings.extend(self.options(table).map(|option| Setting {
                path: format!("{}.{}", table.name, option.name),
                kind: option.kind(),
            }));
        }
        settings
    }

    pub(super) fn documented(&self) -> impl Iterator<Item = &OptionTable> {
        self.tables.iter().filter(|table| table.like.is_none())
    }
}

impl OptionTable {
    fn heading(&self) -> String {
        if self.repeated {
            format!("[[{}]]", self.name)
        } else {
            format!("[{}]", self.name)
        }
    }

    /// To its heading in the book. Of a heading, an anchor has letters, digits, `_` and `-`.
    fn link(&self) -> String {
        let name = &self.name;
        let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-');
        let anchor: String = name.chars().filter(is_kept).collect();
        format!("[`{name}`](#{anchor})")
    }
}

impl OptionEntry {
    fn kind(&self) -> Kind {
        match self.kind.as_str() {
            "yes or no" => Kind::Switch,
            "number" => Kind::Number,
            "table" | "table of texts" => Kind::Structure,
            kind if kind.starts_with("list of ") => Kind::List,
            _ => Kind::Text,
        }
    }

    /// Its type, and what it counts.
    fn kind_with_unit(&self) -> String {
        match &self.unit {
            Some(unit) => format!("{} ({unit})", self.kind),
            None => self.kind.clone(),
        }
    }

    /// What it does, and what it could be where it isn't anything.
    fn docs_with_example(&self) -> String {
        if self.default.is_null() && !self.example.is_null() {
            return format!("{} Such as {}.", self.docs, self.example);
        }
        self.docs.clone()
    }

    /// What an option with a list of values may be.
    pub(super) fn choices(&self) -> Vec<&str> {
        self.kind.split('`').skip(1).step_by(2).collect()
    }

    fn schema(&self) -> Value {
        let mut choices = self.choices();
        if !choices.is_empty() && self.default == "" {
            choices.push("");
        }
        let text = || match (choices.len(), &*self.kind) {
            (0, "duration") => json!({"type": "string", "pattern": DURATION}),
            (0, "rate") => or_false(&json!({"type": "string", "pattern": RATE})),
            (0, "share") => or_false(&json!({"type": "string", "pattern": SHARE})),
            (0, _) => json!({"type": "string"}),
            _ => json!({"enum": choices}),
        };
        let mut schema = match self.kind() {
            Kind::Switch => json!({"type": "boolean"}),
            Kind::Number => json!({"type": "integer"}),
            Kind::List => json!({"type": "array", "items": text()}),
            Kind::Structure => json!({"type": "object"}),
            Kind::Text => text(),
        };
        schema["description"] = json!(self.docs);
        // No keyword knows of durations: theirs are notes.
        let (least, most) = match self.kind() {
            Kind::Number => ("minimum", "maximum"),
            _ => ("x-minimum", "x-maximum"),
        };
        for (keyword, value) in [
            ("default", &self.default),
            (least, &self.minimum),
            (most, &self.maximum),
        ] {
            if !value.is_null() {
                schema[keyword] = value.clone();
            }
        }
        if self.or_zero {
            schema["x-or-zero"] = json!(true);
        }
        if let Some(unit) = &self.unit {
            schema["x-unit"] = json!(unit);
        }
        if !self.example.is_null() {
            schema["examples"] = json!([self.example]);
        }
        schema
    }
}

fn empty_object() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": Map::new()})
}

/// Into a table of a schema's, which is made if it isn't there.
fn step<'a>(node: &'a mut Value, name: &str, is_list: bool) -> &'a mut Value {
    let next = &mut node["properties"][name];
    if next.is_null() {
        *next = if is_list {
            json!({"type": "array", "items": empty_object()})
        } else {
            empty_object()
        };
    }
    if is_list { &mut next["items"] } else { next }
}

/// Lines that a terminal has room for.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().filter(|line| {
            line.is_empty() || line.chars().count() + 1 + word.chars().count() <= WIDTH
        });
        match line {
            Some(line) => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// As well as that, what YAML 1.1 makes of `off`.
fn or_false(schema: &Value) -> Value {
    json!({"anyOf": [schema, {"const": false}]})
}

/// As `duration::parse` reads them.
const DURATION: &str = "^(0|([0-9]+(ms|s|m|h))+)$";
/// As `Rate::parse` reads them.
const RATE: &str = "^(off|[0-9]+ */ *(ms|s|m|h|([0-9]+(ms|s|m|h))+)(, *burst +[0-9]+)?)$";
/// As `Share` reads them.
const SHARE: &str = "^(off|all|[0-9.]+ *%)$";
const OPTIONS: &str = include_str!("options.json");
/// What a reload does.
const RELOADING: &str = include_str!("reloading.md");
const WIDTH: usize = 96;
const INTRODUCTION: &str = "\
# Configuration

<!-- Made from the code: change the doc comments there, then run
UPDATE_REFERENCE=1 cargo test -p tautline --test reference -->

Every option of the file that `tautline serve --config FILE` reads. The file is TOML, or YAML if its name ends with \
`.yaml` or `.yml`, or JSON if it ends with `.json`; the tables and names are the same. An option that is left out has its \
default, and one that is not in this list is an error which names the nearest one that is. `tautline config check FILE` says \
what is wrong with a file, `tautline config default` prints one with all options in it, `tautline config schema` a JSON \
Schema for editors, and `tautline config reference` this page.

*Yes or no* is `true` or `false`. A *duration* is a text such as `\"25s\"`, `\"10m\"` or `\"1h30m\"`. A *rate* is a text \
such as `\"100/s\"`, `\"20/5s\"` or `\"100/s, burst 500\"` (which many at once), or `\"off\"` for no limit. A *share* is `\"off\"`, `\"all\"` or a percentage such as `\"1%\"`. \
In the place of `\"off\"` there may be `false`: Helm, and whatever else reads YAML 1.1, makes that of an `off` without quotes.

**The environment** counts more than the file: `TAUTLINE_`, and the option with its tables in capitals and `_` for each `.`, as in \
`TAUTLINE_CLIENT_PING_INTERVAL=20s`. With `_FILE` behind that, the variable names a file that has the value in it: \
`TAUTLINE_CLIENT_TOKEN_HMAC_SECRET_KEY_FILE=/run/secrets/hmac`. Lists of texts have spaces between, or are JSON; lists of tables \
are JSON: `TAUTLINE_CHANNEL_NAMESPACES='[{\"name\":\"chat\",\"presence\":true}]'`. A variable that is no option is warned of.

**The command line** counts more than both: `--set client.ping_interval=20s`, as often as needed. Keep secrets out of it, as every \
user of the machine can read it.

In YAML, anchors, aliases and tags are refused, and only `true` and `false` are yes and no.
";
const DEFAULT_INTRODUCTION: &str = "\
# Every option of Tautline, at its default. Take out the `#` before those that you want to change.
# Those with `...` have no default. Lists of tables ([[...]]) may be there more than once.
";

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::super::source::{Source, variable};
    use super::*;

    fn reference() -> &'static Reference {
        let reference = Reference::built_in();
        assert!(reference.tables.len() > 20);
        reference
    }

    #[test]
    fn defaults_are_what_the_code_has() {
        let nothing = file::tables(&Source::toml("")).expect("it is good");
        let mut count = 0;
        for table in reference().tables.iter().filter(|table| !table.repeated) {
            for option in reference().options(table).filter(|o| !o.default.is_null()) {
                let text = format!("[{}]\n{} = {}\n", table.name, option.name, option.default);
                let set = file::tables(&Source::toml(&text));
                let set = set.unwrap_or_else(|problem| panic!("{text}: {problem}"));
                assert!(set == nothing, "{text} is not the default");
                count += 1;
            }
        }
        assert!(count > 100);
    }

    #[test]
    fn the_default_file_is_good_with_and_without_its_marks() {
        let text = reference().default_file();
        let nothing = file::tables(&Source::toml("")).expect("it is good");
        assert!(file::tables(&Source::toml(&text)).is_ok_and(|tables| tables == nothing));
        let mut is_in_list = false;
        let mut unmarked = String::new();
        for line in text.lines() {
            let line = match line.strip_prefix('#') {
                _ if line.starts_with('[') || line.starts_with("#[") => {
                    is_in_list = line.starts_with('#');
                    line
                }
                Some(option) if !is_in_list && !option.starts_with(' ') => option,
                _ => line,
            };
            if !line.ends_with("= ...") {
                unmarked.push_str(line);
                unmarked.push('\n');
            }
        }
        assert!(unmarked.contains("\nping_interval = \"25s\"\n"));
        let read = file::tables(&Source::toml(&unmarked));
        let read = read.unwrap_or_else(|problem| panic!("{problem}"));
        assert!(read == nothing);
    }

    #[test]
    fn no_two_options_have_the_same_variable() {
        let settings = reference().settings();
        let mut names = HashSet::new();
        for setting in &settings {
            let name = variable(&setting.path);
            assert!(names.insert(name.clone()), "{name}");
        }
        for name in &names {
            assert!(!names.contains(&format!("{name}_FILE")), "{name}");
        }
    }

    #[test]
    fn the_schema_has_every_option() {
        let schema = reference().schema();
        let at = |path: &str| schema.pointer(path).cloned().unwrap_or_default();
        assert_eq!(
            at("/properties/client/properties/ping_interval/default"),
            "25s"
        );
        let namespace = "/properties/channel/properties/namespaces/items/properties";
        assert_eq!(at(&format!("{namespace}/presence/type")), "boolean");
        assert_eq!(at(&format!("{namespace}/name/type")), "string");
        assert_eq!(
            at(&format!("{namespace}/force_recovery_mode/enum")),
            json!(["stream", "cache"])
        );
        assert_eq!(
            at("/properties/proxies/items/properties/http/properties/tls/type"),
            "object"
        );
    }
}
