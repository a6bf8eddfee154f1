//! Tokens as the hub meets them: verified, and counted when they are refused.

use std::cell::Cell;
use std::sync::Arc;

use tautline_auth::{ConnectClaims, InvalidToken, SubscribeClaims, TokenError, Verifier};
use tautline_protocol::message::ClientInfo;
use tautline_protocol::{Disconnect, Request};

use super::{Hub, SessionId};
use crate::Now;
use crate::application::Interests;

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenRefusal {
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYet,
    /// Its key is being fetched, or could not be.
    KeyUnavailable,
    /// Nobody who may sign tokens signed it.
    Signature,
    /// It is not signed at all (`alg` is `none`).
    Unsigned,
    /// Its algorithm is not supported, or not that of its key.
    Algorithm,
    /// No key is configured that it could be verified with, or it doesn't name the key that it needs.
    NoKey,
    /// The key set doesn't have the key that it names.
    UnknownKey,
    /// What it says of its issuer or audience can't be filled into the URL of the key sets.
    KeySet,
    /// It is no JWT, or its claims can't be read.
    Malformed,
    /// It is too long to be looked at.
    TooLong,
    /// It is for another audience.
    Audience,
    /// It is of another issuer.
    Issuer,
    /// A connection token in the place of a subscription token, or the other way round.
    Kind,
    /// It is good, but for another user, channel or client.
    Bearer,
    /// It names no user, and has to.
    Anonymous,
    /// It was revoked.
    Revoked,
}

impl TokenRefusal {
    /// How many there are.
    pub const COUNT: usize = 17;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Expired,
        Self::NotYet,
        Self::KeyUnavailable,
        Self::Signature,
        Self::Unsigned,
        Self::Algorithm,
        Self::NoKey,
        Self::UnknownKey,
        Self::KeySet,
        Self::Malformed,
        Self::TooLong,
        Self::Audience,
        Self::Issuer,
        Self::Kind,
        Self::Bearer,
        Self::Anonymous,
        Self::Revoked,
    ];

    /// What to call it, such as `unknown_key`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::KeyUnavailable => "key_unavailable",
            Self::Signature => "signature",
            Self::Unsigned => "unsigned",
            Self::Algorithm => "algorithm",
            Self::NoKey => "no_key",
            Self::UnknownKey => "unknown_key",
            Self::KeySet => "key_set",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Kind => "kind",
            Self::Bearer => "bearer",
            Self::Anonymous => "anonymous",
            Self::Revoked => "revoked",
        }
    }

    /// Whether nobody who may sign tokens has made it for its bearer: a mistake, or an attempt. Those whose time is over, or has
    /// not come, and those that only this server is to blame for, are none.
    pub const fn is_failure(self) -> bool {
        !matches!(
            self,
            Self::Expired
                | Self::NotYet
                | Self::KeyUnavailable
                | Self::NoKey
                | Self::Anonymous
                | Self::Revoked
        )
    }

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl From<&TokenError> for TokenRefusal {
    fn from(error: &TokenError) -> Self {
        let invalid = match error {
            TokenError::Expired => return Self::Expired,
            TokenError::NotYet => return Self::NotYet,
            TokenError::Unavailable => return Self::KeyUnavailable,
            TokenError::Revoked => return Self::Revoked,
            TokenError::Invalid(invalid) => invalid,
            _ => return Self::Malformed,
        };
        match invalid {
            InvalidToken::Signature => Self::Signature,
            InvalidToken::Unsigned => Self::Unsigned,
            InvalidToken::KeyAlgorithm(_) | InvalidToken::UnsupportedAlgorithm => Self::Algorithm,
            InvalidToken::NoKey(_) | InvalidToken::NoKeyId => Self::NoKey,
            InvalidToken::UnknownKey => Self::UnknownKey,
            InvalidToken::KeySet => Self::KeySet,
            InvalidToken::TooLong { .. } => Self::TooLong,
            InvalidToken::Audience => Self::Audience,
            InvalidToken::Issuer => Self::Issuer,
            InvalidToken::MissingChannel | InvalidToken::UnexpectedChannel => Self::Kind,
            _ => Self::Malformed,
        }
    }
}

/// How many tokens were refused, by [`TokenRefusal::index`]. Numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedTokens {
    /// Of connections: when they connect, and when they refresh.
    pub connection: [u64; TokenRefusal::COUNT],
    /// Of subscriptions.
    pub subscription: [u64; TokenRefusal::COUNT],
}

/// What a token is for.
#[derive(Clone, Copy)]
pub(super) enum TokenKind {
    Connection,
    Subscription,
}

/// [`RefusedTokens`], counted where a hub is only looked at.
#[derive(Debug, Default)]
pub(super) struct RefusalCounter {
    all: Cell<RefusedTokens>,
    /// Those that are [failures](TokenRefusal::is_failure).
    failures: Cell<u64>,
}

impl RefusalCounter {
    pub(super) fn get(&self) -> RefusedTokens {
        self.all.get()
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.get()
    }

