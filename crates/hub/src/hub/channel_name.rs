//! What a channel's name says.

use tautline_protocol::ErrorCode;

use crate::config::{HubConfig, NamespaceOptions};

/// A channel's name that is valid, and what follows from it.
#[derive(Clone, Copy)]
pub(crate) struct ChannelName<'n, 'c> {
    pub(crate) full: &'n str,
    pub(crate) options: &'c NamespaceOptions,
    /// Starts with `$`: only for those with a token.
    pub(crate) is_private: bool,
    /// Where the namespace allows it: the users behind the last `#`, the only ones who may
    /// subscribe without a token.
    users: Option<&'n str>,
}

impl<'n, 'c> ChannelName<'n, 'c> {
    /// # Errors
    ///
    /// Error 107 for a name that is too long or not in ASCII, 102 for an unknown namespace.
    pub(crate) fn parse(config: &'c HubConfig, full: &'n str) -> Result<Self, ErrorCode> {
        Self::check_length(config, full)?;
        let (is_private, name) = match full.strip_prefix(PRIVATE_PREFIX) {
            Some(name) => (true, name),
            None => (false, full),
        };
        let namespace = name
            .split_once(NAMESPACE_BOUNDARY)
            .map(|(namespace, _)| namespace);
        let options = config
            .namespace(namespace)
            .ok_or(ErrorCode::UnknownChannel)?;
        if !full.is_ascii() {
            return Err(ErrorCode::BadRequest);
        }
        let users = full.rsplit_once(USER_BOUNDARY).map(|(_, users)| users);
        let users = users.filter(|_| options.allow_user_limited_channels);
        Ok(Self {
            full,
            options,
            is_private,
            users,
        })
    }

    pub(crate) fn check_length(config: &HubConfig, full: &str) -> Result<(), ErrorCode> {
        if full.is_empty() || full.len() > config.channel.max_length {
            return Err(ErrorCode::BadRequest);
        }
        Ok(())
    }

    /// Whether only listed users may subscribe without a token.
    pub(crate) fn is_user_limited(&self) -> bool {
        self.users.is_some()
    }

    /// Whether `user` is listed in the name. (The anonymous user never is: `x#` is for nobody.)
    pub(crate) fn lists(&self, user: &str) -> bool {
        let mut users = self.users.unwrap_or_default().split(USER_SEPARATOR);
        !user.is_empty() && users.any(|listed| listed == user)
    }
}

const PRIVATE_PREFIX: char = '$';
const NAMESPACE_BOUNDARY: char = ':';
const USER_BOUNDARY: char = '#';
const USER_SEPARATOR: char = ',';

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ChannelOptions, ClientOptions};

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
            ("caf\u{e9}", ErrorCode::BadRequest),
            (&*"x".repeat(256), ErrorCode::BadRequest),
            ("nope:1", ErrorCode::UnknownChannel),
            (":1", ErrorCode::UnknownChannel),
            ("$nope:1", ErrorCode::UnknownChannel),
        ] {
            assert_eq!(
                ChannelName::parse(&config, name).err(),
                Some(code),
                "{name}"
            );
        }
        assert!(ChannelName::parse(&config, &"x".repeat(255)).is_ok());
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
}
