//! The connect command: who is this, and may they come in?

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tautline_auth::{Capabilities, TokenError, TokenMark};
use tautline_protocol::message::{
    ClientInfo, ConnectRequest, ConnectResult, Payload, SubscribeRequest,
};
use tautline_protocol::{Disconnect, ErrorCode, Reply, Response};

use super::ask::Guest;
use super::channel_name::{ChannelName, NameFault};
use super::dispatch::{Progress, Refusal};
use super::liveness::{Heartbeat, Pace};
use super::revoked::REVOKED;
use super::sessions::{Conduct, Connected, Pings, State};
use super::subscribe::{Grant, Plan};
use super::tokens::{TokenKind, TokenRefusal};
use super::users::Peers;
use super::waiting::{Connecting, Waiting};
use super::wheel::Deadline;
use super::{Hub, SessionId};
use crate::Now;
use crate::application::Interests;
use crate::entropy;
use crate::outbox::Outbox;

/// What token, options and application say of who connects.
#[derive(Default)]
pub(crate) struct Identity {
    pub(super) user: String,
    pub(super) info: Option<Payload>,
    pub(super) meta: Option<Payload>,
    /// For the client.
    pub(super) data: Option<Payload>,
    /// Unix seconds.
    pub(super) expire_at: Option<u64>,
    /// The application is asked when the connection expires.
    pub(super) refresh_by_server: bool,
    /// Server-side subscriptions.
    pub(super) subs: BTreeMap<String, Grant>,
    /// What else it may do.
    pub(super) capabilities: Option<Arc<Capabilities>>,
    /// The token that says so.
    pub(super) mark: TokenMark,
}

