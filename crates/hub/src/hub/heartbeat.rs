//! Everything that happens because time passes: pings and their answers, connections that never
//! connect, expiry, checks of positions, and the engine's cleaning up.

use std::time::Duration;

use tautline_protocol::{Disconnect, Reply, UnsubscribeCode};

use super::channel_name::ChannelName;
use super::channels::{ChannelKey, Role, Subscriber};
use super::dispatch::{Progress, Refusal};
use super::liveness::{Beat, Flow};
use super::sessions::{Pings, State, Subscription};
use super::waiting::Pending;
use super::wheel::{Deadline, Tick};
use super::{Hub, SessionId, Timer};
use crate::Now;
use crate::engine::{EngineError, HistoryPage, HistoryRead, Started};
use crate::outbox::Outbox;

/// How often the engine is asked to clean up.
pub(super) const MAINTENANCE: Duration = Duration::from_secs(1);

/// How long the feed may take to bring what the engine has, before it counts as lost.
const FEED_LAG: Duration = Duration::from_secs(5);

impl Hub {
    /// Does what is due at `now`. Harmless when nothing is.
    pub fn on_deadline<O: Outbox>(&mut self, now: Now, out: &mut O) {
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.fire(now.monotonic, &mut fired);
        for (tick, timer) in fired.drain(..) {
            match timer {
                Timer::Session(id) => self.on_session_timer(now, id, tick, out),
                Timer::Channel(key) => self.on_channel_timer(now, key, out),
                Timer::Maintain => {
                    self.engine.maintain(now);
                    self.config.limits.sweep(now.monotonic);
                    self.set_timer(now.monotonic + MAINTENANCE, Timer::Maintain);
                }
                Timer::Questions => self.on_questions_due(now, out),
            }
            self.settle(now, out);
        }
        self.fired = fired;
        self.announce_due(now);
        if self.is_draining() {
            self.tell_due(now, out);
            self.settle(now, out);
        }
    }

    /// Sees to it that a timer fires no later than the session's next deadline.
    pub(super) fn arm(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let Some(deadline) = session.deadline() else {
            return;
        };
        let tick = self.wheel.tick_of(deadline);
        // One that fires earlier does as well: it sets the next.
        if session.armed == 0 || tick < session.armed {
            session.armed = tick;
            self.wheel.insert(tick, Timer::Session(id));
        }
    }

    pub(super) fn set_timer(&mut self, deadline: Duration, timer: Timer) {
        self.wheel.insert(self.wheel.tick_of(deadline), timer);
    }

