//! The subscribe command: whether a session may subscribe, and to what its request comes. What follows
//! from that is in `subscribing`.

use std::sync::Arc;

use tautline_auth::{Allowed, Capabilities, Overrides, SubscriptionOptions, TokenError, TokenMark};
use tautline_protocol::filter::{Filter, FilterLimits};
use tautline_protocol::message::{ClientInfo, Error, SubscribeRequest};
use tautline_protocol::{Disconnect, ErrorCode};

use super::channel_name::{ChannelName, explained};
use super::connect::time_to_live;
use super::counts::Place;
use super::dispatch::{Progress, Refusal};
use super::enforce::{self, Filters};
use super::operation::{Bound, Operation};
use super::permission::Permissions;
use super::revoked::REVOKED;
use super::waiting::{Waiting, Wants};
use super::{Hub, SessionId};
use crate::Now;
use crate::application::Interests;
use crate::config::{DataFormat, DeltaType, RecoveryMode};
use crate::engine::HistoryOptions;
use crate::outbox::Outbox;

/// A subscription that is allowed.
#[derive(Clone, Default)]
pub(crate) struct Grant {
    pub(super) ttl: Option<u32>,
    pub(super) options: SubscriptionOptions,
    /// The application is asked when the subscription expires.
    pub(super) refresh_by_server: bool,
    /// It is allowed because the connection's token says so of the channel.
    pub(super) by_capability: bool,
    /// The connection's token names it.
    pub(super) by_token: bool,
    /// The token of its own that it is allowed by.
    pub(super) mark: TokenMark,
}

impl Grant {
    pub(super) fn new(ttl: Option<u32>, options: SubscriptionOptions) -> Self {
        Self {
            ttl,
            options,
            ..Self::default()
        }
    }
}

/// What a subscribe request comes to, once it is allowed.
pub(super) struct Plan {
    pub(super) wants: Wants,
    pub(super) grant: Grant,
    pub(super) history: Option<HistoryOptions>,
    pub(super) since: Option<(u64, Arc<str>)>,
    pub(super) is_recovering: bool,
    /// Of what was missed, the newest will do.
    pub(super) is_cache: bool,
    /// The server's doing, not the client's.
    pub(super) server_side: bool,
    pub(super) filter: Option<Filter>,
    /// Where something is imposed: what, and what the client asked for.
    pub(super) filters: Option<Filters>,
    /// The subscriber takes patches.
    pub(super) takes_patches: bool,
    /// What is published need not be JSON.
    pub(super) takes_bytes: bool,
    /// Its room in the channel, which those need that clients make.
    pub(super) room: Option<Place>,
}

impl Plan {
    pub(super) fn into_grant(self) -> Grant {
        self.grant
    }
}

