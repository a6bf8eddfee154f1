//! What a channel's name says.

use std::fmt;

use tautline_protocol::ErrorCode;
use tautline_protocol::message::Error;

use crate::application::Refusal;
use crate::config::{HubConfig, MAX_NAME, NamespaceOptions};

/// What is wrong with a channel's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameFault {
    Empty,
    TooLong { length: usize, most: usize },
    NotAscii,
    NotAsWanted,
    NoNamespace,
}

impl NameFault {
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::NoNamespace => ErrorCode::UnknownChannel,
            _ => ErrorCode::BadRequest,
        }
    }
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the channel's name is missing or empty"),
            Self::TooLong { length, most } => write!(
                f,
                "the channel's name has {length} bytes, at most {most} are allowed (channel.max_length)"
            ),
            Self::NotAscii => f.write_str(
                "the channel's name is not in ASCII, and its namespace has no channel_regex",
            ),
            Self::NotAsWanted => {
                f.write_str("the channel's name is not as its namespace wants it (channel_regex)")
            }
            Self::NoNamespace => f.write_str("no namespace is that of the channel's name"),
        }
    }
}

impl From<NameFault> for ErrorCode {
    fn from(fault: NameFault) -> Self {
        fault.code()
    }
}

impl From<NameFault> for Error {
    fn from(fault: NameFault) -> Self {
        match fault.code() {
            // Clients know that text.
            code @ ErrorCode::UnknownChannel => code.into(),
            code => explained(code, fault),
        }
    }
}

impl From<NameFault> for Refusal {
    fn from(fault: NameFault) -> Self {
        Self::Error(fault.into())
    }
}

/// An error whose text says more than its code's.
pub(crate) fn explained(code: ErrorCode, why: impl fmt::Display) -> Error {
    Error {
        message: format!("{}: {why}", code.message()).into(),
        ..code.into()
    }
}

/// A channel's name that is valid, and what follows from it.
#[derive(Clone, Copy)]
pub(crate) struct ChannelName<'n, 'c> {
    pub(crate) full: &'n str,
    /// Behind the namespace's name and its boundary; all of a path.
    rest: &'n str,
    pub(crate) options: &'c NamespaceOptions,
    /// Starts with `$`: only for those with a token.
    pub(crate) is_private: bool,
    /// Where the namespace allows it: the users behind the last `#`, or those who stand for a variable
    /// of a pattern; the only ones who may subscribe without a token.
    users: Option<&'n str>,
    separator: &'c str,
}

impl<'n, 'c> ChannelName<'n, 'c> {
    /// A name that a client has made up: of what it asks to subscribe to, to publish into, or to look at.
    ///
    /// # Errors
    ///
    /// As for [`parse`](Self::parse), and error 107 for a name that is not in ASCII, or not as the namespace
    /// wants it (`channel_regex`).
    pub(crate) fn parse_asked(config: &'c HubConfig, full: &'n str) -> Result<Self, NameFault> {
        let name = Self::parse(config, full)?;
        match &name.options.channel_regex {
            None if !full.is_ascii() => Err(NameFault::NotAscii),
            Some(regex) if !regex.is_match(name.rest) => Err(NameFault::NotAsWanted),
            _ => Ok(name),
        }
    }

    /// A name that the operator's side says: a token, the server API, a handler, the personal channel of a user
    /// whose id is what it is. How it is spelt is their business.
    ///
    /// # Errors
    ///
    /// Error 107 for a name that is empty or too long; 102 for an unknown namespace.
    pub(crate) fn parse(config: &'c HubConfig, full: &'n str) -> Result<Self, NameFault> {
        Self::check_length(config, full)?;
        let channel = &config.channel;
        let prefix = &*channel.private_prefix;
        let (is_private, name) = match full.strip_prefix(prefix) {
            Some(name) if !prefix.is_empty() => (true, name),
            _ => (false, full),
        };
        let is_path = channel.patterns && name.starts_with('/');
        let (options, rest) = if is_path {
            (config.namespace_of_path(name), name)
        } else {
            match name.split_once(&*channel.namespace_boundary) {
                None => (config.namespace(None), name),
                Some((namespace, rest)) => (config.namespace(Some(namespace)), rest),
            }
        };
        let options = options.ok_or(NameFault::NoNamespace)?;
        let users = match &options.pattern {
            _ if !options.allow_user_limited_channels => None,
            Some(pattern) => pattern.variable("user", name),
            None if channel.user_boundary.is_empty() => None,
            None => full
                .rsplit_once(&*channel.user_boundary)
                .map(|(_, users)| users),
        };
        Ok(Self {
            full,
            rest,
            options,
            is_private,
            users,
            separator: &channel.user_separator,
        })
    }

