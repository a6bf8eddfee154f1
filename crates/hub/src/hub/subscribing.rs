//! Subscriptions from when they are allowed to when they are live.
//!
//! Three things are asked of the engine, all at once: to feed the channel (if nobody here is subscribed
//! yet), to list the session in the channel's presence, and where the subscription begins. When all are
//! answered the reply is written, and only then does the session get anything of the channel.

use std::sync::Arc;
use std::time::Duration;

use tautline_auth::Allowed;
use tautline_protocol::message::{
    ClientInfo, Payload, SUBSCRIBE_FLAG_REJECT_UNRECOVERED, SubscribeRequest, SubscribeResult,
};
use tautline_protocol::{Disconnect, ErrorCode, Reply, Response};

use super::announce::Change;
use super::channel_name::ChannelName;
use super::channels::{FeedState, Role, Subscriber};
use super::class::Patching;
use super::connect::deadline;
use super::counts::Place;
use super::cursor::{PAGE_PUBLICATIONS, page_bytes};
use super::dispatch::{Progress, Refusal};
use super::except::is_for;
use super::patches::Sequence;
use super::recovery::{self, Beginning};
use super::sessions::{Overridden, Subscription, SubscriptionExtra};
use super::subscribe::Plan;
use super::unfit::fit;
use super::waiting::{Pending, Subscribing, Wants};
use super::{Hub, SessionId};
use crate::Now;
use crate::config::HubConfig;
use crate::engine::{
    HistoryOptions, HistoryPage, HistoryRead, JoinLevel, Outcome, Started, Ticket,
};
use crate::outbox::Outbox;

