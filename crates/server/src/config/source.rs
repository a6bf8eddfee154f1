//! What a configuration is read from: the text of a file in one of three formats, and what the environment
//! and the command line say over it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::FileType;
use std::io;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::options::{Kind, Reference, Setting};
use super::{Config, ConfigError, Problem, Values, brought, file, json, place, suggest, yaml};

/// How the text of a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    Yaml,
    Json,
}

impl Format {
    /// What the ending of a file's name says: `.yaml`, `.yml`, `.json`, and TOML for all others.
    pub(super) fn of(path: &Path) -> Self {
        let ending = path.extension().and_then(|ending| ending.to_str());
        match ending.map(str::to_ascii_lowercase).as_deref() {
            Some("yaml" | "yml") => Self::Yaml,
            Some("json") => Self::Json,
            _ => Self::Toml,
        }
    }
}

/// What the environment and the command line say over a file: options, each with its value as a text.
///
/// What comes later counts. Values are never printed, as there may be secrets among them.
#[derive(Default)]
pub struct Overrides {
    settings: Vec<Override>,
    warnings: Vec<String>,
}

struct Override {
    /// What to call it: the name of a variable, or `--set` and an option's.
    from: String,
    path: String,
    kind: Kind,
    value: String,
}

impl Overrides {
    /// Takes the variables that begin with `TAUTLINE_`: `TAUTLINE_CLIENT_PING_INTERVAL` is
    /// `client.ping_interval`, and `TAUTLINE_HTTP_API_KEY_FILE` names a file that has the value of
    /// `http_api.key` in it (an end of line at its end doesn't count). Lists of tables, such as
    /// `TAUTLINE_CHANNEL_NAMESPACES`, are JSON; lists of texts are, or have spaces between.
    ///
    /// One that is no option becomes a warning: orchestrators set variables of their own. So does one that Centrifugo
    /// would read, as whoever comes from there may believe that it counts.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Override`] for a value that is no UTF-8, a file that can't be read, and an option that is
    /// set both ways.
    pub fn from_environment(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let known = Reference::built_in().settings();
        let mut overrides = Self::default();
        let variables = variables.into_iter();
        let mut variables: Vec<_> = variables
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        variables.sort();
        let left_over = variables.iter().filter_map(|(name, _)| {
            let here = format!("{PREFIX}{}", name.strip_prefix(ELSEWHERE)?);
            let is_known = known.iter().any(|known| variable(&known.path) == here);
            is_known.then(|| format!("the variable {name} is not read; here it is {here}"))
        });
        overrides.warnings.extend(left_over);
        variables.retain(|(name, _)| name.starts_with(PREFIX) && !OTHERS.contains(&name.as_str()));
        for (name, value) in variables {
            let error = |problem: &str| ConfigError::Override {
                from: name.clone(),
                problem: problem.to_owned(),
            };
            let direct = known.iter().find(|known| variable(&known.path) == name);
            let by_file = || {
                let name = name.strip_suffix(FILE)?;
                known.iter().find(|known| variable(&known.path) == name)
            };
            let (setting, is_file) = match (direct, direct.is_none().then(by_file).flatten()) {
                (Some(setting), _) => (setting, false),
                (None, Some(setting)) => (setting, true),
                (None, None) => {
                    overrides.warnings.push(unknown_variable(&name, &known));
                    continue;
                }
            };
            let value = if is_file {
                let path = Path::new(&value);
                let in_file = |problem: &dyn std::fmt::Display| {
                    error(&format!("{}: {problem}", path.display()))
                };
                let bytes = file::read(path).map_err(|source| in_file(&source))?;
                let text = String::from_utf8(bytes).map_err(|_| in_file(&"it is no UTF-8"))?;
                let text = text.strip_suffix('\n').unwrap_or(&text);
                text.strip_suffix('\r').unwrap_or(text).to_owned()
            } else {
                value
                    .into_string()
                    .map_err(|_| error("the value is no UTF-8"))?
            };
            let is_taken = |other: &Override| other.path == setting.path;
            if overrides.settings.iter().any(is_taken) {
                let problem = format!("`{}` is set by another variable, too", setting.path);
                return Err(error(&problem));
            }
            overrides.settings.push(Override {
                from: name,
                path: setting.path.clone(),
                kind: setting.kind,
                value,
            });
        }
        Ok(overrides)
    }

    /// Which options are set, each with who does.
    pub(super) fn sources(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        let settings = self.settings.iter();
        settings.map(|setting| (setting.path.as_str(), setting.from.as_str()))
    }

