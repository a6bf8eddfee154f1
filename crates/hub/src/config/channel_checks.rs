//! What options of channels can't be together, and what to do about it.

use std::collections::HashSet;
use std::time::Duration;

use super::channel::{ChannelOptions, NamespaceOptions, RecoveryMode, SlowConsumerOption};
use super::{ConfigError, TagsFilterTemplate};

impl ChannelOptions {
    /// Whether channels can be as these say.
    ///
    /// # Errors
    ///
    /// The first option of which that isn't so, and why.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(1..=MAX_NAME).contains(&self.max_length) {
            let problem = format!("must be between 1 and {MAX_NAME}");
            return Err(ConfigError::new("channel.max_length", problem));
        }
        check_ttl("channel.history_meta_ttl", self.history_meta_ttl)?;
        let path = "channel.without_namespace";
        if !self.without_namespace.name.is_empty() {
            return Err(ConfigError::new(
                format!("{path}.name"),
                "must not be set; name namespaces in channel.namespaces",
            ));
        }
        self.check_names()?;
        if self.without_namespace.pattern.is_some() {
            return Err(ConfigError::new(
                format!("{path}.pattern"),
                "must not be set; channels with a pattern are a namespace in channel.namespaces",
            ));
        }
        self.check_namespace(path, &self.without_namespace)?;
        let mut names = HashSet::new();
        for (index, namespace) in self.namespaces.iter().enumerate() {
            let name = namespace.name.as_str();
            let path = if name.is_empty() {
                format!("channel.namespaces[{index}]")
            } else {
                format!("channel.namespaces[{index}] (`{name}`)")
            };
            if !is_namespace_name(name) {
                return Err(ConfigError::new(
                    format!("{path}.name"),
                    "must be two or more letters, digits, `-`, `_` or `.`",
                ));
            }
            if !names.insert(name) {
                return Err(ConfigError::new(
                    format!("{path}.name"),
                    "is there twice; names must differ",
                ));
            }
            self.check_namespace(&path, namespace)?;
            self.check_pattern(&path, index)?;
        }
        Ok(())
    }

    /// The characters that mean something in names.
    fn check_names(&self) -> Result<(), ConfigError> {
        let marks = [
            ("private_prefix", &self.private_prefix),
            ("namespace_boundary", &self.namespace_boundary),
            ("user_boundary", &self.user_boundary),
            ("user_separator", &self.user_separator),
        ];
        for (index, (option, mark)) in marks.iter().enumerate() {
            let path = || format!("channel.{option}");
            let is_mark = |byte: u8| byte.is_ascii_punctuation() && !b"-_./".contains(&byte);
            let may_be_empty = matches!(*option, "private_prefix" | "user_boundary");
            if mark.len() > MAX_MARK
                || !mark.bytes().all(is_mark)
                || mark.is_empty() && !may_be_empty
            {
                let problem = format!(
                    "must be at most {MAX_MARK} punctuation characters, and not `-`, `_`, `.` or `/`"
                );
                return Err(ConfigError::new(path(), problem));
            }
            if marks[..index]
                .iter()
                .any(|(_, other)| other == mark && !mark.is_empty())
            {
                let problem = format!("`{mark}` means something else already; they must differ");
                return Err(ConfigError::new(path(), problem));
            }
        }
        Ok(())
    }

    fn check_pattern(&self, path: &str, index: usize) -> Result<(), ConfigError> {
        let namespace = &self.namespaces[index];
        let Some(pattern) = &namespace.pattern else {
            return Ok(());
        };
        let error = |problem: String| Err(ConfigError::new(format!("{path}.pattern"), problem));
        if !self.patterns {
            return error("needs channel.patterns = true: channels that begin with `/` are then all matched with patterns".into());
        }
        if namespace.allow_user_limited_channels && !pattern.has_variable("user") {
            return Err(ConfigError::new(
                format!("{path}.allow_user_limited_channels"),
                "needs the variable `:user` in the pattern, which says whose channels these are",
            ));
        }
        let others = self.namespaces[..index].iter();
        let mut others = others.filter_map(|other| Some((&other.name, other.pattern.as_ref()?)));
        let twin = others.find(|(_, other)| {
            other.is_literal() == pattern.is_literal() && other.overlaps(pattern)
        });
        match twin {
            Some((name, other)) => error(format!(
                "there are channels which match this and the pattern of `{name}` ({}) alike",
                other.as_str()
            )),
            None => Ok(()),
        }
    }

    fn check_namespace(&self, path: &str, namespace: &NamespaceOptions) -> Result<(), ConfigError> {
        let option = |option: &str| format!("{path}.{option}");
        if (namespace.history_size == 0) != namespace.history_ttl.is_zero() {
            return Err(ConfigError::new(
                option("history_size"),
                "needs history_ttl, and the other way round: set both, or neither",
            ));
        }
        check_ttl(&option("history_ttl"), namespace.history_ttl)?;
        check_ttl(&option("history_meta_ttl"), namespace.history_meta_ttl)?;
        if namespace.history_ttl > self.meta_ttl(namespace) {
            return Err(ConfigError::new(
                option("history_ttl"),
                "must not be longer than history_meta_ttl (or channel.history_meta_ttl): publications without a position can't be recovered",
            ));
        }
        for (deliveries, name) in [
            (
                namespace.client_deliveries_per_second,
                "client_deliveries_per_second",
            ),
            (
                namespace.join_leave_deliveries_per_second,
                "join_leave_deliveries_per_second",
            ),
        ] {
            if deliveries > MAX_DELIVERIES {
                return Err(ConfigError::new(
                    option(name),
                    format!("must be at most {MAX_DELIVERIES}, or 0 for any number"),
                ));
            }
        }
        if namespace.history_size > MAX_HISTORY {
            return Err(ConfigError::new(
                option("history_size"),
                format!("must be at most {MAX_HISTORY}"),
            ));
        }
        for (set, name) in [
            (namespace.force_recovery, "force_recovery"),
            (namespace.allow_recovery, "allow_recovery"),
            (namespace.force_positioning, "force_positioning"),
            (namespace.allow_positioning, "allow_positioning"),
            (namespace.delta_publish, "delta_publish"),
        ] {
            if set && !namespace.has_history() {
                return Err(ConfigError::new(
                    option(name),
                    "needs history: set history_size and history_ttl",
                ));
            }
        }
        if namespace.auto_cache_recover
            && !(namespace.force_recovery && namespace.force_recovery_mode == RecoveryMode::Cache)
        {
            return Err(ConfigError::new(
                option("auto_cache_recover"),
                "needs force_recovery and force_recovery_mode = \"cache\"",
            ));
        }
        if namespace.slow_consumer == SlowConsumerOption::Park && !namespace.has_history() {
            return Err(ConfigError::new(
                option("slow_consumer"),
                "`park` needs history: set history_size and history_ttl, or choose `disconnect`, `drop_oldest` or `latest`",
            ));
        }
        if !namespace.slow_consumer_key_tag.is_empty()
            && namespace.slow_consumer != SlowConsumerOption::Latest
        {
            return Err(ConfigError::new(
                option("slow_consumer_key_tag"),
                "needs slow_consumer = \"latest\"",
            ));
        }
        let pattern = namespace.pattern.as_ref();
        let is_known = |name: &str| {
            name == "user" || pattern.is_some_and(|pattern| pattern.has_variable(name))
        };
        let filter = namespace.server_tags_filter.as_ref();
        let mut variables = filter.into_iter().flat_map(TagsFilterTemplate::variables);
        if let Some(unknown) = variables.find(|name| !is_known(name)) {
            return Err(ConfigError::new(
                option("server_tags_filter"),
                format!("`{{{{{unknown}}}}}` is neither the user nor a variable of the pattern"),
            ));
        }
        if namespace.force_push_join_leave && !namespace.join_leave {
            return Err(ConfigError::new(
                option("force_push_join_leave"),
                "needs join_leave",
            ));
        }
        Ok(())
    }
}

fn check_ttl(option: &str, ttl: Duration) -> Result<(), ConfigError> {
    if ttl.subsec_nanos() != 0 {
        return Err(ConfigError::new(option, "must be whole seconds"));
    }
    if ttl > MAX_TTL {
        return Err(ConfigError::new(
            option,
            "must be at most 87600h (ten years)",
        ));
    }
    Ok(())
}

fn is_namespace_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() >= 2 && name.bytes().all(allowed)
}

pub(crate) const MAX_NAME: usize = 4096;
/// More than any machine does; each takes some time of a bucket still.
const MAX_DELIVERIES: u64 = 1_000_000_000_000;
const MAX_MARK: usize = 8;
const MAX_HISTORY: usize = 1_000_000;
/// Short enough to be added to any time without an overflow.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