    pub(super) fn add(&self, kind: TokenKind, refusal: TokenRefusal) {
        let failures = self.failures.get() + u64::from(refusal.is_failure());
        self.failures.set(failures);
        let mut counts = self.all.get();
        let of = match kind {
            TokenKind::Connection => &mut counts.connection,
            TokenKind::Subscription => &mut counts.subscription,
        };
        of[refusal.index()] += 1;
        self.all.set(counts);
    }
}

impl Hub {
    /// What a connection token says.
    pub(super) fn verify_connection(
        &self,
        now: Now,
        id: SessionId,
        token: &str,
    ) -> Result<ConnectClaims, TokenError> {
        let verifier = self.config.verifier.as_deref();
        let verify = |verifier: &Verifier| verifier.verify_connect(token, now.unix);
        let claims = self.verified(id, TokenKind::Connection, verifier, verify)?;
        self.check_revoked(now, id, &claims.mark, &claims.user, None)?;
        Ok(claims)
    }

    /// What a subscription token says. Whether it is for this bearer and channel is another
    /// question: [`check_bearer`](Self::check_bearer).
    pub(super) fn verify_subscription(
        &self,
        now: Now,
        id: SessionId,
        token: &str,
    ) -> Result<SubscribeClaims, TokenError> {
        let verifier = self.config.subscription_verifier.as_deref();
        let verify = |verifier: &Verifier| verifier.verify_subscribe(token, now.unix);
        let claims = self.verified(id, TokenKind::Subscription, verifier, verify)?;
        let channel = Some(&*claims.channel);
        self.check_revoked(now, id, &claims.mark, &claims.user, channel)?;
        Ok(claims)
    }

    fn verified<T>(
        &self,
        id: SessionId,
        kind: TokenKind,
        verifier: Option<&Verifier>,
        verify: impl FnOnce(&Verifier) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let Some(verifier) = verifier else {
            let why = "there is a token, but no key is configured to verify it with";
            tracing::debug!(session = %self.name_of(id), "{why}");
            self.refused_tokens.add(kind, TokenRefusal::NoKey);
            return Err(self.because(why, InvalidToken::Signature.into()));
        };
        verify(verifier).map_err(|error| {
            tracing::debug!(session = %self.name_of(id), %error, "refusing a token");
            self.refused_tokens.add(kind, TokenRefusal::from(&error));
            self.because_of(error.to_string(), error)
        })
    }

    /// Whether the token of a command is genuine, as far as that is known without fetching a key or asking the
    /// application. Of one that is over, the command's own reply tells that.
    pub(super) fn is_token_good(&self, now: Now, id: SessionId, request: &Request<'_>) -> bool {
        let is_known = |result: Result<bool, TokenError>| match result {
            Ok(is_for_it) => is_for_it,
            Err(error) => matches!(error, TokenError::Expired | TokenError::NotYet),
        };
        let (user, now) = (self.user_of(id), now.unix);
        let connection = |question: Interests, token: &str| {
            let verifier = self.config.verifier.as_deref();
            let verifier = verifier.filter(|_| !self.asks(question));
            verifier.is_some_and(|verifier| {
                let claims = verifier.recheck_connect(token, now);
                is_known(claims.map(|claims| user.is_none_or(|user| *user == *claims.user)))
            })
        };
        let subscription = |question: Interests, channel: &str, token: &str| {
            let verifier = self.config.subscription_verifier.as_deref();
            let verifier = verifier.filter(|_| !self.asks(question));
            verifier.is_some_and(|verifier| {
                let claims = verifier.recheck_subscribe(token, now);
                is_known(claims.map(|claims| {
                    *claims.user == *user.unwrap_or_default() && claims.channel == channel
                }))
            })
        };
        match request {
            Request::Connect(request) => connection(Interests::CONNECTING, &request.token),
            Request::Refresh(request) => connection(Interests::REFRESH, &request.token),
            Request::Subscribe(request) => {
                subscription(Interests::SUBSCRIBE, &request.channel, &request.token)
            }
            Request::SubRefresh(request) => {
                subscription(Interests::SUB_REFRESH, &request.channel, &request.token)
            }
            _ => false,
        }
    }

    /// A genuine token in the wrong hands, or for another channel, is an attack or a grave mistake.
    pub(super) fn check_bearer(
        &self,
        id: SessionId,
        claims: &SubscribeClaims,
        info: &Arc<ClientInfo>,
        channel: &str,
    ) -> Result<(), Disconnect> {
        let is_for_client = claims
            .client
            .as_deref()
            .is_none_or(|client| client == &*info.client);
        if claims.user == *info.user && claims.channel == channel && is_for_client {
            return Ok(());
        }
        let why = "the subscription token is for another user, channel or client";
        tracing::debug!(session = %self.name_of(id), "{why}");
        self.refused_tokens
            .add(TokenKind::Subscription, TokenRefusal::Bearer);
        Err(self.because(why, Disconnect::INVALID_TOKEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_where_they_say() {
        for (index, refusal) in TokenRefusal::ALL.iter().enumerate() {
            assert_eq!(refusal.index(), index, "{}", refusal.name());
        }
    }
}
