//! Another configuration, while sessions and channels are in use.
//!
//! Options that are asked for when they are needed count from the next command on. Here is the rest: what was
//! made by the old ones, and what becomes of it. Nobody is disconnected for a change, and nothing that was
//! published is lost by it without its subscribers being told.

use std::borrow::Cow;
use std::sync::Arc;

use tautline_protocol::UnsubscribeCode;
use tautline_protocol::message::{Error, Unsubscribe};

use super::channel_name::ChannelName;
use super::channels::{ChannelKey, Role};
use super::sessions::Overridden;
use super::{Hub, SessionId};
use crate::Now;
use crate::config::{DataFormat, HubConfig, NamespaceOptions};
use crate::outbox::Outbox;

impl Hub {
    /// Goes by another configuration from now on, which must have [inherited](HubConfig::inherit) from the one
    /// before.
    ///
    /// - Permissions, limits, sizes and rates count from the next command on. Where rates are others,
    ///   everybody begins with full buckets.
    /// - Clients are pinged as often as they were told when they connected.
    /// - Connections that are there count for the limit of their user, and are not ended by it.
    /// - Subscriptions stay, whether or not they would be allowed now. They get what their namespace's
    ///   options say of presence and imposed filters; those of a namespace that isn't there any more are ended
    ///   (2000), and those that rely on a history which isn't kept any more begin anew (2500).
    pub fn reconfigure<O: Outbox>(&mut self, now: Now, config: Arc<HubConfig>, out: &mut O) {
        let before = std::mem::replace(&mut self.config, config);
        let config = self.config.clone();
        let ids = self.sessions.ids();
        let connected = ids.iter().filter_map(|id| self.sessions.connected(*id));
        let used = connected.map(|connected| connected.heartbeat.pace());
        self.paces.change(config.client.pace(), used);
        if !config.has_rates_of(&before) {
            self.forget_buckets();
        }
        if config.channel != before.channel {
            for key in self.channels.keys() {
                self.reconfigure_channel(now, key, &before, &config, out);
            }
        }
        self.settle(now, out);
    }

    fn reconfigure_channel<O: Outbox>(
        &mut self,
        now: Now,
        key: ChannelKey,
        before: &HubConfig,
        config: &HubConfig,
        out: &mut O,
    ) {
        let Some(channel) = self.channels.by_key(key) else {
            return;
        };
        let full = channel.name.clone();
        let subscribers = channel.subscribers.iter();
        let subscribers: Vec<_> = subscribers.map(|subscriber| subscriber.session).collect();
        let Ok(name) = ChannelName::parse(config, &full) else {
            for id in subscribers {
                self.end_unknown(now, id, key.index, out);
            }
            return;
        };
        let old = ChannelName::parse(before, &full).ok();
        let Some(old) = old.map(|name| name.options) else {
            return;
        };
        if old == name.options {
            return;
        }
        channel.takes_bytes = name.options.publication_data_format == DataFormat::Binary;
        for id in subscribers {
            self.reconfigure_subscription(now, id, key, old, &name, out);
        }
    }