    fn on_session_timer<O: Outbox>(&mut self, now: Now, id: SessionId, tick: Tick, out: &mut O) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        if session.armed != tick {
            // An earlier deadline was set after this one, and that timer sets the next.
            return;
        }
        session.armed = 0;
        let is_due = |at: Option<Duration>| at.is_some_and(|at| now.monotonic >= at);
        // The answer to a ping may be among the input that isn't read: not the client's fault, unless what
        // keeps the input waiting is that the client doesn't read.
        let waiting = session.waiting.as_deref();
        let is_deaf = waiting.is_some_and(|waiting| !waiting.rests() || out.queued(id) == 0);
        let connected = match &mut session.state {
            // One that was refused is on its way out, and nothing that it says is listened to.
            state @ (State::Opened { .. } | State::Refused { .. }) => {
                let is_tried = self.config.dry_run && matches!(state, State::Opened { .. });
                let (State::Opened { stale_at, .. } | State::Refused { stale_at }) = state else {
                    return;
                };
                if is_due(Some(*stale_at)) {
                    self.counters.over_limit.unauthenticated[usize::from(is_tried)] += 1;
                    if is_tried {
                        // Once more, and counted again.
                        *stale_at = now.monotonic + self.config.client.stale_close_delay;
                        let why = "longer without a connect command than client.stale_close_delay";
                        self.observe_over_limit(id, None, &why);
                    } else {
                        self.end(now, id, &Disconnect::STALE, out);
                    }
                }
                self.arm(id);
                return;
            }
            State::Connected(connected) => connected,
        };
        if is_due(connected.expires_at.map(Deadline::time)) {
            if !self.ask_expired(now, id, out) {
                self.end(now, id, &Disconnect::EXPIRED, out);
            }
            // What else is due has its turn with the next tick.
            return self.arm(id);
        }
        let pace = self.paces.get(connected.heartbeat.pace());
        let beat = connected.heartbeat.beat(
            now.monotonic,
            pace.interval,
            pace.timeout,
            flow(id, out),
            is_deaf,
        );
        if beat == Beat::Dead {
            return self.end(now, id, &Disconnect::NO_PONG, out);
        }
        let subscriptions = connected.subscriptions.iter();
        let expired = subscriptions.filter(|subscription| is_due(subscription.expires_at()));
        let expired: Vec<u32> = expired
            .map(|Subscription { channel, .. }| *channel)
            .collect();
        if let Some(conduct) = &mut connected.conduct
            && conduct.rest(now.monotonic)
        {
            // Whoever does nothing for a while is mostly memory.
            connected.conduct = None;
        }
        if beat == Beat::Ping {
            self.ping(now, id, out);
        }
        for channel in expired {
            if !self.ask_sub_expired(now, id, channel, out) {
                self.unsubscribe_with(now, id, channel, UnsubscribeCode::Expired, out);
            }
        }
        self.pump(now, id, out);
        self.arm(id);
    }

    fn ping<O: Outbox>(&mut self, now: Now, id: SessionId, out: &mut O) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        let pings = session.transport.pings;
        let waited = out.queued(id);
        if pings.are_messages() {
            self.send(id, &Reply::Ping, out);
        }
        if pings.are_the_transports() {
            if self.is_traced() && !pings.are_messages() {
                self.observe_reply(id, &Reply::Ping, out);
            }
            let queued = out.ping(id);
            self.limit_queue(id, queued);
        }
        if pings != Pings::OneWay
            && let Some(connected) = self.sessions.connected_mut(id)
        {
            let heartbeat = &mut connected.heartbeat;
            let timeout = self.paces.get(heartbeat.pace()).timeout;
            heartbeat.pinged(now.monotonic, timeout, flow(id, out), waited);
            self.tally.pinged(id, now.monotonic);
        }
    }

    /// Each ping that the client may have allows one pong. What needs no answer, or another one, must not be
    /// answered.
    pub(super) fn pong<O: Outbox>(
        &mut self,
        now: Now,
        id: SessionId,
        out: &O,
    ) -> Result<Progress, Refusal> {
        let pongs = self.sessions.get_mut(id).filter(|session| {
            let pings = session.transport.pings;
            pings == Pings::Protocol
        });
        let counted = pongs.as_ref().map(|session| session.counted);
        let connected = pongs.and_then(|session| session.connected_mut());
        let answered = connected.map(|connected| connected.heartbeat.answered(out.told(id)));
        match (answered, counted) {
            (Some(true), Some(counted)) => {
                self.tally.answered(id, counted, now.monotonic);
                Ok(Progress::Done)
            }
            _ => Err(self.because(
                "it answers a ping that was not sent",
                Disconnect::BAD_REQUEST.into(),
            )),
        }
    }

    /// A session's connection has answered a ping of the transport's own ([`Outbox::ping`]). One that nobody
    /// asked for does no harm (RFC 6455, section 5.5.3), nor does one of an unknown session.
    pub fn pong_came<O: Outbox>(&mut self, now: Now, id: SessionId, out: &O) {
        if let Some(session) = self.sessions.get_mut(id)
            && session.transport.pings.are_the_transports()
        {
            let counted = session.counted;
            let connected = session.connected_mut();
            if connected.is_some_and(|connected| connected.heartbeat.answered(out.told(id))) {
                self.tally.answered(id, counted, now.monotonic);
            }
        }
    }

    /// Makes sure that the position of a channel with positioned subscribers is checked.
    pub(super) fn watch_position(&mut self, now: Now, index: u32) {
        let key = self.channels.key(index);
        let Some(channel) = self.channels.by_key(key) else {
            return;
        };
        if !std::mem::replace(&mut channel.check_armed, true) {
            channel.checked_at = now.monotonic;
            let delay = self.config.client.channel_position_check_delay;
            self.set_timer(now.monotonic + delay, Timer::Channel(key));
        }
    }

    /// Asks the engine for the position of a channel in which nothing was published for a while:
    /// a lost publication at the very end is betrayed by nothing else.
    fn on_channel_timer<O: Outbox>(&mut self, now: Now, key: ChannelKey, out: &mut O) {
        let delay = self.config.client.channel_position_check_delay;
        let Some(channel) = self.channels.by_key(key) else {
            return;
        };
        if channel.positioned == 0 {
            channel.check_armed = false;
            return;
        }
        let wait = if channel.suspected { FEED_LAG } else { delay };
        let due = channel.checked_at + wait;
        if now.monotonic < due {
            self.set_timer(due, Timer::Channel(key));
            return;
        }
        let name = channel.name.clone();
        let options = ChannelName::parse(&self.config, &name)
            .ok()
            .and_then(|name| self.config.channel.history(name.options));
        let Some(options) = options else {
            // No history any more, and no positions.
            if let Some(channel) = self.channels.by_key(key) {
                channel.check_armed = false;
            }
            return;
        };
        let read = HistoryRead {
            channel: name,
            options,
            since: None,
            limit: Some(0),
            max_bytes: None,
            reverse: false,
        };
        let ticket = self.ticket();
        match self.engine.history(now, ticket, read) {
            Started::Done(result) => self.on_position(now, key, result, out),
            Started::Later => {
                self.pending.insert(ticket.serial, Pending::Position(key));
            }
        }
    }

    /// Compares the engine's position with the feed's. Being behind is no proof: what is missing
    /// may be on its way. Being behind the same position twice is.
    pub(super) fn on_position<O: Outbox>(
        &mut self,
        now: Now,
        key: ChannelKey,
        result: Result<HistoryPage, EngineError>,
        out: &mut O,
    ) {
        let Some(channel) = self.channels.by_key(key) else {
            return;
        };
        let was_suspected = std::mem::take(&mut channel.suspected);
        let delay = match result {
            // No answer says nothing about the position.
            Err(_) => self.config.client.channel_position_check_delay,
            Ok(page) => {
                let top = page.top.offset;
                let is_same_stream = channel.epoch == page.top.epoch;
                let seen = channel.seen;
                let is_behind = |subscriber: &Subscriber| {
                    let is_watched = subscriber.role == Role::Live && subscriber.positioned;
                    is_watched && (!is_same_stream || subscriber.from.max(seen) < top)
                };
                if !channel.subscribers.iter().any(is_behind) {
                    self.config.client.channel_position_check_delay
                } else if was_suspected {
                    if is_same_stream {
                        self.doubt(key.index);
                    } else {
                        self.end_incomplete(now, key.index, is_behind, out);
                    }
                    self.config.client.channel_position_check_delay
                } else {
                    channel.suspected = true;
                    FEED_LAG
                }
            }
        };
        if let Some(channel) = self.channels.by_key(key) {
            channel.checked_at = now.monotonic;
            self.set_timer(now.monotonic + delay, Timer::Channel(key));
        }
    }
}

/// How a connection takes what is written to it.
fn flow<O: Outbox>(id: SessionId, out: &O) -> Flow {
    Flow {
        written: out.written(id),
        queued: out.queued(id),
    }
}
