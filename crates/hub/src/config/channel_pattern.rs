//! Channels named like paths: which namespace has them.
//!
//! A namespace with a pattern such as `/users/:user/orders` has all channels with that many segments,
//! of which each is what the pattern says: the same text, or, where that has a variable, the same text
//! before it and at least one character for it.

use serde::de::{Deserialize, Deserializer, Error as _};

/// A pattern of channel names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelPattern {
    text: Box<str>,
    segments: Box<[Segment]>,
}

/// What stands between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    literal: Box<str>,
    /// Name of what stands behind it, up to the next slash.
    variable: Option<Box<str>>,
}

/// A text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a pattern such as /users/:user/orders: {problem}")]
pub struct ChannelPatternError {
    pattern: String,
    problem: &'static str,
}

impl ChannelPattern {
    /// Reads a pattern.
    ///
    /// ```
    /// use tautline_hub::config::ChannelPattern;
    ///
    /// let pattern = ChannelPattern::parse("/users/:user/orders")?;
    /// assert!(pattern.matches("/users/42/orders"));
    /// assert_eq!(pattern.variable("user", "/users/42/orders"), Some("42"));
    /// assert!(!pattern.matches("/users//orders") && !pattern.matches("/users/42"));
    /// # Ok::<(), tautline_hub::config::ChannelPatternError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ChannelPatternError> {
        let error = |problem| ChannelPatternError {
            pattern: text.chars().take(60).collect(),
            problem,
        };
        if !text.is_ascii() {
            return Err(error("it must be ASCII"));
        }
        let Some(path) = text.strip_prefix('/') else {
            return Err(error("it must begin with a slash"));
        };
        let mut segments: Vec<Segment> = Vec::new();
        for segment in path.split('/') {
            let (literal, variable) = match segment.split_once(':') {
                None => (segment, None),
                Some((literal, variable)) => (literal, Some(variable)),
            };
            if literal.is_empty() && variable.is_none() {
                return Err(error("there must be something between two slashes"));
            }
            let is_name = |name: &str| {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                !name.is_empty() && name.bytes().all(allowed)
            };
            if !variable.is_none_or(is_name) {
                return Err(error(
                    "a variable has a name of letters, digits and `_`, and ends its segment",
                ));
            }
            if variable.is_some()
                && segments
                    .iter()
                    .any(|known| known.variable.as_deref() == variable)
            {
                return Err(error("no variable may be there twice"));
            }
            segments.push(Segment {
                literal: literal.into(),
                variable: variable.map(Into::into),
            });
        }
        Ok(Self {
            text: text.into(),
            segments: segments.into(),
        })
    }

    /// Whether a channel has such a name.
    pub fn matches(&self, channel: &str) -> bool {
        let Some(path) = channel.strip_prefix('/') else {
            return false;
        };
        let mut parts = path.split('/');
        let mut segments = self.segments.iter();
        segments.all(|segment| parts.next().is_some_and(|part| segment.matches(part)))
            && parts.next().is_none()
    }

    /// What stands for a variable in the name of a channel that matches.
    pub fn variable<'n>(&self, name: &str, channel: &'n str) -> Option<&'n str> {
        let segments = self.segments.iter();
        let mut parts = segments.zip(channel.strip_prefix('/')?.split('/'));
        parts.find_map(|(segment, part)| {
            let is_it = segment.variable.as_deref() == Some(name);
            part.strip_prefix(&*segment.literal).filter(|_| is_it)
        })
    }

    /// The text that it was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has a variable of that name.
    pub fn has_variable(&self, name: &str) -> bool {
        let mut segments = self.segments.iter();
        segments.any(|segment| segment.variable.as_deref() == Some(name))
    }

    /// Whether it has no variables, so that it is the name of one channel.
    pub(crate) fn is_literal(&self) -> bool {
        self.segments
            .iter()
            .all(|segment| segment.variable.is_none())
    }

    /// Whether there is a name that matches both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let mut pairs = self.segments.iter().zip(&other.segments);
        self.segments.len() == other.segments.len() && pairs.all(|(one, two)| one.overlaps(two))
    }
}

impl Segment {
    fn matches(&self, part: &str) -> bool {
        match self.variable {
            None => *self.literal == *part,
            Some(_) => part.len() > self.literal.len() && part.starts_with(&*self.literal),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        match (&self.variable, &other.variable) {
            (_, None) => self.matches(&other.literal),
            (None, _) => other.matches(&self.literal),
            (Some(_), Some(_)) => {
                self.literal.starts_with(&*other.literal)
                    || other.literal.starts_with(&*self.literal)
            }
        }
    }
}

impl<'de> Deserialize<'de> for ChannelPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> ChannelPattern {
        ChannelPattern::parse(text).unwrap()
    }

    #[test]
    fn variables_stand_for_one_segment_or_its_end() {
        for (text, channel, matches) in [
            ("/users/:name", "/users/mary", true),
            ("/users/:name", "/users/john", true),
            ("/users/:name", "/users/mary/profile", false),
            ("/users/:name", "/users/", false),
            ("/users/:name", "/users", false),
            ("/users/:name", "users/mary", false),
            ("/news/:type/:subtype", "/news/sport/football", true),
            ("/news/:type/:subtype", "/news/sport", false),
            ("/news/:type/:subtype", "/news//football", false),
            ("/personal/user_:user", "/personal/user_mary", true),
            ("/personal/user_:user", "/personal/user_", false),
            ("/personal/user_:user", "/personal/mary", false),
            ("/all", "/all", true),
            ("/all", "/all/", false),
        ] {
            assert_eq!(pattern(text).matches(channel), matches, "{text} {channel}");
        }
    }

    #[test]
    fn what_stands_for_a_variable_can_be_told() {
        let pattern = pattern("/events/p_:project/:kind");
        let channel = "/events/p_42/news";
        assert_eq!(pattern.variable("project", channel), Some("42"));
        assert_eq!(pattern.variable("kind", channel), Some("news"));
        assert_eq!(pattern.variable("user", channel), None);
        assert!(pattern.has_variable("kind") && !pattern.has_variable("user"));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "users/:name",
            "/",
            "/users/",
            "//a",
            "/users/:",
            "/users/:a-b",
            "/:user/:user",
            "/caf\u{e9}",
            "/:a:b",
        ] {
            let error = ChannelPattern::parse(text).unwrap_err().to_string();
            assert!(error.contains("/users/:user/orders: "), "{error}");
        }
    }

    proptest! {
        /// Patterns are said to overlap if, and only if, some channel has both.
        #[test]
        fn patterns_overlap_where_a_channel_matches_both(
            one in "(/(a|b|ab|:x|a:x|ab:x)){1,2}",
            two in "(/(a|b|ab|:x|a:x|ab:x)){1,2}",
        ) {
            let (Ok(one), Ok(two)) = (ChannelPattern::parse(&one), ChannelPattern::parse(&two)) else {
                return Ok(());
            };
            let parts = ["a", "b", "ab", "aba", "abb", "aa"];
            let mut channels: Vec<String> = parts.iter().map(|part| format!("/{part}")).collect();
            for part in parts {
                channels.extend(parts.iter().map(|other| format!("/{part}/{other}")));
            }
            let both = channels.iter().any(|name| one.matches(name) && two.matches(name));
            prop_assert_eq!(one.overlaps(&two), both);
        }
    }
}