    fn reconfigure_subscription<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        key: ChannelKey,
        old: &NamespaceOptions,
        name: &ChannelName<'_, '_>,
        out: &mut O,
    ) {
        let new = name.options;
        let connected = self.sessions.connected(id);
        let subscription = connected.and_then(|connected| connected.subscription(key.index));
        let (Some(slot), Some(channel)) = (
            subscription.map(|subscription| subscription.slot as usize),
            self.channels.by_key(key),
        ) else {
            return;
        };
        let subscriber = channel.subscribers[slot];
        let relies_on_history = match subscriber.role {
            // It asks for what it needs, and finds out by itself.
            Role::Pending => false,
            Role::Behind => true,
            Role::Live | Role::Holding => subscriber.positioned,
        };
        if relies_on_history && old.has_history() && !new.has_history() {
            let code = UnsubscribeCode::InsufficientState;
            return self.unsubscribe_with(now, id, key.index, code, out);
        }
        if old.server_tags_filter != new.server_tags_filter
            && self.impose_anew(id, key.index, name).is_err()
        {
            // Subscribing again, the client hears why not.
            let code = UnsubscribeCode::InsufficientState;
            return self.unsubscribe_with(now, id, key.index, code, out);
        }
        if old.presence != new.presence {
            self.list(now, id, key.index, new.presence);
        }
        self.change_join_leave(id, key, old, new);
    }

    /// Ends the subscription to a channel that there can't be any more.
    fn end_unknown<O: Outbox>(&mut self, now: Now, id: SessionId, index: u32, out: &mut O) {
        let code = Unsubscribe::from(UnsubscribeCode::Server).code;
        let ended = Unsubscribe {
            code,
            reason: Cow::Borrowed("unknown channel"),
        };
        self.end_for_operator(now, id, index, &ended, out);
    }

    /// Imposes what the namespace says now, beside what a token says.
    ///
    /// # Errors
    ///
    /// 103 where the filter asks for a user and there is none, 106 where the channel has no room for another.
    fn impose_anew(
        &mut self,
        id: SessionId,
        index: u32,
        name: &ChannelName<'_, '_>,
    ) -> Result<(), Error> {
        let Some(connected) = self.sessions.connected(id) else {
            return Ok(());
        };
        let Some(subscription) = connected.subscription(index) else {
            return Ok(());
        };
        let slot = subscription.slot as usize;
        let known = subscription.extra.as_deref();
        let (granted, own) = match known.and_then(|extra| extra.filters.as_ref()) {
            Some(known) => (known.granted.clone(), known.own.clone()),
            None => (None, self.own_filter(index, slot)),
        };
        let (filters, filter) = self.filters_for(name, &connected.info.user, granted, own)?;
        if let Some(channel) = self.channels.get_mut(index) {
            channel.reclassify(slot, filter);
        }
        if let Some(connected) = self.sessions.connected_mut(id)
            && let Some(subscription) = connected.subscription_mut(index)
            && (filters.is_some() || subscription.extra.is_some())
        {
            subscription.extra.get_or_insert_default().filters = filters;
        }
        Ok(())
    }

    /// Lists a subscriber in its channel's presence, or doesn't any more.
    fn list(&mut self, now: Now, id: SessionId, index: u32, listed: bool) {
        let ticket = self.ticket();
        let Some(channel) = self.channels.get(index) else {
            return;
        };
        let Some(connected) = self.sessions.connected_mut(id) else {
            return;
        };
        let info = connected.info_in(Some(index)).clone();
        let Some(subscription) = connected.subscription_mut(index) else {
            return;
        };
        if subscription.in_presence == listed || subscription.overridden.has(Overridden::PRESENCE) {
            return;
        }
        subscription.in_presence = listed;
        // Nobody waits for the outcome.
        let _ = if listed {
            self.engine.presence_add(now, ticket, &channel.name, &info)
        } else {
            self.engine
                .presence_remove(now, ticket, &channel.name, &info)
        };
    }

    /// Who is told of coming and going. Who came before that was told isn't announced now.
    fn change_join_leave(
        &mut self,
        id: SessionId,
        key: ChannelKey,
        old: &NamespaceOptions,
        new: &NamespaceOptions,
    ) {
        let connected = self.sessions.connected(id);
        let subscription = connected.and_then(|connected| connected.subscription(key.index));
        let (Some(subscription), Some(channel)) = (subscription, self.channels.by_key(key)) else {
            return;
        };
        let subscriber = &mut channel.subscribers[subscription.slot as usize];
        let overridden = subscription.overridden;
        if old.join_leave && !new.join_leave && !overridden.has(Overridden::PUSH_JOIN_LEAVE) {
            subscriber.join_leave = false;
        }
        if !old.force_push_join_leave
            && new.force_push_join_leave
            && subscriber.role != Role::Pending
            && !overridden.has(Overridden::PUSH_JOIN_LEAVE)
        {
            subscriber.join_leave = true;
        }
    }
}
