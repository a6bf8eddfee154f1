//! What is wrong with a file, option by option: keys that nobody knows, values of another type, numbers and durations out of their range.
//! All of it, in the order of the file, before anything is made of it. What options say to each other is checked later.

use serde_json::Value;
use tautline_hub::config::duration;
use tautline_hub::rate::Rate;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::options::{OptionEntry, Reference};
use super::source::Source;
use super::{Problem, Share, elsewhere, file, suggest};

/// All of it.
pub(super) fn problems(root: &DeTable<'_>, source: &Source<'_>) -> Vec<Problem> {
    let mut found = Found {
        reference: Reference::built_in(),
        problems: Vec::new(),
    };
    found.look_at("", "", root);
    found.problems.sort_by_key(|(offset, _)| *offset);
    let problems = found.problems.into_iter();
    problems
        .map(|(offset, message)| source.problem(Some(offset), message))
        .collect()
}

struct Found {
    reference: &'static Reference,
    /// Each with where it stands.
    problems: Vec<(usize, String)>,
}

impl Found {
    /// Looks at a table. `path` is what it is called in texts, `name` whatever element of a list it is in.
    fn look_at(&mut self, path: &str, name: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let below = |table: &str| match table {
                "" => key.get_ref().to_string(),
                table => format!("{table}.{}", key.get_ref()),
            };
            let (path, option) = (below(path), below(name));
            if let Some(entry) = self.reference.find(&option) {
                if let Err(expected) = check(entry, value) {
                    self.add(value.span().start, format!("{path}: {expected}"));
                }
            } else if let Some(is_list) = self.reference.table(&option) {
                self.look_into(&path, &option, is_list, value);
            } else if !self.reference.is_of_likes(name, key.get_ref()) {
                let message = self.unknown(&path, name, key.get_ref());
                self.add(key.span().start, message);
            }
        }
    }

    /// Looks at what should be a table, or a list of them.
    fn look_into(&mut self, path: &str, option: &str, is_list: bool, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) if !is_list => self.look_at(path, option, table),
            DeValue::Array(list) if is_list => {
                for (index, element) in list.iter().enumerate() {
                    let DeValue::Table(table) = element.get_ref() else {
                        let found = kind_of(element.get_ref());
                        let message = format!("{path}[{index}]: expected a table, got {found}");
                        self.add(element.span().start, message);
                        continue;
                    };
                    let name = table.get("name").and_then(|name| name.get_ref().as_str());
                    let name = name.filter(|name| !name.is_empty());
                    let name = name.map(|name| format!(" (`{name}`)")).unwrap_or_default();
                    self.look_at(&format!("{path}[{index}]{name}"), option, table);
                }
            }
            other => {
                let expected = match is_list {
                    true => format!("a list of tables (`[[{option}]]`)"),
                    false => format!("a table (`[{option}]`)"),
                };
                let message = format!("{path}: expected {expected}, got {}", kind_of(other));
                self.add(value.span().start, message);
            }
        }
    }

    fn unknown(&self, path: &str, table: &str, name: &str) -> String {
        if let Some(explanation) = elsewhere::explain(path) {
            return format!("unknown key {path}; {explanation}");
        }
        let known = self.reference.names_in(table);
        let place = match path
            .strip_suffix(name)
            .map(|path| path.trim_end_matches('.'))
        {
            None | Some("") => "the file",
            Some(path) => path,
        };
        match suggest::nearest(name, &known) {
            Some(near) => format!("unknown key {path}, did you mean `{near}`?"),
            None => format!(
                "unknown key {path}; {place} may have {}",
                file::list(&known)
            ),
        }
    }

    fn add(&mut self, offset: usize, message: String) {
        self.problems.push((offset, message));
    }
}

