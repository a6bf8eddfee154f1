//! What each option is, and who says so.

use serde::Serialize;

use super::options::Reference;
use super::source::{ConfigFile, Overrides};
use super::{Config, ConfigError};

/// An option, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Shown {
    /// Its path, such as `client.ping_interval` or ``channel.namespaces (`chat`).presence``.
    pub option: String,
    /// What it is, as TOML has it; `(secret)` for what isn't shown, and `none` for nothing.
    pub value: String,
    /// Who says so: the file, a variable of the environment, `--set` and the option, or `default`.
    pub from: String,
}

impl ConfigFile {
    /// Reads and checks all of it, and tells what each option is that is set; with `defaults`, each of the others
    /// that has a default, too. In the order of their names.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn show(&self, defaults: bool) -> Result<(Config, Vec<Shown>), ConfigError> {
        let overrides = self.overrides()?;
        let config = Config::load_with(self.path(), &overrides)?;
        let file = self.path().display().to_string();
        let mut shown: Vec<_> = config
            .values
            .iter()
            .map(|(option, value)| Shown {
                option: option.to_owned(),
                value: value.to_owned(),
                from: overrides.source_of(option).unwrap_or(&file).to_owned(),
            })
            .collect();
        if defaults {
            add_defaults(&mut shown);
        }
        Ok((config, shown))
    }
}

fn add_defaults(shown: &mut Vec<Shown>) {
    let reference = Reference::built_in();
    let mut defaults = Vec::new();
    for setting in reference.settings() {
        let default = reference.find(&setting.path).map(|option| &option.default);
        let Some(default) = default.filter(|default| !default.is_null()) else {
            continue;
        };
        if !shown.iter().any(|shown| shown.option == setting.path) {
            defaults.push(Shown {
                option: setting.path,
                value: default.to_string(),
                from: "default".to_owned(),
            });
        }
    }
    shown.append(&mut defaults);
    shown.sort_by(|one, other| one.option.cmp(&other.option));
}

impl Overrides {
    /// Who says what an option is, or what an element of a list has, if it isn't the file.
    pub(super) fn source_of(&self, option: &str) -> Option<&str> {
        let is_of = |path: &str| {
            let rest = option.strip_prefix(path);
            // A list is set as a whole, with all that is in it.
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '[', '.']))
        };
        self.sources()
            .rfind(|(path, _)| is_of(path))
            .map(|(_, from)| from)
    }
}
