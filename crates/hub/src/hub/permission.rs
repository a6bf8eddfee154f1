//! Who may do what in a channel: by the options of its namespace, or by a token.

use tautline_auth::Allowed;

use crate::config::{HubConfig, NamespaceOptions};

/// What a session may do in a channel.
#[derive(Clone, Copy)]
pub(crate) struct Permissions<'a> {
    pub(crate) options: &'a NamespaceOptions,
    /// The user id is empty.
    pub(crate) is_anonymous: bool,
    pub(crate) is_subscribed: bool,
    /// Everything is allowed.
    pub(crate) is_insecure: bool,
    /// By a token, whatever the namespace says.
    pub(crate) allowed: Allowed,
}

impl<'a> Permissions<'a> {
    pub(crate) fn new(
        config: &HubConfig,
        options: &'a NamespaceOptions,
        user: &str,
        is_subscribed: bool,
    ) -> Self {
        let is_insecure = config.client.insecure;
        Self {
            options,
            is_anonymous: user.is_empty(),
            is_subscribed,
            is_insecure,
            allowed: Allowed::NOTHING,
        }
    }

    /// With what a token allows.
    #[must_use]
    pub(crate) fn with(self, allowed: Allowed) -> Self {
        Self { allowed, ..self }
    }

    /// By what the token of the connection allows.
    pub(crate) fn may_subscribe_by_capability(&self) -> bool {
        self.allowed.has(Allowed::SUBSCRIBE)
    }

    /// Without a token, and not by being listed in the channel's name.
    pub(crate) fn may_subscribe(&self) -> bool {
        let options = self.options;
        self.is_insecure
            || options.allow_subscribe_for_client
                && (!self.is_anonymous || options.allow_subscribe_for_anonymous)
    }

    pub(crate) fn may_publish(&self) -> bool {
        let options = self.options;
        self.may(
            options.allow_publish_for_client,
            options.allow_publish_for_subscriber,
            options.allow_publish_for_anonymous,
            Allowed::PUBLISH,
        )
    }

    pub(crate) fn may_read_presence(&self) -> bool {
        let options = self.options;
        self.may(
            options.allow_presence_for_client,
            options.allow_presence_for_subscriber,
            options.allow_presence_for_anonymous,
            Allowed::PRESENCE,
        )
    }

    pub(crate) fn may_read_history(&self) -> bool {
        let options = self.options;
        self.may(
            options.allow_history_for_client,
            options.allow_history_for_subscriber,
            options.allow_history_for_anonymous,
            Allowed::HISTORY,
        )
    }

    /// Why a client may not do what needs `what`, where it may not.
    pub(crate) fn why_not(&self, what: Allowed) -> &'static str {
        let options = self.options;
        let (for_client, for_subscriber) = match what {
            Allowed::PUBLISH => (
                options.allow_publish_for_client,
                options.allow_publish_for_subscriber,
            ),
            Allowed::PRESENCE => (
                options.allow_presence_for_client,
                options.allow_presence_for_subscriber,
            ),
            Allowed::HISTORY => (
                options.allow_history_for_client,
                options.allow_history_for_subscriber,
            ),
            _ => (options.allow_subscribe_for_client, false),
        };
        if for_client || for_subscriber && self.is_subscribed {
            "the namespace allows it to users, but not to anonymous ones (allow_..._for_anonymous)"
        } else if for_subscriber {
            "the namespace allows it to subscribers only (allow_..._for_subscriber), and the client isn't one"
        } else {
            "neither the namespace's allow_... options nor a token allow it"
        }
    }

    fn may(
        &self,
        for_client: bool,
        for_subscriber: bool,
        for_anonymous: bool,
        what: Allowed,
    ) -> bool {
        let by_role = for_client || for_subscriber && self.is_subscribed;
        self.is_insecure
            || self.allowed.has(what)
            || by_role && (!self.is_anonymous || for_anonymous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination of role and option, against the sentence in the documentation.
    #[test]
    fn roles_add_up_and_anonymous_users_need_a_further_permission() {
        for bits in 0..64_u32 {
            let bit = |index: u32| bits & 1 << index != 0;
            let options = NamespaceOptions {
                allow_publish_for_client: bit(0),
                allow_publish_for_subscriber: bit(1),
                allow_publish_for_anonymous: bit(2),
                ..NamespaceOptions::default()
            };
            let permissions = Permissions {
                options: &options,
                is_anonymous: bit(3),
                is_subscribed: bit(4),
                is_insecure: bit(5),
                allowed: Allowed::NOTHING,
            };
            let expected = if bit(5) {
                true
            } else if bit(3) && !bit(2) {
                false
            } else if bit(4) {
                bit(0) || bit(1)
            } else {
                bit(0)
            };
            assert_eq!(
                permissions.may_publish(),
                expected,
                "{permissions:?}",
                permissions = bits
            );
            assert!(expected && bit(5) || !permissions.may_read_history());
            assert!(expected && bit(5) || !permissions.may_read_presence());
        }
    }

    #[test]
    fn anonymous_users_subscribe_only_where_users_may() {
        let may = |for_client, for_anonymous, is_anonymous| {
            let options = NamespaceOptions {
                allow_subscribe_for_client: for_client,
                allow_subscribe_for_anonymous: for_anonymous,
                ..NamespaceOptions::default()
            };
            let permissions = Permissions {
                options: &options,
                is_anonymous,
                is_subscribed: false,
                is_insecure: false,
                allowed: Allowed::NOTHING,
            };
            permissions.may_subscribe()
        };
        assert!(may(true, false, false) && may(true, true, true));
        assert!(!may(true, false, true) && !may(false, true, true) && !may(false, true, false));
    }
}
