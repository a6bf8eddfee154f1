//! Revoked tokens: nobody comes in by one, and who came in by one has to go.
//!
//! What is revoked is known to all hubs of a process at once
//! ([`HubConfig::revocations`](crate::HubConfig::revocations)). So whoever revokes enters it there first, and then has each
//! hub end what it has: no client slips in between.

use std::borrow::Cow;

use tautline_auth::{TokenError, TokenMark};
use tautline_protocol::message::Unsubscribe;
use tautline_protocol::{Disconnect, UnsubscribeCode};

use super::tokens::{TokenKind, TokenRefusal};
use super::{Hub, SessionId};
use crate::Now;
use crate::outbox::Outbox;

/// Why something was refused.
pub(super) const REVOKED: &str = "the token was revoked";

/// What clients are told: as after an expiry they ask the application for another token, and what comes of that is for the
/// application to say.
const TOLD: &str = "token revoked";

/// What was ended because its token is revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// Connections.
    pub connections: usize,
    /// Subscriptions of connections that stay.
    pub subscriptions: usize,
}

impl Hub {
    /// Ends the connections and subscriptions whose tokens are revoked: those of a user, or of all. Clients are told to
    /// come back with other tokens (3005, 2501).
    ///
    /// Looking at all takes time in proportion to the number of sessions.
    pub fn enforce_revocations<O: Outbox>(
        &mut self,
        now: Now,
        user: Option<&str>,
        out: &mut O,
    ) -> Ended {
        let ids = match user {
            Some(user) => self.users.sessions_of(user, &self.sessions),
            None => self.sessions.ids(),
        };
        let mut ended = Ended::default();
        for id in ids {
            self.enforce_on(now, id, &mut ended, out);
        }
        self.counters.revoked_connections += ended.connections as u64;
        self.counters.revoked_subscriptions += ended.subscriptions as u64;
        self.settle(now, out);
        ended
    }

    /// The tokens by which a connection is there and has its subscriptions, if it is there.
    pub fn tokens_of(&self, client: &str) -> Option<Vec<TokenMark>> {
        let connected = self.sessions.connected(*self.clients.get(client)?)?;
        let subscriptions = connected.subscriptions.iter();
        let of_subscriptions = subscriptions.filter_map(|one| one.extra.as_deref());
        let mut marks = vec![connected.mark];
        marks.extend(of_subscriptions.map(|extra| extra.mark));
        marks.retain(|mark| !mark.is_none());
        Some(marks)
    }

    /// Ends a connection as if its token were revoked, whatever it is here by. Nobody's id is nobody's.
    pub fn end_revoked<O: Outbox>(&mut self, now: Now, client: &str, out: &mut O) -> Ended {
        let mut ended = Ended::default();
        if let Some(id) = self.clients.get(client).copied() {
            ended.connections += 1;
            self.counters.revoked_connections += 1;
            self.end(now, id, &told(), out);
            self.settle(now, out);
        }
        ended
    }

    fn enforce_on<O: Outbox>(&mut self, now: Now, id: SessionId, ended: &mut Ended, out: &mut O) {
        let Some(connected) = self.sessions.connected(id) else {
            return;
        };
        let (revocations, user) = (&self.config.revocations, &connected.info.user);
        if revocations.has(&connected.mark, user, now.unix) {
            ended.connections += 1;
            return self.end(now, id, &told(), out);
        }
        let subscriptions = connected.subscriptions.iter();
        let revoked = subscriptions.filter(|subscription| {
            let extra = subscription.extra.as_deref();
            let channel = self.channels.get(subscription.channel);
            extra.zip(channel).is_some_and(|(extra, channel)| {
                revocations.has_subscription(&extra.mark, user, &channel.name, now.unix)
            })
        });
        let revoked: Vec<_> = revoked.map(|subscription| subscription.channel).collect();
        for channel in revoked {
            let told = Unsubscribe {
                reason: Cow::Borrowed(TOLD),
                ..UnsubscribeCode::Expired.into()
            };
            ended.subscriptions += 1;
            self.end_for_operator(now, id, channel, &told, out);
        }
    }

    /// A token that is good otherwise may be revoked. One for a subscription names a channel.
    pub(super) fn check_revoked(
        &self,
        now: Now,
        id: SessionId,
        mark: &TokenMark,
        user: &str,
        channel: Option<&str>,
    ) -> Result<(), TokenError> {
        if self.is_revoked(now, id, mark, user, channel) {
            return Err(self.because_of(TokenError::Revoked, TokenError::Revoked));
        }
        Ok(())
    }

    /// The same, and it is counted.
    pub(super) fn is_revoked(
        &self,
        now: Now,
        id: SessionId,
        mark: &TokenMark,
        user: &str,
        channel: Option<&str>,
    ) -> bool {
        let revocations = &self.config.revocations;
        let (kind, is_revoked) = match channel {
            None => (TokenKind::Connection, revocations.has(mark, user, now.unix)),
            Some(channel) => (
                TokenKind::Subscription,
                revocations.has_subscription(mark, user, channel, now.unix),
            ),
        };
        if is_revoked {
            tracing::debug!(session = %self.name_of(id), user, "refusing a token that was revoked");
            self.refused_tokens.add(kind, TokenRefusal::Revoked);
        }
        is_revoked
    }
}

fn told() -> Disconnect {
    Disconnect {
        reason: Cow::Borrowed(TOLD),
        ..Disconnect::EXPIRED
    }
}