impl Hub {
    /// Enters a subscription that is allowed, and asks the engine for what it needs.
    pub(super) fn begin_plan(
        &mut self,
        now: Now,
        id: SessionId,
        number: u32,
        request: &SubscribeRequest<'_>,
        info: &Arc<ClientInfo>,
        mut plan: Plan,
    ) -> Subscribing {
        let room = plan.room.take();
        let channel = self.insert_subscription(now, id, &request.channel, info, &plan);
        self.count_subscription(id, channel, &request.channel, room);
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

    /// A subscription that was entered counts for its channel until it is [detached](Self::detach_subscription): those that
    /// clients make with the room that they have taken, the server's beside them.
    fn count_subscription(&self, id: SessionId, channel: u32, name: &str, room: Option<Place>) {
        let connected = self.sessions.connected(id);
        if connected.is_some_and(|connected| connected.subscription(channel).is_some()) {
            match room {
                Some(room) => room.keep(),
                None => self.config.rooms.take_other(name),
            }
        }
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
        let (filters, mark) = (plan.filters.clone(), plan.grant.mark);
        let has_extra = expires_at.is_some()
            || chan_info.is_some()
            || filters.is_some()
            || !mark.is_none()
            || allow != Allowed::NOTHING;
        let extra = has_extra.then(|| {
            Box::new(SubscriptionExtra {
                info: chan_info,
                expires_at,
                refresh_by_server: by_server,
                allow,
                filters,
                mark,
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
                announced: None,
                overridden: Overridden::of(&plan.grant.options.overrides),
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
        self.note_subscribed(now, id, index);
        self.tally.subscribed();
        if wants.announce
            && let Some(channel) = self.channels.get(index)
            && let Some(connected) = self.sessions.connected_mut(id)
        {
            let info = connected.info_in(Some(index)).clone();
            if let Some(subscription) = connected.subscription_mut(index) {
                let (name, level) = (
                    channel.name.clone(),
                    join_level(&self.config, &channel.name),
                );
                subscription.announced = Some(level);
                let change = Change {
                    info,
                    level,
                    is_join: true,
                };
                self.tell_change(now, &name, change);
            }
        }
    }

    /// Makes the pending subscription a live one.
    pub(super) fn begin_subscription<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        mut subscribing: Subscribing,
        out: &mut O,
    ) -> Result<(u32, Wants, SubscribeResult), Refusal> {
        if let Some(error) = subscribing.failed {
            return Err(error.into());
        }
        let Subscribing {
            command,
            channel: index,
            wants,
            ..
        } = subscribing;
        let mut result = SubscribeResult {
            ttl: subscribing.ttl,
            was_recovering: subscribing.was_recovering,
            data: subscribing.data.take(),
            ..SubscribeResult::default()
        };
        let (mut from, mut is_at_head) = (0, true);
        if let Some(page) = subscribing.page.take() {
            let begun = self.begin_at(now, id, &subscribing, page, out);
            if subscribing.was_recovering {
                self.tally
                    .recovered(begun.recovered, !begun.publications.is_empty());
            }
            if subscribing.since.is_some() && !begun.recovered && subscribing.reject_unrecovered {
                return Err(ErrorCode::UnrecoverablePosition.into());
            }
            if subscribing.is_cache && subscribing.since.is_some() && !begun.recovered {
                self.note_cache_miss(now, id, index);
            }
            (from, is_at_head) = (begun.from, begun.is_at_head);
            result.recoverable = wants.recoverable;
            result.positioned = true;
            result.epoch = begun.position.epoch;
            result.offset = begun.position.offset;
            result.publications = begun.publications;
            result.recovered = begun.recovered;
        }
        let last = self.dress_missed(id, index, &mut result)?;
        let slot = self.slot_of(id, index);
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

    /// Where in the stream a subscription begins, and with what, once its page is there.
    fn begin_at<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        subscribing: &Subscribing,
        page: HistoryPage,
        out: &mut O,
    ) -> Beginning {
        let index = subscribing.channel;
        self.meet_stream(now, index, &page.top.epoch, out);
        let channel = self.channels.get(index);
        let seen = channel.map_or(0, |channel| channel.seen);
        let since = subscribing.since.as_ref();
        let since = since.map(|(offset, epoch)| (*offset, &**epoch));
        if let Some(since) = since.filter(|_| subscribing.is_cache) {
            let classes = channel.and_then(|channel| channel.classes.as_deref());
            let class = self
                .subscriber(id, index)
                .map(|subscriber| subscriber.class);
            return recovery::begin_with_newest(since, page, seen, |publication| {
                let classes = classes.zip(class);
                classes.is_none_or(|(classes, class)| classes.passes(class, publication))
            });
        }
        let mut begun = recovery::begin(since, page, seen);
        let connected = self.sessions.connected(id);
        let client = connected.map(|connected| &connected.info.client);
        let publications = &mut begun.publications;
        publications.retain(|publication| is_for(publication, client));
        begun
    }

    /// Makes of what was missed what the subscriber takes: filtered, as patches, in its encoding. The last
    /// one is what its next patch is made against.
    fn dress_missed(
        &mut self,
        id: SessionId,
        index: u32,
        result: &mut SubscribeResult,
    ) -> Result<Option<Payload>, Refusal> {
        let (slot, encoding) = (self.slot_of(id, index), self.encoding(id));
        let Some(channel) = self.channels.get(index) else {
            return Ok(None);
        };
        let mut last = None;
        if let Some(subscriber) = slot.and_then(|slot| channel.subscribers.get(slot)) {
            result.delta = subscriber.patching != Patching::Off;
            if let Some(classes) = channel.classes.as_deref() {
                let mut sequence = Sequence::new(Some(classes), *subscriber, &mut self.patches);
                let publications = result.publications.iter();
                result.publications = publications
                    .filter_map(|publication| sequence.dress(publication))
                    .collect();
                last = sequence.last();
            }
        }
        let fits = |encoding| fit(encoding, &result.publications);
        if channel.takes_bytes && !encoding.is_some_and(fits) {
            return Err(Disconnect::INAPPROPRIATE_PROTOCOL.into());
        }
        Ok(last)
    }

    /// A session in a channel's list.
    fn subscriber(&self, id: SessionId, index: u32) -> Option<&Subscriber> {
        let slot = self.slot_of(id, index)?;
        self.channels.get(index)?.subscribers.get(slot)
    }

    /// Its place there.
    fn slot_of(&self, id: SessionId, index: u32) -> Option<usize> {
        let subscription = self.sessions.connected(id)?.subscription(index)?;
        Some(subscription.slot as usize)
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
