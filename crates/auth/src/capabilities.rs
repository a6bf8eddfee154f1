//! What a token lets its bearer do in channels, beside what their namespaces let everybody do.
//!
//! The claim `caps` of a connection token is a list of rules, each with names of channels and with what
//! is allowed there. The first rule that has a channel decides:
//!
//! ```json
//! [
//!     {"channels": ["news"], "allow": ["sub"]},
//!     {"channels": ["user_*"], "match": "wildcard", "allow": ["sub", "pub", "hst", "prs"]},
//!     {"channels": ["^posts_[0-9]+$"], "match": "regex", "allow": ["sub"]}
//! ]
//! ```
//!
//! The claim `allow` of a subscription token is such a list for the token's channel.

use std::ops::BitOr;

use serde::Deserialize;

use crate::error::InvalidToken;
use crate::pattern::Pattern;

/// Things that somebody may do in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Allowed(u8);

impl Allowed {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    /// `sub`: subscribe.
    pub const SUBSCRIBE: Self = Self(1);
    /// `pub`: publish.
    pub const PUBLISH: Self = Self(2);
    /// `prs`: ask who is there, and be told who comes and goes.
    pub const PRESENCE: Self = Self(4);
    /// `hst`: read history, and ask for positioning and recovery.
    pub const HISTORY: Self = Self(8);

    /// Whether all of `what` is among them.
    pub const fn has(self, what: Self) -> bool {
        self.0 & what.0 == what.0
    }

    /// Names that aren't known allow nothing: they are for somebody else.
    pub(crate) fn from_names(names: &[String]) -> Self {
        let names = names.iter().map(|name| match name.as_str() {
            "sub" => Self::SUBSCRIBE,
            "pub" => Self::PUBLISH,
            "prs" => Self::PRESENCE,
            "hst" => Self::HISTORY,
            _ => Self::NOTHING,
        });
        names.fold(Self::NOTHING, BitOr::bitor)
    }
}

impl BitOr for Allowed {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What the bearer of a connection token may do in which channels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capabilities(Box<[Rule]>);

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    channels: Channels,
    allow: Allowed,
}

#[derive(Clone, Debug, PartialEq)]
enum Channels {
    Exact(Box<[Box<str>]>),
    /// With `*` for any characters, or none.
    Wildcard(Box<[Box<str>]>),
    Regex(Box<[Pattern]>),
}

impl Capabilities {
    /// Reads a list of rules as they stand in a token.
    ///
    /// ```
    /// use tautline_auth::{Allowed, Capabilities};
    ///
    /// let rules = br#"[{"channels": ["user_*"], "match": "wildcard", "allow": ["sub"]}]"#;
    /// let capabilities = Capabilities::from_json(rules)?;
    /// assert!(capabilities.of("user_42").has(Allowed::SUBSCRIBE));
    /// assert!(!capabilities.of("news").has(Allowed::SUBSCRIBE));
    /// # Ok::<(), tautline_auth::InvalidToken>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidToken::Claims`] if they can't be read, or are too many.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidToken> {
        let rules: Vec<RawRule> = serde_json::from_slice(json)
            .map_err(|error| InvalidToken::Claims(format!("`caps`: {error}")))?;
        Self::from_rules(rules)
    }

    /// What the first rule that has the channel allows; nothing if none has. Allocates nothing, and
    /// takes time in proportion to the rules and the name.
    pub fn of(&self, channel: &str) -> Allowed {
        let mut rules = self.0.iter();
        let rule = rules.find(|rule| match &rule.channels {
            Channels::Exact(names) => names.iter().any(|name| **name == *channel),
            Channels::Wildcard(patterns) => patterns
                .iter()
                .any(|pattern| matches_wildcard(pattern.as_bytes(), channel.as_bytes())),
            Channels::Regex(patterns) => patterns.iter().any(|pattern| pattern.is_match(channel)),
        });
        rule.map_or(Allowed::NOTHING, |rule| rule.allow)
    }
}

/// A rule as it is written.
#[derive(Deserialize)]
pub(crate) struct RawRule {
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default, rename = "match")]
    kind: Kind,
    #[serde(default)]
    allow: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    #[serde(alias = "")]
    Exact,
    Wildcard,
    Regex,
}

impl Capabilities {
    pub(crate) fn from_rules(rules: Vec<RawRule>) -> Result<Self, InvalidToken> {
        let channels: usize = rules.iter().map(|rule| rule.channels.len()).sum();
        check("rules", rules.len(), MAX_RULES)?;
        check("channels", channels, MAX_CHANNELS)?;
        let regexes = rules.iter().filter(|rule| matches!(rule.kind, Kind::Regex));
        let regexes = regexes.map(|rule| rule.channels.len()).sum();
        check("regular expressions", regexes, MAX_REGEXES)?;
        let rules = rules.into_iter().map(|rule| {
            let names = |names: Vec<String>| names.into_iter().map(Into::into).collect();
            Ok(Rule {
                allow: Allowed::from_names(&rule.allow),
                channels: match rule.kind {
                    Kind::Exact => Channels::Exact(names(rule.channels)),
                    Kind::Wildcard => Channels::Wildcard(names(rule.channels)),
                    Kind::Regex => {
                        let patterns = rule.channels.iter().map(|text| Pattern::new(text));
                        let patterns: Result<_, _> = patterns.collect();
                        let invalid = |error| InvalidToken::Claims(format!("`caps`: {error}"));
                        Channels::Regex(patterns.map_err(invalid)?)
                    }
                },
            })
        });
        Ok(Self(rules.collect::<Result<_, InvalidToken>>()?))
    }
}

