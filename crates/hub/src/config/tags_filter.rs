//! Filters that a namespace imposes on its subscribers.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error as _};
use tautline_protocol::filter::{Filter, FilterLimits, RawFilter};

/// A tags filter in which `{{user}}` stands for the subscriber's user id, and `{{name}}` for a variable
/// of the channel's pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagsFilterTemplate {
    text: Box<str>,
    /// What stands in it for something else, each once.
    variables: Box<[Box<str>]>,
}

/// A text that is no filter, even with everything filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a tags filter such as {{\"key\":\"owner\",\"cmp\":\"eq\",\"val\":\"{{{{user}}}}\"}}: {0}"
)]
pub struct TagsFilterError(String);

impl TagsFilterTemplate {
    /// Reads the JSON text of a filter.
    ///
    /// ```
    /// use tautline_hub::config::TagsFilterTemplate;
    ///
    /// let filter = TagsFilterTemplate::parse(r#"{"key":"owner","cmp":"eq","val":"{{user}}"}"#)?;
    /// assert!(TagsFilterTemplate::parse(r#"{"key":"owner"}"#).is_err());
    /// # Ok::<(), tautline_hub::config::TagsFilterError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, TagsFilterError> {
        let mut variables: Vec<Box<str>> = Vec::new();
        let mut rest = text;
        while let Some((_, behind)) = rest.split_once(OPEN) {
            let Some((name, behind)) = behind.split_once(CLOSE) else {
                break;
            };
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || !name.bytes().all(is_name) {
                let problem = format!("`{name}` is no name of a variable");
                return Err(TagsFilterError(problem.chars().take(100).collect()));
            }
            if !variables.iter().any(|known| **known == *name) {
                variables.push(name.into());
            }
            rest = behind;
        }
        let template = Self {
            text: text.into(),
            variables: variables.into(),
        };
        let filled = template.fill(|_| Some("x"));
        let filled = filled.unwrap_or_default();
        let filter = RawFilter::Json(&filled).parse(&FilterLimits::default());
        match filter {
            Ok(_) => Ok(template),
            Err(error) => Err(TagsFilterError(error.to_string())),
        }
    }

    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|name| &**name)
    }

    /// The filter with everything filled in; `None` where something is empty or isn't known, or where
    /// it makes the filter larger than a filter may be.
    pub(crate) fn filter<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Option<Filter> {
        let text = self.fill(value)?;
        RawFilter::Json(&text).parse(&FilterLimits::default()).ok()
    }

    fn fill<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Option<Cow<'_, str>> {
        let mut text = Cow::Borrowed(&*self.text);
        for name in &self.variables {
            // Nobody in particular must not get what belongs to nobody in particular.
            let value = value(name).filter(|value| !value.is_empty())?;
            // It stands inside of a JSON string, and might look like another variable.
            let value = serde_json::to_string(value).ok()?.replace('{', "\\u007b");
            let value = &value[1..value.len() - 1];
            text = Cow::Owned(text.replace(&format!("{OPEN}{name}{CLOSE}"), value));
        }
        Some(text)
    }
}

impl<'de> Deserialize<'de> for TagsFilterTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn matches(filter: &Filter, owner: &str) -> bool {
        filter.matches(&BTreeMap::from([("owner".into(), owner.into())]))
    }

    #[test]
    fn what_is_filled_in_stays_a_value() {
        let template =
            TagsFilterTemplate::parse(r#"{"key":"owner","cmp":"eq","val":"{{user}}"}"#).unwrap();
        for user in [
            "42",
            r#"","cmp":"ex"#,
            "\\",
            "\u{e9}\n",
            "{{user}}",
            "}}",
            "{{other}}",
        ] {
            let filter = template.filter(|_| Some(user)).unwrap();
            assert!(matches(&filter, user), "{user}");
            assert!(!matches(&filter, "7") && !matches(&filter, ""), "{user}");
        }
        assert_eq!(template.variables().collect::<Vec<_>>(), ["user"]);
    }

    #[test]
    fn one_value_can_not_bring_in_another() {
        let text = r#"{"key":"owner","cmp":"in","vals":["{{team}}","{{user}}"]}"#;
        let template = TagsFilterTemplate::parse(text).unwrap();
        let value = |name: &str| Some(if name == "team" { "{{user}}" } else { "42" });
        let filter = template.filter(value).unwrap();
        assert!(matches(&filter, "{{user}}") && matches(&filter, "42"));
    }

    #[test]
    fn nothing_and_too_much_make_no_filter() {
        let text = r#"{"key":"owner","cmp":"in","vals":["{{user}}","all"]}"#;
        let template = TagsFilterTemplate::parse(text).unwrap();
        assert_eq!(template.filter(|_| Some("")), None);
        assert_eq!(template.filter(|_| None), None);
        let long = "x".repeat(5000);
        assert_eq!(template.filter(|_| Some(&long)), None);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "",
            "{}",
            r#"{"key":"a"}"#,
            r#"{"key":"a","cmp":"eq","val":{{user}}}"#,
            r#"{"key":"a","cmp":"eq","val":"{{a b}}"}"#,
            r#"{"key":"a","cmp":"eq","val":"{{}}"}"#,
        ] {
            let error = TagsFilterTemplate::parse(text).unwrap_err().to_string();
            assert!(error.contains(r#""val":"{{user}}"}: "#), "{error}");
        }
    }
}
