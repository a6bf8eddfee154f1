//! The subscribe command.
//!
//! Once it is clear that the session may subscribe, three things are asked of the engine, all at
//! once: to feed the channel (if nobody here is subscribed yet), to list the session in the
//! channel's presence, and where the subscription begins. When all are answered the reply is
//! written, and only then does the session get anything of the channel.

use std::sync::Arc;
use std::time::Duration;

use tautline_auth::{Allowed, Capabilities, Overrides, SubscriptionOptions, TokenError};
use tautline_protocol::filter::{Filter, FilterLimits};
use tautline_protocol::message::{
    ClientInfo, SUBSCRIBE_FLAG_REJECT_UNRECOVERED, SubscribeRequest, SubscribeResult,
};
use tautline_protocol::{Disconnect, ErrorCode, Reply, Response};

use super::channel_name::ChannelName;
use super::channels::{FeedState, Role, Subscriber};
use super::class::Patching;
use super::connect::{deadline, time_to_live};
use super::cursor::{PAGE_PUBLICATIONS, page_bytes};
use super::dispatch::{Progress, Refusal};
use super::enforce::{self, Filters};
use super::except::is_for;
use super::patches::Sequence;
use super::permission::Permissions;
use super::recovery;
use super::refresh::check_bearer;
use super::sessions::{Subscription, SubscriptionExtra};
use super::unfit::fit;
use super::waiting::{Pending, Subscribing, Waiting, Wants};
use super::{Hub, SessionId};
use crate::Now;
use crate::application::Interests;
use crate::config::{DataFormat, DeltaType, HubConfig, RecoveryMode};
use crate::engine::{HistoryOptions, HistoryRead, JoinLevel, Outcome, Started, Ticket};
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
    wants: Wants,
    grant: Grant,
    history: Option<HistoryOptions>,
    since: Option<(u64, Arc<str>)>,
    is_recovering: bool,
    /// Of what was missed, the newest will do.
    is_cache: bool,
    /// The server's doing, not the client's.
    server_side: bool,
    filter: Option<Filter>,
    /// Where something is imposed: what, and what the client asked for.
    filters: Option<Filters>,
    /// The subscriber takes patches.
    takes_patches: bool,
    /// What is published need not be JSON.
    takes_bytes: bool,
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
        let plan = self.plan_subscription(now, id, request, grant)?;
        let subscribing = self.begin_plan(now, id, number, request, &info, plan);
        if subscribing.outstanding == 0 {
            return self.finish_subscribe(now, id, subscribing, out);
        }
        if let Some(session) = self.sessions.get_mut(id) {
            session.waiting = Some(Box::new(Waiting::Subscribe(subscribing)));
        }
        Ok(Progress::Wait)
    }

    /// Enters a subscription that is allowed, and asks the engine for what it needs.
    pub(super) fn begin_plan(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &SubscribeRequest<'_>,
        info: &Arc<ClientInfo>,
        plan: Plan,
    ) -> Subscribing {
        let channel = self.insert_subscription(now, id, &request.channel, info, &plan);
        let mut subscribing = Subscribing {
            command: number,
            channel,
            outstanding: 0,
            failed: None,
            page: None,
            wants: plan.wants,
            since: plan.since,
            was_recovering: plan.is_recovering,
            is_cache: plan.is_cache,
            reject_unrecovered: request.flag & SUBSCRIBE_FLAG_REJECT_UNRECOVERED != 0,
            ttl: plan.grant.ttl.filter(|_| !plan.grant.refresh_by_server),
            data: plan.grant.options.data.map(Into::into),
            ended: None,
        };
        self.start_subscription(now, id, &mut subscribing, plan.history);
        subscribing
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
            _ => return Err(ErrorCode::BadRequest.into()),
        }
        if !matches!(&*request.delta, "" | "fossil") {
            return Err(Disconnect::BAD_REQUEST.into());
        }
        ChannelName::check_length(&self.config, &request.channel)?;
        let known = self.channels.find(&request.channel);
        if known.is_some_and(|channel| connected.subscription(channel).is_some()) {
            return Err(ErrorCode::AlreadySubscribed.into());
        }
        if connected.subscriptions.len() >= self.config.client.channel_limit {
            return Err(ErrorCode::LimitExceeded.into());
        }
        let name = ChannelName::parse(&self.config, &request.channel)?;
        let capabilities = connected.capabilities().map(Arc::as_ref);
        let grant = match granted {
            Some(grant) => grant,
            None => {
                let (info, token) = (&connected.info, &*request.token);
                self.grant_subscription(now, info, capabilities, &name, token)?
            }
        };
        self.plan(request, &name, &connected.info, capabilities, grant, false)
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
            Some(_) if !name.options.allow_tags_filter => return Err(ErrorCode::BadRequest.into()),
            Some(filter) => {
                let filter = filter.parse(&FilterLimits::default()).map_err(|error| {
                    tracing::debug!(%error, "refusing a tags filter");
                    ErrorCode::BadRequest
                })?;
                Some(filter)
            }
        };
        let imposed = enforce::all(
            name.imposed_filter(&info.user)?,
            enforce::granted_filter(grant.options.tags_filter.as_deref())?,
        );
        let filters = imposed.map(|imposed| Filters {
            imposed,
            own: own.clone(),
        });
        let filter = filters.as_ref().map(Filters::both).or(own);
        if let Some(filter) = &filter {
            self.check_room_for(filter, name.full)?;
        }
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
            takes_bytes: name.options.publication_data_format == DataFormat::Binary,
            takes_patches: request.delta == "fossil"
                && name
                    .options
                    .allowed_delta_types
                    .contains(&DeltaType::Fossil),
        })
    }

    /// Whether a channel has room for (another) subscriber with this filter.
    pub(super) fn check_room_for(&self, filter: &Filter, channel: &str) -> Result<(), ErrorCode> {
        let index = self.channels.find(channel);
        let channel = index.and_then(|index| self.channels.get(index));
        let classes = channel.and_then(|channel| channel.classes.as_deref());
        if classes.is_some_and(|classes| classes.is_full(filter)) {
            return Err(ErrorCode::LimitExceeded);
        }
        Ok(())
    }

    /// The first rule that applies decides.
    pub(super) fn grant_subscription(
        &self,
        now: Now,
        info: &Arc<ClientInfo>,
        capabilities: Option<&Capabilities>,
        name: &ChannelName<'_, '_>,
        token: &str,
    ) -> Result<Grant, Refusal> {
        if !token.is_empty() {
            let claims = self
                .verify_subscription(now, token)
                .map_err(|error| match error {
                    TokenError::Expired | TokenError::NotYet => ErrorCode::TokenExpired,
                    TokenError::Unavailable => ErrorCode::Internal,
                    _ => ErrorCode::PermissionDenied,
                })?;
            check_bearer(&claims, info, name.full)?;
            let ttl = time_to_live(now, claims.expire_at)?;
            return Ok(Grant::new(ttl, claims.options));
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
        Err(ErrorCode::PermissionDenied.into())
    }

    /// Enters the subscription with session and channel. From here on it counts, but gets nothing.
    fn insert_subscription(
        &mut self,
        now: Now,
        id: SessionId,
        name: &str,
        info: &Arc<ClientInfo>,
        plan: &Plan,
    ) -> u32 {
        let channel = self.channels.find_or_insert(name, now.monotonic);
        let by_server = plan.grant.refresh_by_server;
        let expired_delay = if by_server {
            Duration::ZERO
        } else {
            self.config.client.expired_sub_close_delay
        };
        let expires_at = plan.grant.ttl.map(|ttl| deadline(now, ttl, expired_delay));
        let chan_info = plan.grant.options.info.clone();
        let chan_info = chan_info.map(|chan_info| {
            Arc::new(ClientInfo {
                chan_info: Some(chan_info.into()),
                ..(**info).clone()
            })
        });
        let allow = plan.grant.options.allow;
        let filters = plan.filters.clone();
        let has_extra = expires_at.is_some()
            || chan_info.is_some()
            || filters.is_some()
            || allow != Allowed::NOTHING;
        let extra = has_extra.then(|| {
            Box::new(SubscriptionExtra {
                info: chan_info,
                expires_at,
                refresh_by_server: by_server,
                allow,
                filters,
            })
        });
        let Some(session) = self.sessions.get_mut(id) else {
            return channel;
        };
        let encoding = session.transport.encoding;
        if let (Some(entry), Some(connected)) =
            (self.channels.get_mut(channel), session.connected_mut())
        {
            let patching = if plan.takes_patches {
                Patching::Fresh
            } else {
                Patching::Off
            };
            entry.takes_bytes = plan.takes_bytes;
            let class = entry.classify(plan.filter.clone(), patching);
            if connected.subscriptions.is_empty() {
                // Most connections have no more than this one.
                connected.subscriptions.reserve_exact(1);
            }
            connected.subscriptions.push(Subscription {
                channel,
                slot: entry.subscribers.len() as u32,
                in_presence: plan.wants.presence,
                was_announced: false,
                server_side: plan.server_side,
                by_capability: plan.grant.by_capability,
                by_token: plan.grant.by_token,
                extra,
            });
            entry.push(Subscriber {
                session: id,
                from: 0,
                role: Role::Pending,
                positioned: plan.wants.positioned,
                encoding,
                class,
                patching,
                join_leave: false,
            });
            self.subscriptions += 1;
        }
        channel
    }

    /// Asks the engine for what the subscription needs.
    fn start_subscription(
        &mut self,
        now: Now,
        id: SessionId,
        subscribing: &mut Subscribing,
        history: Option<HistoryOptions>,
    ) {
        let index = subscribing.channel;
        let is_filtered = self
            .subscriber(id, index)
            .is_some_and(|subscriber| subscriber.class > 0);
        let Some(channel) = self.channels.get(index) else {
            return;
        };
        let name = channel.name.clone();
        let Some(connected) = self.sessions.connected(id) else {
            return;
        };
        let info = connected.info_in(Some(index)).clone();

        if let FeedState::Off = channel.state {
            let ticket = self.ticket();
            let started = self.engine.attach(now, ticket, &name);
            let state = match started {
                Started::Done(Ok(())) => FeedState::On,
                Started::Done(Err(error)) => {
                    subscribing.failed = Some(error);
                    FeedState::Off
                }
                Started::Later => {
                    let attach = Pending::Attach(self.channels.key(index));
                    self.pending.insert(ticket.serial, attach);
                    FeedState::Beginning(Vec::new())
                }
            };
            if let Some(channel) = self.channels.get_mut(index) {
                channel.feed = ticket.serial;
                channel.state = state;
            }
        }
        if let Some(channel) = self.channels.get_mut(index)
            && let FeedState::Beginning(waiting) = &mut channel.state
        {
            waiting.push(id);
            subscribing.outstanding += 1;
        }
        if subscribing.wants.presence {
            let ticket = self.ticket();
            let started = self.engine.presence_add(now, ticket, &name, &info);
            self.note_start(id, ticket, subscribing, started, Outcome::Changed);
        }
        if let Some(options) = history.filter(|_| subscribing.wants.positioned) {
            let most = self.config.client.recovery_max_publication_limit;
            let since = subscribing.since.as_ref().map(|(offset, _)| *offset);
            let read = HistoryRead {
                channel: name,
                options,
                since,
                limit: Some(since.map_or(0, |_| most.min(PAGE_PUBLICATIONS))),
                max_bytes: Some(page_bytes(&self.config)),
                reverse: false,
            };
            let read = if subscribing.is_cache && since.is_some() {
                // The newest, and some before it in case a filter doesn't let it through.
                HistoryRead {
                    since: None,
                    limit: Some(if is_filtered { PAGE_PUBLICATIONS } else { 1 }),
                    reverse: true,
                    ..read
                }
            } else {
                read
            };
            let ticket = self.ticket();
            let started = self.engine.history(now, ticket, read);
            self.note_start(id, ticket, subscribing, started, Outcome::History);
        }
    }

    fn note_start<T>(
        &mut self,
        id: SessionId,
        ticket: Ticket,
        subscribing: &mut Subscribing,
        started: Started<T>,
        outcome: impl FnOnce(T) -> Outcome,
    ) {
        subscribing.outstanding += 1;
        match started {
            Started::Done(result) => subscribing.note(outcome(result)),
            Started::Later => {
                let pending = Pending::Subscription(id, subscribing.channel);
                self.pending.insert(ticket.serial, pending);
            }
        }
    }

    /// Everything is answered: the subscription begins, or comes to nothing.
    pub(super) fn finish_subscribe<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        mut subscribing: Subscribing,
        out: &mut O,
    ) -> Result<Progress, Refusal> {
        let index = subscribing.channel;
        let ended = subscribing.ended.take();
        let begun = match self.begin_subscription(now, id, subscribing, out) {
            Ok(begun) => begun,
            Err(refusal) => {
                self.drop_subscription(now, id, index);
                return Err(refusal);
            }
        };
        let (command, wants, result) = begun;
        self.send(
            id,
            &Reply::Answer(command, Ok(Response::Subscribe(result))),
            out,
        );
        self.announce(now, id, index, wants);
        if let Some(ended) = ended {
            self.push_unsubscribe(now, id, index, ended, out);
        }
        self.arm(id);
        Ok(Progress::Done)
    }

    /// Tells others of a subscriber. Behind the reply, so that the joiner, too, learns of itself only
    /// once it is subscribed.
    pub(super) fn announce(&mut self, now: Now, id: SessionId, index: u32, wants: Wants) {
        if wants.announce
            && let Some(channel) = self.channels.get(index)
            && let Some(connected) = self.sessions.connected_mut(id)
        {
            let info = connected.info_in(Some(index)).clone();
            if let Some(subscription) = connected.subscription_mut(index) {
                subscription.was_announced = true;
                let (name, level) = (&channel.name, join_level(&self.config, &channel.name));
                self.engine.join(now, self.worker, name, &info, level);
            }
        }
    }

    /// Makes the pending subscription a live one.
    pub(super) fn begin_subscription<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        subscribing: Subscribing,
        out: &mut O,
    ) -> Result<(u32, Wants, SubscribeResult), Refusal> {
        let Subscribing {
            command,
            channel: index,
            wants,
            since,
            was_recovering,
            ..
        } = subscribing;
        if let Some(error) = subscribing.failed {
            return Err(error.into());
        }
        let mut result = SubscribeResult {
            ttl: subscribing.ttl,
            was_recovering,
            data: subscribing.data,
            ..SubscribeResult::default()
        };
        let (mut from, mut is_at_head) = (0, true);
        if let Some(page) = subscribing.page {
            let since = since.as_ref().map(|(offset, epoch)| (*offset, &**epoch));
            self.meet_stream(now, index, &page.top.epoch, out);
            let seen = self.channels.get(index).map_or(0, |channel| channel.seen);
            let begun = match since {
                Some(since) if subscribing.is_cache => {
                    let channel = self.channels.get(index);
                    let classes = channel.and_then(|channel| channel.classes.as_deref());
                    let class = self
                        .subscriber(id, index)
                        .map(|subscriber| subscriber.class);
                    recovery::begin_with_newest(since, page, seen, |publication| {
                        let classes = classes.zip(class);
                        classes.is_none_or(|(classes, class)| classes.passes(class, publication))
                    })
                }
                since => recovery::begin(since, page, seen),
            };
            if since.is_some() && !begun.recovered && subscribing.reject_unrecovered {
                return Err(ErrorCode::UnrecoverablePosition.into());
            }
            (from, is_at_head) = (begun.from, begun.is_at_head);
            result.recoverable = wants.recoverable;
            result.positioned = true;
            result.epoch = begun.position.epoch;
            result.offset = begun.position.offset;
            result.publications = begun.publications;
            let connected = self.sessions.connected(id);
            let client = connected.map(|connected| &connected.info.client);
            if !subscribing.is_cache {
                let publications = &mut result.publications;
                publications.retain(|publication| is_for(publication, client));
            }
            result.recovered = begun.recovered;
        }
        let connected = self.sessions.connected(id);
        let subscription = connected.and_then(|connected| connected.subscription(index));
        let slot = subscription.map(|subscription| subscription.slot as usize);
        let mut last = None;
        if let (Some(slot), Some(channel)) = (slot, self.channels.get(index)) {
            let (classes, subscriber) = (channel.classes.as_deref(), &channel.subscribers[slot]);
            result.delta = subscriber.patching != Patching::Off;
            if classes.is_some() {
                let mut sequence = Sequence::new(classes, *subscriber, &mut self.patches);
                let publications = result.publications.iter();
                result.publications = publications
                    .filter_map(|publication| sequence.dress(publication))
                    .collect();
                last = sequence.last();
            }
        }
        let takes_bytes = self
            .channels
            .get(index)
            .is_some_and(|channel| channel.takes_bytes);
        let encoding = self.encoding(id);
        if takes_bytes && !encoding.is_some_and(|encoding| fit(encoding, &result.publications)) {
            return Err(Disconnect::INAPPROPRIATE_PROTOCOL.into());
        }
        if let (Some(slot), Some(channel)) = (slot, self.channels.get_mut(index)) {
            channel.subscribers[slot].from = from;
            channel.subscribers[slot].join_leave = wants.join_leave;
            channel.meet(slot, last.as_ref());
            if is_at_head {
                channel.set_role(slot, Role::Live);
                if wants.positioned {
                    self.watch_position(now, index);
                }
            } else {
                self.fall_behind(id, index, from);
            }
        }
        Ok((command, wants, result))
    }

    /// A session in a channel's list.
    fn subscriber(&self, id: SessionId, index: u32) -> Option<&Subscriber> {
        let slot = self.sessions.connected(id)?.subscription(index)?.slot as usize;
        self.channels.get(index)?.subscribers.get(slot)
    }

    /// Reconciles the incarnation of the stream that was read with the one that the feed is in. If
    /// it is another, those who are here already have to begin anew.
    fn meet_stream<O: Outbox>(&mut self, now: Now, index: u32, epoch: &Arc<str>, out: &mut O) {
        let channel = self.channels.get(index);
        if channel.is_some_and(|channel| channel.epoch != *epoch) {
            self.turn_epoch(now, index, epoch.clone(), 0, out);
        }
    }
}

/// Whose coming and going is told in a channel.
pub(super) fn join_level(config: &HubConfig, channel: &str) -> JoinLevel {
    ChannelName::parse(config, channel)
        .map_or(JoinLevel::Client, |name| name.options.join_leave_level)
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