    /// What stands for a variable of the namespace's pattern.
    pub(crate) fn variable(&self, name: &str) -> Option<&'n str> {
        let path = self.full.find('/').map(|start| &self.full[start..]);
        self.options.pattern.as_ref()?.variable(name, path?)
    }

    pub(crate) fn check_length(config: &HubConfig, full: &str) -> Result<(), NameFault> {
        let most = config.channel.max_length;
        // What the option may be at the most, no name goes beyond.
        let most = if config.dry_run { MAX_NAME } else { most };
        let length = full.len();
        match length {
            0 => Err(NameFault::Empty),
            _ if length > most => Err(NameFault::TooLong { length, most }),
            _ => Ok(()),
        }
    }

    /// Whether only listed users may subscribe without a token.
    pub(crate) fn is_user_limited(&self) -> bool {
        self.users.is_some()
    }

    /// Whether `user` is listed in the name. (The anonymous user never is: `x#` is for nobody.)
    pub(crate) fn lists(&self, user: &str) -> bool {
        let mut users = self.users.unwrap_or_default().split(self.separator);
        !user.is_empty() && users.any(|listed| listed == user)
    }
}

#[cfg(test)]
mod tests {
    use tautline_auth::Pattern;

    use super::*;
    use crate::config::{ChannelOptions, ChannelPattern, ClientOptions};

    fn config() -> HubConfig {
        let chat = NamespaceOptions {
            name: "chat".into(),
            allow_user_limited_channels: true,
            ..NamespaceOptions::default()
        };
        let channel = ChannelOptions {
            namespaces: vec![chat],
            ..ChannelOptions::default()
        };
        HubConfig::new(ClientOptions::default(), channel, None).unwrap()
    }

    #[test]
    fn the_namespace_is_what_stands_before_the_first_colon() {
        let config = config();
        for (name, namespace) in [
            ("news", ""),
            ("chat:7", "chat"),
            ("$chat:7", "chat"),
            ("chat:7:8", "chat"),
            ("chat:", "chat"),
            ("chat", ""),
        ] {
            let parsed = ChannelName::parse(&config, name).ok().unwrap();
            assert_eq!(parsed.options.name, namespace, "{name}");
            assert_eq!(parsed.is_private, name.starts_with('$'));
        }
    }

    #[test]
    fn bad_names_are_told_from_unknown_namespaces() {
        let config = config();
        for (name, code) in [
            ("", ErrorCode::BadRequest),
            (&*"x".repeat(256), ErrorCode::BadRequest),
            ("nope:1", ErrorCode::UnknownChannel),
            (":1", ErrorCode::UnknownChannel),
            ("$nope:1", ErrorCode::UnknownChannel),
        ] {
            assert_eq!(
                ChannelName::parse(&config, name).err().map(NameFault::code),
                Some(code),
                "{name}"
            );
        }
        assert!(ChannelName::parse(&config, &"x".repeat(255)).is_ok());
    }

    #[test]
    fn how_a_name_is_spelt_matters_where_a_client_has_made_it_up() {
        let config = config();
        for name in ["caf\u{e9}", "chat:#jos\u{e9}"] {
            assert!(ChannelName::parse(&config, name).is_ok(), "{name}");
            let asked = ChannelName::parse_asked(&config, name).err();
            assert_eq!(asked, Some(NameFault::NotAscii), "{name}");
        }
        assert!(ChannelName::parse_asked(&config, "chat:a").is_ok());
        let unknown = ChannelName::parse_asked(&config, "nope:caf\u{e9}").err();
        assert_eq!(unknown, Some(NameFault::NoNamespace));
    }