fn check(what: &str, count: usize, most: usize) -> Result<(), InvalidToken> {
    if count <= most {
        return Ok(());
    }
    let problem = format!("`caps` has {count} {what}, at most {most} are accepted");
    Err(InvalidToken::Claims(problem))
}

/// Whether a text is what a pattern says in which `*` is anything. Goes back to the last `*` only, so
/// that no pattern takes longer than its length times that of the text.
fn matches_wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    // Where to go on when what follows the last `*` doesn't match: the pattern behind it, and one byte
    // further in the text.
    let mut retry = None;
    while place < text.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, place));
        } else if pattern.get(at) == Some(&text[place]) {
            at += 1;
            place += 1;
        } else if let Some((behind, start)) = retry {
            (at, place) = (behind, start + 1);
            retry = Some((behind, start + 1));
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Rules of one token.
const MAX_RULES: usize = 100;
/// Names and patterns in all of them.
const MAX_CHANNELS: usize = 500;
/// Regular expressions among them: each takes some KiB for as long as its connection lives.
const MAX_REGEXES: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(json: &serde_json::Value) -> Result<Capabilities, InvalidToken> {
        let rules: Vec<RawRule> = serde_json::from_value(json.clone()).unwrap();
        Capabilities::from_rules(rules)
    }

    #[test]
    fn the_first_rule_that_has_the_channel_decides() {
        let capabilities = read(&json!([
            {"channels": ["news", "user_42"], "allow": ["sub"]},
            {"channels": ["user_42"], "allow": ["pub", "hst", "prs"]},
            {"channels": ["^posts_[\\d]+$"], "match": "regex", "allow": ["sub", "hst"]},
            {"channels": ["user_*"], "match": "wildcard", "allow": ["prs"]},
            {"channels": ["user_*"], "match": "exact", "allow": ["pub"]},
        ]))
        .unwrap();
        for (channel, allowed) in [
            ("news", Allowed::SUBSCRIBE),
            ("user_42", Allowed::SUBSCRIBE),
            ("user_43", Allowed::PRESENCE),
            ("user_", Allowed::PRESENCE),
            ("posts_1", Allowed::SUBSCRIBE | Allowed::HISTORY),
            ("posts_x", Allowed::NOTHING),
            ("my_posts_1", Allowed::NOTHING),
            ("New", Allowed::NOTHING),
            ("", Allowed::NOTHING),
        ] {
            assert_eq!(capabilities.of(channel), allowed, "{channel}");
        }
    }

    #[test]
    fn a_star_without_a_rule_for_stars_is_a_star() {
        let capabilities = read(&json!([{"channels": ["*"], "allow": ["pub"]}])).unwrap();
        assert_eq!(capabilities.of("*"), Allowed::PUBLISH);
        assert_eq!(capabilities.of("news"), Allowed::NOTHING);
    }

    #[test]
    fn unknown_names_allow_nothing_and_unknown_kinds_are_refused() {
        let capabilities = read(&json!([{"channels": ["a"], "allow": ["sub", "fly"]}])).unwrap();
        assert_eq!(capabilities.of("a"), Allowed::SUBSCRIBE);
        assert_eq!(read(&json!([{}])).unwrap().of("a"), Allowed::NOTHING);
        let odd = json!([{"channels": ["a"], "match": "prefix", "allow": ["sub"]}]);
        assert!(serde_json::from_value::<Vec<RawRule>>(odd).is_err());
    }

    #[test]
    fn number_and_size_are_limited() {
        let names = |count: usize| (0..count).map(|name| name.to_string()).collect::<Vec<_>>();
        for (rules, problem) in [
            (json!(vec![json!({}); 101]), "101 rules, at most 100"),
            (
                json!([{"channels": names(501)}]),
                "501 channels, at most 500",
            ),
            (
                json!([{"channels": names(17), "match": "regex"}]),
                "17 regular expressions, at most 16",
            ),
            (
                json!([{"channels": ["("], "match": "regex"}]),
                "can't be used",
            ),
            (
                json!([{"channels": ["(a{99}){99}"], "match": "regex"}]),
                "can't be used",
            ),
        ] {
            let error = read(&rules).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    proptest! {
        /// Against the regular expression that says the same.
        #[test]
        fn stars_are_anything(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let regex = format!("^{}$", pattern.replace('*', ".*"));
            let expected = Pattern::new(&regex).unwrap().is_match(&text);
            prop_assert_eq!(matches_wildcard(pattern.as_bytes(), text.as_bytes()), expected);
        }
    }
}