    /// Adds what stands on the command line: `client.ping_interval=20s`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Override`] if that is no option.
    pub fn set(&mut self, assignment: &str) -> Result<(), ConfigError> {
        let error = |problem: String| ConfigError::Override {
            from: "--set".to_owned(),
            problem,
        };
        let Some((path, value)) = assignment.split_once('=') else {
            let problem = "expected an option and its value, such as client.ping_interval=20s";
            return Err(error(problem.to_owned()));
        };
        let known = Reference::built_in().settings();
        let Some(setting) = known.iter().find(|known| known.path == path) else {
            let names: Vec<_> = known.iter().map(|known| known.path.as_str()).collect();
            return Err(error(match suggest::nearest(path, &names) {
                Some(near) => format!("unknown option `{path}`, did you mean `{near}`?"),
                None => {
                    format!("unknown option `{path}`; `tautline config reference` has all of them")
                }
            }));
        };
        self.settings.push(Override {
            from: format!("--set {path}"),
            path: path.to_owned(),
            kind: setting.kind,
            value: value.to_owned(),
        });
        Ok(())
    }
}

/// Where a configuration comes from, again and again: a file, and what is said over it.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    settings: Vec<String>,
}

impl ConfigFile {
    /// A file: TOML, or by the ending of its name YAML or JSON. `settings` are what stands on the command line,
    /// such as `client.ping_interval=20s`.
    pub fn new(path: impl Into<PathBuf>, settings: Vec<String>) -> Self {
        Self {
            path: path.into(),
            settings,
        }
    }

    /// Reads and checks all of it as it is now, the environment and the files that it names among them.
    ///
    /// # Errors
    ///
    /// As [`Config::load_with`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load_with(&self.path, &self.overrides()?)
    }

    /// The same for a server that runs by what there was, which has to be there again: a file whose text has gone is one
    /// that somebody is just writing, and by which nobody would get in any more.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); and [`ConfigError::Emptied`], and [`ConfigError::Read`] for what is no file, as a pipe would
    /// be waited for without an end.
    pub(crate) fn load_again(&self, running: &Values) -> Result<Config, ConfigError> {
        let unreadable = |source| ConfigError::Read {
            path: self.path.clone(),
            source,
        };
        let metadata = std::fs::metadata(&self.path).map_err(unreadable)?;
        // Directories have an error of their own, and devices such as `/dev/null` an end.
        if is_pipe(metadata.file_type()) {
            let problem = "this is a pipe, which can be read at the start only; use a file";
            return Err(unreadable(io::Error::other(problem)));
        }
        let overrides = self.overrides()?;
        let config = Config::load_with(&self.path, &overrides)?;
        let is_from_file = |path: &str| overrides.source_of(path).is_none();
        let had_options = running.iter().any(|(path, _)| is_from_file(path));
        let has_options = config.values.iter().any(|(path, _)| is_from_file(path));
        if had_options && !has_options {
            let path = self.path.clone();
            return Err(ConfigError::Emptied { path });
        }
        Ok(config)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the environment and the command line say.
    pub(super) fn overrides(&self) -> Result<Overrides, ConfigError> {
        let mut overrides = Overrides::from_environment(std::env::vars_os())?;
        for setting in &self.settings {
            overrides.set(setting)?;
        }
        Ok(overrides)
    }
}

/// A text, and what is said over it.
pub(super) struct Source<'a> {
    text: &'a str,
    format: Format,
    overrides: Option<&'a Overrides>,
}

impl<'a> Source<'a> {
    pub(super) fn toml(text: &'a str) -> Self {
        Self {
            text,
            format: Format::Toml,
            overrides: None,
        }
    }

    pub(super) fn new(text: &'a str, format: Format, overrides: &'a Overrides) -> Self {
        Self {
            text,
            format,
            overrides: Some(overrides),
        }
    }