    #[test]
    fn users_are_listed_behind_the_last_hash() {
        let config = config();
        let name = ChannelName::parse(&config, "chat:a#b#42,43").ok().unwrap();
        assert!(name.is_user_limited());
        assert!(name.lists("42") && name.lists("43"));
        assert!(!name.lists("4") && !name.lists("") && !name.lists("b"));
        assert!(
            !ChannelName::parse(&config, "chat:a#")
                .ok()
                .unwrap()
                .lists("")
        );
        // Not allowed outside of the namespace: the `#` means nothing there.
        assert!(
            !ChannelName::parse(&config, "a#42")
                .ok()
                .unwrap()
                .is_user_limited()
        );
    }

    #[test]
    fn names_can_be_what_a_namespace_wants_them_to_be() {
        let mut channel = config().channel;
        channel.namespaces[0].channel_regex = Some(Pattern::new("^[a-z\u{e9}]+$").unwrap());
        let config = HubConfig::new(ClientOptions::default(), channel, None).unwrap();
        let parse = |name| {
            let parsed = ChannelName::parse_asked(&config, name);
            parsed.err().map(NameFault::code)
        };
        assert_eq!(parse("chat:caf\u{e9}"), None, "ASCII is not asked for");
        assert_eq!(parse("$chat:a"), None);
        for name in ["chat:7", "chat:", "chat:a:b", "caf\u{e9}"] {
            assert_eq!(parse(name), Some(ErrorCode::BadRequest), "{name}");
        }
    }

    #[test]
    fn paths_are_in_the_namespace_whose_pattern_they_match() {
        let namespace = |name: &str, pattern: &str| NamespaceOptions {
            name: name.into(),
            pattern: Some(ChannelPattern::parse(pattern).unwrap()),
            allow_user_limited_channels: pattern.contains(":user"),
            ..NamespaceOptions::default()
        };
        let channel = ChannelOptions {
            patterns: true,
            namespaces: vec![
                namespace("orders", "/users/:user/orders"),
                namespace("user", "/users/:name"),
                namespace("me", "/users/me"),
            ],
            ..ChannelOptions::default()
        };
        let config = HubConfig::new(ClientOptions::default(), channel, None).unwrap();
        for (name, namespace) in [
            ("/users/42/orders", "orders"),
            ("/users/42", "user"),
            ("/users/me", "me"),
            ("$/users/42", "user"),
            ("users", ""),
        ] {
            let parsed = ChannelName::parse(&config, name).ok().unwrap();
            assert_eq!(parsed.options.name, namespace, "{name}");
        }
        for name in ["/", "/users", "/users/", "/users/1/2", "orders:1", "me:1"] {
            let code = ChannelName::parse(&config, name).err().map(NameFault::code);
            assert_eq!(code, Some(ErrorCode::UnknownChannel), "{name}");
        }
        let orders = ChannelName::parse(&config, "/users/42/orders")
            .ok()
            .unwrap();
        assert!(orders.is_user_limited() && orders.lists("42") && !orders.lists("4"));
        let user = ChannelName::parse(&config, "/users/42").ok().unwrap();
        assert!(!user.is_user_limited());
    }

    #[test]
    fn the_characters_that_mean_something_can_be_others() {
        let mut channel = config().channel;
        channel.private_prefix = String::new();
        channel.namespace_boundary = "::".into();
        channel.user_boundary = "@".into();
        channel.user_separator = "|".into();
        let config = HubConfig::new(ClientOptions::default(), channel, None).unwrap();
        let name = ChannelName::parse(&config, "chat::a@42|43").ok().unwrap();
        assert_eq!(name.options.name, "chat");
        assert!(name.lists("42") && name.lists("43") && !name.lists("42|43"));
        let name = ChannelName::parse(&config, "$a:b#42").ok().unwrap();
        assert!(!name.is_private && !name.is_user_limited() && name.options.name.is_empty());
    }
}
