//! The refresh commands: connections and subscriptions with an end live on with a new token.

use std::sync::Arc;

use tautline_auth::{Allowed, Capabilities, SubscribeClaims, TokenError};
use tautline_protocol::filter::Filter;
use tautline_protocol::message::{Error, RefreshRequest, RefreshResult, SubRefreshRequest};
use tautline_protocol::{Disconnect, ErrorCode, Response, UnsubscribeCode};

use super::ask::AskedCommand;
use super::channel_name::ChannelName;
use super::connect::{deadline, time_to_live};
use super::dispatch::{Progress, Refusal};
use super::enforce::{self, Filters};
use super::tokens::{TokenKind, TokenRefusal};
use super::wheel::Deadline;
use super::{Hub, SessionId};
use crate::Now;
use crate::application::{Interests, Question, RefreshEvent, SubRefreshEvent};
use crate::outbox::Outbox;

impl Hub {
    pub(super) fn refresh<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &RefreshRequest<'_>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let by_server = self.guest(id).is_some_and(|guest| guest.refresh_by_server);
        if request.token.is_empty() || by_server {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        if self.config.verifier.is_none()
            && self.asks(Interests::REFRESH)
            && let Some(client) = self.client(id)
        {
            let token = request.token.to_string();
            let question = Question::Refresh(RefreshEvent { token });
            let command = AskedCommand::Refresh { command: number };
            return self.ask_for_command(now, id, client, question, command, out);
        }
        let claims =
            self.verify_connection(now, id, &request.token)
                .map_err(|error| match error {
                    TokenError::Expired | TokenError::NotYet | TokenError::Revoked => {
                        Refusal::from(Disconnect::EXPIRED)
                    }
                    // Temporary: the client tries again.
                    TokenError::Unavailable => ErrorCode::Internal.into(),
                    _ => Disconnect::INVALID_TOKEN.into(),
                })?;
        let grace = self.config.client.expired_close_delay;
        let expire_at = claims.expire_at.filter(|_| !self.config.client.insecure);
        let Some(connected) = self.sessions.connected_mut(id) else {
            return Ok(Progress::Done);
        };
        if claims.user != *connected.info.user {
            self.refused_tokens
                .add(TokenKind::Connection, TokenRefusal::Bearer);
            return Err(Disconnect::INVALID_TOKEN.into());
        }
        // The server-side subscriptions are those of the token. Where a new one names others, be it more
        // or fewer, the client gets them by connecting again.
        let channels = &self.channels;
        let has_all = claims.subs.keys().all(|channel| {
            let index = channels.find(channel);
            index.is_some_and(|index| connected.subscription(index).is_some())
        });
        let has_more = connected.subscriptions.iter().any(|subscription| {
            let name = channels.get(subscription.channel).map(|entry| &*entry.name);
            subscription.by_token && name.is_some_and(|name| !claims.subs.contains_key(name))
        });
        if !has_all || has_more {
            return Err(Disconnect::INSUFFICIENT_STATE.into());
        }
        let ttl = time_to_live(now, expire_at)?;
        connected.expires_at = ttl.map(|ttl| Deadline::at(deadline(now, ttl, grace)));
        connected.set_capabilities(claims.caps.map(Arc::new));
        connected.mark = claims.mark;
        self.arm(id);
        self.end_what_is_forbidden(now, id, out);
        Ok(Progress::Answer(Response::Refresh(RefreshResult { ttl })))
    }

    /// Ends the subscriptions that the session has because of what its last token let it do, and the new
    /// one doesn't.
    fn end_what_is_forbidden<O: Outbox>(&mut self, now: Now, id: SessionId, out: &mut O) {
        let Some(connected) = self.sessions.connected(id) else {
            return;
        };
        let capabilities = connected.capabilities().map(Arc::as_ref);
        let subscriptions = connected.subscriptions.iter();
        let forbidden = subscriptions.filter(|subscription| {
            let channel = self.channels.get(subscription.channel);
            let allows = |capabilities: &Capabilities| {
                channel
                    .is_some_and(|channel| capabilities.of(&channel.name).has(Allowed::SUBSCRIBE))
            };
            subscription.by_capability && !capabilities.is_some_and(allows)
        });
        let forbidden: Vec<u32> = forbidden.map(|subscription| subscription.channel).collect();
        for channel in forbidden {
            self.unsubscribe_with(now, id, channel, UnsubscribeCode::Server, out);
        }
    }