impl Identity {
    /// As the application is told.
    pub(super) fn to_public(&self) -> crate::application::Identity {
        crate::application::Identity {
            user: self.user.clone(),
            info: self.info.clone(),
            meta: self.meta.clone(),
            expire_at: self.expire_at,
        }
    }
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
        if self.is_draining() {
            return Err(self.because("the server is shutting down", Disconnect::SHUTDOWN.into()));
        }
        self.check_capacity()?;
        self.check_names(request)?;
        if self.asks(Interests::CONNECTING) {
            return self.ask_connect(now, id, number, request, out);
        }
        let identity = self.authenticate(now, id, &request.token)?;
        let client = entropy::connection_id(&mut *self.entropy);
        self.admit(now, id, number, request, identity, client, out)
    }

    /// A channel of a few bytes takes some hundred in memory for as long as the application is asked, and whether it
    /// may be subscribed to is looked at. So what bounds the command's length doesn't bound that.
    fn check_names(&self, request: &ConnectRequest<'_>) -> Result<(), Refusal> {
        let named = request.subs.len();
        let most = self.most_channels().max(MAX_NAMED);
        if named > most {
            self.allows_channels(named);
            let why = format_args!(
                "it names {named} channels (`subs`), and may name {most} (client.channel_limit, and never less than \
                 {MAX_NAMED})"
            );
            return Err(self.because_of(why, Disconnect::CHANNEL_LIMIT.into()));
        }
        Ok(())
    }

    /// Lets in who may come in.
    #[expect(
        clippy::too_many_arguments,
        reason = "all of it is needed, and known in two places"
    )]
    pub(super) fn admit<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &ConnectRequest<'_>,
        identity: Identity,
        client: Arc<str>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let user = self.known_user(&identity.user);
        let mark = identity.mark;
        if self.is_revoked(now, id, &mark, &user, None) {
            // While the application was asked, which may have said whose connection it is.
            return Err(self.because(REVOKED, ErrorCode::TokenExpired.into()));
        }
        self.charge_connection(now, id, &user)?;
        let ttl = time_to_live(now, identity.expire_at)?;
        let options = &self.config.client;
        let by_server = identity.refresh_by_server;
        let grace = if by_server {
            Duration::ZERO
        } else {
            options.expired_close_delay
        };
        let expires_at = ttl.map(|ttl| deadline(now, ttl, grace));
        let info = Arc::new(ClientInfo {
            user,
            client,
            conn_info: identity.info,
            chan_info: None,
        });
        let Pace { interval, timeout } = self.paces.get(self.paces.current());
        let first_ping = self.first_ping(now, interval);
        let options = &self.config.client;
        let session = self.sessions.get(id);
        let pings = session.map_or(Pings::OneWay, |session| session.transport.pings);
        let address = out.address(id);
        let result = ConnectResult {
            client: info.client.clone(),
            version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            ttl: ttl.filter(|_| !by_server),
            data: identity.data,
            // What the transport does is none of the client's business.
            ping: if pings.are_messages() {
                u32::try_from(interval.as_secs()).unwrap_or(u32::MAX)
            } else {
                0
            },
            pong: pings == Pings::Protocol && first_ping.is_some() && !timeout.is_zero(),
            session: address.as_ref().map(|address| address.session.clone()),
            node: address.and_then(|address| address.node),
            time: options
                .connect_include_server_time
                .then(|| i64::try_from(now.unix.as_millis()).unwrap_or(i64::MAX)),
            ..ConnectResult::default()
        };
        let capabilities = identity.capabilities;
        let plans = self.plan_server_subscriptions(
            now,
            id,
            &info,
            &identity.subs,
            capabilities.as_deref(),
            request,
        )?;
        let seat = self.take_seat(&info.user)?;
        let Some(session) = self.sessions.get_mut(id) else {
            return Ok(Progress::Done);
        };
        session.state = State::Connected(Connected {
            info: info.clone(),
            subscriptions: Vec::new(),
            heartbeat: Heartbeat::new(first_ping, self.paces.current()),
            mark,
            expires_at: expires_at.map(Deadline::at),
            peers: Peers::default(),
            conduct: capabilities.map(|capabilities| {
                Box::new(Conduct {
                    capabilities: Some(capabilities),
                    ..Conduct::default()
                })
            }),
        });
        self.sit_down(id, seat);
        self.clients.insert(info.client.clone(), id);
        self.users.enter(&info.user, id, &mut self.sessions);
        let subscriptions = plans
            .into_iter()
            .map(|(request, plan)| self.begin_plan(now, id, number, &request, &info, plan))
            .collect();
        let connecting = Connecting {
            command: number,
            result,
            guest: Guest {
                meta: identity.meta,
                refresh_by_server: by_server,
            },
            subscriptions,
        };
        if connecting.is_outstanding() {
            if let Some(session) = self.sessions.get_mut(id) {
                session.waiting = Some(Box::new(Waiting::Connect(connecting)));
            }
            return Ok(Progress::Wait);
        }
        self.finish_connect(now, id, connecting, out)
    }

    /// The server-side subscriptions can begin, and the command is answered; or one of them comes to
    /// nothing, and so does the connection.
    pub(super) fn finish_connect<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        connecting: Connecting,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let Connecting {
            command,
            mut result,
            guest,
            subscriptions,
        } = connecting;
        let mut begun = Vec::with_capacity(subscriptions.len());
        for mut subscribing in subscriptions {
            let index = subscribing.channel;
            let ended = subscribing.ended.take();
            let name = self.channels.get(index).map(|channel| channel.name.clone());
            match self.begin_subscription(now, id, subscribing, out) {
                Ok((_, wants, sub)) => {
                    result.subs.extend(name.map(|name| (name, sub)));
                    begun.push((index, wants, ended));
                }
                Err(refusal) => {
                    self.disconnect_again(now, id);
                    return Err(refusal);
                }
            }
        }
        self.send(
            id,
            &Reply::Answer(command, Ok(Response::Connect(result))),
            out,
        );
        if let Some(session) = self.sessions.get_mut(id) {
            self.tally.connected(&mut session.counted);
        }
        if let Some(Connected { info, .. }) = self.sessions.connected(id) {
            let (session, client, user) = (self.name_of(id), &*info.client, &*info.user);
            tracing::debug!(%session, client, user, "a client has come in");
        }
        self.note_connected(now, id);
        for (index, wants, ended) in begun {
            self.announce(now, id, index, wants);
            if let Some(ended) = ended {
                self.push_unsubscribe(now, id, index, ended, out);
            }
        }
        self.arm(id);
        self.greet(now, id, guest, out)
    }

    /// Takes back that a session is connected.
    fn disconnect_again(&mut self, now: Now, id: SessionId) {
        // Some may have begun, but nobody was told.
        let connected = self.sessions.connected(id);
        let subscriptions = connected.map_or(&[][..], |connected| &connected.subscriptions);
        let channels: Vec<_> = subscriptions.iter().map(|one| one.channel).collect();
        for channel in channels {
            self.drop_subscription(now, id, channel);
        }
        let stale_at = now.monotonic + self.config.client.stale_close_delay;
        let opened = State::Opened {
            stale_at,
            user: None,
        };
        if let Some(session) = self.sessions.get_mut(id)
            && let State::Connected(connected) = std::mem::replace(&mut session.state, opened)
        {
            self.unregister(&connected);
        }
    }

    /// Which subscriptions a connection begins with: those of its token, its user's personal channel,
    /// and what the client asks for and may subscribe to by itself.
    fn plan_server_subscriptions<'r>(
        &self,
        now: Now,
        id: SessionId,
        info: &Arc<ClientInfo>,
        granted: &'r BTreeMap<String, Grant>,
        capabilities: Option<&Capabilities>,
        request: &'r ConnectRequest<'_>,
    ) -> Result<Vec<(SubscribeRequest<'r>, Plan)>, Refusal> {
        let mut plans = Vec::new();
        let options = &self.config.client;
        let personal = &options.subscribe_to_user_personal_channel;
        let personal = personal.name(&info.user, &self.config.channel);
        let personal = personal.filter(|channel| !granted.contains_key(channel));
        // A client names each once, so these are all that could be planned twice.
        let is_planned =
            |channel: &str| granted.contains_key(channel) || personal.as_deref() == Some(channel);
        let asked = request.subs.keys().filter(|channel| !is_planned(channel));
        let asked: Vec<_> = asked.collect();
        let default = Grant::default();
        let granted = granted
            .iter()
            .map(|(channel, grant)| (Cow::Borrowed(&**channel), grant))
            .chain(personal.map(|channel| (Cow::Owned(channel), &default)));
        for (channel, grant) in granted {
            let request = server_side_request(channel, request);
            let name = ChannelName::parse(&self.config, &request.channel)?;
            let plan = self.plan(&request, &name, info, capabilities, grant.clone(), true)?;
            plans.push((request, plan));
        }
        for channel in asked {
            let request = server_side_request(Cow::Borrowed(&**channel), request);
            let name = match ChannelName::parse_asked(&self.config, channel) {
                Ok(name) => name,
                Err(fault @ NameFault::NoNamespace) => {
                    return Err(self.because_of(fault, Disconnect::BAD_REQUEST.into()));
                }
                Err(_) => continue,
            };
            if let Ok(grant) = self.grant_subscription(now, id, info, capabilities, &name, "") {
                let plan = self.plan(&request, &name, info, capabilities, grant, true)?;
                plans.push((request, plan));
            }
            // However many a client names, no more are looked at.
            if plans.len() > self.most_channels() {
                break;
            }
        }
        if !self.allows_channels(plans.len()) {
            let why = format_args!(
                "it would have more channels from the beginning than the {} that client.channel_limit allows",
                self.most_channels()
            );
            return Err(self.because_of(why, Disconnect::CHANNEL_LIMIT.into()));
        }
        Ok(plans)
    }

    pub(super) fn authenticate(
        &self,
        now: Now,
        id: SessionId,
        token: &str,
    ) -> Result<Identity, Refusal> {
        let options = &self.config.client;
        if token.is_empty() {
            let session = self.sessions.get(id);
            if let Some(State::Opened {
                user: Some(user), ..
            }) = session.map(|session| &session.state)
            {
                return Ok(Identity {
                    user: user.to_string(),
                    ..Identity::default()
                });
            }
            if options.allow_anonymous_connect_without_token || options.insecure {
                return Ok(Identity::default());
            }
            let why = "there is no token, and client.allow_anonymous_connect_without_token is off";
            return Err(self.because(why, Disconnect::BAD_REQUEST.into()));
        }
        let claims = self
            .verify_connection(now, id, token)
            .map_err(|error| match error {
                TokenError::Expired | TokenError::NotYet | TokenError::Revoked => {
                    Refusal::from(ErrorCode::TokenExpired)
                }
                // Temporary: the client comes back with it.
                TokenError::Unavailable => ErrorCode::Internal.into(),
                _ => Disconnect::INVALID_TOKEN.into(),
            })?;
        if claims.user.is_empty() && options.disallow_anonymous_connection_tokens {
            self.refused_tokens
                .add(TokenKind::Connection, TokenRefusal::Anonymous);
            let why =
                "the token is for no user, and client.disallow_anonymous_connection_tokens is on";
            return Err(self.because(why, Disconnect::PERMISSION_DENIED.into()));
        }
        let expire_at = claims.expire_at.filter(|_| !options.insecure);
        let subs = claims.subs.into_iter();
        let subs = subs.map(|(channel, options)| {
            let grant = Grant {
                options,
                by_token: true,
                ..Grant::default()
            };
            (channel, grant)
        });
        Ok(Identity {
            user: claims.user,
            info: claims.info.map(Into::into),
            meta: claims.meta.map(Into::into),
            expire_at,
            subs: subs.collect(),
            capabilities: claims.caps.map(Arc::new),
            mark: claims.mark,
            ..Identity::default()
        })
    }

    /// The user id, shared with the user's other sessions.
    fn known_user(&self, user: &str) -> Arc<str> {
        self.users
            .known(user)
            .map_or_else(|| user.into(), Arc::clone)
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

/// What the client has told about a server-side subscription: where it was, if it was there.
fn server_side_request<'r>(
    channel: Cow<'r, str>,
    request: &'r ConnectRequest<'_>,
) -> SubscribeRequest<'r> {
    match request.subs.get(&*channel) {
        None => SubscribeRequest {
            channel,
            ..SubscribeRequest::default()
        },
        Some(sub) => SubscribeRequest {
            channel,
            recover: sub.recover,
            epoch: Cow::Borrowed(&sub.epoch),
            offset: sub.offset,
            delta: Cow::Borrowed(&sub.delta),
            ..SubscribeRequest::default()
        },
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

/// How many channels a client may name when it connects, where it may have fewer: those that it had before its limit
/// was lowered.
const MAX_NAMED: usize = 256;