    /// What may not be meant about the overrides.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let warnings = self.overrides.map(|overrides| overrides.warnings.clone());
        warnings.into_iter().flatten()
    }

    /// All of it, as one table.
    pub(super) fn root(&self) -> Result<Spanned<DeTable<'a>>, Problem> {
        let text = self.text;
        let spanned = |table| Spanned::new(0..text.len(), table);
        let mut root = match self.format {
            Format::Toml => DeTable::parse(text).map_err(|error| {
                let offset = error.span().map(|span| span.start);
                self.problem(offset, error.message().to_owned())
            })?,
            Format::Yaml => yaml::parse(text)
                .map(spanned)
                .map_err(|error| self.problem(Some(error.offset), error.message))?,
            Format::Json => {
                // The other two formats know of it (RFC 8259, section 8.1 leaves it to the reader).
                let (start, text) = match text.strip_prefix('\u{FEFF}') {
                    Some(rest) => (text.len() - rest.len(), rest),
                    None => (0, text),
                };
                let value = json::parse(text, start)
                    .map_err(|error| self.problem(Some(error.offset), error.message))?;
                match value.map(Spanned::into_inner) {
                    Some(DeValue::Table(table)) => spanned(table),
                    _ => {
                        let message = "expected an object, whose members are the options' tables";
                        return Err(self.problem(Some(0), message.to_owned()));
                    }
                }
            }
        };
        brought::settle(root.get_mut());
        for (start, setting) in self.placed() {
            put(root.get_mut(), setting, start)
                .map_err(|problem| self.problem(Some(start), problem))?;
        }
        Ok(root)
    }

    /// What is wrong at this byte; those behind the text are the overrides'.
    pub(super) fn problem(&self, offset: Option<usize>, message: String) -> Problem {
        let Some(offset) = offset else {
            return Problem {
                line: None,
                column: 0,
                message,
            };
        };
        let placed = self.placed().filter(|(start, _)| *start <= offset);
        if let Some((_, setting)) = placed.last() {
            return Problem {
                line: None,
                column: 0,
                message: format!("{message} (set by {})", setting.from),
            };
        }
        let (line, column) = place::line_and_column(self.text, offset);
        Problem {
            line: Some(line),
            column,
            message,
        }
    }

    /// The overrides, with the places that their values have.
    fn placed(&self) -> impl Iterator<Item = (usize, &'a Override)> {
        let mut start = self.text.len() + 1;
        let settings = self.overrides.map(|overrides| &*overrides.settings);
        settings.unwrap_or_default().iter().map(move |setting| {
            let at = start;
            start += setting.value.len() + 1;
            (at, setting)
        })
    }
}

/// Puts one override in the place of what the file has.
fn put<'i>(root: &mut DeTable<'i>, setting: &'i Override, start: usize) -> Result<(), String> {
    let path = &setting.path;
    let span = start..start + setting.value.len();
    let value = value(setting.kind, &setting.value, start)
        .map_err(|problem| format!("{path}: {problem}"))?;
    let (tables, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut table = root;
    for part in tables.split('.').filter(|part| !part.is_empty()) {
        let key = || Spanned::new(span.clone(), Cow::Borrowed(part));
        if !table.contains_key(&key()) {
            let empty = DeValue::Table(DeTable::new());
            table.insert(key(), Spanned::new(span.clone(), empty));
        }
        let next = table.get_mut(part).map(Spanned::get_mut);
        let Some(DeValue::Table(next)) = next else {
            return Err(format!("{path}: `{part}` is no table in the file"));
        };
        table = next;
    }
    table.remove(name);
    let name = Spanned::new(span.clone(), Cow::Borrowed(name));
    table.insert(name, Spanned::new(span, value));
    Ok(())
}

/// What an option of this kind is to become; what doesn't look like one is left for the option's own
/// reader to complain about.
fn value(kind: Kind, text: &str, start: usize) -> Result<DeValue<'_>, String> {
    let json = || match json::parse(text, start) {
        Ok(Some(value)) => Ok(value.into_inner()),
        Ok(None) => Err("`null` is no value here".to_owned()),
        Err(error) => Err(format!("expected JSON: {}", error.message)),
    };
    let string = |text| DeValue::String(Cow::Borrowed(text));
    Ok(match kind {
        Kind::Switch => match text {
            "true" => DeValue::Boolean(true),
            "false" => DeValue::Boolean(false),
            _ => return Err("expected `true` or `false`".to_owned()),
        },
        Kind::Number => place::number(text).ok_or("expected a number")?,
        Kind::List if !text.trim_start().starts_with('[') => {
            let words = text.split_ascii_whitespace();
            let words = words.map(|word| Spanned::new(start..start + text.len(), string(word)));
            DeValue::Array(words.collect::<DeArray<'_>>())
        }
        Kind::List | Kind::Structure => json()?,
        Kind::Text => string(text),
    })
}

/// The variable of an option.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "_").to_ascii_uppercase())
}

fn unknown_variable(name: &str, known: &[Setting]) -> String {
    let names: Vec<_> = known.iter().map(|known| variable(&known.path)).collect();
    let lower: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let lower: Vec<_> = lower.iter().map(String::as_str).collect();
    match suggest::nearest(name, &lower) {
        Some(near) => format!(
            "the variable {name} is no option, did you mean {}?",
            near.to_ascii_uppercase()
        ),
        None => format!("the variable {name} is no option, and was left alone"),
    }
}

#[cfg(unix)]
fn is_pipe(kind: FileType) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    kind.is_fifo() || kind.is_socket()
}

#[cfg(not(unix))]
fn is_pipe(_: FileType) -> bool {
    false
}

const PREFIX: &str = "TAUTLINE_";
/// What variables of Centrifugo begin with.
const ELSEWHERE: &str = "CENTRIFUGO_";
/// Behind the name of a variable: its value is in a file.
const FILE: &str = "_FILE";
/// Variables of the commands that ask a server.
const OTHERS: [&str; 3] = ["TAUTLINE_URL", "TAUTLINE_API_KEY", "TAUTLINE_TOKEN"];