impl Hub {
    pub(super) fn subscribe<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &SubscribeRequest<'_>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        if self.asks(Interests::SUBSCRIBE) {
            return self.ask_subscribe(now, id, number, request, out);
        }
        self.subscribe_granted(now, id, number, request, None, out)
    }

    /// Subscribes, by the application's leave if it was asked for.
    pub(super) fn subscribe_granted<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &SubscribeRequest<'_>,
        grant: Option<Grant>,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let Some(connected) = self.sessions.connected(id) else {
            return Ok(Progress::Done);
        };
        let info = connected.info.clone();
        if let Some(grant) = &grant
            && self.is_revoked(now, id, &grant.mark, &info.user, Some(&request.channel))
        {
            // While the application was asked.
            return Err(self.because(REVOKED, ErrorCode::TokenExpired.into()));
        }
        let plan = self.plan_subscription(now, id, request, grant)?;
        self.charge_in(now, id, Operation::Subscribe, &request.channel)?;
        let subscribing = self.begin_plan(now, id, number, request, &info, plan);
        if subscribing.outstanding == 0 {
            return self.finish_subscribe(now, id, subscribing, out);
        }
        if let Some(session) = self.sessions.get_mut(id) {
            session.waiting = Some(Box::new(Waiting::Subscribe(subscribing)));
        }
        Ok(Progress::Wait)
    }

    /// Checks everything that can be checked without the engine, in the protocol's order. What was
    /// granted already is not asked for again.
    pub(super) fn plan_subscription(
        &self,
        now: Now,
        id: SessionId,
        request: &SubscribeRequest<'_>,
        granted: Option<Grant>,
    ) -> Result<Plan, Refusal> {
        let connected = self.sessions.connected(id).ok_or(Disconnect::BAD_REQUEST)?;
        if request.channel.is_empty() {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        match request.kind {
            0 => {}
            // Map channels, of which there are none.
            1..=3 => return Err(ErrorCode::PermissionDenied.into()),
            4 => return Err(ErrorCode::NotAvailable.into()),
            kind => {
                let why = format_args!("there is no subscription of type {kind}");
                return Err(explained(ErrorCode::BadRequest, why).into());
            }
        }
        if !matches!(&*request.delta, "" | "fossil") {
            let why = "`delta` is neither empty nor `fossil`";
            return Err(self.because(why, Disconnect::BAD_REQUEST.into()));
        }
        ChannelName::check_length(&self.config, &request.channel)?;
        let known = self.channels.find(&request.channel);
        if known.is_some_and(|channel| connected.subscription(channel).is_some()) {
            let why = "it is subscribed to that channel already";
            return Err(self.because(why, ErrorCode::AlreadySubscribed.into()));
        }
        let count = connected.subscriptions.len();
        if !self.allows_channels(count + 1) {
            let most = self.config.client.channel_limit;
            let why = format_args!(
                "the connection has {count} subscriptions, and may have {most} (client.channel_limit); unsubscribe \
                 from one first"
            );
            return Err(explained(ErrorCode::LimitExceeded, why).into());
        }
        let name = ChannelName::parse_asked(&self.config, &request.channel)?;
        let capabilities = connected.capabilities().map(Arc::as_ref);
        let grant = match granted {
            Some(grant) => grant,
            None => {
                let (info, token) = (&connected.info, &*request.token);
                self.grant_subscription(now, id, info, capabilities, &name, token)?
            }
        };
        let room = Some(self.take_room(&name)?);
        let plan = self.plan(request, &name, &connected.info, capabilities, grant, false)?;
        Ok(Plan { room, ..plan })
    }

    /// Room in a channel for one more subscriber.
    fn take_room(&self, name: &ChannelName<'_, '_>) -> Result<Place, Error> {
        let most = name.options.max_subscribers;
        let dry_run = self.config.dry_run;
        let taken = self.config.rooms.take(name.full, most, dry_run);
        if !matches!(taken, Ok((_, false))) {
            let mut over = self.over_subscribers.get();
            over[usize::from(dry_run)] += 1;
            self.over_subscribers.set(over);
        }
        taken.map(|(room, _)| room).map_err(|_full| {
            let why = format_args!(
                "the channel has {most} subscribers on this node, as many as its namespace lets it have \
                 (max_subscribers); try again when one has left"
            );
            explained(ErrorCode::LimitExceeded, why)
        })
    }

    /// What a request that is allowed comes to.
    pub(super) fn plan(
        &self,
        request: &SubscribeRequest<'_>,
        name: &ChannelName<'_, '_>,
        info: &ClientInfo,
        capabilities: Option<&Capabilities>,
        grant: Grant,
        server_side: bool,
    ) -> Result<Plan, Refusal> {
        let by_token = capabilities.map_or(Allowed::NOTHING, |all| all.of(name.full));
        let allowed = grant.options.allow | by_token;
        // What a client may do as a subscriber counts: it is about to be one.
        let permissions =
            Permissions::new(&self.config, name.options, &info.user, true).with(allowed);
        let history = self.config.channel.history(name.options);
        let wants = wants(
            request,
            &permissions,
            &grant.options.overrides,
            history.is_some(),
        );
        let is_cache = name.options.force_recovery_mode == RecoveryMode::Cache;
        let is_recovering = request.recover || name.options.auto_cache_recover;
        let recovers = is_recovering && wants.recoverable;
        let since = recovers.then(|| (request.offset, Arc::from(&*request.epoch)));
        let own = match &request.tags_filter {
            None => None,
            Some(_) if !name.options.allow_tags_filter => {
                let why = "the namespace takes no tags filters (allow_tags_filter)";
                return Err(explained(ErrorCode::BadRequest, why).into());
            }
            Some(filter) => {
                let filter = filter.parse(&FilterLimits::default()).map_err(|error| {
                    tracing::debug!(client = &*info.client, %error, "refusing a tags filter");
                    if error.is_limit() {
                        self.met(Bound::TagsFilter);
                    }
                    explained(
                        ErrorCode::BadRequest,
                        format_args!("the tags filter: {error}"),
                    )
                })?;
                Some(filter)
            }
        };
        let granted = enforce::granted_filter(&info.client, grant.options.tags_filter.as_deref())?;
        let (filters, filter) = self.filters_for(name, &info.user, granted, own)?;
        Ok(Plan {
            wants,
            grant,
            history,
            since,
            is_recovering,
            is_cache,
            server_side,
            filter,
            filters,
            room: None,
            takes_bytes: name.options.publication_data_format == DataFormat::Binary,
            takes_patches: request.delta == "fossil"
                && name
                    .options
                    .allowed_delta_types
                    .contains(&DeltaType::Fossil),
        })
    }

    /// Whether a channel has room for (another) subscriber with this filter.
    pub(super) fn check_room_for(&self, filter: &Filter, channel: &str) -> Result<(), Error> {
        let index = self.channels.find(channel);
        let channel = index.and_then(|index| self.channels.get(index));
        let classes = channel.and_then(|channel| channel.classes.as_deref());
        if classes.is_some_and(|classes| classes.is_full(filter)) {
            self.met(Bound::Filters);
            let why = "the channel has as many different filters as there is room for; use one that others have, or none";
            return Err(explained(ErrorCode::LimitExceeded, why));
        }
        Ok(())
    }

    /// The first rule that applies decides.
    pub(super) fn grant_subscription(
        &self,
        now: Now,
        id: SessionId,
        info: &Arc<ClientInfo>,
        capabilities: Option<&Capabilities>,
        name: &ChannelName<'_, '_>,
        token: &str,
    ) -> Result<Grant, Refusal> {
        if !token.is_empty() {
            let claims = self
                .verify_subscription(now, id, token)
                .map_err(|error| match error {
                    TokenError::Expired | TokenError::NotYet | TokenError::Revoked => {
                        ErrorCode::TokenExpired
                    }
                    TokenError::Unavailable => ErrorCode::Internal,
                    _ => ErrorCode::PermissionDenied,
                })?;
            self.check_bearer(id, &claims, info, name.full)?;
            let ttl = time_to_live(now, claims.expire_at)?;
            return Ok(Grant {
                mark: claims.mark,
                ..Grant::new(ttl, claims.options)
            });
        }
        let allowed = capabilities.map_or(Allowed::NOTHING, |all| all.of(name.full));
        let permissions =
            Permissions::new(&self.config, name.options, &info.user, false).with(allowed);
        let is_allowed = if name.is_private {
            false
        } else if name.is_user_limited() {
            name.lists(&info.user) || permissions.is_insecure
        } else {
            permissions.may_subscribe()
        };
        if is_allowed {
            return Ok(Grant::default());
        }
        // What a token says of all channels doesn't open those which need one of their own.
        if !name.is_private && permissions.may_subscribe_by_capability() {
            return Ok(Grant {
                by_capability: true,
                ..Grant::default()
            });
        }
        let why = if name.is_private {
            "the channel's name begins with the private prefix: it takes a subscription token"
        } else if name.is_user_limited() {
            "the users in the channel's name are others"
        } else {
            permissions.why_not(Allowed::SUBSCRIBE)
        };
        Err(self.because(why, ErrorCode::PermissionDenied.into()))
    }
}

/// What is honoured of what a request asks for.
fn wants(
    request: &SubscribeRequest<'_>,
    permissions: &Permissions<'_>,
    overrides: &Overrides,
    has_history: bool,
) -> Wants {
    let options = permissions.options;
    let may_read_history = permissions.may_read_history();
    let recoverable = has_history
        && (overrides.force_recovery.unwrap_or(options.force_recovery)
            || request.recoverable && (options.allow_recovery || may_read_history));
    let positioned = has_history
        && (recoverable
            || overrides
                .force_positioning
                .unwrap_or(options.force_positioning)
            || request.positioned && (options.allow_positioning || may_read_history));
    let announce = overrides.join_leave.unwrap_or(options.join_leave);
    let is_pushed = overrides
        .force_push_join_leave
        .unwrap_or(options.force_push_join_leave);
    let asked_for = request.join_leave && options.join_leave && permissions.may_read_presence();
    Wants {
        positioned,
        recoverable,
        presence: overrides.presence.unwrap_or(options.presence),
        announce,
        join_leave: is_pushed || asked_for,
    }
}