    pub(super) fn sub_refresh<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &SubRefreshRequest<'_>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        if request.channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        if request.kind != 0 {
            // Tracking of keys, for a kind of channel that doesn't exist here.
            return Err(ErrorCode::NotAvailable.into());
        }
        let Some(connected) = self.sessions.connected(id) else {
            return Ok(Progress::Done);
        };
        let channel = self.channels.find(&request.channel);
        let channel = channel.filter(|channel| connected.subscription(*channel).is_some());
        let channel = channel.ok_or(ErrorCode::PermissionDenied)?;
        let subscription = connected.subscription(channel);
        let extra = subscription.and_then(|subscription| subscription.extra.as_ref());
        if extra.is_some_and(|extra| extra.refresh_by_server) {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        if subscription.is_some_and(|subscription| subscription.server_side) {
            // It lives for as long as its maker said. No SDK asks for more, but one may have asked for its own
            // subscription, which was ended and made anew from this side meanwhile: so its connection stays.
            let why = "the server has made the subscription, and is the one to prolong it";
            return Err(self.because(why, ErrorCode::PermissionDenied.into()));
        }
        if request.token.is_empty() {
            return Err(ErrorCode::BadRequest.into());
        }
        let info = connected.info.clone();
        if self.config.subscription_verifier.is_none()
            && self.asks(Interests::SUB_REFRESH)
            && let Some(client) = self.client(id)
        {
            let question = Question::SubRefresh(SubRefreshEvent {
                channel: self.shared_name(&request.channel),
                token: request.token.to_string(),
            });
            let command = AskedCommand::SubRefresh {
                command: number,
                channel: self.channels.key(channel),
            };
            return self.ask_for_command(now, id, client, question, command, out);
        }
        let claims =
            self.verify_subscription(now, id, &request.token)
                .map_err(|error| match error {
                    // Temporary, so that the client asks the application for another token. It would end
                    // the subscription otherwise.
                    TokenError::Expired | TokenError::NotYet | TokenError::Revoked => {
                        Refusal::Error(Error {
                            temporary: true,
                            ..ErrorCode::TokenExpired.into()
                        })
                    }
                    TokenError::Unavailable => ErrorCode::Internal.into(),
                    _ => Disconnect::INVALID_TOKEN.into(),
                })?;
        self.check_bearer(id, &claims, &info, &request.channel)?;
        let ttl = time_to_live(now, claims.expire_at)?;
        self.impose(id, channel, &claims)?;
        let expires_at =
            ttl.map(|ttl| deadline(now, ttl, self.config.client.expired_sub_close_delay));
        if let Some(connected) = self.sessions.connected_mut(id)
            && let Some(subscription) = connected.subscription_mut(channel)
        {
            let extra = subscription.extra.get_or_insert_default();
            extra.expires_at = expires_at;
            extra.allow = claims.options.allow;
            extra.mark = claims.mark;
        }
        self.arm(id);
        Ok(Progress::Answer(Response::SubRefresh(RefreshResult {
            ttl,
        })))
    }

    /// Imposes the filter of a new token on a subscriber, instead of the last one's. A token that says
    /// nothing of it leaves it as it is.
    fn impose(
        &mut self,
        id: SessionId,
        channel: u32,
        claims: &SubscribeClaims,
    ) -> Result<(), Refusal> {
        let Some(connected) = self.sessions.connected(id) else {
            return Ok(());
        };
        let (client, text) = (&connected.info.client, &claims.options.tags_filter);
        let granted = enforce::granted_filter(client, text.as_deref())?;
        let subscription = connected.subscription(channel);
        let (Some(granted), Some(subscription)) = (granted, subscription) else {
            return Ok(());
        };
        let slot = subscription.slot as usize;
        let known = subscription.extra.as_deref();
        let known = known.and_then(|extra| extra.filters.as_ref());
        let name = ChannelName::parse(&self.config, &claims.channel)?;
        let Some(imposed) = enforce::all(name.imposed_filter(&claims.user)?, Some(granted.clone()))
        else {
            return Ok(());
        };
        if known.is_some_and(|known| known.imposed == imposed) {
            return Ok(());
        }
        let own = match known {
            Some(known) => known.own.clone(),
            None => self.own_filter(channel, slot),
        };
        let filters = Filters {
            imposed,
            granted: Some(granted),
            own,
        };
        let both = filters.both();
        self.check_room_for(&both, name.full)?;
        if let Some(channel) = self.channels.get_mut(channel) {
            channel.reclassify(slot, Some(both));
        }
        if let Some(connected) = self.sessions.connected_mut(id)
            && let Some(subscription) = connected.subscription_mut(channel)
        {
            subscription.extra.get_or_insert_default().filters = Some(filters);
        }
        Ok(())
    }

    /// The filter of a subscriber on whom nothing is imposed.
    pub(super) fn own_filter(&self, channel: u32, slot: usize) -> Option<Filter> {
        let channel = self.channels.get(channel)?;
        let class = channel.subscribers.get(slot)?.class;
        channel.classes.as_deref()?.filter(class).cloned()
    }
}
