//! The connect command: who is this, and may they come in?

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tautline_auth::TokenError;
use tautline_protocol::message::{ClientInfo, ConnectRequest, ConnectResult};
use tautline_protocol::{Disconnect, ErrorCode, Reply, Response};

use super::dispatch::{Progress, Refusal};
use super::sessions::{Connected, Heartbeat, State};
use super::{Hub, SessionId};
use crate::Now;
use crate::entropy;
use crate::outbox::Outbox;

/// What authentication found out.
struct Identity {
    user: String,
    info: Option<Vec<u8>>,
    /// Unix seconds.
    expire_at: Option<u64>,
}

impl Hub {
    pub(super) fn connect<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &ConnectRequest<'_>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let identity = self.authenticate(now, &request.token)?;
        let ttl = time_to_live(now, identity.expire_at)?;
        let options = &self.config.client;
        let expires_at = ttl.map(|ttl| deadline(now, ttl, options.expired_close_delay));
        let info = Arc::new(ClientInfo {
            user: self.known_user(&identity.user),
            client: entropy::connection_id(&mut *self.entropy),
            conn_info: identity.info.map(Into::into),
            chan_info: None,
        });
        let options = &self.config.client;
        let interval = options.ping_interval;
        let first_ping = self.first_ping(now, interval);
        let options = &self.config.client;
        let result = ConnectResult {
            client: info.client.clone(),
            version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            ttl,
            ping: u32::try_from(interval.as_secs()).unwrap_or(u32::MAX),
            pong: first_ping.is_some() && !options.pong_timeout.is_zero(),
            time: options
                .connect_include_server_time
                .then(|| i64::try_from(now.unix.as_millis()).unwrap_or(i64::MAX)),
            ..ConnectResult::default()
        };
        let Some(session) = self.sessions.get_mut(id) else {
            return Ok(Progress::Done);
        };
        session.state = State::Connected(Connected {
            info: info.clone(),
            subscriptions: Vec::new(),
            heartbeat: Heartbeat {
                next_ping: first_ping,
                pong_due: None,
            },
            expires_at,
        });
        self.clients.insert(info.client.clone(), id);
        *self.users.entry(info.user.clone()).or_insert(0) += 1;
        self.arm(id);
        self.send(
            id,
            &Reply::Answer(number, Ok(Response::Connect(result))),
            out,
        );
        Ok(Progress::Done)
    }

    fn authenticate(&self, now: Now, token: &str) -> Result<Identity, Refusal> {
        let options = &self.config.client;
        if token.is_empty() {
            if options.allow_anonymous_connect_without_token || options.insecure {
                return Ok(Identity {
                    user: String::new(),
                    info: None,
                    expire_at: None,
                });
            }
            return Err(Disconnect::BAD_REQUEST.into());
        }
        let Some(verifier) = &self.config.verifier else {
            tracing::debug!("a client sent a token, but no key is configured to verify it with");
            return Err(Disconnect::INVALID_TOKEN.into());
        };
        let claims = verifier
            .verify_connect(token, now.unix)
            .map_err(|error| match error {
                TokenError::Expired => Refusal::from(ErrorCode::TokenExpired),
                TokenError::Invalid(_) => {
                    tracing::debug!(%error, "refusing a connection token");
                    Disconnect::INVALID_TOKEN.into()
                }
            })?;
        if claims.user.is_empty() && options.disallow_anonymous_connection_tokens {
            return Err(Disconnect::PERMISSION_DENIED.into());
        }
        let expire_at = claims.expire_at.filter(|_| !options.insecure);
        Ok(Identity {
            user: claims.user,
            info: claims.info,
            expire_at,
        })
    }

    /// The user id, shared with the user's other sessions.
    fn known_user(&self, user: &str) -> Arc<str> {
        self.users
            .get_key_value(user)
            .map_or_else(|| user.into(), |(user, _)| user.clone())
    }

    /// At a random time in the second half of the first interval, so that clients which connected
    /// together are not pinged together for ever.
    fn first_ping(&mut self, now: Now, interval: Duration) -> Option<Duration> {
        let half = interval / 2;
        let spread = u64::try_from((interval - half).as_millis()).unwrap_or(u64::MAX);
        (!interval.is_zero()).then(|| {
            now.monotonic + half + Duration::from_millis(entropy::up_to(&mut *self.entropy, spread))
        })
    }
}

/// Seconds until something expires, at least one and at most a year; `None` for never.
///
/// # Errors
///
/// Error 110 if it has expired already.
pub(super) fn time_to_live(now: Now, expire_at: Option<u64>) -> Result<Option<u32>, ErrorCode> {
    const YEAR: u32 = 365 * 24 * 3600;
    let Some(expire_at) = expire_at else {
        return Ok(None);
    };
    // The second in which it expires has begun: that is late enough.
    let seconds = expire_at.saturating_sub(now.unix.as_secs());
    if seconds == 0 {
        return Err(ErrorCode::Expired);
    }
    Ok(Some(u32::try_from(seconds).unwrap_or(u32::MAX).min(YEAR)))
}

/// When what expires in `ttl` seconds is given up.
pub(super) fn deadline(now: Now, ttl: u32, grace: Duration) -> Duration {
    now.monotonic + Duration::from_secs(u64::from(ttl)) + grace
}