/// Whether an option can be that; if not, what was expected. Secrets are never in it.
fn check(entry: &OptionEntry, value: &Spanned<DeValue<'_>>) -> Result<(), String> {
    let value = value.get_ref();
    match entry.kind.as_str() {
        "yes or no" => match value {
            DeValue::Boolean(_) => Ok(()),
            other => Err(format!(
                "expected `true` or `false`, got {}",
                kind_of(other)
            )),
        },
        "number" => check_number(entry, value),
        // Their readers know better what is in them.
        "table" | "table of texts" => match value {
            DeValue::Table(_) => Ok(()),
            other => Err(format!("expected a table, got {}", kind_of(other))),
        },
        kind if kind.starts_with("list of ") => {
            let DeValue::Array(list) = value else {
                let found = kind_of(value);
                return Err(format!("expected a list of texts in brackets, got {found}"));
            };
            list.iter().try_for_each(|one| match one.get_ref() {
                DeValue::String(text) => check_choice(entry, text),
                other => Err(format!(
                    "expected a list of texts, got {} in it",
                    kind_of(other)
                )),
            })
        }
        "rate" | "share" if matches!(value, DeValue::Boolean(false)) => Ok(()),
        kind => {
            let DeValue::String(text) = value else {
                let expected = match kind {
                    "duration" => "a duration such as \"25s\"",
                    // YAML 1.1 makes `false` of `off`, and `true` of `on`.
                    "rate" => "a rate such as \"100/s\", or \"off\" (or `false`) for no limit",
                    "share" => "a share such as \"1%\", \"all\", or \"off\" (or `false`) for none",
                    "IP address" => "an IP address such as \"127.0.0.1\"",
                    _ => "a text in quotes",
                };
                return Err(format!("expected {expected}, got {}", kind_of(value)));
            };
            check_text(entry, text)
        }
    }
}

fn check_text(entry: &OptionEntry, text: &str) -> Result<(), String> {
    match entry.kind.as_str() {
        "duration" => {
            let value = duration::parse(text).map_err(|error| error.to_string())?;
            let bound = |bound: &Value| bound.as_str().and_then(|text| duration::parse(text).ok());
            let is_less = bound(&entry.minimum).is_some_and(|least| value < least);
            let is_more = bound(&entry.maximum).is_some_and(|most| value > most);
            if is_more || is_less && !(entry.or_zero && value.is_zero()) {
                return Err(out_of_range(entry, text, |bound| {
                    bound.as_str().unwrap_or_default().to_owned()
                }));
            }
            Ok(())
        }
        "rate" if text == "off" => Ok(()),
        "rate" => Rate::parse(text)
            .map(drop)
            .map_err(|error| error.to_string()),
        "share" => text
            .parse::<Share>()
            .map(drop)
            .map_err(|error| error.to_string()),
        "IP address" => match text.parse::<std::net::IpAddr>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "`{text}` is no IP address, expected one such as `127.0.0.1` or `::1`"
            )),
        },
        _ => check_choice(entry, text),
    }
}

fn check_choice(entry: &OptionEntry, text: &str) -> Result<(), String> {
    let choices = entry.choices();
    if choices.is_empty() || choices.contains(&text) || entry.default == text {
        return Ok(());
    }
    Err(match suggest::nearest(text, &choices) {
        Some(near) => format!("`{text}` is not known, did you mean `{near}`?"),
        None => format!("`{text}` is not known, expected {}", file::list(&choices)),
    })
}

fn check_number(entry: &OptionEntry, value: &DeValue<'_>) -> Result<(), String> {
    let DeValue::Integer(number) = value else {
        return Err(format!("expected a whole number, got {}", kind_of(value)));
    };
    let text = number.to_string();
    let number = i128::from_str_radix(number.as_str(), number.radix()).ok();
    let is_less = |bound: &Value| {
        let bound = bound.as_i64().map(i128::from);
        number
            .zip(bound)
            .is_some_and(|(number, bound)| number < bound)
    };
    let is_more = |bound: &Value| {
        let bound = bound.as_i64().map_or(i128::from(i64::MAX), i128::from);
        number.is_none_or(|number| number > bound)
    };
    if is_less(&entry.minimum) || is_more(&entry.maximum) {
        return Err(out_of_range(entry, &text, Value::to_string));
    }
    Ok(())
}

/// `is 70000, must be between 0 and 65535`
fn out_of_range(entry: &OptionEntry, value: &str, print: impl Fn(&Value) -> String) -> String {
    let [least, most] = [&entry.minimum, &entry.maximum];
    let or_zero = if entry.or_zero { ", or 0s" } else { "" };
    let range = match (least.is_null(), most.is_null()) {
        (false, true) => format!("at least {}", print(least)),
        (true, false) => format!("at most {}", print(most)),
        (true, true) => "at most 9223372036854775807".to_owned(),
        (false, false) => format!("between {} and {}", print(least), print(most)),
    };
    let unit = match entry.unit.as_deref() {
        Some("bytes") => " bytes",
        _ => "",
    };
    format!("is {value}{unit}, must be {range}{or_zero}")
}

/// What to call what is there, without showing it.
fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(true) => "`true`",
        DeValue::Boolean(false) => "`false`",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
